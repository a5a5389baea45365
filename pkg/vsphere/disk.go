package vsphere

import (
	"context"
	"errors"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

var errNoDisk = errors.New("the snapshot holds no disk")

// SnapshotDisks lists the disks that a snapshot holds, in the order of the VM's devices, from the snapshot's own
// configuration: the VM's has the files and change ids of now. Independent disks and raw devices in physical mode are
// not held by any snapshot, so they are left out.
func (e *Endpoint) SnapshotDisks(ctx context.Context, s inventory.Snapshot) ([]inventory.Disk, error) {
	const op = "read the disks of snapshot"
	p, err := e.properties(ctx, types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: s.Moref}, devicePath)
	if err != nil {
		return nil, failure(op, s.Name, err)
	}
	var disks []inventory.Disk
	for _, d := range value[types.ArrayOfVirtualDevice](p, devicePath).VirtualDevice {
		disk, ok := d.(*types.VirtualDisk)
		if !ok || strings.HasPrefix(field(disk.Backing, "DiskMode"), "independent") ||
			field(disk.Backing, "CompatibilityMode") == string(types.VirtualDiskCompatibilityModePhysicalMode) {
			continue
		}
		capacity := disk.CapacityInBytes
		if capacity == 0 { // before API 5.5
			capacity = disk.CapacityInKB * 1024
		}
		disks = append(disks, inventory.Disk{
			Key: disk.Key, Label: label(disk), File: field(disk.Backing, "FileName"), UUID: field(disk.Backing, "Uuid"),
			CapacityBytes: capacity, ChangeID: field(disk.Backing, "ChangeId"),
		})
	}
	if len(disks) == 0 {
		return nil, &Error{Op: op, Subject: s.Name, SF: "SF2114", Err: errNoDisk}
	}
	return disks, nil
}
