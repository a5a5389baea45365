package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

const snapshotName = "stillframe-test-1"

// slowTasks makes each snapshot task take that long. TaskDelay is one for the whole process: no parallel tests.
func slowTasks(t *testing.T, d time.Duration) {
	t.Helper()
	simulator.TaskDelay.MethodDelay = map[string]int{
		"CreateSnapshotEx": int(d.Milliseconds()), "LockHandoff": 0,
	}
	t.Cleanup(func() { simulator.TaskDelay.MethodDelay = nil })
}

type scene struct {
	*world
	e  *Endpoint
	s  *Snapshotter
	vm inventory.VM
}

func newScene(t *testing.T, change func(*simulator.Model)) *scene {
	t.Helper()
	w := newWorld(t, change)
	e := w.open()
	vm, err := e.Find(t.Context(), "DC0_H0_VM0")
	if err != nil {
		t.Fatal(err)
	}
	return &scene{world: w, e: e, s: NewSnapshotter(e), vm: vm}
}

func (s *scene) prepare() *Prepared {
	s.t.Helper()
	p, err := s.s.Prepare(s.t.Context(), s.vm, snapshotName, "of a test")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	return p
}

// wantSnapshots compares the names of the VM's snapshots in the simulator.
func (s *scene) wantSnapshots(want ...string) {
	s.t.Helper()
	all, err := s.s.FindSnapshots(s.t.Context(), s.vm, "")
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, snap := range all {
		got = append(got, snap.Name)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("snapshots %q, want %q", got, want)
	}
}

func (s *scene) setConsolidation(needed bool) {
	vm := vmOf(s.t, s.model, s.vm.Name)
	ctx := s.model.Service.Context
	ctx.WithLock(vm.Self, func() {
		ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: needed}})
	})
}

// TestCreateByPush: between accepted and the end of the window there is one create call, one filter, the long poll's own
// answers, no read of the task and no login.
func TestCreateByPush(t *testing.T) {
	slowTasks(t, 300*time.Millisecond)
	s := newScene(t, nil)
	p := s.prepare()
	prepared := s.take()
	if n := len(slices.DeleteFunc(prepared, func(m string) bool { return m != "WaitForUpdatesEx" })); n < 2 {
		t.Errorf("%d long polls before the window, want the first answer and one in flight", n)
	}
	var tasks []string
	snap, timing, err := p.Create(t.Context(), func(task string) { tasks = append(tasks, task) })
	if err != nil {
		t.Fatal(err)
	}
	calls := s.take()
	if got, want := without(calls, "WaitForUpdatesEx"), []string{"CreateSnapshotEx_Task", "CreateFilter"}; !slices.Equal(got, want) {
		t.Errorf("calls in the window %v, want %v besides the long poll", got, want)
	}
	if n := len(calls) - 2; n > 3 {
		t.Errorf("%d answers of the long poll in the window, want at most 3", n)
	}
	if len(tasks) != 1 || tasks[0] == "" {
		t.Errorf("accepted was called with %q, want one task", tasks)
	}
	if snap.Name != snapshotName || snap.Moref == "" || snap.VM != s.vm.Moref {
		t.Errorf("snapshot %+v", snap)
	}
	if timing.Sent.IsZero() || timing.Accepted.Before(timing.Sent) || timing.PushSeen.Before(timing.Accepted) {
		t.Errorf("timing out of order: %+v", timing)
	}
	if timing.Task() < 290*time.Millisecond || timing.Started.IsZero() {
		t.Errorf("task time %v of %+v, want about 300 ms", timing.Task(), timing)
	}
	if late := timing.PushSeen.Sub(timing.Accepted); late > 900*time.Millisecond {
		t.Errorf("the end was learnt %v after acceptance: by a read, not by the push", late)
	}
	s.wantSnapshots(snapshotName)
	if _, _, err := p.Create(t.Context(), nil); !errors.Is(err, errSpent) {
		t.Errorf("second Create gave %v, want %v", err, errSpent)
	}
}

// TestCreateBesideMany: however many snapshots are prepared, each with a long poll in flight, the call of one waits for no
// connection: its guest is frozen.
func TestCreateBesideMany(t *testing.T) {
	s := newScene(t, nil)
	for range 70 {
		s.prepare()
	}
	if _, _, err := s.prepare().Create(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestCreateByRead: without a filter there is no push; reading the task finds its end.
func TestCreateByRead(t *testing.T) {
	s := newScene(t, nil)
	s.refuse("CreateFilter", nil)
	p := s.prepare()
	s.refuse("CreateFilter", &types.InvalidState{})
	_, timing, err := p.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if timing.PushSeen.IsZero() || timing.Task() <= 0 {
		t.Errorf("timing %+v, want the task's times from the read", timing)
	}
	s.wantSnapshots(snapshotName)
}

func TestCreateRefused(t *testing.T) {
	for _, c := range []struct {
		fault types.BaseMethodFault
		code  string
	}{
		{&types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-7"}}, "SF2201"},
		{&types.NoPermission{PrivilegeId: "VirtualMachine.State.CreateSnapshot"}, "SF2101"},
		{&types.MethodDisabled{Source: "other"}, "SF2203"},
		{&types.SnapshotFault{VimFault: types.VimFault{MethodFault: types.MethodFault{FaultCause: &types.LocalizedMethodFault{
			Fault: &types.NoDiskSpace{},
		}}}}, "SF2206"},
	} {
		t.Run(c.code, func(t *testing.T) {
			s := newScene(t, nil)
			p := s.prepare()
			s.refuse("CreateSnapshotEx_Task", c.fault)
			_, _, err := p.Create(t.Context(), func(string) { t.Error("accepted was called") })
			wantCode(t, err, c.code)
			wantUnknown(t, err, false)
			s.wantSnapshots()
		})
	}
}

func wantUnknown(t *testing.T, err error, want bool) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.OutcomeUnknown() != want {
		t.Errorf("error %v: outcome unknown is not %v", err, want)
	}
}

// TestTaskFails ends an accepted task with a fault.
func TestTaskFails(t *testing.T) {
	for _, c := range []struct {
		fault   types.BaseMethodFault
		code    string
		unknown bool
	}{
		{&types.TooManySnapshotLevels{}, "SF2202", false},
		{&types.FileLocked{}, "SF2301", false},
		{&types.GenericVmConfigFault{Reason: "?"}, "SF2210", false},
		{&types.Timedout{}, "SF2207", true},
		{&types.HostNotReachable{}, "SF2004", true},
	} {
		t.Run(fmt.Sprintf("%T", c.fault), func(t *testing.T) {
			slowTasks(t, 500*time.Millisecond)
			s := newScene(t, nil)
			other := s.open()
			p := s.prepare()
			var task types.ManagedObjectReference
			_, timing, err := p.Create(t.Context(), func(moref string) {
				task = types.ManagedObjectReference{Type: "Task", Value: moref}
				_, err := methods.SetTaskState(t.Context(), other.vim, &types.SetTaskState{
					This: task, State: types.TaskInfoStateError, Fault: &types.LocalizedMethodFault{Fault: c.fault, LocalizedMessage: "Ein Fehler"},
				})
				if err != nil {
					t.Error(err)
				}
			})
			wantCode(t, err, c.code)
			wantUnknown(t, err, c.unknown)
			if timing.Accepted.IsZero() || timing.PushSeen.IsZero() {
				t.Errorf("timing %+v, want accepted and its end", timing)
			}
			awaitSnapshots(t, s) // the simulator's task still runs
		})
	}
}

// awaitSnapshots waits until the simulator has made its snapshot.
func awaitSnapshots(t *testing.T, s *scene) {
	t.Helper()
	for range 200 {
		all, err := s.s.FindSnapshots(t.Context(), s.vm, snapshotName)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 {
			return
		}
		pause(t.Context(), 10*time.Millisecond)
	}
	t.Fatal("no snapshot appeared")
}

// TestLostAnswer: vCenter takes the create call, its answer is lost. Nothing is asked twice; the outcome is unknown, the
// snapshot found by name.
func TestLostAnswer(t *testing.T) {
	s := newScene(t, nil)
	p := s.prepare()
	s.setSpoil(func(method string, _ http.ResponseWriter, serve func(http.ResponseWriter)) bool {
		if method != "CreateSnapshotEx_Task" {
			return false
		}
		serve(httptest.NewRecorder())
		panic(http.ErrAbortHandler)
	})
	_, timing, err := p.Create(t.Context(), nil)
	wantCode(t, err, "SF2207")
	wantUnknown(t, err, true)
	if timing.Sent.IsZero() || !timing.Accepted.IsZero() {
		t.Errorf("timing %+v, want sent but not accepted", timing)
	}
	if n := s.count("CreateSnapshotEx_Task"); n != 1 {
		t.Errorf("%d create calls, want 1", n)
	}
	awaitSnapshots(t, s)
}

// TestCancelWhileTaskRuns: the caller gives up, the outcome is unknown, the snapshot comes late.
func TestCancelWhileTaskRuns(t *testing.T) {
	slowTasks(t, 400*time.Millisecond)
	s := newScene(t, nil)
	p := s.prepare()
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := p.Create(ctx, func(string) { cancel() })
	wantUnknown(t, err, true)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled inside", err)
	}
	awaitSnapshots(t, s)
}

// TestSessionEndsBeforeCreate: nothing was made, no login inside the window, the next Prepare logs in.
func TestSessionEndsBeforeCreate(t *testing.T) {
	s := newScene(t, nil)
	s.shortPolls = true
	p := s.prepare()
	endSession(t, s.world, s.e)
	s.take()
	_, _, err := p.Create(t.Context(), nil)
	wantCode(t, err, "SF2002")
	wantUnknown(t, err, false)
	if n := s.count("Login"); n != 0 {
		t.Errorf("%d logins in the window, want 0", n)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := s.prepare().Create(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestSessionEndsWhileTaskRuns: the collector is gone; the read logs in again and finds the end.
func TestSessionEndsWhileTaskRuns(t *testing.T) {
	slowTasks(t, 600*time.Millisecond)
	s := newScene(t, nil)
	s.shortPolls = true
	p := s.prepare()
	if _, _, err := p.Create(t.Context(), func(string) { endSession(t, s.world, s.e) }); err != nil {
		t.Error(err)
	}
	s.wantSnapshots(snapshotName)
}

func TestOldAPI(t *testing.T) {
	s := newScene(t, func(m *simulator.Model) {
		m.Map().Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content.About.ApiVersion = "6.0"
	})
	p := s.prepare()
	s.take()
	if _, _, err := p.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if s.count("CreateSnapshot_Task") != 1 || s.count("CreateSnapshotEx_Task") != 0 {
		t.Errorf("calls %v, want CreateSnapshot_Task", s.take())
	}
	for version, want := range map[string]bool{"6.0": true, "5.5": true, "6.5": false, "6.7.3": false, "8.0.3.0": false, "": false} {
		if got := before65(version); got != want {
			t.Errorf("before65(%q) = %v, want %v", version, got, want)
		}
	}
}

func TestRemove(t *testing.T) {
	s := newScene(t, nil)
	snap, _, err := s.prepare().Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign := snap
	foreign.Name = "before-update"
	if _, err := s.s.Remove(t.Context(), foreign); !errors.Is(err, errNotOurs) {
		t.Errorf("Remove of a foreign name gave %v, want %v", err, errNotOurs)
	}
	foreign.Name = "stillframe-other"
	if _, err := s.s.Remove(t.Context(), foreign); !errors.Is(err, errNotOurs) {
		t.Errorf("Remove of a moref with another name gave %v, want %v", err, errNotOurs)
	}
	s.wantSnapshots(snapshotName)
	for _, gone := range []bool{false, true} {
		res, err := s.s.Remove(t.Context(), snap)
		if err != nil || res.Gone != gone || res.ConsolidationNeeded || res.ConsolidationErr != nil {
			t.Errorf("Remove = %+v, %v, want gone %v", res, err, gone)
		}
	}
	s.wantSnapshots()
	if n := s.count("RemoveSnapshot_Task"); n != 1 {
		t.Errorf("%d removals, want 1", n)
	}
	if n := s.count("RemoveAllSnapshots_Task"); n != 0 {
		t.Errorf("%d removals of everything, want 0", n)
	}
}

func TestRemoveBusyThenConsolidate(t *testing.T) {
	s := newScene(t, nil)
	snap, _, err := s.prepare().Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	busy := 1
	s.model.Service.Context.Map.Handler = func(_ *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		mu.Lock()
		defer mu.Unlock()
		if m.Name == "RemoveSnapshot_Task" && busy > 0 {
			busy--
			return nil, &types.TaskInProgress{}
		}
		return nil, nil
	}
	s.setConsolidation(true)
	res, err := s.s.Remove(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	if !res.ConsolidationNeeded {
		t.Errorf("result %+v, want consolidation needed", res)
	}
	wantCode(t, res.ConsolidationErr, "SF2007") // the simulator has no ConsolidateVMDisks_Task
	if n := s.count("ConsolidateVMDisks_Task"); n != 1 {
		t.Errorf("%d consolidations of a server without it, want 1", n)
	}
	s.wantSnapshots()
}

func TestPrepareForeignName(t *testing.T) {
	s := newScene(t, nil)
	if _, err := s.s.Prepare(t.Context(), s.vm, "nightly", ""); !errors.Is(err, errNotOurs) {
		t.Errorf("Prepare gave %v, want %v", err, errNotOurs)
	}
}

// TestWatchersLeaveNothing: each window's collector goes with its watcher.
func TestWatchersLeaveNothing(t *testing.T) {
	s := newScene(t, nil)
	for range 3 {
		p := s.prepare()
		for range 2 {
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if a, b := s.count("CreatePropertyCollector"), s.count("DestroyPropertyCollector"); a != 3 || b != 3 {
		t.Errorf("%d collectors made, %d destroyed, want 3 of each", a, b)
	}
}

// TestConsolidate merges the disks of a VM that needs it; one that does not is left alone.
func TestConsolidate(t *testing.T) {
	sim := startLab(t, vcenter.Options{VMs: []vcenter.VM{{Name: "needs", Conditions: []string{"consolidation_needed"}}, {Name: "fine"}}})
	e := labEndpoint(t, sim.URL(), sim.Thumbprint())
	for _, name := range []string{"needs", "fine"} {
		vm, err := e.Find(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if needed, err := NewSnapshotter(e).Consolidate(t.Context(), vm); err != nil || needed {
			t.Errorf("Consolidate of %s = %v, %v, want it merged", name, needed, err)
		}
	}
	if n := calls(sim)["ConsolidateVMDisks_Task"]; n != 1 {
		t.Errorf("%d consolidations, want 1", n)
	}
}
