package vcenter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"path"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// machine is one VM with its plans.
type machine struct {
	spec VM
	ref  types.ManagedObjectReference
	turn chan struct{} // one token: its tasks run one after the other
	load load

	mu                         sync.Mutex
	create, remove, hostCreate TaskPlan
	ended                      chan struct{} // closed by EndTasks; nil while no task hangs
	random                     *rand.Rand
}

// drawn is the plan with the times of one task.
func (p TaskPlan) drawn(random *rand.Rand) TaskPlan {
	if p.Spread == 0 || random == nil {
		return p
	}
	worst := p.Worst
	if worst == 0 {
		worst = 20 * p.Run
	}
	factor := math.Exp(p.Spread * random.NormFloat64())
	if p.Run > 0 {
		factor = min(factor, float64(worst)/float64(p.Run))
	}
	scale := func(d time.Duration) time.Duration { return time.Duration(float64(d) * factor) }
	p.Queue, p.Run, p.Cut = scale(p.Queue), scale(p.Run), scale(p.Cut)
	return p
}

// take returns the plan for the next task and counts its fault down.
func (m *machine) take(plan *TaskPlan) TaskPlan {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := plan.drawn(m.random)
	if plan.Fault != "" && plan.FaultCount > 0 {
		plan.FaultCount--
		if plan.FaultCount == 0 {
			plan.Fault = ""
		}
	}
	return now
}

// registry is the simulator's object table.
func (s *Server) registry() *simulator.Registry { return s.model.Service.Context.Map }

// context is a fresh owner of object locks: two users of one context share them.
func (s *Server) context() *simulator.Context {
	ctx := *s.model.Service.Context
	return &ctx
}

func (s *Server) virtualMachine(m *machine) *simulator.VirtualMachine {
	return s.registry().Get(m.ref).(*simulator.VirtualMachine)
}

// machine is the VM with this moref; nil when it is none of ours.
func (s *Server) machine(ref types.ManagedObjectReference) *machine {
	for _, m := range s.machines {
		if m.ref == ref {
			return m
		}
	}
	return nil
}

// find is the VM with this moref value, Folder/Name, instance UUID, uuid or name; the first of a shared name, nil when
// there is none.
func (s *Server) find(vm string) *machine {
	for _, is := range []func(*machine) bool{
		func(m *machine) bool { return m.ref.Value == vm },
		func(m *machine) bool { return path.Join(m.spec.Folder, m.spec.Name) == vm },
		func(m *machine) bool { return m.spec.InstanceUUID == vm || m.spec.UUID == vm },
		func(m *machine) bool { return m.spec.Name == vm },
	} {
		for _, m := range s.machines {
			if is(m) {
				return m
			}
		}
	}
	return nil
}

func (s *Server) mustFind(vm string) (*machine, error) {
	if m := s.find(vm); m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("look for VM in lab vcenter: no %q", vm)
}

// Moref is the VM's managed object reference value; empty when there is no such VM. Here and below a VM is named by its
// moref value, its Folder/Name, one of its UUIDs, or its name (the first of a shared name).
func (s *Server) Moref(vm string) string {
	if m := s.find(vm); m != nil {
		return m.ref.Value
	}
	return ""
}

// Path is the VM's inventory path, such as /DC0/vm/prod/db1; empty when there is no such VM.
func (s *Server) Path(vm string) string {
	if m := s.find(vm); m != nil {
		return path.Join("/DC0/vm", m.spec.Folder, m.spec.Name)
	}
	return ""
}

// UUIDs are the VM's config.uuid and config.instanceUuid; empty when there is no such VM.
func (s *Server) UUIDs(vm string) (uuid, instance string) {
	if m := s.find(vm); m != nil {
		return m.spec.UUID, m.spec.InstanceUUID
	}
	return "", ""
}

// PlanCreate and PlanRemove change how the VM's next snapshot tasks go.
func (s *Server) PlanCreate(vm string, plan TaskPlan) error {
	return s.plan(vm, plan, func(m *machine) { m.create = plan })
}

// PlanRemove is PlanCreate for the removal of snapshots.
func (s *Server) PlanRemove(vm string, plan TaskPlan) error {
	return s.plan(vm, plan, func(m *machine) { m.remove = plan })
}

func (s *Server) plan(vm string, plan TaskPlan, set func(*machine)) error {
	m, err := s.mustFind(vm)
	if err != nil {
		return err
	}
	if err := plan.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	set(m)
	return nil
}

func (p TaskPlan) check() error {
	if p.Spread < 0 || p.Worst < 0 {
		return fmt.Errorf("check task plan: spread %v, worst %v: neither may be negative", p.Spread, p.Worst)
	}
	if p.Queue < 0 || p.Run < 0 || p.Cut < 0 || p.Cut > p.Run {
		return fmt.Errorf("check task plan: queue %v, run %v, cut %v: none may be negative, and cut lies within run", p.Queue, p.Run, p.Cut)
	}
	if p.Fault == "" {
		return nil
	}
	_, err := newFault(p.Fault)
	return err
}

// SnapshotNames lists the names in the VM's snapshot tree, parents first; nil when it has none.
func (s *Server) SnapshotNames(vm string) []string {
	m := s.find(vm)
	if m == nil {
		return nil
	}
	var names []string
	s.walk(m, func(t types.VirtualMachineSnapshotTree) { names = append(names, t.Name) })
	return names
}

func (s *Server) snapshotName(m *machine, ref types.ManagedObjectReference) (name string, ok bool) {
	s.walk(m, func(t types.VirtualMachineSnapshotTree) {
		if t.Snapshot == ref {
			name, ok = t.Name, true
		}
	})
	return name, ok
}

// walk visits the VM's snapshots, parents first, under the VM's lock.
func (s *Server) walk(m *machine, visit func(types.VirtualMachineSnapshotTree)) {
	var down func([]types.VirtualMachineSnapshotTree)
	down = func(trees []types.VirtualMachineSnapshotTree) {
		for _, t := range trees {
			visit(t)
			down(t.ChildSnapshotList)
		}
	}
	s.context().WithLock(m.ref, func() {
		if info := s.virtualMachine(m).Snapshot; info != nil {
			down(info.RootSnapshotList)
		}
	})
}

// SetTools starts or stops VMware Tools of the VM, as its properties tell.
func (s *Server) SetTools(vm string, running bool) error {
	return s.set(vm, func(m *machine) { m.spec.ToolsAbsent = !running })
}

// SetPower sets the VM's power state: poweredOn, poweredOff or suspended.
func (s *Server) SetPower(vm, state string) error {
	return s.set(vm, func(m *machine) { m.spec.PowerState = state })
}

// SetAddress changes the address that VMware Tools report; empty is none.
func (s *Server) SetAddress(vm, address string) error {
	return s.set(vm, func(m *machine) { m.spec.Address = address })
}

func (s *Server) set(vm string, change func(*machine)) error {
	m, err := s.mustFind(vm)
	if err != nil {
		return err
	}
	ctx := s.context()
	object := s.virtualMachine(m)
	ctx.AutoUpdate(object, func() {
		change(m)
		describeGuest(object, m.spec)
	})
	return nil
}

func (s *Server) setConsolidation(m *machine, needed bool) {
	ctx := s.context()
	ctx.Map.AtomicUpdate(ctx, s.virtualMachine(m), []types.PropertyChange{
		{Name: "runtime.consolidationNeeded", Val: needed},
	})
}

// nudge makes waits in flight look at their filters: an update that changes nothing.
func (s *Server) nudge() {
	ctx := s.context()
	manager := s.registry().Get(*s.model.ServiceContent.FileManager)
	ctx.Map.AtomicUpdate(ctx, manager, nil)
}

// describeGuest writes what VMware Tools and the host would tell about the VM. The caller holds the VM's lock, or nobody
// else knows the VM yet.
func describeGuest(vm *simulator.VirtualMachine, spec VM) {
	on := spec.PowerState == string(types.VirtualMachinePowerStatePoweredOn)
	tools := on && !spec.ToolsAbsent
	guest := types.GuestInfo{
		ToolsStatus: types.VirtualMachineToolsStatusToolsNotRunning, ToolsVersion: "12389",
		ToolsRunningStatus:              string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning),
		ToolsVersionStatus2:             string(types.VirtualMachineToolsVersionStatusGuestToolsUnmanaged),
		GuestState:                      string(types.VirtualMachineGuestStateNotRunning),
		GuestOperationsReady:            types.NewBool(tools),
		InteractiveGuestOperationsReady: types.NewBool(false),
		GuestStateChangeSupported:       types.NewBool(tools),
	}
	if tools {
		guest.ToolsStatus = types.VirtualMachineToolsStatusToolsOk
		guest.ToolsRunningStatus = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
		guest.GuestState = string(types.VirtualMachineGuestStateRunning)
		guest.GuestFamily, guest.GuestId = spec.GuestFamily, spec.GuestID
		guest.HostName = spec.Name
		guest.IpAddress = spec.Address
		if spec.Address != "" {
			guest.Net = []types.GuestNicInfo{{
				Network: "VM Network", IpAddress: []string{spec.Address}, Connected: true, DeviceConfigId: 4000,
				IpConfig: &types.NetIpConfigInfo{IpAddress: []types.NetIpConfigInfoIpAddress{{
					IpAddress: spec.Address, PrefixLength: prefixLength(spec.Address), State: "preferred",
				}}},
			}}
		}
	}
	vm.Guest = &guest
	vm.Summary.Guest = &types.VirtualMachineGuestSummary{
		ToolsStatus: guest.ToolsStatus, ToolsRunningStatus: guest.ToolsRunningStatus,
		ToolsVersionStatus2: guest.ToolsVersionStatus2, HostName: guest.HostName, IpAddress: guest.IpAddress,
	}
	vm.Runtime.PowerState = types.VirtualMachinePowerState(spec.PowerState)
	if on && vm.Runtime.BootTime == nil {
		vm.Runtime.BootTime = types.NewTime(time.Now())
	}
	vm.Summary.Runtime.PowerState, vm.Summary.Runtime.BootTime = vm.Runtime.PowerState, vm.Runtime.BootTime
}

func prefixLength(address string) int32 {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return 64
	}
	return 24
}
