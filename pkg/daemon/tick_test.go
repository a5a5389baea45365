package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(postgres.Exit)) }

// site is a daemon over a real database and a real queue, with vCenters that are played.
type site struct {
	*Daemon
	t     *testing.T
	store *store.Store

	mu     sync.Mutex
	estate map[string]func(context.Context) (inventory.Estate, error)
	undo   func(Order, []statefile.Intent) backup.Recovery
	run    func(context.Context, Order) (backup.Result, error)
}

// played is one vCenter of a site.
type played struct {
	*site
	name string
}

func (s *site) VCenter(_ context.Context, _ *config.Config, name string) (VCenter, error) {
	return played{s, name}, nil
}

func (p played) Estate(ctx context.Context, _ bool) (inventory.Estate, error) {
	p.mu.Lock()
	estate := p.estate[p.name]
	p.mu.Unlock()
	return estate(ctx)
}
func (p played) Run(ctx context.Context, o Order) (backup.Result, error) { return p.run(ctx, o) }
func (p played) Remove(context.Context, func() error, string, string) (bool, error) {
	return false, nil
}
func (p played) Consolidate(context.Context, func() error, string) error { return nil }
func (p played) Preflight(context.Context, Order) ([]inventory.Check, error) {
	return nil, nil
}

func (p played) Undo(_ context.Context, o Order, open []statefile.Intent) (backup.Recovery, error) {
	return p.undo(o, open), nil
}

func (s *site) Began(catalog.Run)                {}
func (s *site) Ended(catalog.Run, backup.Result) {}
func (s *site) Finished(catalog.Run)             {}
func (s *site) Fired(string, int, int, int)      {}

// has lets a vCenter answer with one VM.
func (s *site) has(vcenter, vm string) {
	s.answers(vcenter, func(context.Context) (inventory.Estate, error) {
		return inventory.Estate{Members: []inventory.Member{{Name: vm, InstanceUUID: "uuid of " + vm, Path: "/dc/vm/" + vm}}}, nil
	})
}

func (s *site) answers(vcenter string, how func(context.Context) (inventory.Estate, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.estate[vcenter] = how
}

func done(o Order) backup.Result {
	return backup.Result{RunID: o.Plan.RunID, Outcome: backup.OK, Verdict: backup.Verdict{Level: freezewindow.Filesystem}}
}

// newSite has a job of all VMs of two vCenters, whose one tick a day was a minute ago. It is served until the test ends.
func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	tick := time.Now().UTC().Add(-time.Minute)
	file := filepath.Join(dir, "stillframe.yaml")
	text := fmt.Sprintf(`vcenters:
  - {name: near, url: "https://near.example/sdk", username: u, password: "env:P"}
  - {name: far, url: "https://far.example/sdk", username: u, password: "env:P"}
guests: {defaults: {username: u, password: "env:P"}}
jobs:
  - {name: daily, select: {names: ["*"]}, schedule: {cron: "%d %d * * *", zone: UTC}}
`, tick.Minute(), tick.Hour())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, problems := config.Load(file)
	if conf == nil {
		t.Fatal(problems)
	}
	s := &site{t: t, estate: map[string]func(context.Context) (inventory.Estate, error){}}
	s.run = func(_ context.Context, o Order) (backup.Result, error) { return done(o), nil }
	s.has("near", "a")
	s.has("far", "b")
	var err error
	if s.store, err = store.Open(t.Context(), store.Options{Dir: filepath.Join(dir, "state"), Log: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	queue, err := engine.New(t.Context(), s.store, engine.Options{
		Undo: func(ctx context.Context, d catalog.Delivery) error { return s.Undo(ctx, d) }, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	known := catalog.New(s.store, journal.New(s.store), queue, nil)
	s.Daemon = New(Options{Catalog: known, Queue: queue, VCenters: s, Config: conf, Observer: s, Log: zap.NewNop()})
	if err := s.Apply(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Serve(serving); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		group.Wait()
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// due lets the tick come that the job's making left behind.
func (s *site) due() {
	s.t.Helper()
	err := s.store.Update(s.t.Context(), "let the job be due", func(tx store.Tx) error {
		_, err := tx.Exec(s.t.Context(), "UPDATE jobs SET next_run_at = 1, updated_at = $1", store.Millis(time.Now().Add(-10*time.Minute)))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// vms are those whose runs are in a state.
func (s *site) vms(state catalog.State) []string {
	s.t.Helper()
	runs, err := s.Catalog.Runs(s.t.Context(), catalog.RunFilter{State: state})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, r := range runs {
		vm, err := s.Catalog.VM(s.t.Context(), r.VMID)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, vm.Name)
	}
	slices.Sort(all)
	return all
}

func (s *site) until(what string, seen func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(3 * time.Minute); !seen(); {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("waited 3 minutes for %s", what)
		}
	}
}

func (s *site) owed() int {
	s.t.Helper()
	all, _, err := s.Catalog.Owed(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// TestTickAway: a vCenter that does not answer delays nobody else, whether it hangs or refuses, and its VMs come when it does.
func TestTickAway(t *testing.T) {
	for name, away := range map[string]func(context.Context) (inventory.Estate, error){
		"silent": func(ctx context.Context) (inventory.Estate, error) {
			<-ctx.Done()
			return inventory.Estate{}, ctx.Err()
		},
		"refusing": func(context.Context) (inventory.Estate, error) { return inventory.Estate{}, errors.New("down") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			back := make(chan struct{})
			s.answers("far", func(ctx context.Context) (inventory.Estate, error) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				go func() {
					select {
					case <-back:
						cancel()
					case <-ctx.Done():
					}
				}()
				return away(ctx)
			})
			s.due()
			s.until("the VM of the vCenter that answers", func() bool { return slices.Equal(s.vms(catalog.Done), []string{"a"}) })
			if n := s.owed(); n != 1 {
				t.Errorf("%d vCenters owe VMs, want 1", n)
			}
			s.has("far", "b")
			close(back)
			s.until("the VM of the other", func() bool { return slices.Equal(s.vms(catalog.Done), []string{"a", "b"}) })
			if n := s.owed(); n != 0 {
				t.Errorf("%d vCenters owe VMs, want none", n)
			}
		})
	}
}

// TestVanished: what a run left on a VM that is gone is nothing any more, and the run has failed.
func TestVanished(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	forgot := make(chan bool, 10)
	s.undo = func(o Order, open []statefile.Intent) backup.Recovery {
		r := backup.NewRecovery(open, false)
		forgot <- o.Forget
		for n := range r.Things {
			if r.Things[n].State = backup.Forgotten; !o.Forget {
				r.Things[n].State, r.Things[n].Code, r.Things[n].Text = backup.Open, "SF2009", "not found"
			}
		}
		if !o.Forget {
			r.Leave(nil)
		} else if err := o.Memory.Settle(t.Context(), open...); err != nil {
			t.Error(err)
		}
		return r
	}
	s.run = func(ctx context.Context, o Order) (backup.Result, error) {
		i := statefile.Intent{Kind: statefile.Snapshot, Subject: o.Plan.SnapshotName(), Run: o.Plan.RunID, Epoch: o.Plan.Epoch, VM: o.Plan.VM}
		if err := o.Memory.Intend(ctx, i); err != nil {
			return backup.Result{}, err
		}
		r := done(o)
		r.Outcome, r.Leftovers = backup.Failed, []string{"a snapshot"}
		return r, errors.New("it stayed")
	}
	s.due()
	s.until("the end of both", func() bool { return len(s.vms(catalog.Failed)) == 2 })
	runs, err := s.Catalog.Runs(t.Context(), catalog.RunFilter{State: catalog.Failed})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if r.ErrorCode != "SF2009" || r.Cause != "vm_gone" {
			t.Errorf("the run failed by %s (%s), want SF2009", r.ErrorCode, r.Cause)
		}
	}
	lost, err := s.Catalog.Snapshots(t.Context(), catalog.SnapshotFilter{})
	if err != nil || len(lost) != 2 || lost[0].State != catalog.Lost {
		t.Errorf("the ledger has %+v, %v, want two lost ones", lost, err)
	}
	if first := <-forgot; first {
		t.Error("what was left was forgotten before it was looked for")
	}
}

// A session with writers whose run ends without a word of it stays in the ledger as one that may be open.
func TestSessionOfALostRun(t *testing.T) {
	s := newSite(t)
	s.undo = func(Order, []statefile.Intent) backup.Recovery { return backup.Recovery{} }
	s.run = func(ctx context.Context, o Order) (backup.Result, error) {
		if err := o.Sessions.Opening(ctx, "boot-1", "session of "+o.Plan.RunID, "set"); err != nil {
			t.Error(err)
		}
		r := done(o)
		r.Guest.BootID = "boot-1"
		return r, nil
	}
	s.due()
	s.until("the end of both", func() bool { return len(s.vms(catalog.Done)) == 2 })
	open, err := s.Catalog.OpenSessions(t.Context(), "")
	if err != nil || len(open) != 2 {
		t.Fatalf("OpenSessions = %+v, %v, want one of each run", open, err)
	}
	for _, one := range open {
		if one.Session != "session of "+one.RunID || one.BootID != "boot-1" || one.SetID != "set" || one.State != catalog.SessionOpen || one.Opened.IsZero() {
			t.Errorf("the ledger has %+v, want it open since its run", one)
		}
	}
}

// A daemon that ends knows of the sessions with writers of runs that it ended how they ended.
func TestDrainHearsOfSessions(t *testing.T) {
	s := newSite(t)
	began := make(chan struct{}, 2)
	s.run = func(ctx context.Context, o Order) (backup.Result, error) {
		if err := o.Sessions.Opening(ctx, "boot-1", "session of "+o.Plan.RunID, ""); err != nil {
			t.Error(err)
		}
		began <- struct{}{}
		<-ctx.Done()
		r := done(o)
		r.Outcome, r.Guest.BootID = backup.Aborted, "boot-1"
		r.Guest.Session = &backup.WriterSession{ID: "session of " + o.Plan.RunID, State: backup.SessionClosed}
		return r, context.Cause(ctx)
	}
	s.due()
	<-began
	<-began
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain = %v, want it over", err)
	}
	s.until("both runs to be put back", func() bool { return len(s.vms(catalog.Queued)) == 2 })
	if open, err := s.Catalog.OpenSessions(t.Context(), ""); err != nil || len(open) != 0 {
		t.Errorf("OpenSessions = %+v, %v, want none: the guests said that they are closed", open, err)
	}
}

// A daemon that ends begins no run that had waited for others to be queued.
func TestDrainBeginsNothing(t *testing.T) {
	s := newSite(t)
	defer s.queueing()()
	s.run = func(_ context.Context, o Order) (backup.Result, error) {
		t.Error("a run began")
		return done(o), nil
	}
	s.due()
	s.until("both runs to be delivered", func() bool { return s.delivered() == 2 })
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.vms(catalog.Queued); len(got) != 2 {
		t.Errorf("queued are the runs of %v, want both", got)
	}
}

// delivered is how many runs are with those who work on them.
func (s *site) delivered() (n int) {
	s.t.Helper()
	err := s.store.View(s.t.Context(), "count deliveries", func(tx store.Tx) error {
		return tx.One(s.t.Context(), []any{&n}, "SELECT count(*) FROM river_job WHERE state = 'running'")
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// A run that is delivered while others are being queued begins when they are, but waits for no more than queueLimit.
func TestRunsWaitForTheQueue(t *testing.T) {
	waits := func(d *Daemon, ctx context.Context) time.Duration {
		begin := time.Now()
		d.allQueued(ctx)
		return time.Since(begin)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &Daemon{drained: make(chan struct{})}
		if got := waits(d, t.Context()); got != 0 {
			t.Errorf("nothing is being queued, and a run waits for %v", got)
		}
		one, two := d.queueing(), d.queueing()
		time.AfterFunc(2*time.Second, one)
		time.AfterFunc(5*time.Second, two)
		if got := waits(d, t.Context()); got != 5*time.Second {
			t.Errorf("a run waits for %v, want 5s, until both vCenters' runs are queued", got)
		}
		never := d.queueing()
		if got := waits(d, t.Context()); got != queueLimit {
			t.Errorf("a run waits for %v, want no more than %v", got, queueLimit)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := waits(d, ctx); got != time.Second {
			t.Errorf("a run that is ended waits for %v, want 1s", got)
		}
		never()
		if got := waits(d, t.Context()); got != 0 {
			t.Errorf("all is queued, and a run waits for %v", got)
		}
	})
}
