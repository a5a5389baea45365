package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/audit"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/store"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a test's flag

// noon is when the daemon of these tests lives.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const jobsOfTests = `
vcenters:
  - {name: main, url: "https://vcenter.example/sdk", username: op, password: "env:VC"}
jobs:
  - name: nightly
    select: {names: ["*"]}
    schedule: {cron: "30 2 * * *", zone: Europe/Berlin}
    windows: [{name: late, start: "04:00", end: "06:00", zone: Europe/Berlin}]
  - name: weekly
    select: {names: ["*"]}
    schedule: {monthly: "last saturday at 23:00", zone: UTC}
  - name: byhand
    select: {names: ["*"]}
`

// daemonOf is the least of a daemon: it makes runs and begins none. The API, the catalog and the database are the real ones.
type daemonOf struct {
	catalog *catalog.Catalog
	config  *config.Config
	feed    *api.Feed
	faults  []api.Fault
	unready []string
	windows []api.Window
	targets []catalog.Target
}

func (d *daemonOf) put(ctx context.Context, j config.Job, enabled bool) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	put := catalog.Job{Name: j.Name, Origin: catalog.FromFile, Enabled: enabled, Spec: text, Priority: j.Priority}
	if j.Schedule != nil {
		put.Next = noon.Add(13*time.Hour + 30*time.Minute)
	}
	_, err = d.catalog.PutJob(ctx, put)
	return err
}

func (d *daemonOf) Fire(ctx context.Context, job string, tick time.Time, by string) error {
	j, err := d.catalog.Job(ctx, job)
	if err != nil {
		return err
	}
	_, err = d.catalog.Tick(ctx, catalog.Tick{Job: j, For: tick, Next: j.Next, Trigger: catalog.Manual, RequestedBy: by, Targets: d.targets})
	return err
}

func (d *daemonOf) Order(ctx context.Context, s api.Start) error {
	id := ""
	if s.Job != "" {
		j, err := d.catalog.Job(ctx, s.Job)
		if err != nil {
			return err
		}
		id = j.ID
	}
	_, err := d.catalog.Order(ctx, catalog.Order{RunID: s.RunID, Kind: catalog.Backup, JobID: id, VMID: s.VMID, RequestedBy: s.By, Priority: 1})
	return err
}

func (d *daemonOf) Enable(ctx context.Context, job string, enabled bool) error {
	i := slices.IndexFunc(d.config.Jobs, func(j config.Job) bool { return j.Name == job })
	if i < 0 {
		return api.ErrUnknown
	}
	return d.put(ctx, d.config.Jobs[i], enabled)
}

func (d *daemonOf) Reload(context.Context) (api.Reloaded, []api.Fault, error) {
	return api.Reloaded{Changed: []string{"+ jobs[hourly]"}, NeedsRestart: []string{"~ listen.address"}}, d.faults, nil
}

func (d *daemonOf) Preflight(context.Context, catalog.VM) ([]inventory.Check, error) {
	return []inventory.Check{{ID: "power", Title: "the VM runs", Status: inventory.CheckFail, Code: "SF2112", Evidence: []string{"poweredOff"}}}, nil
}
func (d *daemonOf) Sweep()                                        {}
func (d *daemonOf) Unready(context.Context) []string              { return d.unready }
func (d *daemonOf) Windows(context.Context) ([]api.Window, error) { return d.windows, nil }
func (d *daemonOf) Config() *config.Config                        { return d.config }

// served is a served API over a real database.
type served struct {
	daemon       *daemonOf
	store        *store.Store
	catalog      *catalog.Catalog
	socket, file string
	address      string
	// vms are ids by name, runs are ids by the VM's name.
	vms, runs map[string]string
	names     []string // old and new by turns, for golden files
}

// onBoth runs a test over each of the two databases.
func onBoth(t *testing.T, do func(*testing.T, *served)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { do(t, serveFaces(t, "")) })
	t.Run("postgres", func(t *testing.T) {
		lab.Need(t, lab.Postgres)
		do(t, serveFaces(t, postgres.Database(t)))
	})
}

func serveFaces(t testing.TB, dsn string) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "faces") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	s := &served{socket: filepath.Join(dir, "s"), file: filepath.Join(dir, "stillframe.yaml"), vms: map[string]string{}, runs: map[string]string{}}
	if err := os.WriteFile(s.file, []byte(jobsOfTests), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, problems := config.Load(s.file)
	if loaded == nil {
		t.Fatal(problems)
	}
	loaded.Store.StateDir = filepath.Join(dir, "state")
	if s.store, err = store.Open(t.Context(), store.Options{Dir: loaded.Store.StateDir, DSN: dsn, Log: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	queue, err := engine.New(t.Context(), s.store, engine.Options{Undo: func(context.Context, catalog.Delivery) error { return nil }, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return noon }
	s.catalog = catalog.New(s.store, journal.New(s.store), queue, now)
	s.daemon = &daemonOf{catalog: s.catalog, config: loaded, feed: api.NewFeed()}
	trail := audit.New(filepath.Join(dir, "audit.jsonl"), audit.Options{Now: now})
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "stillframe_build_info 1\n") }) //nolint:errcheck // a test's answer
	server, err := api.New(newBackends(s.catalog, trail, s.daemon, s.daemon.feed, metrics, now), api.Options{Socket: s.socket, Address: "127.0.0.1:0", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.address = server.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	end := make(chan error, 1)
	go func() { end <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-end, trail.Close(), s.store.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// fill gives the database a night: exch-01 went well, sql-01 was too slow and has a session of another requestor left, web-01 is in no job,
// and old-01 was taken but has no point.
func (s *served) fill(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, j := range s.daemon.config.Jobs {
		if err := s.daemon.put(ctx, j, true); err != nil {
			t.Fatal(err)
		}
	}
	var found []catalog.VM
	for n, name := range []string{"exch-01", "old-01", "sql-01", "web-01"} {
		found = append(found, catalog.VM{
			InstanceUUID: uuid.NewSHA1(uuid.Nil, []byte(name)).String(), Moref: "vm-" + string(rune('1'+n)), Name: name, Path: "/DC0/vm/" + name, GuestFamily: "windowsGuest",
		})
	}
	for _, v := range must[[]catalog.VM](t)(s.catalog.SawVMs(ctx, "main", found)) {
		s.vms[v.Name] = v.ID
		s.names = append(s.names, v.ID, "<id of "+v.Name+strings.Repeat(".", 29-len(v.Name))+">")
	}
	for _, name := range []string{"exch-01", "old-01", "sql-01"} {
		s.daemon.targets = append(s.daemon.targets, catalog.Target{VMID: s.vms[name], VCenter: "main", NotBefore: noon})
	}
	if err := s.daemon.Fire(ctx, "nightly", noon.Add(-10*time.Hour-30*time.Minute), ""); err != nil {
		t.Fatal(err)
	}
	for _, r := range must[[]catalog.Run](t)(s.catalog.Runs(ctx, catalog.RunFilter{})) {
		for name, id := range s.vms {
			if id == r.VMID {
				s.runs[name] = r.ID
				s.names = append(s.names, r.ID, "<run of "+name+strings.Repeat(".", 28-len(name))+">")
			}
		}
	}
	s.finish(t, "exch-01", catalog.End{State: catalog.Done, Level: freezewindow.Application, Point: noon.Add(-36 * time.Hour)}, 7.25)
	heard := catalog.Heard{BootID: "boot", LostSets: []string{"{6b1f}"}}
	s.finish(t, "sql-01", catalog.End{State: catalog.Failed, Level: freezewindow.Crash, Cause: "snapshot_slow", Code: "SF4014", Heard: heard}, 17.5)
}

// finish ends the run of a VM with a report.
func (s *served) finish(t *testing.T, name string, e catalog.End, held float64) {
	t.Helper()
	ctx := t.Context()
	r := must[catalog.Run](t)(s.catalog.Run(ctx, s.runs[name]))
	must[catalog.Run](t)(s.catalog.Start(ctx, r.Fence()))
	result := backup.Result{
		APIVersion: backup.APIVersion, RunID: r.ID, StartedAt: noon, Outcome: backup.OK, VM: backup.VM{Name: name, Path: "/DC0/vm/" + name, Moref: "vm"},
		Verdict: backup.Verdict{Level: e.Level, Cause: freezewindow.Cause(e.Cause)}, Snapshot: backup.Snap{Name: "stillframe-" + name, TaskSeconds: held - 2, Removed: true},
		Window: backup.Window{BudgetSeconds: 20, HeldByGuestSeconds: &held, Phases: []backup.Phase{{Name: "prepare", StartSeconds: -1, DurationSeconds: 1}, {Name: "freeze", DurationSeconds: 1.5}}},
	}
	if e.Code != "" {
		result.Outcome = backup.Failed
		result.Findings = []advice.Finding{advice.Explain(advice.Code(e.Code), "the task took \x1b[31m15.5 s")}
	}
	e.Outcome, e.Mode, e.Road = string(result.Outcome), freezewindow.ModeIO, "adminshare"
	e.Report = must[[]byte](t)(json.Marshal(result))
	e.Events = []catalog.Event{{At: noon, Side: "orchestrator", Kind: "go"}, {Mono: 1500 * time.Millisecond, At: noon, Side: "guest", Kind: "frozen", Detail: "io"}}
	memory := s.catalog.Memory(r.Fence())
	v := must[catalog.VM](t)(s.catalog.VM(ctx, r.VMID))
	for range fewWindows {
		err := memory.Record(ctx, v.InstanceUUID, admission.Sample{Freeze: 1500 * time.Millisecond, Snapshot: time.Duration((held - 2) * float64(time.Second)), Thaw: 500 * time.Millisecond, Mode: freezewindow.ModeIO})
		if err != nil {
			t.Fatal(err)
		}
	}
	must[catalog.Run](t)(s.catalog.Finish(ctx, r.Fence(), e))
}

// getenv is the environment of its commands.
func (s *served) getenv(name string) string {
	return map[string]string{"STILLFRAME_SOCKET": s.socket}[name]
}

// asked runs a command against the served API.
func (s *served) asked(t *testing.T, line string) (status int, stdout, stderr string) {
	t.Helper()
	var out, why strings.Builder
	status = run(t.Context(), strings.Fields(line), &out, &why, s.getenv)
	return status, out.String(), why.String()
}

// byToken asks over TCP with a token.
func (s *served) byToken(t *testing.T, secret string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+api.Prefix+"/jobs", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	return answer.StatusCode
}

// golden compares what a command prints with testdata/faces.
func (s *served) golden(t *testing.T, name, text string) {
	t.Helper()
	text = strings.NewReplacer(s.names...).Replace(text)
	path := filepath.Join("testdata", "faces", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestFacesTables holds every table to its golden file.
func TestFacesTables(t *testing.T) { onBoth(t, facesTables) }

func facesTables(t *testing.T, s *served) {
	t.Helper()
	s.fill(t)
	s.daemon.windows = []api.Window{{
		RunID: s.runs["old-01"], VMID: s.vms["old-01"], VM: "old-01", VCenterID: "main", Node: "node", Mode: "io", Phase: "snapshot", GoAt: noon, HeldSeconds: 5, BudgetSeconds: 20,
	}}
	for name, line := range map[string]string{
		"jobs-list": "jobs list", "jobs-show": "jobs show nightly", "runs-list": "runs list", "runs-list-failed": "runs list --state failed --vm sql-01",
		"runs-show": "runs show " + s.runs["sql-01"], "runs-explain": "runs explain " + s.runs["sql-01"], "runs-explain-none": "runs explain " + s.runs["old-01"],
		"runs-timeline": "runs timeline " + s.runs["exch-01"], "vms-list": "vms list", "vms-list-overdue": "vms list --protection overdue", "vms-show": "vms show exch-01",
		"vms-history": "vms history /DC0/vm/exch-01", "window-top": "window top", "window-stats": "window stats --since 876000h",
	} {
		status, stdout, stderr := s.asked(t, line)
		if status != exitOK || stderr != "" {
			t.Errorf("%q ends with %d and says %q", line, status, stderr)
		}
		if strings.Contains(stdout, "\x1b") {
			t.Errorf("%q lets a control character through", line)
		}
		s.golden(t, name, stdout)
		status, stdout, stderr = s.asked(t, line+" -o json")
		var object map[string]any
		if err := json.Unmarshal([]byte(stdout), &object); status != exitOK || err != nil || object["api_version"] != "stillframe/v1" {
			t.Errorf("%q -o json ends with %d, %v and says %q: %s", line, status, err, stderr, stdout)
		}
	}
}

func TestFacesStart(t *testing.T) { onBoth(t, facesStart) }

func facesStart(t *testing.T, s *served) {
	t.Helper()
	s.fill(t)
	want := func(line string, status int, out, why string) (stdout string) {
		t.Helper()
		got, stdout, stderr := s.asked(t, line)
		if got != status || !strings.Contains(stdout, out) || !strings.Contains(stderr, why) {
			t.Errorf("%q ends with %d, want %d; prints %q, want %q; says %q, want %q", line, got, status, stdout, out, stderr, why)
		}
		return stdout
	}
	want("jobs pause nightly", exitOK, "paused", "")
	want("jobs list", exitOK, "paused", "")
	want("jobs resume nightly", exitOK, "enabled", "")
	// old-01 is at work: it is skipped, the others are queued. The same key makes no second.
	fired := want("jobs run weekly --key 12345678", exitOK, "", "")
	if ids := strings.Fields(fired); len(ids) != 3 {
		t.Errorf("the job made %d runs, want 3: %s", len(ids), fired)
	}
	if again := want("jobs run weekly --key 12345678", exitOK, "", ""); again != fired {
		t.Errorf("the same key made %q, want %q", again, fired)
	}
	want("jobs run byhand --key 12345678", exitUsage, "", "SF1716")
	one := strings.TrimSpace(want("jobs run byhand --vm web-01 --kind window_only --key abcdefgh", exitOK, "", ""))
	if again := strings.TrimSpace(want("jobs run byhand --vm web-01 --kind window_only --key abcdefgh", exitOK, "", "")); again != one {
		t.Errorf("the same key made %q, want %q", again, one)
	}
	want("jobs run byhand --vm web-01", exitLocked, "", "SF1103")
	want("runs show "+one, exitOK, "web-01", "")
	want("runs cancel "+one, exitOK, "web-01", "")
	want("runs show "+one+" -o json", exitOK, `"cancel_requested": true`, "")
	want("runs cancel "+s.runs["exch-01"], exitLocked, "", "SF1718")
	// What nobody proved to be gone is listed, and goes only with its run.
	err := s.store.Update(t.Context(), "fill the ledger", func(tx store.Tx) error {
		for n, row := range []struct{ id, vm, state string }{{"orphan", "exch-01", "orphan"}, {"needed", "old-01", "created"}, {"foreign", "sql-01", "foreign"}, {"kept", "exch-01", "in_use"}, {"gone", "exch-01", "removed"}} {
			_, err := tx.Exec(t.Context(), `INSERT INTO snapshot_ledger (id, run_id, epoch, vcenter_id, vm_id, vm_moref, name, state, proof, created_at)
				VALUES ($1, $2, 1, 'main', $3, 'vm-1', $4, $5, 'inst=another', $6)`, row.id, s.runs[row.vm], s.vms[row.vm], "stillframe-"+row.id, row.state, store.Millis(noon)+int64(n))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, orphans, _ := s.asked(t, "snapshots list --orphans")
	s.golden(t, "snapshots-orphans", orphans)
	_, all, _ := s.asked(t, "snapshots list")
	s.golden(t, "snapshots-list", all)
	want("snapshots remove orphan", exitUsage, "", "--run")
	want("snapshots remove orphan --run "+s.runs["sql-01"], exitLocked, "", "SF1718")
	want("snapshots remove needed --run "+s.runs["old-01"], exitLocked, "", "SF1718")
	want("snapshots remove foreign --run "+s.runs["sql-01"], exitLocked, "", "SF1718")
	want("snapshots remove orphan --run "+s.runs["exch-01"], exitOK, "remove_requested", "")
	want("snapshots remove nothing --run "+s.runs["exch-01"], exitNoMatch, "", "SF1717")
	secret := strings.TrimSpace(want("token create ci --scope viewer,operator --days 7", exitOK, "sft_", "not shown again"))
	want("token create ci", exitLocked, "", "SF1718")
	want("token list", exitOK, "operator,viewer", "")
	if _, stdout, _ := s.asked(t, "token list -o json"); strings.Contains(stdout, secret) {
		t.Error("a token is shown a second time")
	}
	if got := s.byToken(t, secret); got != http.StatusOK {
		t.Errorf("the new token is answered with %d", got)
	}
	want("token revoke ci", exitOK, "ci", "")
	if got := s.byToken(t, secret); got != http.StatusUnauthorized {
		t.Errorf("the revoked token is answered with %d", got)
	}
	want("token list", exitOK, "revoked", "")
	want("token revoke ci", exitNoMatch, "", "SF1717")
	want("token create X!", exitUsage, "", "SF1715")
	want("config reload", exitOK, "~ listen.address (needs a restart)", "")
	s.daemon.faults = []api.Fault{{Location: "stillframe.yaml:3:1", Message: "no such key"}}
	want("config reload", exitConfig, "", "stillframe.yaml:3:1: no such key")
}

// TestFacesBadInput: what cannot be meant is refused, and what does not exist ends with 4.
func TestFacesBadInput(t *testing.T) {
	s := serveFaces(t, "")
	s.fill(t)
	for line, want := range map[string]int{
		"jobs show none": exitNoMatch, "jobs show a/b": exitNoMatch, "jobs run none": exitNoMatch, "jobs pause none": exitNoMatch, "jobs run nightly --kind dry_run": exitUsage,
		"jobs run nightly --vm none": exitNoMatch, "jobs run nightly --key short": exitUsage, "jobs next --days 0": exitUsage, "jobs next --days 9999": exitUsage,
		"runs show x": exitUsage, "runs show " + uuid.NewString(): exitNoMatch, "runs timeline " + uuid.NewString(): exitNoMatch, "runs explain " + uuid.NewString(): exitNoMatch,
		"runs follow " + uuid.NewString(): exitNoMatch, "runs follow": exitUsage, "runs list --state odd": exitUsage, "runs list --job none": exitNoMatch, "runs list --vm none": exitNoMatch,
		"runs list --limit -1": exitUsage, "vms show none": exitNoMatch, "vms show /DC0/vm/none": exitNoMatch, "vms history none": exitNoMatch, "vms list --protection odd": exitUsage,
		"window stats --since -1h": exitUsage, "window stats --vm none": exitNoMatch, "snapshots list --vm none": exitNoMatch,
	} {
		status, stdout, stderr := s.asked(t, line)
		if status != want || stdout != "" || !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("%q ends with %d, want %d; prints %q and says %q", line, status, want, stdout, stderr)
		}
	}
}

// TestFacesFollow follows runs that end in different ways.
func TestFacesFollow(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	s := serveFaces(t, "")
	s.fill(t)
	for name, want := range map[string]int{"exch-01": exitOK, "sql-01": exitBudget} {
		status, stdout, stderr := s.asked(t, "runs follow "+s.runs[name])
		if status != want || !strings.Contains(stdout, name) || !strings.Contains(stderr, name) {
			t.Errorf("following %s ends with %d, want %d; prints %q and says %q", name, status, want, stdout, stderr)
		}
	}
	// One that is still queued is waited for, and an event is enough to look again.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		status, stdout, stderr := s.asked(t, "runs follow "+s.runs["old-01"]+" "+s.runs["exch-01"]+" -o json")
		var runs struct{ Runs []api.Run }
		if err := json.Unmarshal([]byte(stdout), &runs); status != exitDegraded || err != nil || len(runs.Runs) != 2 {
			t.Errorf("following two ends with %d, %v, prints %q and says %q", status, err, stdout, stderr)
		}
	}()
	r, err := s.catalog.Run(t.Context(), s.runs["old-01"])
	if err == nil {
		_, err = s.catalog.Start(t.Context(), r.Fence())
	}
	if err == nil {
		_, err = s.catalog.Finish(t.Context(), r.Fence(), catalog.End{State: catalog.Done, Outcome: "degraded", Level: freezewindow.Crash})
	}
	if err != nil {
		t.Error(err)
	}
	s.daemon.feed.Publish(api.Event{Topic: "runs", Kind: "run.finished", Run: r.ID})
	<-ended
}

// TestFacesOnATerminal: the live table is drawn again and again and leaves nothing else, and a follower has a bar.
func TestFacesOnATerminal(t *testing.T) {
	s := serveFaces(t, "")
	s.fill(t)
	s.daemon.windows = []api.Window{{RunID: s.runs["old-01"], VM: "old-\x1b[2J01", GoAt: noon, HeldSeconds: 5, BudgetSeconds: 20}}
	for line, want := range map[string]string{"window top": "old-\uFFFD[2J01", "runs follow " + s.runs["exch-01"]: "##] 1 of 1 have ended"} {
		master, slave := pseudoTerminal(t)
		ctx, stop := context.WithCancel(t.Context())
		status := make(chan int, 1)
		go func() {
			status <- run(ctx, strings.Fields(line), slave, slave, s.getenv)
		}()
		var shown strings.Builder
		for part := make([]byte, 4096); strings.Count(shown.String(), want) < 1+strings.Count(line, "top"); {
			n, err := master.Read(part)
			if err != nil {
				t.Fatal(err)
			}
			shown.Write(part[:n])
		}
		stop()
		if got := <-status; got != exitOK {
			t.Errorf("%q ends with %d and shows %q", line, got, shown.String())
		}
	}
}

// TestFacesNext asks the daemon and the file, which must say the same.
func TestFacesNext(t *testing.T) {
	s := serveFaces(t, "")
	s.fill(t)
	_, asked, stderr := s.asked(t, "jobs next --days 40 -o json")
	_, read, why := s.asked(t, "jobs next --days 40 -o json --config "+s.file)
	if asked != read || asked == "" {
		t.Errorf("the daemon says %s %s, the file %s %s", asked, stderr, read, why)
	}
	var list struct{ Ticks []tick }
	if err := json.Unmarshal([]byte(read), &list); err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for n, one := range list.Ticks {
		of[one.Job]++
		if n > 0 && one.At.Before(list.Ticks[n-1].At) {
			t.Error("the times are not in order")
		}
		if late := one.StartsAt != nil && one.StartsAt.After(one.At); late != (one.Job == "nightly") || late != (one.Waits != "") {
			t.Errorf("%s at %s starts at %v: %s", one.Job, one.At, one.StartsAt, one.Waits)
		}
	}
	if of["nightly"] < 39 || of["weekly"] < 1 || of["byhand"] != 0 {
		t.Errorf("ticks by job: %v", of)
	}
	if status, _, _ := s.asked(t, "jobs next --config /none"); status != exitConfig {
		t.Errorf("a file that is not there ends with %d", status)
	}
}

// TestFacesPages goes through lists whose parts are smaller than they are.
func TestFacesPages(t *testing.T) { onBoth(t, facesPages) }

func facesPages(t *testing.T, s *served) {
	t.Helper()
	s.fill(t)
	b := newBackends(s.catalog, nil, s.daemon, s.daemon.feed, nil, func() time.Time { return noon })
	for name, list := range map[string]func(api.Page) (int, string, error){
		"jobs": func(p api.Page) (int, string, error) {
			all, next, err := b.Jobs.Jobs(t.Context(), p)
			return len(all), next, err
		},
		"runs": func(p api.Page) (int, string, error) {
			all, next, err := b.Runs.Runs(t.Context(), api.RunFilter{}, p)
			return len(all), next, err
		},
		"vms": func(p api.Page) (int, string, error) {
			all, next, err := b.VMs.VMs(t.Context(), api.VMFilter{}, p)
			return len(all), next, err
		},
		"overdue": func(p api.Page) (int, string, error) {
			all, next, err := b.VMs.VMs(t.Context(), api.VMFilter{Name: "-0"}, p)
			return len(all), next, err
		},
		"history": func(p api.Page) (int, string, error) {
			all, next, err := b.VMs.History(t.Context(), s.vms["exch-01"], p)
			return len(all), next, err
		},
	} {
		want, _, err := list(api.Page{Limit: 100})
		if err != nil || want == 0 {
			t.Fatalf("%s: %d, %v", name, want, err)
		}
		got, p := 0, api.Page{Limit: 1}
		for range 10 {
			n, next, err := list(p)
			if err != nil || n > 1 {
				t.Fatalf("%s: a part has %d, %v", name, n, err)
			}
			got += n
			if p.Cursor = next; next == "" {
				break
			}
		}
		if got != want || p.Cursor != "" {
			t.Errorf("%s: %d in parts of one, %d at once", name, got, want)
		}
		if _, _, err := list(api.Page{Limit: 1, Cursor: "none"}); !errors.Is(err, api.ErrCursor) && name != "jobs" {
			t.Errorf("%s: a wrong cursor gives %v", name, err)
		}
	}
}

// TestFacesKeys: a claim whose answer is not written down yet is for later, and a key belongs to one request.
func TestFacesKeys(t *testing.T) { onBoth(t, testFacesKeys) }

func testFacesKeys(t *testing.T, s *served) {
	t.Helper()
	b := newBackends(s.catalog, nil, s.daemon, s.daemon.feed, nil, func() time.Time { return noon })
	mine := api.Claim{Key: "k", Digest: "d", RunID: "r", At: noon}
	for _, other := range []string{"r", "r2"} {
		kept, err := b.Keys.ClaimKey(t.Context(), api.Claim{Key: "k", Digest: "d", RunID: other, At: noon.Add(time.Second)})
		if other == "r" {
			mine = kept
		}
		if err != nil || !kept.At.Equal(mine.At) || kept.RunID != "r" {
			t.Errorf("ClaimKey = %+v, %v", kept, err)
		}
	}
	if _, err := b.Keys.ClaimKey(t.Context(), api.Claim{Key: "k", Digest: "other"}); !errors.Is(err, api.ErrKeyReused) {
		t.Errorf("another request gets %v", err)
	}
}

func TestFacesProtection(t *testing.T) { onBoth(t, facesProtection) }

func facesProtection(t *testing.T, s *served) {
	t.Helper()
	s.fill(t)
	b := newBackends(s.catalog, nil, s.daemon, s.daemon.feed, nil, func() time.Time { return noon })
	c, err := b.VMs.Coverage(t.Context())
	if want := (api.Coverage{Protected: 1, Unprotected: 1, Overdue: 2}); err != nil || c != want {
		t.Errorf("Coverage() = %+v, %v, want %+v", c, err, want)
	}
	v, err := b.VMs.VM(t.Context(), "exch-01")
	if err != nil || v.Protection.State != protected || v.WindowP95Seconds == nil || *v.WindowP95Seconds != 7.25 || *v.Protection.DaysSinceApplicationCons != 1.5 {
		t.Errorf("exch-01 is %+v, %v", v, err)
	}
	// Two of its ticks later the same VM is overdue: the job must be older than both.
	later := backends{s.catalog, s.daemon, func() time.Time { return noon.Add(48 * time.Hour) }}
	if v, err = later.VM(t.Context(), "vm-1"); err != nil || v.Protection.State != overdue {
		t.Errorf("two days later exch-01 is %+v, %v", v.Protection, err)
	}
	for _, vm := range []string{"", s.vms["exch-01"], s.vms["sql-01"], s.vms["web-01"]} {
		checks, err := b.Doctor.Examine(t.Context(), vm, "")
		if err != nil || len(checks) < 5 {
			t.Errorf("Examine(%q) = %+v, %v", vm, checks, err)
		}
		for _, check := range checks {
			if !slices.Contains([]string{checkOK, checkWarn, checkFail, checkUnknown}, check.Status) || check.ID == "" || check.Title == "" {
				t.Errorf("a check of %q is %+v", vm, check)
			}
			if check.ID == "writer_sessions" && (check.Status != checkOK) != (vm == "" || vm == s.vms["sql-01"]) {
				t.Errorf("the sessions of %q are %+v", vm, check)
			}
			if check.ID == "window" && vm == s.vms["sql-01"] && check.Code != "SF4010" {
				t.Errorf("the window of sql-01 is %+v", check)
			}
		}
	}
}

// TestFacesAway: without a daemon each command that asks it ends with 5, and completion is silent.
func TestFacesAway(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	id := uuid.NewString()
	for _, line := range []string{
		"jobs list", "jobs show x", "jobs run x", "jobs pause x", "jobs resume x", "jobs next", "runs list", "runs show " + id, "runs follow " + id, "runs cancel " + id, "runs explain " + id,
		"runs timeline " + id, "vms list", "vms show x", "vms history x", "window top", "window stats", "snapshots list", "snapshots remove x --run " + id, "token create x", "token list",
		"token revoke x", "config reload",
	} {
		var stdout, stderr strings.Builder
		status := run(t.Context(), append(strings.Fields(line), "--socket", socket), &stdout, &stderr, func(string) string { return "" })
		if status != exitUnreachable || stdout.Len() > 0 || !strings.Contains(stderr.String(), "SF1711") {
			t.Errorf("%q ends with %d, want %d; prints %q and says %q", line, status, exitUnreachable, stdout.String(), stderr.String())
		}
	}
	var stdout, stderr strings.Builder
	status := run(t.Context(), []string{"__complete", "jobs", "show", "--socket", socket, ""}, &stdout, &stderr, func(string) string { return "" })
	if status != exitOK || stdout.String() != ":4\n" {
		t.Errorf("completion without a daemon ends with %d and prints %q", status, stdout.String())
	}
}

// TestFacesComplete wants live names.
func TestFacesComplete(t *testing.T) {
	s := serveFaces(t, "")
	s.fill(t)
	for line, want := range map[string]string{
		"jobs run n": "nightly\t30 2 * * *\n:4\n", "jobs show nightly ": ":4\n", "vms show ex": "exch-01\t/DC0/vm/exch-01\n:4\n", "runs list --job b": "byhand\n:4\n",
		"runs list --state ": "queued\nrunning\ncompensating\ndone\nfailed\ncancelled\nskipped\n:4\n", "runs show " + s.runs["exch-01"]: s.runs["exch-01"] + "\tnightly exch-01 done\n:4\n",
	} {
		words := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			words = append(words, "")
		}
		var stdout, stderr strings.Builder
		status := run(t.Context(), append([]string{"__complete"}, words...), &stdout, &stderr, s.getenv)
		if status != exitOK || stdout.String() != want {
			t.Errorf("completing %q ends with %d and prints %q, want %q", line, status, stdout.String(), want)
		}
	}
}
