package vcenter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// usualUptime is how long a VM without a condition is up.
	usualUptime = 26 * time.Hour
	// deepChain is how many snapshots a VM of that condition has.
	deepChain = 30
	// ownSnapshot is the name of the one snapshot that the product takes for its own.
	ownSnapshot = "stillframe-01890000-0000-7000-8000-000000000000-1700000000000"
)

// condition is something that is not as it should be with a VM. Each part may be nil.
type condition struct {
	// spec changes the VM before it is described.
	spec func(vm *VM)
	// object changes the simulator's VM, under its lock.
	object func(vm *simulator.VirtualMachine)
	// act does what needs calls or further objects, when the VM stands.
	act func(ctx context.Context, s *Server, m *machine) error
}

// conditions are the names that a VM's Conditions may have.
func conditions() map[string]condition {
	all := stateConditions()
	maps.Copy(all, deviceConditions())
	maps.Copy(all, storageConditions())
	maps.Copy(all, loadConditions())
	return all
}

// Conditions lists the names of all conditions, sorted.
func Conditions() []string { return slices.Sorted(maps.Keys(conditions())) }

// stateConditions are about the VM as a whole and about its guest.
func stateConditions() map[string]condition {
	connection := func(state types.VirtualMachineConnectionState) condition {
		return condition{object: func(vm *simulator.VirtualMachine) { vm.Runtime.ConnectionState = state }}
	}
	return map[string]condition{
		"template":     {object: func(vm *simulator.VirtualMachine) { vm.Config.Template, vm.Summary.Config.Template = true, true }},
		"orphaned":     connection(types.VirtualMachineConnectionStateOrphaned),
		"inaccessible": connection(types.VirtualMachineConnectionStateInaccessible),
		"disconnected": connection(types.VirtualMachineConnectionStateDisconnected),
		"powered_off":  {spec: func(vm *VM) { vm.PowerState = string(types.VirtualMachinePowerStatePoweredOff) }},
		"suspended":    {spec: func(vm *VM) { vm.PowerState = string(types.VirtualMachinePowerStateSuspended) }},
		"question_pending": {object: func(vm *simulator.VirtualMachine) {
			vm.Runtime.Question = &types.VirtualMachineQuestionInfo{Id: "1", Text: "There is no more space for virtual disk disk1.vmdk."}
		}},
		"tools_absent": {spec: func(vm *VM) { vm.ToolsAbsent = true }},
		"tools_old": {object: func(vm *simulator.VirtualMachine) {
			vm.Guest.ToolsVersionStatus2 = string(types.VirtualMachineToolsVersionStatusGuestToolsTooOld)
		}},
		"guest_operations_not_ready": {object: func(vm *simulator.VirtualMachine) { vm.Guest.GuestOperationsReady = types.NewBool(false) }},
		"just_booted":                {object: func(vm *simulator.VirtualMachine) { vm.Summary.QuickStats.UptimeSeconds = 125 }},
		"fault_tolerant": {object: func(vm *simulator.VirtualMachine) {
			vm.Runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateRunning
		}},
		"encrypted": {object: encrypt},
		"encrypted_no_access": {
			spec:   func(vm *VM) { vm.Missing = append(vm.Missing, "Cryptographer.Access") },
			object: encrypt,
		},
		"task_running": {act: func(_ context.Context, s *Server, m *machine) error {
			s.foreignTask(m)
			return nil
		}},
	}
}

func encrypt(vm *simulator.VirtualMachine) { vm.Config.KeyId = &types.CryptoKeyId{KeyId: "lab"} }

// deviceConditions are about devices.
func deviceConditions() map[string]condition {
	disk := func(change func(*types.VirtualDiskFlatVer2BackingInfo)) condition {
		return condition{object: func(vm *simulator.VirtualMachine) { change(backing(vm)) }}
	}
	bus := func(sharing types.VirtualSCSISharing) condition {
		return condition{object: func(vm *simulator.VirtualMachine) {
			for _, d := range vm.Config.Hardware.Device {
				if c, ok := d.(types.BaseVirtualSCSIController); ok {
					c.GetVirtualSCSIController().SharedBus = sharing
				}
			}
		}}
	}
	return map[string]condition{
		"independent_disk": disk(func(b *types.VirtualDiskFlatVer2BackingInfo) {
			b.DiskMode = string(types.VirtualDiskModeIndependent_persistent)
		}),
		"second_disk_independent": {object: func(vm *simulator.VirtualMachine) {
			second := *backing(vm)
			second.FileName = strings.Replace(second.FileName, "disk1", "disk2", 1)
			second.DiskMode = string(types.VirtualDiskModeIndependent_persistent)
			addDisk(vm, &second)
		}},
		"physical_rdm": {object: func(vm *simulator.VirtualMachine) {
			first := backing(vm)
			addDisk(vm, &types.VirtualDiskRawDiskMappingVer1BackingInfo{
				VirtualDeviceFileBackingInfo: first.VirtualDeviceFileBackingInfo, DeviceName: "vml.0200", LunUuid: "0200",
				CompatibilityMode: string(types.VirtualDiskCompatibilityModePhysicalMode),
			})
		}},
		"bus_sharing": bus(types.VirtualSCSISharingPhysicalSharing),
		"multi_writer": disk(func(b *types.VirtualDiskFlatVer2BackingInfo) {
			b.Sharing = string(types.VirtualDiskSharingSharingMultiWriter)
		}),
		"passthrough": {object: func(vm *simulator.VirtualMachine) {
			vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, &types.VirtualPCIPassthrough{VirtualDevice: types.VirtualDevice{
				Key: 13000, DeviceInfo: &types.Description{Label: "PCI device 0", Summary: "passed through"},
			}})
		}},
	}
}

// backing is the one disk that each VM of the lab has.
func backing(vm *simulator.VirtualMachine) *types.VirtualDiskFlatVer2BackingInfo {
	for _, d := range vm.Config.Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok {
			if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				return b
			}
		}
	}
	panic("the VM of the lab has no disk") // configure made one
}

func addDisk(vm *simulator.VirtualMachine, b types.BaseVirtualDeviceBackingInfo) {
	vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: 2900, DeviceInfo: &types.Description{Label: "Hard disk 2", Summary: "of the lab"}, Backing: b,
		},
		CapacityInKB: diskBytes / 1024, CapacityInBytes: diskBytes,
	})
}

// storageConditions are about snapshots and datastores.
func storageConditions() map[string]condition {
	snapshot := func(name string) condition {
		return condition{act: func(ctx context.Context, s *Server, m *machine) error { return s.snapshot(ctx, m, name) }}
	}
	datastore := func(name string, change func(*types.DatastoreSummary)) condition {
		return condition{act: func(_ context.Context, s *Server, m *machine) error {
			s.moveTo(m, name, change)
			return nil
		}}
	}
	return map[string]condition{
		"consolidation_needed": {object: func(vm *simulator.VirtualMachine) { vm.Runtime.ConsolidationNeeded = true }},
		"snapshot_disabled": {object: func(vm *simulator.VirtualMachine) {
			vm.DisabledMethod = append(vm.DisabledMethod, "CreateSnapshotEx_Task", "CreateSnapshot_Task")
		}},
		"max_snapshots": {object: func(vm *simulator.VirtualMachine) {
			vm.Config.ExtraConfig = append(vm.Config.ExtraConfig, &types.OptionValue{Key: "snapshot.maxSnapshots", Value: "0"})
		}},
		"foreign_snapshot": snapshot("before the upgrade"),
		"own_snapshot":     snapshot(ownSnapshot),
		"deep_chain":       {object: chain},
		"datastore_full":   datastore("LabFull", func(d *types.DatastoreSummary) { d.FreeSpace = 3 << 30 }),
		"datastore_maintenance": datastore("LabMaintenance", func(d *types.DatastoreSummary) {
			d.MaintenanceMode = string(types.DatastoreSummaryMaintenanceModeStateInMaintenance)
		}),
	}
}

// chain gives the VM a deep tree of snapshots that nobody can remove: the simulator would search its files for each.
func chain(vm *simulator.VirtualMachine) {
	var tree []types.VirtualMachineSnapshotTree
	for i := deepChain; i > 0; i-- {
		tree = []types.VirtualMachineSnapshotTree{{
			Snapshot: types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: fmt.Sprintf("snapshot-lab-%s-%d", vm.Self.Value, i)},
			Vm:       vm.Self, Name: fmt.Sprintf("nightly %d", i), Id: int32(i), State: types.VirtualMachinePowerStatePoweredOff,
			CreateTime: time.Now().Add(time.Duration(i-deepChain-1) * 24 * time.Hour), ChildSnapshotList: tree,
		}}
	}
	last := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: fmt.Sprintf("snapshot-lab-%s-%d", vm.Self.Value, deepChain)}
	vm.Snapshot = &types.VirtualMachineSnapshotInfo{CurrentSnapshot: &last, RootSnapshotList: tree}
}

// checkConditions refuses a name that is no condition.
func (vm VM) checkConditions() error {
	all := conditions()
	for _, name := range vm.Conditions {
		if _, ok := all[name]; !ok {
			return fmt.Errorf("condition %q is none of %s", name, strings.Join(Conditions(), ", "))
		}
	}
	return nil
}

// intend applies what conditions change of the VM's description.
func (vm VM) intend() VM {
	all := conditions()
	vm.Missing = slices.Clone(vm.Missing)
	for _, name := range vm.Conditions {
		if spec := all[name].spec; spec != nil {
			spec(&vm)
		}
	}
	return vm
}

// afflict brings the VM's conditions about. Setting power or tools later undoes what they say of the guest.
func (s *Server) afflict(ctx context.Context, m *machine) error {
	all := conditions()
	made := s.virtualMachine(m)
	s.context().WithLock(made, func() { // nobody is there yet who would have to be told
		if m.spec.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
			made.Summary.QuickStats.UptimeSeconds = int32(usualUptime / time.Second)
			made.Runtime.BootTime = types.NewTime(time.Now().Add(-usualUptime))
			made.Summary.Runtime.BootTime = made.Runtime.BootTime
		}
		for _, name := range m.spec.Conditions {
			if change := all[name].object; change != nil {
				change(made)
			}
		}
	})
	for _, name := range m.spec.Conditions {
		if act := all[name].act; act != nil {
			if err := act(ctx, s, m); err != nil {
				return fmt.Errorf("bring about condition %q: %w", name, err)
			}
		}
	}
	return nil
}

// standIn makes the simulator's host tell an address of ours: clients pin the host's certificate for guest transfers, and ask
// whether its port answers.
func (s *Server) standIn(host *simulator.HostSystem, address, thumbprint string) {
	host.Summary.Config.SslThumbprint = thumbprint
	host.Summary.Config.Name = address
}

// TakeSnapshot gives a VM a snapshot at once, without a task that anybody could see.
func (s *Server) TakeSnapshot(ctx context.Context, vm, name string) error {
	m := s.find(vm)
	if m == nil {
		return fmt.Errorf("take a snapshot in lab vcenter: no VM %q", vm)
	}
	return s.snapshot(ctx, m, name)
}

// snapshot takes a snapshot without a task of ours.
func (s *Server) snapshot(ctx context.Context, m *machine, name string) error {
	if s.disks != nil {
		if err := s.disks.Cut(ctx, m.spec.Name, name); err != nil {
			return fmt.Errorf("cut disks: %w", err)
		}
	}
	res, err := methods.CreateSnapshotEx_Task(ctx, s.model.Service, &types.CreateSnapshotEx_Task{This: m.ref, Name: name})
	if err != nil {
		return fmt.Errorf("create snapshot in the simulator: %w", err)
	}
	_, err = s.stock(ctx, m, res.Returnval)
	return err
}

// foreignTask puts a task into the VM's list that runs until the server is closed and that the server does not count.
func (s *Server) foreignTask(m *machine) {
	task := simulator.CreateTask(m.ref, "relocateTask", nil)
	s.mu.Lock()
	s.lastTask++
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-%d", firstTask+s.lastTask)}
	s.mu.Unlock()
	task.Info.Key, task.Info.Task, task.Info.EntityName = task.Self.Value, task.Self, m.spec.Name
	task.Info.Reason = &types.TaskReasonUser{UserName: `LAB\somebody`}
	task.Info.State, task.Info.StartTime = types.TaskInfoStateRunning, types.NewTime(time.Now())
	ctx := s.context()
	ctx.WithLock(m.ref, func() { ctx.Map.Put(task) }) // the lock: Put also writes the VM's recentTask
}

// moveTo puts the VM's disks onto a datastore of their own that exists as an object only.
func (s *Server) moveTo(m *machine, name string, change func(*types.DatastoreSummary)) {
	ctx := s.context()
	made := s.virtualMachine(m)
	from := s.registry().Get(made.Datastore[0]).(*simulator.Datastore)
	ref := types.ManagedObjectReference{Type: "Datastore", Value: "datastore-" + name}
	if s.registry().Get(ref) == nil {
		fresh := &simulator.Datastore{Datastore: from.Datastore}
		fresh.Self, fresh.Name = ref, name
		fresh.Summary.Datastore, fresh.Summary.Name = &ref, name
		change(&fresh.Summary)
		ctx.Map.Put(fresh)
	}
	ctx.WithLock(made, func() {
		made.Datastore = []types.ManagedObjectReference{ref}
		for _, d := range object.VirtualDeviceList(made.Config.Hardware.Device).SelectByType((*types.VirtualDisk)(nil)) {
			if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				b.Datastore = &ref
			}
		}
	})
}
