package vcenter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// firstTask keeps the numbers of our tasks apart from those that the simulator gives.
const firstTask = 1_000_000

// poll is how often a task of the simulator is looked at.
const poll = 2 * time.Millisecond

// override answers the snapshot methods by tasks of our own; false when the call is none of them. direct says that the
// host itself was asked, past vCenter.
func (s *Server) override(r *http.Request, m *simulator.Method, vm *machine, direct bool) (answer, bool) {
	var start func() types.ManagedObjectReference
	switch req := m.Body.(type) {
	case *types.CreateSnapshotEx_Task:
		if spec, ok := req.QuiesceSpec.(*types.VirtualMachineGuestQuiesceSpec); ok && spec.Timeout != 0 &&
			(spec.Timeout < 5 || spec.Timeout > 240) { // minutes, 5..240: VirtualMachineGuestQuiesceSpec.timeout
			return faultAnswer(&types.InvalidArgument{InvalidProperty: "quiesceSpec.timeout"}), true
		}
		start = func() types.ManagedObjectReference { return s.create(vm, m.Name, *req, direct) }
	case *types.CreateSnapshot_Task:
		again := types.CreateSnapshotEx_Task{This: req.This, Name: req.Name, Description: req.Description, Memory: req.Memory}
		if req.Quiesce {
			again.QuiesceSpec = &types.VirtualMachineGuestQuiesceSpec{}
		}
		start = func() types.ManagedObjectReference { return s.create(vm, m.Name, again, direct) }
	case *types.RemoveSnapshot_Task:
		start = func() types.ManagedObjectReference { return s.remove(vm, m.Name, *req) }
	case *types.ConsolidateVMDisks_Task:
		start = func() types.ManagedObjectReference { return s.consolidate(vm, m.Name) }
	}
	if start == nil || vm == nil {
		return answer{}, false
	}
	if refusal, ok := s.authenticated(r); !ok {
		return refusal, true
	}
	return taskAnswer(m.Name, start()), true
}

// create begins a snapshot task that calls Disks.Cut, then lets the simulator put the snapshot into the VM's tree.
func (s *Server) create(vm *machine, method string, req types.CreateSnapshotEx_Task, direct bool) types.ManagedObjectReference {
	plan := &vm.create
	if direct && vm.spec.HostCreate != (TaskPlan{}) {
		plan = &vm.hostCreate
	}
	return s.begin(vm, method, "createSnapshot", vm.take(plan), func(ctx context.Context) (types.AnyType, error) {
		if s.disks != nil {
			if err := s.disks.Cut(ctx, vm.spec.Name, req.Name); err != nil {
				return nil, fmt.Errorf("cut disks: %w", err)
			}
		}
		res, err := methods.CreateSnapshotEx_Task(ctx, s.model.Service, &req)
		if err != nil {
			return nil, fmt.Errorf("create snapshot in the simulator: %w", err)
		}
		return s.stock(ctx, vm, res.Returnval)
	})
}

// remove begins a task that calls Disks.Drop, then lets the simulator take the snapshot out of the VM's tree.
func (s *Server) remove(vm *machine, method string, req types.RemoveSnapshot_Task) types.ManagedObjectReference {
	return s.begin(vm, method, "removeSnapshot", vm.take(&vm.remove), func(ctx context.Context) (types.AnyType, error) {
		name, ok := s.snapshotName(vm, req.This)
		if !ok {
			return nil, soap.WrapVimFault(&types.ManagedObjectNotFound{Obj: req.This})
		}
		if s.disks != nil {
			if err := s.disks.Drop(ctx, vm.spec.Name, name); err != nil {
				return nil, fmt.Errorf("drop disks: %w", err)
			}
		}
		task, ok := s.removeStock(vm, &req)
		if !ok {
			return nil, soap.WrapVimFault(&types.ManagedObjectNotFound{Obj: req.This})
		}
		return s.stock(ctx, vm, task)
	})
}

// removeStock has the simulator take a snapshot of vm out of the tree; false when there is none such. It holds the VM's lock, which
// the simulator's own method leaves out although a task's beginning writes the VM's recentTask (v0.56.0).
func (s *Server) removeStock(vm *machine, req *types.RemoveSnapshot_Task) (task types.ManagedObjectReference, ok bool) {
	ctx := s.context()
	ctx.WithLock(vm.ref, func() {
		var snapshot *simulator.VirtualMachineSnapshot
		if snapshot, ok = ctx.Map.Get(req.This).(*simulator.VirtualMachineSnapshot); !ok {
			return
		}
		var body *methods.RemoveSnapshot_TaskBody
		if body, ok = snapshot.RemoveSnapshotTask(ctx, req).(*methods.RemoveSnapshot_TaskBody); ok {
			task = body.Res.Returnval
		}
	})
	return task, ok
}

// consolidate begins a task that succeeds and clears runtime.consolidationNeeded.
func (s *Server) consolidate(vm *machine, method string) types.ManagedObjectReference {
	return s.begin(vm, method, "consolidateDisks", TaskPlan{}, func(context.Context) (types.AnyType, error) {
		s.setConsolidation(vm, false)
		return nil, nil
	})
}

// begin makes a queued task and returns its moref; a goroutine of the server moves it on.
func (s *Server) begin(vm *machine, method, id string, plan TaskPlan, act func(context.Context) (types.AnyType, error),
) types.ManagedObjectReference {
	task := simulator.CreateTask(vm.ref, id+"Task", nil)
	s.mu.Lock()
	s.lastTask++
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-%d", firstTask+s.lastTask)}
	s.mu.Unlock()
	task.Info.Key, task.Info.Task = task.Self.Value, task.Self
	task.Info.EntityName, task.Info.QueueTime = vm.spec.Name, s.wallClock()
	ctx := s.context()
	ctx.WithLock(vm.ref, func() { ctx.Map.Put(task) }) // the lock: Put also writes the VM's recentTask
	s.work.Add(1)                                      // the request that asked for it still counts, so Close is not past its wait
	go func() {
		defer s.work.Done()
		s.run(vm, method, task, plan, act)
	}()
	return task.Self
}

// run moves a task through its plan. Tasks of one VM run one after the other, as in vCenter.
func (s *Server) run(vm *machine, method string, task *simulator.Task, plan TaskPlan,
	act func(context.Context) (types.AnyType, error),
) {
	life := s.lifetime()
	s.tell(vm.spec.Name, method, "queued")
	select {
	case vm.turn <- struct{}{}:
	case <-life.Done():
		return
	}
	defer func() { <-vm.turn }()
	if !s.pause(life, plan.Queue) || !s.enter(life) {
		return
	}
	defer s.leave()
	s.update(task, types.PropertyChange{Name: "info.startTime", Val: s.wallClock()},
		types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateRunning})
	s.tell(vm.spec.Name, method, "running")
	cut := plan.Run / 2
	if plan.Cut > 0 {
		cut = min(plan.Cut, plan.Run)
	}
	if !s.pause(life, cut) || (plan.Hang && !vm.hang(life)) {
		return
	}
	s.tell(vm.spec.Name, method, "cut")
	result, err := perform(life, plan, act)
	if !s.pause(life, plan.Run-cut) {
		return
	}
	if err == nil && plan.NeedsConsolidation {
		s.setConsolidation(vm, true)
	}
	s.finish(task, result, err)
	s.tell(vm.spec.Name, method, "done")
}

// enter waits for a slot among the tasks that may run at once; false when ctx ended first.
func (s *Server) enter(ctx context.Context) bool {
	if s.slots == nil {
		return true
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) leave() {
	if s.slots != nil {
		<-s.slots
	}
}

// hang waits for EndTasks; false when ctx ended first.
func (m *machine) hang(ctx context.Context) bool {
	m.mu.Lock()
	if m.ended == nil {
		m.ended = make(chan struct{})
	}
	ended := m.ended
	m.mu.Unlock()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// EndTasks lets the VM's task that hangs go on to its end, and turns Hang off for those to come.
func (s *Server) EndTasks(vm string) error {
	m, err := s.mustFind(vm)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.create.Hang, m.remove.Hang = false, false
	if m.ended != nil {
		close(m.ended)
		m.ended = nil
	}
	return nil
}

// perform does the task's effect, or the fault planned instead of it.
func perform(ctx context.Context, plan TaskPlan, act func(context.Context) (types.AnyType, error)) (types.AnyType, error) {
	if plan.Fault == "" {
		return act(ctx)
	}
	fault, err := newFault(plan.Fault)
	if err != nil {
		return nil, err
	}
	return nil, soap.WrapVimFault(fault)
}

// finish ends a task in success or, when err is not nil, in its fault.
func (s *Server) finish(task *simulator.Task, result types.AnyType, err error) {
	changes := []types.PropertyChange{{Name: "info.completeTime", Val: s.wallClock()}}
	if err == nil {
		changes = append(changes, types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateSuccess})
		if result != nil {
			changes = append(changes, types.PropertyChange{Name: "info.result", Val: result})
		}
		s.update(task, changes...)
		return
	}
	s.update(task, append(changes,
		types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateError},
		types.PropertyChange{Name: "info.error", Val: types.LocalizedMethodFault{
			Fault: faultOf(err), LocalizedMessage: err.Error(),
		}})...)
}

// faultOf is the vSphere fault within err, or a GenericVmConfigFault that says what err says.
func faultOf(err error) types.BaseMethodFault {
	holder := err
	for ; holder != nil; holder = errors.Unwrap(holder) {
		var found any
		if soap.IsVimFault(holder) {
			found = soap.ToVimFault(holder)
		} else if soap.IsSoapFault(holder) {
			found = soap.ToSoapFault(holder).VimFault()
		}
		if fault, ok := found.(types.BaseMethodFault); ok {
			return fault
		}
	}
	return &types.GenericVmConfigFault{Reason: err.Error()}
}

// update changes a task's properties at once and pushes them to the clients.
func (s *Server) update(task *simulator.Task, changes ...types.PropertyChange) {
	ctx := s.context()
	ctx.Map.AtomicUpdate(ctx, task, changes)
}

// stock waits for a task of the simulator itself, hides it from the lists of recent tasks (the client sees ours), and
// returns its result.
func (s *Server) stock(ctx context.Context, vm *machine, ref types.ManagedObjectReference) (types.AnyType, error) {
	result, err := s.result(ctx, ref, poll)
	if ctx.Err() == nil {
		s.hide(vm, ref)
	}
	return result, err
}

// result waits for a task of the simulator, with a look at it every so often.
func (s *Server) result(ctx context.Context, ref types.ManagedObjectReference, every time.Duration) (types.AnyType, error) {
	task := s.registry().Get(ref).(*simulator.Task)
	look := s.context()
	for {
		var info types.TaskInfo
		look.WithLock(ref, func() { info = task.Info })
		switch info.State {
		case types.TaskInfoStateSuccess:
			return info.Result, nil
		case types.TaskInfoStateError:
			return nil, soap.WrapVimFault(info.Error.Fault)
		case types.TaskInfoStateQueued, types.TaskInfoStateRunning:
		}
		if !s.pause(ctx, every) {
			return nil, fmt.Errorf("wait for the simulator's task: %w", context.Cause(ctx))
		}
	}
}

// hide takes a task out of the VM's and the task manager's recentTask.
func (s *Server) hide(vm *machine, ref types.ManagedObjectReference) {
	without := func(list []types.ManagedObjectReference) []types.PropertyChange {
		var kept []types.ManagedObjectReference
		for _, task := range list {
			if task != ref {
				kept = append(kept, task)
			}
		}
		return []types.PropertyChange{{Name: "recentTask", Val: kept}}
	}
	ctx := s.context()
	ctx.WithLock(vm.ref, func() {
		machine := s.virtualMachine(vm)
		ctx.Update(machine, without(machine.RecentTask))
	})
	manager := s.registry().Get(*s.model.ServiceContent.TaskManager).(*simulator.TaskManager)
	ctx.WithLock(manager, func() { ctx.Update(manager, without(manager.RecentTask)) })
}
