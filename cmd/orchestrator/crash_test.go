package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/audit"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/store"
)

var (
	crashFull = flag.Bool("crash.full", false, "kill at every point on both databases, at each twice in a row") //nolint:gochecknoglobals // a test's flag
	crashOut  = flag.String("crash.out", "", "file for the figures of the crash matrix, as JSON")               //nolint:gochecknoglobals // a test's flag
	crashList = flag.String("crash.points", "", "file for the list of all failpoints")                          //nolint:gochecknoglobals // a test's flag
)

// leastPoints is how many points a run and its recovery have to pass at least.
const leastPoints = 60

// passingTries is in how many runs a point has to be passed that the pilot passed.
const passingTries = 3

// longestHold is the budget; a guest frees itself after 18 s, whatever has died, and is seen to a little later.
const longestHold = 20 * time.Second

// crashFigures is what the matrix has seen, as build/crash.json has it.
type crashFigures struct {
	Points               int     `json:"points"`
	Kills                int     `json:"kills"`
	Frozen               int     `json:"frozen"`
	Orphans              int     `json:"orphans"`
	Lost                 int     `json:"lost"`
	Doubled              int     `json:"doubled"`
	WorstRecoverySeconds float64 `json:"worst_recovery_seconds"`
}

// union are the points of both.
func union(a, b map[string]crashRoad) map[string]bool {
	all := map[string]bool{}
	for _, roads := range []map[string]crashRoad{a, b} {
		for p := range roads {
			all[p] = true
		}
	}
	return all
}

// crashRoad is a way to pass points: what the job does with its snapshot, and whether the daemon was killed in the window
// before, so that it passes those of a recovery.
type crashRoad struct {
	name, mover string
	recovers    bool
}

var crashRoads = []crashRoad{ //nolint:gochecknoglobals // a table
	{name: "moved", mover: "{kind: exec, command: [/usr/bin/true], limit: 10m}"},
	{name: "plain", mover: "{kind: none}"},
	{name: "recovery", mover: "{kind: none}", recovers: true},
}

// inTheWindow is where the daemon is killed for the road of the recovery: the guest is held, and a snapshot is being made.
const inTheWindow = "vsphere.CreateSnapshotEx_Task.after"

// fewPoints are killed at on PostgreSQL in each run of the tests.
var fewPoints = []string{ //nolint:gochecknoglobals // a table
	"store.take-vCenter-lab.after", "store.start-a-run.after", "journal.intend.snapshot.before", "journal.intend.snapshot.after",
	"journal.intend.agent_process.after", "agent.ARM.after", "agent.GO.after", "vsphere.CreateSnapshotEx_Task.before",
	"vsphere.CreateSnapshotEx_Task.after", "agent.THAW.before", "agent.COMPLETE.after", "vsphere.RemoveSnapshot_Task.after",
	"journal.settle.snapshot.before", "store.end-a-run.before", "store.end-a-run.after",
}

// always are the beginnings of points all of which a run or its recovery has to pass. Of the others each call of the tree to vCenter
// and each transaction is one, and not every one of them belongs to a backup.
var always = []string{ //nolint:gochecknoglobals // a table
	"agent.", "mover.", "audit.", "engine.", "backup.", "journal.intend.snapshot.", "journal.settle.snapshot.", "journal.intend.agent_", "journal.settle.agent_",
	"vsphere.CreateSnapshotEx_Task.", "vsphere.RemoveSnapshot_Task.", "vsphere.StartProgramInGuest.", "store.end-a-run.",
}

// elsewhere are points of agents that stay, and of no pushed one: their certificates are renewed, and they are installed.
var elsewhere = []string{"agent.PIN.", "agent.answer.PIN.", "journal.intend.agent_installed.", "journal.settle.agent_installed."} //nolint:gochecknoglobals // a table

// byClock are points to which the clock leads, and no run: a slow one passes them, the next one does not.
var byClock = []string{"store.look-for-lost-deliveries."} //nolint:gochecknoglobals // a table

// begins says whether a point begins with one of some beginnings.
func begins(point string, with []string) bool {
	return slices.ContainsFunc(with, func(of string) bool { return strings.HasPrefix(point, of) })
}

// crashMatrix is one lab in which many daemons die at once, each with a VM of its own.
type crashMatrix struct {
	*world
	program string
	// free are the VMs on which no daemon works. One on which a test failed does not come back.
	free chan string

	mu      sync.Mutex
	killed  map[string]bool
	figures crashFigures
}

// TestCrashMatrix kills the daemon with SIGKILL at every point that a run or its recovery passes: before and after each write
// of the journal, each transaction, each call to vCenter, each word to the agent. The next daemon leaves no guest held and no
// snapshot, and brings the same run to its end. What is judged lies outside of the daemon.
func TestCrashMatrix(t *testing.T) {
	lab.Need(t, lab.Postgres)
	t.Parallel()
	m := &crashMatrix{world: start(t, "crash"), program: tagged(t), free: make(chan string, 64), killed: map[string]bool{}}
	for _, g := range m.Guests {
		m.free <- g.Name
	}
	sqlite := func(t *testing.T) string {
		t.Helper()
		return ""
	}
	database := func(t *testing.T) string {
		t.Helper()
		return postgres.Database(t)
	}
	roads := m.pilot(t, sqlite)
	onPostgres := map[string]crashRoad{}
	for _, p := range fewPoints {
		road, passed := roads[p]
		if !passed {
			t.Errorf("no run passes %s", p)
		}
		onPostgres[p] = road
	}
	if *crashFull {
		onPostgres = m.pilot(t, database)
	}
	known := pointsOfTree(t)
	for p := range known {
		if _, passed := roads[p]; !passed && begins(p, always) && !begins(p, elsewhere) {
			t.Errorf("no run passes %s", p)
		}
	}
	t.Run("at", func(t *testing.T) {
		t.Run("sqlite", func(t *testing.T) { m.killAll(t, roads, known, sqlite) })
		t.Run("postgres", func(t *testing.T) { m.killAll(t, onPostgres, known, database) })
	})
	f := m.figures
	f.Points = len(m.killed)
	t.Logf("%+v", f)
	if passed := len(union(roads, onPostgres)); f.Points != passed || f.Points < leastPoints || f.Frozen+f.Orphans+f.Lost+f.Doubled > 0 {
		t.Errorf("%+v, want all of %d points, %d of them at least, and no harm", f, passed, leastPoints)
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{*crashOut: string(text) + "\n", *crashList: known.list(m.killed)} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tagged builds the program with its failpoints.
func tagged(t *testing.T) string {
	t.Helper()
	program := filepath.Join(binaries.dir, "stillframe-failpoint")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "-tags", "failpoint,lab", "../orchestrator")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program with its failpoints: %v\n%s", err, out)
	}
	return program
}

// crashing is one daemon's place, with the one run that somebody asks for again and again, by one key.
type crashing struct {
	*station
	vm    string
	guest lab.ReadyGuest
	dsn   string
	// key is that of the latest request, asked how many there were.
	key   string
	asked int
	// judged is true when judge came to its end.
	judged bool
}

// ask has the job asked for by a new request.
func (c *crashing) ask() {
	c.key = uuid.NewString()
	c.asked++
}

// crashing takes a VM for itself until the test ends.
func (m *crashMatrix) crashing(t *testing.T, road crashRoad, dsn string) *crashing {
	t.Helper()
	var vm string
	select {
	case vm = <-m.free:
	case <-time.After(10 * time.Minute):
		t.Fatal("no VM is left: on too many of them something went wrong")
	}
	c := &crashing{vm: vm, dsn: dsn}
	c.ask()
	c.station = m.station(t, vm, fmt.Sprintf("  - {name: job, select: {vms: [%s]}, retry: {attempts: 3}, mover: %s}\n", vm, road.mover))
	c.program = m.program
	if dsn != "" {
		c.env["DSN"] = dsn
		c.configure(strings.Replace(c.configuration(), "store: {", `store: {kind: postgres, dsn: "env:DSN", `, 1))
	}
	for _, g := range m.Guests {
		if g.Name == vm {
			c.guest = g
		}
	}
	t.Cleanup(func() {
		if !c.judged { // nobody knows what became of the run
			m.mu.Lock()
			m.figures.Lost++
			m.mu.Unlock()
		}
		if !t.Failed() {
			m.free <- vm
		}
	})
	return c
}

// pilot runs each road to its end, and gives every point that was passed with the first road that passes it.
func (m *crashMatrix) pilot(t *testing.T, database func(*testing.T) string) map[string]crashRoad {
	t.Helper()
	passed := make([][]string, len(crashRoads))
	t.Run("pilot", func(t *testing.T) {
		for n, road := range crashRoads {
			t.Run(road.name, func(t *testing.T) {
				t.Parallel()
				c := m.crashing(t, road, database(t))
				if road.recovers && !c.die(t, inTheWindow) {
					t.Fatalf("the run does not pass %s", inTheWindow)
				}
				trace := filepath.Join(t.TempDir(), "trace")
				c.env["STILLFRAME_FAILPOINT_TRACE"] = trace
				m.judge(t, c, c.recover(t))
				file, err := os.Open(trace)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				for lines := bufio.NewScanner(file); lines.Scan(); {
					passed[n] = append(passed[n], lines.Text())
				}
			})
		}
	})
	roads := map[string]crashRoad{}
	for n, road := range crashRoads {
		for _, p := range passed[n] {
			if _, known := roads[p]; !known && !begins(p, byClock) {
				roads[p] = road
			}
		}
	}
	return roads
}

// killAll kills at every point of roads, on a database of its own each.
func (m *crashMatrix) killAll(t *testing.T, roads map[string]crashRoad, known points, database func(*testing.T) string) {
	t.Helper()
	t.Parallel()
	for p, road := range roads {
		if !known.has(p) {
			t.Errorf("the tree has no point %s, but a run passed it", p)
		}
		t.Run(p, func(t *testing.T) { m.kill(t, road, p, database) })
	}
}

// kill has one daemon die at a point, in the full matrix twice in a row, and judges what the next one makes of it.
func (m *crashMatrix) kill(t *testing.T, road crashRoad, point string, database func(*testing.T) string) {
	t.Helper()
	t.Parallel()
	c := m.crashing(t, road, database(t))
	kills := 0
	for {
		if road.recovers && c.die(t, inTheWindow) {
			kills++
		}
		if c.die(t, point) {
			kills++
			break
		}
		if c.asked == passingTries { // it hung on what the machine was busy with, but not each time
			t.Fatalf("in %d runs the daemon did not pass %s", c.asked, point)
		}
		c.ask()
	}
	if *crashFull && c.die(t, point) { // else neither the recovery nor the second attempt passes it
		kills++
	}
	t.Logf("%d kills", kills)
	m.mu.Lock()
	m.killed[point] = true
	m.figures.Kills += kills
	m.mu.Unlock()
	m.judge(t, c, c.recover(t))
}

// die has a daemon work until it kills itself at a point; false when all of the run, and of the daemon's end, passed without.
func (c *crashing) die(t *testing.T, point string) bool {
	t.Helper()
	c.env["STILLFRAME_FAILPOINT"] = point + "=kill"
	defer delete(c.env, "STILLFRAME_FAILPOINT")
	d := c.begin()
	if c.drive(t, d) {
		c.finish(t, d)
	}
	status, ok := d.ProcessState.Sys().(syscall.WaitStatus)
	killed := ok && status.Signaled() && status.Signal() == syscall.SIGKILL && strings.Contains(d.log.String(), "failpoint "+point+":")
	if !killed && d.ProcessState.ExitCode() != exitOK {
		t.Fatalf("the daemon ended with %v and not at %s", d.ProcessState, point)
	}
	return killed
}

// recover has a daemon bring the run to its end and says how long that took, from the daemon's start.
func (c *crashing) recover(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	d := c.begin()
	if !c.drive(t, d) {
		t.Fatalf("the daemon died by itself: %v", d.ProcessState)
	}
	took := time.Since(begin)
	c.finish(t, d)
	if exit := d.ProcessState.ExitCode(); exit != exitOK {
		t.Errorf("SIGTERM: exit status %d", exit)
	}
	return took
}

// finish ends a daemon in good order, as far as no failpoint is in its way.
func (c *crashing) finish(t *testing.T, d *daemonProcess) {
	t.Helper()
	if err := d.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	d.end(t)
}

// drive asks for the job until that is accepted, always by the same key as a client does whose answer was lost, and waits
// until every run has ended. It gives false when the daemon has died before.
func (c *crashing) drive(t *testing.T, d *daemonProcess) bool {
	t.Helper()
	daemon := client.New(c.env["STILLFRAME_SOCKET"])
	defer daemon.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for accepted := false; ; {
		select {
		case <-d.exited:
			return false
		case <-limit:
			t.Fatal("the run neither ends nor does the daemon die")
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if !accepted {
			_, err := daemon.FireJob(ctx, "job", c.key)
			accepted = err == nil
		} else if runs, err := daemon.Runs(ctx, api.RunFilter{}, 0); err == nil && len(runs) >= c.asked && ended(runs) {
			cancel()
			return true
		}
		cancel()
	}
}

func ended(runs []api.Run) bool {
	return !slices.ContainsFunc(runs, func(r api.Run) bool { return r.FinishedAt == nil })
}

// judge looks from outside at what is left when the daemon has ended: the guest, the snapshots, the database, the audit log.
func (m *crashMatrix) judge(t *testing.T, c *crashing, took time.Duration) {
	t.Helper()
	var f crashFigures
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.figures.Frozen += f.Frozen
		m.figures.Orphans += f.Orphans
		m.figures.Lost += f.Lost
		m.figures.Doubled += f.Doubled
		m.figures.WorstRecoverySeconds = max(m.figures.WorstRecoverySeconds, took.Seconds())
	}()
	var holds lab.HoldsOf
	m.get(t, "/vm/"+c.vm+"/holds", &holds)
	tooLong := false
	for _, h := range holds.Holds {
		tooLong = tooLong || h.LastSeen.Sub(h.FirstSeen) > longestHold
	}
	if holds.HeldNow || tooLong || len(holds.Rescues) > 0 || holds.Error != "" {
		f.Frozen = 1
		t.Errorf("the guest is held: %v, was held for too long: %v, was rescued by the lab: %v, its writer says: %q", holds.HeldNow, tooLong, holds.Rescues, holds.Error)
	}
	var snapshots lab.SnapshotsOf
	m.get(t, "/vm/"+c.vm+"/snapshots", &snapshots)
	if f.Orphans = len(snapshots.Names); f.Orphans > 0 {
		t.Errorf("snapshots are left: %v", snapshots.Names)
	}
	noAgent(t, c.guest.Root)
	c.remembered(t, &f)
	c.judged = true
}

// remembered looks into the database and the audit log.
func (c *crashing) remembered(t *testing.T, f *crashFigures) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(c.env["STILLFRAME_CONFIG"]), "state")
	s, err := store.Open(t.Context(), store.Options{Dir: dir, DSN: c.dsn, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	j := journal.New(s)
	kept := catalog.New(s, j, nil, nil)
	runs := must[[]catalog.Run](t)(kept.Runs(t.Context(), catalog.RunFilter{}))
	done := len(slices.DeleteFunc(slices.Clone(runs), func(r catalog.Run) bool { return r.State != catalog.Done }))
	f.Doubled, f.Lost = max(len(runs)-c.asked, 0), max(c.asked-done, 0)
	if len(runs) != c.asked || done != c.asked {
		t.Errorf("there are %d runs, %d of them done, want %d: %+v", len(runs), done, c.asked, runs)
	}
	if open := must[[]journal.Pending](t)(j.Open(t.Context(), "")); len(open) > 0 {
		t.Errorf("intents are open: %+v", open)
	}
	there := must[[]catalog.Snapshot](t)(kept.Snapshots(t.Context(), catalog.SnapshotFilter{}))
	there = slices.DeleteFunc(there, func(s catalog.Snapshot) bool { // other daemons are at work on the other VMs
		return s.State == catalog.Foreign && !slices.ContainsFunc(runs, func(r catalog.Run) bool { return r.VMID == s.VMID })
	})
	if len(there) > 0 {
		t.Errorf("the ledger has snapshots that are not removed: %+v", there)
	}
	file, err := os.Open(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := audit.Verify(file, ""); err != nil {
		t.Errorf("the audit log is not whole: %v", err)
	}
}
