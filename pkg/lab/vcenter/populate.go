package vcenter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// diskBytes is the size that the inventory gives each VM's only disk; its bytes are the business of Options.Disks.
const diskBytes = 1 << 30

// populatePoll is how often the creation of a VM is looked at: it takes about 2 ms.
const populatePoll = 100 * time.Microsecond

// populate builds one datacenter DC0 with its clusters and hosts, then the VMs.
func (s *Server) populate(ctx context.Context, o Options, hostThumbprint string) error {
	if err := o.check(); err != nil {
		return err
	}
	version := o.About
	if version == "" {
		version = "8.0.3"
	}
	model := simulator.VPX()
	model.Autostart, model.Machine, model.Host, model.Portgroup, model.ClusterHost = false, 0, 0, 0, max(o.Hosts, 1)
	model.Cluster = max(o.Clusters, 1)
	about := &model.ServiceContent.About
	about.Version, about.ApiVersion, about.Build = version, version+".0", "24022515"
	about.FullName = fmt.Sprintf("%s %s build-%s", about.Name, version, about.Build)
	s.model = model
	if err := model.Create(); err != nil {
		return fmt.Errorf("create lab inventory: %w", err)
	}
	for _, entity := range s.registry().All("HostSystem") {
		of := entity.(*simulator.HostSystem)
		if o.HostPassword == "" {
			s.standIn(of, s.address, hostThumbprint) // the front is that host
			continue
		}
		host, err := s.newHost(ctx, of, o.HostRTT)
		if err != nil {
			return err
		}
		s.hosts = append(s.hosts, host)
		s.standIn(of, host.address, host.certificate.sha1)
	}
	client, err := vim25.NewClient(ctx, model.Service)
	if err != nil {
		return fmt.Errorf("open lab inventory: %w", err)
	}
	if err := s.addMachines(ctx, client, o.VMs); err != nil {
		return fmt.Errorf("populate lab inventory: %w", err)
	}
	s.attributes()
	if err := s.attach(); err != nil {
		return err
	}
	if o.Guests != nil {
		o.Guests.Install(s.registry())
	}
	return nil
}

func (o Options) check() error {
	seen := map[string]bool{}
	for _, vm := range o.VMs {
		at := path.Join(vm.Folder, vm.Name)
		if vm.Name == "" || seen[at] {
			return fmt.Errorf("check VMs of lab vcenter: %q has no name or is there twice", at)
		}
		seen[at] = true
		if err := errors.Join(vm.Create.check(), vm.Remove.check(), vm.HostCreate.check(), vm.checkConditions()); err != nil {
			return fmt.Errorf("check VM %q of lab vcenter: %w", at, err)
		}
	}
	return nil
}

// addMachines creates the VMs one after the other: the simulator's creations race with each other.
func (s *Server) addMachines(ctx context.Context, client *vim25.Client, vms []VM) error {
	finder := find.NewFinder(client)
	dc, err := finder.Datacenter(ctx, "DC0")
	if err != nil {
		return fmt.Errorf("find datacenter: %w", err)
	}
	finder.SetDatacenter(dc)
	folders, err := dc.Folders(ctx)
	if err != nil {
		return fmt.Errorf("find folders: %w", err)
	}
	places := places{finder: finder, pools: map[string]*object.ResourcePool{}, hosts: map[string]*object.HostSystem{}}
	known := map[string]*object.Folder{"": folders.VmFolder}
	for i, vm := range vms {
		folder, err := ensureFolder(ctx, known, strings.Trim(path.Clean("/"+vm.Folder), "/"))
		if err != nil {
			return err
		}
		vm = vm.system()
		config, err := configure(i, vm)
		if err != nil {
			return fmt.Errorf("describe VM %q: %w", vm.Name, err)
		}
		pool, host, err := places.of(ctx, vm)
		if err != nil {
			return fmt.Errorf("place VM %q: %w", vm.Name, err)
		}
		task, err := folder.CreateVM(ctx, config, pool, host)
		if err != nil {
			return fmt.Errorf("create VM %q: %w", vm.Name, err)
		}
		if err := s.adopt(ctx, vm, task.Reference()); err != nil {
			return fmt.Errorf("create VM %q: %w", vm.Name, err)
		}
	}
	return nil
}

// firstCluster is where VMs are that do not name one.
const firstCluster = "DC0_C0"

// places are the pools and hosts that VMs are put into, each looked up once.
type places struct {
	finder *find.Finder
	pools  map[string]*object.ResourcePool
	hosts  map[string]*object.HostSystem
}

// of is where a VM belongs.
func (p places) of(ctx context.Context, vm VM) (*object.ResourcePool, *object.HostSystem, error) {
	cluster := vm.Cluster
	if cluster == "" {
		cluster = firstCluster
	}
	name := vm.Host
	if name == "" {
		name = cluster + "_H0"
	}
	host := p.hosts[name]
	if host == nil {
		found, err := p.finder.HostSystem(ctx, path.Join(cluster, name))
		if err != nil {
			return nil, nil, fmt.Errorf("find host: %w", err)
		}
		host, p.hosts[name] = found, found
	}
	pool, err := p.pool(ctx, path.Join(cluster, "Resources", vm.Pool))
	return pool, host, err
}

// pool finds or makes a resource pool and those above it.
func (p places) pool(ctx context.Context, at string) (*object.ResourcePool, error) {
	if pool := p.pools[at]; pool != nil {
		return pool, nil
	}
	above, name := path.Split(at)
	if name == "Resources" {
		pool, err := p.finder.ResourcePool(ctx, at)
		if err != nil {
			return nil, fmt.Errorf("find resource pool: %w", err)
		}
		p.pools[at] = pool
		return pool, nil
	}
	parent, err := p.pool(ctx, path.Clean(above))
	if err != nil {
		return nil, err
	}
	pool, err := parent.Create(ctx, name, types.DefaultResourceConfigSpec())
	if err != nil {
		return nil, fmt.Errorf("create resource pool %q: %w", at, err)
	}
	p.pools[at] = pool
	return pool, nil
}

// adopt waits for the creation of a VM and gives it its guest.
func (s *Server) adopt(ctx context.Context, vm VM, ref types.ManagedObjectReference) error {
	result, err := s.result(ctx, ref, populatePoll)
	if err != nil {
		return err
	}
	if vm.PowerState == "" {
		vm.PowerState = string(types.VirtualMachinePowerStatePoweredOn)
	}
	m := &machine{
		ref: result.(types.ManagedObjectReference), turn: make(chan struct{}, 1), create: vm.Create, remove: vm.Remove, hostCreate: vm.HostCreate,
		random: rand.New(rand.NewPCG(s.seed, uint64(len(s.machines)))),
	}
	made := s.virtualMachine(m)
	s.context().WithLock(made, func() { // nobody is there yet who would have to be told
		vm.UUID, vm.InstanceUUID = made.Config.Uuid, made.Config.InstanceUuid
		made.Capability.SnapshotOperationsSupported = true
		made.Capability.MultipleSnapshotsSupported = true
		made.Capability.QuiescedSnapshotsSupported = true
		vm = vm.intend()
		describeGuest(made, vm)
	})
	m.spec = vm
	s.machines = append(s.machines, m)
	return s.afflict(ctx, m)
}

// system fills in the family and the system of the guest.
func (vm VM) system() VM {
	if vm.GuestFamily == "" {
		vm.GuestFamily = string(types.VirtualMachineGuestOsFamilyLinuxGuest)
	}
	if vm.GuestID == "" {
		vm.GuestID = string(types.VirtualMachineGuestOsIdentifierOther5xLinux64Guest)
		if vm.GuestFamily == string(types.VirtualMachineGuestOsFamilyWindowsGuest) {
			vm.GuestID = string(types.VirtualMachineGuestOsIdentifierWindows9Server64Guest)
		}
	}
	return vm
}

// ensureFolder makes the folder and its parents below the VM folder.
func ensureFolder(ctx context.Context, known map[string]*object.Folder, at string) (*object.Folder, error) {
	if folder := known[at]; folder != nil {
		return folder, nil
	}
	above := path.Dir(at)
	if above == "." {
		above = ""
	}
	parent, err := ensureFolder(ctx, known, above)
	if err != nil {
		return nil, err
	}
	folder, err := parent.CreateFolder(ctx, path.Base(at))
	if err != nil {
		return nil, fmt.Errorf("create folder %q: %w", at, err)
	}
	known[at] = folder
	return folder, nil
}

// configure is a VM with one SCSI disk and one network card; raw device keys are refused by the simulator.
func configure(i int, vm VM) (types.VirtualMachineConfigSpec, error) {
	home := fmt.Sprintf("vm%04d", i)
	config := types.VirtualMachineConfigSpec{
		Name: vm.Name, Uuid: vm.UUID, InstanceUuid: vm.InstanceUUID,
		GuestId: vm.GuestID,
		Files:   &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[LocalDS_0] %s/%s.vmx", home, home)},
	}
	var devices object.VirtualDeviceList
	scsi, err := devices.CreateSCSIController("pvscsi")
	if err != nil {
		return config, fmt.Errorf("add SCSI controller: %w", err)
	}
	disk := devices.CreateDisk(scsi.(types.BaseVirtualController), types.ManagedObjectReference{},
		fmt.Sprintf("[LocalDS_0] %s/disk1.vmdk", home))
	disk.CapacityInKB = diskBytes / 1024
	nic := esx.EthernetCard
	devices = append(devices, scsi, disk, &nic)
	config.DeviceChange, err = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		return config, fmt.Errorf("list devices: %w", err)
	}
	return config, nil
}
