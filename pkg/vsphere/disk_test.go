package vsphere

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// TestSnapshotDisks reads what a snapshot holds, which is not what the VM has by then.
func TestSnapshotDisks(t *testing.T) {
	s := newScene(t, nil)
	config := func(change func(*types.VirtualDisk)) {
		vm := s.model.Map().Get(vmRef(s.vm.Moref)).(*simulator.VirtualMachine)
		s.model.Service.Context.WithLock(vm, func() {
			for _, d := range vm.Config.Hardware.Device {
				if disk, ok := d.(*types.VirtualDisk); ok {
					change(disk)
				}
			}
		})
	}
	config(func(d *types.VirtualDisk) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		b.ChangeId, b.Uuid, d.CapacityInBytes = "52 de c0/7", "6000C29e", 1<<30
	})
	p := s.prepare()
	made, _, err := p.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	config(func(d *types.VirtualDisk) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		b.ChangeId, b.FileName = "52 de c0/8", "[LocalDS_0] DC0_H0_VM0/disk1-000001.vmdk"
	})
	got, err := s.e.SnapshotDisks(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Key == 0 || got[0].Label == "" || got[0].File == "[LocalDS_0] DC0_H0_VM0/disk1-000001.vmdk" {
		t.Fatalf("disks %+v, want the one of the snapshot with key and label", got)
	}
	want := inventory.Disk{Key: got[0].Key, Label: got[0].Label, File: got[0].File, UUID: "6000C29e", CapacityBytes: 1 << 30, ChangeID: "52 de c0/7"}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("disk (-want +got):\n%s", diff)
	}
	if _, err := s.s.Remove(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	_, err = s.e.SnapshotDisks(t.Context(), made)
	wantCode(t, err, "SF2006")
}

// TestSnapshotWithoutDisks has nothing that a snapshot holds.
func TestSnapshotWithoutDisks(t *testing.T) {
	s := newScene(t, nil)
	vm := s.model.Map().Get(vmRef(s.vm.Moref)).(*simulator.VirtualMachine)
	for _, d := range vm.Config.Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok {
			disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).DiskMode = "independent_persistent"
		}
	}
	made, _, err := s.prepare().Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.e.SnapshotDisks(t.Context(), made)
	wantCode(t, err, "SF2114")
}
