package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const run = "0190a000-0000-7000-8000-000000000001"

// daemon answers as little as the client needs; the API itself is the real one.
type daemon struct {
	jobs   map[string]bool
	claims map[string]api.Claim
	starts []api.Start
	tokens []api.Token
	filter api.RunFilter
	wanted api.SnapshotFilter
	runs   int
}

func (d *daemon) Jobs(context.Context, api.Page) ([]api.Job, string, error) {
	return []api.Job{{Name: "nightly", Enabled: d.jobs["nightly"]}}, "", nil
}

func (d *daemon) Job(_ context.Context, name string) (api.Job, error) {
	enabled, ok := d.jobs[name]
	if !ok {
		return api.Job{}, api.ErrUnknown
	}
	return api.Job{Name: name, Enabled: enabled}, nil
}

func (d *daemon) EnableJob(_ context.Context, name string, enabled bool) error {
	d.jobs[name] = enabled
	return nil
}

func (d *daemon) FireJob(context.Context, string, time.Time, string) ([]string, error) {
	return []string{run}, nil
}

func (d *daemon) Runs(_ context.Context, f api.RunFilter, p api.Page) ([]api.Run, string, error) {
	d.filter = f
	first, err := strconv.Atoi("0" + p.Cursor)
	if err != nil {
		return nil, "", api.ErrCursor
	}
	last, next := min(first+p.Limit, d.runs), ""
	if last < d.runs {
		next = strconv.Itoa(last)
	}
	var part []api.Run
	for i := first; i < last; i++ {
		part = append(part, api.Run{ID: strconv.Itoa(i)})
	}
	return part, next, nil
}

func (d *daemon) Run(_ context.Context, id string) (api.Run, error) {
	if id != run {
		return api.Run{}, api.ErrUnknown
	}
	return api.Run{ID: run, Report: map[string]any{"outcome": "ok"}}, nil
}

func (d *daemon) Timeline(context.Context, string) ([]api.TimelineEvent, error) {
	return []api.TimelineEvent{{Kind: "frozen"}}, nil
}

func (d *daemon) Findings(context.Context, string) ([]api.Finding, error) {
	return []api.Finding{{Code: "SF4002"}}, nil
}

func (d *daemon) RunLog(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("{}\n")), nil
}

func (d *daemon) StartRun(_ context.Context, s api.Start) error {
	d.starts = append(d.starts, s)
	return nil
}
func (d *daemon) CancelRun(context.Context, string) error { return api.ErrConflict }

func (d *daemon) Windows(context.Context) ([]api.Window, error) {
	return []api.Window{{RunID: run, HeldSeconds: 7.2}}, nil
}

func (d *daemon) VMs(_ context.Context, f api.VMFilter, _ api.Page) ([]api.VM, string, error) {
	return []api.VM{{ID: "1", Name: f.Name}}, "", nil
}
func (d *daemon) VM(_ context.Context, id string) (api.VM, error) { return api.VM{ID: id}, nil }

func (d *daemon) History(context.Context, string, api.Page) ([]api.PastWindow, string, error) {
	return []api.PastWindow{{RunID: run}, {RunID: run}}, "", nil
}

func (d *daemon) Coverage(context.Context) (api.Coverage, error) {
	return api.Coverage{Overdue: 2}, nil
}

func (d *daemon) Snapshots(_ context.Context, f api.SnapshotFilter, _ api.Page) ([]api.Snapshot, string, error) {
	d.wanted = f
	return []api.Snapshot{{ID: "s1"}}, "", nil
}

func (d *daemon) Snapshot(context.Context, string) (api.Snapshot, error) {
	return api.Snapshot{ID: "s1", RunID: run, Name: "stillframe-x"}, nil
}
func (d *daemon) RemoveSnapshot(context.Context, string, string) error { return nil }

func (d *daemon) Examine(_ context.Context, vm, road string) ([]api.Check, error) {
	return []api.Check{{ID: vm, Title: road, Status: "ok"}}, nil
}

func (d *daemon) AddToken(_ context.Context, t api.Token) (api.Token, error) {
	t.ID = run
	d.tokens = append(d.tokens, t)
	return t, nil
}
func (d *daemon) Tokens(context.Context) ([]api.Token, error) { return d.tokens, nil }

func (d *daemon) UseToken(context.Context, string) (api.Token, error) {
	return api.Token{}, api.ErrUnknown
}
func (d *daemon) RevokeToken(context.Context, string) error { return nil }

func (d *daemon) ClaimKey(_ context.Context, c api.Claim) (api.Claim, error) {
	if kept, ok := d.claims[c.Key]; ok {
		return kept, nil
	}
	d.claims[c.Key] = c
	return c, nil
}

func (d *daemon) ReloadConfig(context.Context) (api.Reloaded, []api.Fault, error) {
	return api.Reloaded{}, []api.Fault{{Location: "stillframe.yaml:3:1", Message: "unknown key"}}, nil
}
func (d *daemon) Unready(context.Context) []string { return []string{"the store is not open"} }

func serve(t *testing.T) (*client.Client, *daemon, *api.Feed) {
	t.Helper()
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{jobs: map[string]bool{"nightly": true}, claims: map[string]api.Claim{}, runs: 1203}
	trail, feed := audit.New(filepath.Join(dir, "audit.jsonl"), audit.Options{}), api.NewFeed()
	s, err := api.New(api.Backends{
		Jobs: d, Runs: d, Work: d, VMs: d, Snapshots: d, Doctor: d, Tokens: d, Keys: d, Config: d, Health: d, Audit: trail, Feed: feed, Metrics: http.NotFoundHandler(),
	}, api.Options{Socket: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	c := client.New(filepath.Join(dir, "s"))
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := errors.Join(<-ended, trail.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return c, d, feed
}

// TestCalls calls everything once, the way the command line does.
func TestCalls(t *testing.T) {
	c, d, _ := serve(t)
	ctx := t.Context()
	ok := func(what string, good bool, err error) {
		t.Helper()
		if err != nil || !good {
			t.Errorf("%s: %v", what, err)
		}
	}
	jobs, err := c.Jobs(ctx)
	ok("jobs", len(jobs) == 1 && jobs[0].Name == "nightly", err)
	job, err := c.EnableJob(ctx, "nightly", false)
	ok("pause", !job.Enabled && !d.jobs["nightly"], err)
	job, err = c.EnableJob(ctx, "nightly", true)
	ok("resume", job.Enabled, err)
	job, err = c.Job(ctx, "nightly")
	ok("job", job.Name == "nightly", err)
	fired, err := c.FireJob(ctx, "nightly", "key-for-one")
	ok("fire", slices.Equal(fired.RunIDs, []string{run}) && !fired.ScheduledFor.IsZero(), err)

	filter := api.RunFilter{Job: "nightly", VM: "v", VCenter: "c", State: "done", Unfinished: true}
	runs, err := c.Runs(ctx, filter, 0)
	ok("runs", len(runs) == 1203 && runs[1202].ID == "1202" && d.filter == filter, err)
	runs, err = c.Runs(ctx, api.RunFilter{}, 7)
	ok("few runs", len(runs) == 7, err)
	one, err := c.Run(ctx, run)
	ok("run", one.Report["outcome"] == "ok", err)
	accepted, err := c.StartRun(ctx, api.Order{VM: "exch-01"}, "key-for-two")
	ok("start", len(d.starts) == 1 && accepted.RunID == d.starts[0].RunID && d.starts[0].Kind == api.KindBackup, err)
	timeline, err := c.Timeline(ctx, run)
	ok("timeline", len(timeline) == 1, err)
	findings, err := c.Findings(ctx, run)
	ok("findings", len(findings) == 1 && findings[0].Code == "SF4002", err)
	log, err := c.RunLog(ctx, run)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(log)
	ok("log", string(text) == "{}\n", errors.Join(err, log.Close()))

	vms, err := c.VMs(ctx, api.VMFilter{Name: "exch", VCenter: "c", Job: "j", Protection: "overdue"})
	ok("vms", len(vms) == 1 && vms[0].Name == "exch", err)
	vm, err := c.VM(ctx, "1")
	ok("vm", vm.ID == "1", err)
	history, err := c.History(ctx, "1", 1)
	ok("history", len(history) == 1, err)
	coverage, err := c.Coverage(ctx)
	ok("coverage", coverage.Overdue == 2, err)
	windows, err := c.Windows(ctx)
	ok("windows", len(windows) == 1 && windows[0].HeldSeconds == 7.2, err)
	snapshots, err := c.Snapshots(ctx, api.SnapshotFilter{Orphans: true, States: []string{"orphan"}, VM: "v", VCenter: "c"})
	ok("snapshots", len(snapshots) == 1 && d.wanted.Orphans && slices.Equal(d.wanted.States, []string{"orphan"}), err)
	removed, err := c.RemoveSnapshot(ctx, "s1", run)
	ok("remove", removed.ID == "s1", err)
	examined, err := c.Examine(ctx, "exch-01", "adminshare")
	ok("doctor", examined.VMID == "exch-01" && examined.Checks[0].Title == "adminshare", err)
	issued, err := c.CreateToken(ctx, api.NewToken{Name: "monitor", Scopes: []api.Scope{api.Viewer}, Days: 7})
	ok("token", strings.HasPrefix(issued.Secret, "sft_") && issued.Name == "monitor", err)
	tokens, err := c.Tokens(ctx)
	ok("tokens", len(tokens) == 1, err)
	ok("revoke", true, c.RevokeToken(ctx, issued.ID))
	entries, err := c.Audit(ctx, 0)
	ok("audit", len(entries) == 14 && entries[0].What == "tokens:revoke" && entries[13].Result == "intended", err)
	ready, err := c.Readiness(ctx)
	ok("ready", !ready.Ready && len(ready.Reasons) == 1, err)
}

func TestProblems(t *testing.T) {
	c, _, _ := serve(t)
	var p *api.Problem
	if err := c.CancelRun(t.Context(), run); !errors.As(err, &p) || p.Status != http.StatusConflict || p.Code() != "SF1718" {
		t.Errorf("a conflict is %v", err)
	}
	if _, err := c.Job(t.Context(), "none"); !errors.As(err, &p) || p.Code() != "SF1717" {
		t.Errorf("an unknown job is %v", err)
	}
	if _, err := c.ReloadConfig(t.Context()); !errors.As(err, &p) || !strings.Contains(err.Error(), "stillframe.yaml:3:1: unknown key") {
		t.Errorf("a wrong configuration is %v", err)
	}
	if _, err := c.VM(t.Context(), "../../runs"); err == nil {
		t.Error("an id with slashes went through")
	}
}

func TestUnreachable(t *testing.T) {
	c := client.New(filepath.Join(t.TempDir(), "none"))
	defer c.Close()
	var u *client.UnreachableError
	if _, err := c.Jobs(t.Context()); !errors.As(err, &u) || u.Code() != "SF1711" {
		t.Errorf("no socket is %v", err)
	}
	if _, err := c.Readiness(t.Context()); !errors.As(err, &u) {
		t.Errorf("no socket is %v", err)
	}
	if err := c.Follow(t.Context(), nil, "", nil); !errors.As(err, &u) {
		t.Errorf("no socket is %v", err)
	}
}

// TestStrangers speaks to something that is no daemon.
func TestStrangers(t *testing.T) {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a test's folder
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "jobs") {
			w.WriteHeader(http.StatusBadGateway)
		}
		if strings.HasSuffix(r.URL.Path, "runs") {
			if err := json.NewEncoder(w).Encode(api.List[api.Run]{Items: []api.Run{}, NextCursor: "again"}); err != nil {
				t.Error(err)
			}
		}
	}))
	s.Listener = l
	s.Start()
	defer s.Close()
	c := client.New(filepath.Join(dir, "s"))
	defer c.Close()
	if _, err := c.Jobs(t.Context()); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("a 502 without problem is %v", err)
	}
	if _, err := c.Windows(t.Context()); err == nil {
		t.Error("an empty answer is taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Runs(ctx, api.RunFilter{}, 0); err == nil || !strings.Contains(err.Error(), "parts") && ctx.Err() == nil {
		t.Errorf("a list without end is %v", err)
	}
}

func TestFollow(t *testing.T) {
	c, _, feed := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	enough := errors.New("enough")
	last, got := "", make(chan api.Event, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Follow(ctx, []string{"runs"}, "", func(e api.Event) error {
			got <- e
			if e.Kind == "last" {
				return enough
			}
			return nil
		})
	}()
	// The stream is there when its first event comes; those before it are told to nobody.
	for beat := time.NewTicker(5 * time.Millisecond); last == ""; {
		select {
		case <-beat.C:
			feed.Publish(api.Event{Topic: "runs", Kind: "first"})
		case e := <-got:
			last = e.ID
			beat.Stop()
		}
	}
	feed.Publish(api.Event{Topic: "jobs", Kind: "other"})
	feed.Publish(api.Event{Topic: "runs", Kind: "last", Run: run})
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("Follow ended with %v", err)
	}
	if err := c.Follow(ctx, nil, last, func(e api.Event) error {
		if e.Kind == "last" {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Errorf("going on after %s ended with %v", last, err)
	}
	if err := c.Follow(ctx, nil, "old-1", func(api.Event) error { return nil }); !errors.Is(err, client.ErrResync) {
		t.Errorf("an event of a former daemon: %v, want ErrResync", err)
	}
	go func() { ended <- c.Follow(ctx, nil, "", func(api.Event) error { return nil }) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled stream ended with %v", err)
	}
}
