package vcenter_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	user     = "backup@vsphere.local"
	password = "correct horse"
)

// start runs a server for the test.
func start(t *testing.T, o vcenter.Options) *vcenter.Server {
	t.Helper()
	o.User, o.Password = user, password
	s, err := vcenter.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// stock is a stock govmomi client that trusts the server's own root only.
func stock(t *testing.T, s *vcenter.Server, login *url.Userinfo) (*govmomi.Client, error) {
	t.Helper()
	ca, err := s.CAFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(s.URL(), false)
	if err := sc.SetRootCAs(ca); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sc.CloseIdleConnections)
	vc, err := vim25.NewClient(t.Context(), sc)
	if err != nil {
		return nil, err
	}
	c := &govmomi.Client{Client: vc, SessionManager: session.NewManager(vc)}
	return c, c.Login(t.Context(), login)
}

func connect(t *testing.T, s *vcenter.Server) *govmomi.Client {
	t.Helper()
	c, err := stock(t, s, url.UserPassword(user, password))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// machine finds a VM by its inventory path with the stock finder.
func machine(t *testing.T, c *govmomi.Client, path string) *object.VirtualMachine {
	t.Helper()
	vm, err := find.NewFinder(c.Client).VirtualMachine(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// eventually waits up to 5 s.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited 5 s for: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func count(calls []vcenter.Call, method string) int {
	n := 0
	for _, c := range calls {
		if c.Method == method {
			n++
		}
	}
	return n
}

func TestLogin(t *testing.T) {
	s := start(t, vcenter.Options{About: "8.0.2"})
	_, err := stock(t, s, url.UserPassword(user, "wrong"))
	if !fault.Is(err, &types.InvalidLogin{}) {
		t.Fatalf("login with a wrong password = %v, want InvalidLogin", err)
	}
	c := connect(t, s)
	if got := c.ServiceContent.About; got.Version != "8.0.2" || got.ApiVersion != "8.0.2.0" {
		t.Errorf("about = %q, api %q, want 8.0.2, 8.0.2.0", got.Version, got.ApiVersion)
	}
	if n := count(s.Calls(), "Login"); n != 2 {
		t.Errorf("logins recorded = %d, want 2", n)
	}
	sc := soap.NewClient(s.URL(), false)
	defer sc.CloseIdleConnections()
	if _, err := vim25.NewClient(t.Context(), sc); !soap.IsCertificateUntrusted(errors.Unwrap(err)) && !soap.IsCertificateUntrusted(err) {
		t.Errorf("client without the root = %v, want an untrusted certificate", err)
	}
	pinned := soap.NewClient(s.URL(), false)
	defer pinned.CloseIdleConnections()
	pinned.SetThumbprint(s.URL().Host, s.Thumbprint())
	if _, err := vim25.NewClient(t.Context(), pinned); err != nil {
		t.Errorf("client with the thumbprint: %v", err)
	}
}

func TestInventory(t *testing.T) {
	began := time.Now()
	s := start(t, vcenter.Options{VMs: []vcenter.VM{
		{Name: "db", Folder: "prod/sql", InstanceUUID: "50170000-0000-4000-8000-000000000001", UUID: "42170000-0000-4000-8000-000000000001", Address: "127.70.1.2"},
		{Name: "db", Folder: "test", GuestFamily: "windowsGuest", ToolsAbsent: true},
		{Name: "off", PowerState: "poweredOff"},
	}})
	t.Logf("started in %v", time.Since(began))
	c := connect(t, s)
	for _, want := range []struct {
		path, power, tools, family, address string
		ready                               bool
	}{
		{"/DC0/vm/prod/sql/db", "poweredOn", "guestToolsRunning", "linuxGuest", "127.70.1.2", true},
		{"/DC0/vm/test/db", "poweredOn", "guestToolsNotRunning", "", "", false},
		{"/DC0/vm/off", "poweredOff", "guestToolsNotRunning", "", "", false},
	} {
		var vm mo.VirtualMachine
		got := machine(t, c, want.path)
		if err := got.Properties(t.Context(), got.Reference(), []string{"config", "runtime", "guest"}, &vm); err != nil {
			t.Fatal(err)
		}
		if string(vm.Runtime.PowerState) != want.power || vm.Guest.ToolsRunningStatus != want.tools ||
			vm.Guest.GuestFamily != want.family || vm.Guest.IpAddress != want.address || *vm.Guest.GuestOperationsReady != want.ready {
			t.Errorf("%s = %s %+v, want %+v", want.path, vm.Runtime.PowerState, vm.Guest, want)
		}
		if want.address != "" && (len(vm.Guest.Net) != 1 || !slices.Equal(vm.Guest.Net[0].IpAddress, []string{want.address})) {
			t.Errorf("%s: guest.net = %+v", want.path, vm.Guest.Net)
		}
	}
	if machine(t, c, "/DC0/vm/prod/sql/db").Reference() == machine(t, c, "/DC0/vm/test/db").Reference() {
		t.Error("the two VMs called db are one")
	}
	if got := s.Moref("prod/sql/db"); got != machine(t, c, "/DC0/vm/prod/sql/db").Reference().Value {
		t.Errorf("moref of prod/sql/db = %q", got)
	}
	ref, err := object.NewSearchIndex(c.Client).FindByUuid(t.Context(), nil, "50170000-0000-4000-8000-000000000001", true, types.NewBool(true))
	if err != nil || ref == nil || ref.Reference().Value != s.Moref("prod/sql/db") {
		t.Errorf("find by instance UUID = %v, %v", ref, err)
	}
}

func TestRoundTripTime(t *testing.T) {
	const rtt = 60 * time.Millisecond
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	s.SetRTT(rtt)
	s.TakeCalls()
	began := time.Now()
	ctx := context.WithValue(t.Context(), types.ID{}, "op-7")
	for range 3 {
		if _, err := methods.GetCurrentTime(ctx, c.Client); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 3*rtt {
		t.Errorf("three calls took %v, want at least %v", took, 3*rtt)
	}
	calls := s.TakeCalls()
	if len(calls) != 3 || len(s.Calls()) != 0 {
		t.Fatalf("calls = %d, then %d, want 3, then 0", len(calls), len(s.Calls()))
	}
	for _, call := range calls {
		if call.Method != "CurrentTime" || call.Object != "ServiceInstance" || call.Status != 200 || call.OpID != "op-7" ||
			call.End.Sub(call.Start) < rtt {
			t.Errorf("call = %+v", call)
		}
	}
}

// recorded is a disk store that remembers.
type recorded struct {
	mu     sync.Mutex
	events []string
	err    error
}

func (r *recorded) note(what string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, what)
	return r.err
}

func (r *recorded) Cut(_ context.Context, vm, snapshot string) error {
	return r.note("cut " + vm + " " + snapshot)
}

func (r *recorded) Drop(_ context.Context, vm, snapshot string) error {
	return r.note("drop " + vm + " " + snapshot)
}

func TestSnapshot(t *testing.T) {
	disks := &recorded{}
	plan := vcenter.TaskPlan{Queue: 20 * time.Millisecond, Run: 120 * time.Millisecond}
	s := start(t, vcenter.Options{Disks: disks, VMs: []vcenter.VM{{Name: "a", Create: plan, Remove: plan}}})
	s.OnTask(func(vm, method, stage string) {
		if err := disks.note(vm + " " + method + " " + stage); err != nil {
			t.Error(err)
		}
	})
	c := connect(t, s)
	vm := machine(t, c, "a")
	task, err := vm.CreateSnapshot(t.Context(), "one", "text", false, false)
	if err != nil {
		t.Fatal(err)
	}
	info, err := task.WaitForResult(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if queued, ran := info.StartTime.Sub(info.QueueTime), info.CompleteTime.Sub(*info.StartTime); queued < plan.Queue || ran < plan.Run {
		t.Errorf("queued %v, ran %v, want at least %v, %v", queued, ran, plan.Queue, plan.Run)
	}
	var tree mo.VirtualMachine
	if err := vm.Properties(t.Context(), vm.Reference(), []string{"snapshot", "recentTask"}, &tree); err != nil {
		t.Fatal(err)
	}
	one := tree.Snapshot.RootSnapshotList[0]
	if one.Name != "one" || one.Description != "text" || one.Quiesced || info.Result != one.Snapshot {
		t.Errorf("snapshot = %+v, task's result %v", one, info.Result)
	}
	// The simulator's own creation task also made the VM; only ours of the snapshot may be there.
	if got := tree.RecentTask[len(tree.RecentTask)-1]; got != task.Reference() || slices.Index(tree.RecentTask, got) != len(tree.RecentTask)-1 {
		t.Errorf("recent tasks = %v, want ours %v last", tree.RecentTask, task.Reference())
	}
	task, err = vm.CreateSnapshotEx(t.Context(), "two", "", true, &types.VirtualMachineGuestQuiesceSpec{Timeout: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.SnapshotNames("a"); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("snapshots = %q, want one, two", got)
	}
	removed, err := methods.RemoveSnapshot_Task(t.Context(), c.Client, &types.RemoveSnapshot_Task{
		This: one.Snapshot, Consolidate: types.NewBool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := object.NewTask(c.Client, removed.Returnval).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.SnapshotNames("a"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("snapshots = %q, want two", got)
	}
	want := []string{
		"a CreateSnapshot_Task queued", "a CreateSnapshot_Task running", "a CreateSnapshot_Task cut", "cut a one", "a CreateSnapshot_Task done",
		"a CreateSnapshotEx_Task queued", "a CreateSnapshotEx_Task running", "a CreateSnapshotEx_Task cut", "cut a two", "a CreateSnapshotEx_Task done",
		"a RemoveSnapshot_Task queued", "a RemoveSnapshot_Task running", "a RemoveSnapshot_Task cut", "drop a one", "a RemoveSnapshot_Task done",
	}
	eventually(t, "last hook", func() bool { disks.mu.Lock(); defer disks.mu.Unlock(); return len(disks.events) == len(want) })
	if !slices.Equal(disks.events, want) {
		t.Errorf("events = %q, want %q", disks.events, want)
	}
	checkAsked(t, s.Calls())
	if _, err := methods.RemoveSnapshot_Task(t.Context(), c.Client, &types.RemoveSnapshot_Task{This: one.Snapshot}); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("remove a snapshot that has gone = %v, want ManagedObjectNotFound", err)
	}
}

// checkAsked wants quiesce and memory recorded for the second create only.
func checkAsked(t *testing.T, calls []vcenter.Call) {
	t.Helper()
	for _, call := range calls {
		second := call.Method == "CreateSnapshotEx_Task"
		if call.Quiesce != second || call.Memory != second {
			t.Errorf("%s recorded quiesce %v, memory %v", call.Method, call.Quiesce, call.Memory)
		}
		if (second || call.Method == "CreateSnapshot_Task" || call.Method == "RemoveSnapshot_Task") && call.VM != "a" {
			t.Errorf("%s recorded VM %q, want a", call.Method, call.VM)
		}
	}
}

// TestSetClock steps vCenter's clock while a task runs: stamps before the step stay, those after it and CurrentTime go by it.
func TestSetClock(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a", Create: vcenter.TaskPlan{Run: 50 * time.Millisecond}}}})
	s.OnTask(func(_, _, stage string) {
		if stage == "running" {
			s.SetClock(-time.Hour)
		}
	})
	c := connect(t, s)
	began := time.Now()
	task, err := machine(t, c, "a").CreateSnapshot(t.Context(), "one", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	info, err := task.WaitForResult(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, at, want time.Time) {
		if d := at.Sub(want).Abs(); d > time.Minute {
			t.Errorf("%s = %v, want about %v", what, at, want)
		}
	}
	near("queueTime", info.QueueTime, began)
	near("startTime", *info.StartTime, began)
	near("completeTime", *info.CompleteTime, began.Add(-time.Hour))
	now, err := methods.GetCurrentTime(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	near("CurrentTime", *now, began.Add(-time.Hour))
}

func TestReadsDoNotWaitForATask(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a", Create: vcenter.TaskPlan{Run: time.Minute}}}})
	c := connect(t, s)
	vm := machine(t, c, "a")
	task, err := vm.CreateSnapshot(t.Context(), "slow", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "task to run", func() bool {
		var got mo.Task
		began := time.Now()
		if err := task.Properties(t.Context(), task.Reference(), []string{"info"}, &got); err != nil {
			t.Fatal(err)
		}
		var props mo.VirtualMachine
		if err := vm.Properties(t.Context(), vm.Reference(), []string{"name", "runtime", "snapshot", "guest"}, &props); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("two reads took %v while a task runs", took)
		}
		return got.Info.State == types.TaskInfoStateRunning
	})
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("close with a running task = %v after %v", err, time.Since(began))
	}
}

func TestTaskFaults(t *testing.T) {
	disks := &recorded{}
	s := start(t, vcenter.Options{Disks: disks, VMs: []vcenter.VM{{
		Name: "a", Create: vcenter.TaskPlan{Fault: "TaskInProgress", FaultCount: 1}, Remove: vcenter.TaskPlan{Fault: "FileLocked", NeedsConsolidation: true, FaultCount: 1},
	}}})
	c := connect(t, s)
	vm := machine(t, c, "a")
	create := func(name string) error {
		task, err := vm.CreateSnapshot(t.Context(), name, "", false, false)
		if err != nil {
			return err
		}
		return task.Wait(t.Context())
	}
	if err := create("one"); !fault.Is(err, &types.TaskInProgress{}) {
		t.Errorf("planned task fault = %v, want TaskInProgress", err)
	}
	if got := s.SnapshotNames("a"); got != nil {
		t.Errorf("snapshots after a fault = %q", got)
	}
	disks.err = errors.New("no space in the lab")
	if err := create("one"); !fault.Is(err, &types.GenericVmConfigFault{}) || s.SnapshotNames("a") != nil {
		t.Errorf("create with failing disks = %v, snapshots %q", err, s.SnapshotNames("a"))
	}
	disks.err = nil
	if err := s.Plan(vcenter.Rule{Method: "CreateSnapshot_Task", VM: "a", Action: vcenter.Fault, Fault: "SnapshotDisabled", Skip: 0, Count: 1}); err != nil {
		t.Fatal(err)
	}
	s.TakeCalls()
	if _, err := vm.CreateSnapshot(t.Context(), "one", "", false, false); !fault.Is(err, &types.SnapshotDisabled{}) {
		t.Errorf("planned call fault = %v, want SnapshotDisabled", err)
	}
	if got := s.TakeCalls(); len(got) != 1 || got[0].Fault != "SnapshotDisabled" || got[0].Status != 500 {
		t.Errorf("recorded = %+v", got)
	}
	if err := create("one"); err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		task, err := vm.RemoveSnapshot(t.Context(), "one", false, types.NewBool(true))
		if err != nil {
			return err
		}
		return task.Wait(t.Context())
	}
	if err := remove(); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("planned removal fault = %v, want FileLocked", err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	consolidation(t, vm)
}

// consolidation wants runtime.consolidationNeeded until the consolidation task has run.
func consolidation(t *testing.T, vm *object.VirtualMachine) {
	t.Helper()
	for _, want := range []bool{true, false} {
		var props mo.VirtualMachine
		if err := vm.Properties(t.Context(), vm.Reference(), []string{"runtime.consolidationNeeded"}, &props); err != nil {
			t.Fatal(err)
		}
		if props.Runtime.ConsolidationNeeded != want {
			t.Errorf("consolidationNeeded = %v, want %v", !want, want)
		}
		res, err := methods.ConsolidateVMDisks_Task(t.Context(), vm.Client(), &types.ConsolidateVMDisks_Task{This: vm.Reference()})
		if err != nil {
			t.Fatal(err)
		}
		if err := object.NewTask(vm.Client(), res.Returnval).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlan(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	call := func() error {
		_, err := methods.GetCurrentTime(t.Context(), c.Client)
		return err
	}
	for _, test := range []struct {
		name string
		rule vcenter.Rule
		want func(error) bool
	}{
		{"not authenticated", vcenter.Rule{Action: vcenter.Fault, Fault: "NotAuthenticated"}, func(err error) bool { return fault.Is(err, &types.NotAuthenticated{}) }},
		{"503", vcenter.Rule{Action: vcenter.Unavailable}, func(err error) bool { return err != nil && !soap.IsSoapFault(err) }},
		{"cut", vcenter.Rule{Action: vcenter.Cut}, func(err error) bool { var e *url.Error; return errors.As(err, &e) }},
		{"cut answer", vcenter.Rule{Action: vcenter.CutAnswer}, func(err error) bool { var e *url.Error; return errors.As(err, &e) }},
		{"stall", vcenter.Rule{Action: vcenter.Stall, Delay: time.Millisecond}, func(err error) bool { return err == nil }},
	} {
		test.rule.Method, test.rule.Skip, test.rule.Count = "CurrentTime", 1, 1
		if err := s.Plan(test.rule); err != nil {
			t.Fatal(err)
		}
		before, hit, after := call(), call(), call()
		if before != nil || after != nil || !test.want(hit) {
			t.Errorf("%s: before %v, hit %v, after %v", test.name, before, hit, after)
		}
	}
	for _, bad := range []vcenter.Rule{{}, {Action: vcenter.Fault, Fault: "NoSuchFault"}, {Action: vcenter.Fault, Fault: "VirtualMachine"}, {Action: vcenter.Cut, VM: "b"}} {
		if err := s.Plan(bad); err == nil {
			t.Errorf("Plan(%+v) was taken", bad)
		}
	}
}

func TestOverrideNeedsASession(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	vm := machine(t, c, "a")
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.CreateSnapshot(t.Context(), "one", "", false, false); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("create without a session = %v, want NotAuthenticated", err)
	}
	if got := s.SnapshotNames("a"); got != nil {
		t.Errorf("snapshots = %q", got)
	}
}

// watcher is a property collector of its own, driven by raw calls.
type watcher struct {
	c         *govmomi.Client
	collector types.ManagedObjectReference
}

func newWatcher(t *testing.T, c *govmomi.Client) *watcher {
	t.Helper()
	collector, err := property.DefaultCollector(c.Client).Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{c: c, collector: collector.Reference()}
}

// watch adds a filter on one property of one object.
func (w *watcher) watch(t *testing.T, ref types.ManagedObjectReference, path string) types.ManagedObjectReference {
	t.Helper()
	res, err := methods.CreateFilter(t.Context(), w.c.Client, &types.CreateFilter{This: w.collector, Spec: types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: ref}}, PropSet: []types.PropertySpec{{Type: ref.Type, PathSet: []string{path}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Returnval
}

// wait is one long poll.
func (w *watcher) wait(ctx context.Context, version string) (*types.UpdateSet, error) {
	res, err := methods.WaitForUpdatesEx(ctx, w.c.Client, &types.WaitForUpdatesEx{
		This: w.collector, Version: version, Options: &types.WaitOptions{MaxWaitSeconds: types.NewInt32(55)},
	})
	if err != nil {
		return nil, err
	}
	return res.Returnval, nil
}

// pushed is what a watcher saw of a task.
type pushed struct {
	states []types.TaskInfoState
	err    error
}

// untilSuccess polls until a task has succeeded.
func (w *watcher) untilSuccess(ctx context.Context, version string) (got pushed) {
	for !slices.Contains(got.states, types.TaskInfoStateSuccess) {
		update, err := w.wait(ctx, version)
		if err != nil || update == nil {
			got.err = err
			return got
		}
		version = update.Version
		for _, f := range update.FilterSet {
			for _, o := range f.ObjectSet {
				for _, change := range o.ChangeSet {
					if at, ok := change.Val.(types.TaskInfoState); ok {
						got.states = append(got.states, at)
					}
				}
			}
		}
	}
	return got
}

// TestFilterDuringWait is the window's order: the poll is in flight first, the task's filter comes later.
func TestFilterDuringWait(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a", Create: vcenter.TaskPlan{Run: 50 * time.Millisecond}}}})
	c := connect(t, s)
	vm := machine(t, c, "a")
	w := newWatcher(t, c)
	w.watch(t, vm.Reference(), "name")
	set, err := w.wait(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan pushed, 1)
	go func() { seen <- w.untilSuccess(t.Context(), set.Version) }()
	eventually(t, "poll in flight", func() bool { return count(s.Calls(), "WaitForUpdatesEx") == 2 })
	task, err := vm.CreateSnapshot(t.Context(), "one", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	filter := w.watch(t, task.Reference(), "info.state")
	select {
	case got := <-seen:
		if got.err != nil || got.states[len(got.states)-1] != types.TaskInfoStateSuccess {
			t.Errorf("pushed = %v, %v", got.states, got.err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the end of the task was not pushed")
	}
	// A filter made after the task's end is pushed at once too, and one that goes away during a wait does no harm.
	go func() { seen <- w.untilSuccess(t.Context(), "-") }()
	if _, err := methods.DestroyPropertyFilter(t.Context(), c.Client, &types.DestroyPropertyFilter{This: filter}); err != nil {
		t.Fatal(err)
	}
	w.watch(t, task.Reference(), "info.state")
	select {
	case got := <-seen:
		if got.err != nil {
			t.Error(got.err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a filter made during a wait was not pushed")
	}
}

// TestCloseDuringWait also proves that a client's own cancel, its leaving and the close end a long poll.
func TestCloseDuringWait(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	collector, err := property.DefaultCollector(c.Client).Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	poll := func(ctx context.Context) chan error {
		before := count(s.Calls(), "WaitForUpdatesEx")
		ended := make(chan error, 1)
		go func() {
			_, err := methods.WaitForUpdatesEx(ctx, c.Client, &types.WaitForUpdatesEx{This: collector.Reference(), Version: "-"})
			ended <- err
		}()
		eventually(t, "poll in flight", func() bool { return count(s.Calls(), "WaitForUpdatesEx") == before+1 })
		return ended
	}
	canceled := poll(t.Context())
	eventually(t, "cancel to end the poll", func() bool {
		if err := collector.CancelWaitForUpdates(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-canceled:
			return fault.Is(err, &types.RequestCanceled{})
		default:
			return false
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	left := poll(ctx)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("poll of a client that left = %v", err)
	}
	eventually(t, "poll of the client that left to end", func() bool {
		for _, call := range s.Calls() {
			if call.Method == "WaitForUpdatesEx" && call.End.IsZero() {
				return false
			}
		}
		return true
	})
	flying := poll(t.Context())
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("close with a long poll = %v after %v", err, time.Since(began))
	}
	if err := <-flying; err == nil {
		t.Error("the poll ended without an error")
	}
}

func TestStartRefuses(t *testing.T) {
	for name, o := range map[string]vcenter.Options{
		"no login":     {VMs: []vcenter.VM{{Name: "a"}}},
		"twice":        {User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a"}, {Name: "a"}}},
		"no name":      {User: "u", Password: "p", VMs: []vcenter.VM{{}}},
		"bad fault":    {User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a", Create: vcenter.TaskPlan{Fault: "Nope"}}}},
		"cut too late": {User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a", Create: vcenter.TaskPlan{Cut: time.Second}}}},
	} {
		if s, err := vcenter.Start(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
