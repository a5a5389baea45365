package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
)

// takeoverBar is how soon the vCenters of a killed node have to be another's.
const takeoverBar = 15 * time.Second

// scaleout is what the tests of several nodes measured.
type scaleout struct {
	// TakeoverSeconds is from kill -9 of a node to another one's ownership of its vCenter, RecoveredSeconds to the end of the
	// run that it worked on, done anew, with a free guest and no snapshot.
	TakeoverSeconds  float64 `json:"takeover_seconds"`
	RecoveredSeconds float64 `json:"recovered_seconds"`
	// HandoverSeconds is from the end of a process that got SIGTERM to another one's ownership.
	HandoverSeconds float64 `json:"handover_seconds"`
	// StoppedSeconds is how long a node stood still by SIGSTOP. FencedWrites of it were refused when it woke, TouchedAfterwards
	// are its calls then that change something on a vCenter.
	StoppedSeconds    float64 `json:"stopped_seconds"`
	FencedWrites      int     `json:"fenced_writes"`
	TouchedAfterwards int     `json:"touched_afterwards"`
	// Doubled are snapshots beyond one for each attempt of a run, Lost are runs that did not end well.
	Doubled          int     `json:"doubled"`
	Lost             int     `json:"lost"`
	TakeoverBarAfter float64 `json:"takeover_bar_seconds"`
	Met              bool    `json:"met"`
}

var (
	scaleoutOut = flag.String("scaleout.out", "", "write what TestScaleout* measured into this file") //nolint:gochecknoglobals // a test's flag
	measured    struct {
		sync.Mutex
		scaleout
	}
)

// measure adds to the figures, and writes them where they are wanted.
func measure(t *testing.T, add func(*scaleout)) {
	t.Helper()
	measured.Lock()
	defer measured.Unlock()
	add(&measured.scaleout)
	measured.TakeoverBarAfter = takeoverBar.Seconds()
	measured.Met = measured.TakeoverSeconds > 0 && measured.TakeoverSeconds <= takeoverBar.Seconds() &&
		measured.TouchedAfterwards+measured.Doubled+measured.Lost == 0 && measured.FencedWrites > 0
	if *scaleoutOut == "" {
		return
	}
	text, err := json.MarshalIndent(measured.scaleout, "", "  ")
	if err == nil {
		err = os.WriteFile(*scaleoutOut, append(text, '\n'), 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// cluster is two vCenters and a database, and the nodes that share them.
type cluster struct {
	t      *testing.T
	worlds map[string]*world // by the vCenter's name
	dsn    string
	db     *pgx.Conn
}

// member is one node of a cluster with its process.
type member struct {
	*station
	*daemonProcess
	id string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	lab.Need(t, lab.Postgres)
	t.Parallel()
	c := &cluster{t: t, worlds: map[string]*world{}, dsn: postgres.Database(t)}
	for _, name := range []string{"one", "two"} {
		c.worlds[name] = start(t, "scaleout-"+name)
	}
	db, err := pgx.Connect(t.Context(), c.dsn)
	if err != nil {
		t.Fatal(err)
	}
	c.db = db
	t.Cleanup(func() {
		if err := db.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c
}

// configuration names both vCenters, with one run at a time on each, so that the others wait in the queue.
func (c *cluster) configuration(dir string) string {
	var text strings.Builder
	text.WriteString("vcenters:\n")
	for _, name := range slices.Sorted(maps.Keys(c.worlds)) {
		w := c.worlds[name]
		fmt.Fprintf(&text, "  - {name: %s, url: %q, username: %q, password: \"env:PASSWORD_%s\", ca: %q}\n", name, w.VCenter, w.User, strings.ToUpper(name), w.CAFile)
	}
	fmt.Fprintf(&text, "limits: {vcenter: {runs: 1}}\nguests:\n  defaults: {username: root, password: \"env:PASSWORD_NONE\", agent: %q}\n  rules:\n", binaries.agent)
	for _, name := range slices.Sorted(maps.Keys(c.worlds)) {
		for _, g := range c.worlds[name].Guests {
			fmt.Fprintf(&text, "    - {match: {vcenters: [%s], names: [%s]}, username: %q, password: \"env:GUEST_%s\"}\n", name, g.Name, g.User, envName(g.Name))
		}
	}
	fmt.Fprintf(&text, "store: {kind: postgres, dsn: \"env:DSN\", state_dir: %q}\nlisten: {socket: %q}\njobs:\n", filepath.Join(dir, "state"), filepath.Join(dir, "api.sock"))
	for _, name := range []string{"slow", "held", "removing"} {
		fmt.Fprintf(&text, "  - {name: %s, select: {names: [%s]}}\n", name, name)
	}
	text.WriteString("  - {name: waiting, select: {names: [\"waiting-*\"]}}\n  - {name: apart, select: {names: [\"apart-*\"]}}\n")
	return text.String()
}

func envName(guest string) string { return strings.ToUpper(strings.ReplaceAll(guest, "-", "_")) }

// join starts a node and waits until it answers.
func (c *cluster) join() *member {
	c.t.Helper()
	dir, err := os.MkdirTemp("", "sf") // a socket's path has to be short
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			c.t.Error(err)
		}
	})
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "DSN": c.dsn, "PASSWORD_NONE": "none",
		"STILLFRAME_SOCKET": filepath.Join(dir, "api.sock"), "STILLFRAME_CONFIG": filepath.Join(dir, "stillframe.yaml"),
	}
	for name, w := range c.worlds {
		env["PASSWORD_"+strings.ToUpper(name)] = w.Password
		for _, g := range w.Guests {
			env["GUEST_"+envName(g.Name)] = g.Password
		}
	}
	m := &member{station: &station{t: c.t, env: env, program: binaries.stillframe}}
	m.configure(c.configuration(dir))
	m.daemonProcess = m.begin()
	await(c.t, "the daemon to be ready", func() bool { return strings.Contains(m.log.String(), `"msg":"ready"`) })
	text, err := os.ReadFile(filepath.Join(dir, "state", "node.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	var node struct {
		ID string `json:"node_id"`
	}
	if err := json.Unmarshal(text, &node); err != nil {
		c.t.Fatal(err)
	}
	m.id = node.ID
	return m
}

// owners are the nodes that own the vCenters right now.
func (c *cluster) owners() map[string]string {
	c.t.Helper()
	owners := map[string]string{}
	rows, err := c.db.Query(c.t.Context(), "SELECT vcenter_id, owner_node FROM vcenter_leases WHERE lease_until > extract(epoch FROM clock_timestamp()) * 1000")
	if err != nil {
		c.t.Fatal(err)
	}
	var vcenter, node string
	_, err = pgx.ForEachRow(rows, []any{&vcenter, &node}, func() error { owners[vcenter] = node; return nil })
	if err != nil {
		c.t.Fatal(err)
	}
	return owners
}

// pair starts two nodes and waits until each owns one vCenter; first owns "one".
func (c *cluster) pair() (first, second *member) {
	c.t.Helper()
	first, second = c.join(), c.join()
	await(c.t, "each node to own one vCenter", func() bool {
		o := c.owners()
		return len(o) == 2 && o["one"] != o["two"]
	})
	if c.owners()["one"] == second.id {
		first, second = second, first
	}
	return first, second
}

func (c *cluster) fire(m *member, jobs ...string) {
	c.t.Helper()
	for _, job := range jobs {
		if o := m.do("jobs", "run", job); o.exit != exitOK {
			c.t.Fatalf("jobs run %s: exit status %d", job, o.exit)
		}
	}
}

// seen waits until a method was called for a VM of vCenter one.
func (c *cluster) seen(vm, method string) {
	c.t.Helper()
	await(c.t, method+" of "+vm, func() bool { return c.calls("one", vm, method) > 0 })
}

func (c *cluster) calls(vcenter, vm, method string) int {
	c.t.Helper()
	var calls []lab.Call
	c.worlds[vcenter].get(c.t, "/calls", &calls)
	n := 0
	for _, call := range calls {
		if call.VM == vm && call.Method == method {
			n++
		}
	}
	return n
}

// changes counts the calls of vCenter one that change something.
func (c *cluster) changes() int {
	c.t.Helper()
	var calls []lab.Call
	c.worlds["one"].get(c.t, "/calls", &calls)
	n := 0
	for _, call := range calls {
		switch call.Method {
		case "CreateSnapshotEx_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task", "StartProgramInGuest", "TerminateProcessInGuest",
			"MakeDirectoryInGuest", "DeleteDirectoryInGuest", "DeleteFileInGuest", "InitiateFileTransferToGuest", "PUT":
			n++
		}
	}
	return n
}

// count counts the runs of which something holds.
func (c *cluster) count(where string) (n int) {
	c.t.Helper()
	if err := c.db.QueryRow(c.t.Context(), "SELECT count(*) FROM runs WHERE "+where).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// settled waits until all of so many runs have ended, as the node sees them, and counts what was lost or doubled. Each
// attempt may have asked for one snapshot.
func (c *cluster) settled(m *member, n int) []api.Run {
	c.t.Helper()
	await(c.t, fmt.Sprint("the end of ", n, " runs"), func() bool { return c.count("finished_at > 0") == n })
	all := m.runs()
	if len(all) != n {
		c.t.Errorf("%d runs, want %d", len(all), n)
	}
	lost, doubled := 0, 0
	for _, r := range all {
		if r.State != "done" {
			lost++
			c.t.Errorf("the run of %s is %s (%s), want done", r.VM, r.State, r.ErrorCode)
		}
		if made := c.calls(r.VCenterID, r.VM, "CreateSnapshotEx_Task"); made > r.Attempt || made == 0 {
			doubled += max(made-r.Attempt, 0)
			c.t.Errorf("%d snapshots were made of %s in %d attempts", made, r.VM, r.Attempt)
		}
		free(c.t, c.worlds[r.VCenterID], r.VM, 20*time.Second)
		clean(c.t, c.worlds[r.VCenterID], r.VM)
	}
	measure(c.t, func(s *scaleout) { s.Lost += lost; s.Doubled += doubled })
	return all
}

func (m *member) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := m.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// TestScaleoutKilled kills the owner of a vCenter with SIGKILL while it holds a guest and others wait in its queue. The other node
// takes the vCenter, frees the guest, takes the snapshot away and does all runs, none of them twice; its own go on meanwhile.
func TestScaleoutKilled(t *testing.T) {
	c := newCluster(t)
	first, second := c.pair()
	c.fire(second, "held")
	c.seen("held", "CreateSnapshotEx_Task")
	c.fire(second, "waiting", "apart")
	first.signal(t, syscall.SIGKILL)
	killed := time.Now()
	first.end(t)
	await(t, "the takeover", func() bool { return c.owners()["one"] == second.id })
	took := time.Since(killed)
	await(t, "the killed run's end", func() bool { return c.count("attempt = 2 AND state = 'done'") == 1 })
	recovered := time.Since(killed)
	for _, r := range c.settled(second, 5) {
		if want := map[bool]int{true: 2, false: 1}[r.Job == "held"]; r.Attempt != want {
			t.Errorf("a run of %s has %d attempts, want %d", r.Job, r.Attempt, want)
		}
	}
	t.Logf("taken over after %.1f s, recovered after %.1f s", took.Seconds(), recovered.Seconds())
	measure(t, func(s *scaleout) { s.TakeoverSeconds, s.RecoveredSeconds = took.Seconds(), recovered.Seconds() })
}

// TestScaleoutStopped stops the owner of a vCenter with SIGSTOP for longer than its lease, in the middle of a run, and wakes it when
// another has done that run. What it writes then is refused, and it touches nothing.
func TestScaleoutStopped(t *testing.T) {
	for _, job := range []struct{ name, method string }{
		{"slow", "StartProgramInGuest"}, {"held", "CreateSnapshotEx_Task"}, {"removing", "RemoveSnapshot_Task"},
	} {
		t.Run(job.name, func(t *testing.T) {
			c := newCluster(t)
			first, second := c.pair()
			c.fire(second, job.name)
			c.seen(job.name, job.method)
			first.signal(t, syscall.SIGSTOP)
			stopped := time.Now()
			defer first.signal(t, syscall.SIGCONT) // else nothing can end it in good order
			r := c.settled(second, 1)[0]
			before := c.changes()
			first.signal(t, syscall.SIGCONT)
			stood := time.Since(stopped)
			await(t, "the woken node to know", func() bool { return strings.Contains(first.log.String(), "a run ended with an error") })
			// It comes back as a node like any other, when its old run is over.
			await(t, "the woken node to own a vCenter again", func() bool { o := c.owners(); return o["one"] != o["two"] && len(o) == 2 })
			log := first.log.String()
			fenced, touched := strings.Count(log, journal.ErrFenced.Error()), c.changes()-before
			if fenced == 0 {
				t.Error("no write of the woken node was refused")
			}
			if touched > 0 {
				t.Errorf("the woken node made %d calls that change something", touched)
			}
			if now := second.runs(); len(now) != 1 || now[0].State != "done" || now[0].Attempt != r.Attempt {
				t.Errorf("afterwards the runs are %+v, want the one as it was", now)
			}
			clean(t, c.worlds["one"], job.name)
			measure(t, func(s *scaleout) {
				s.StoppedSeconds, s.FencedWrites, s.TouchedAfterwards = max(s.StoppedSeconds, stood.Seconds()), s.FencedWrites+fenced, s.TouchedAfterwards+touched
			})
		})
	}
}

// TestScaleoutReleased ends the owner of a vCenter with SIGTERM in the middle of a run. That run comes to its end first, what waits
// in the queue is the other node's at once.
func TestScaleoutReleased(t *testing.T) {
	c := newCluster(t)
	first, second := c.pair()
	c.fire(second, "slow")
	c.seen("slow", "StartProgramInGuest")
	c.fire(second, "waiting")
	first.signal(t, syscall.SIGTERM)
	if exit := first.end(t); exit != exitOK {
		t.Errorf("SIGTERM: exit status %d", exit)
	}
	ended := time.Now()
	await(t, "the handover", func() bool { return c.owners()["one"] == second.id })
	took := time.Since(ended)
	for _, r := range c.settled(second, 3) {
		if r.Attempt != 1 {
			t.Errorf("a run of %s has %d attempts, want 1", r.Job, r.Attempt)
		}
	}
	t.Logf("handed over after %.1f s", took.Seconds())
	measure(t, func(s *scaleout) { s.HandoverSeconds = took.Seconds() })
}
