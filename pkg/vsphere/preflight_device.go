package vsphere

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// cryptographerAccess is the privilege without which vCenter refuses snapshots of encrypted VMs.
const cryptographerAccess = "Cryptographer.Access"

const devicePath = "config.hardware.device"

func (v *view) devices() []types.BaseVirtualDevice {
	return value[types.ArrayOfVirtualDevice](v.vm, devicePath).VirtualDevice
}

func (v *view) disks() []*types.VirtualDisk {
	var disks []*types.VirtualDisk
	for _, d := range v.devices() {
		if disk, ok := d.(*types.VirtualDisk); ok {
			disks = append(disks, disk)
		}
	}
	return disks
}

// label is the device's name as operators know it, such as Hard disk 1.
func label(d types.BaseVirtualDevice) string {
	device := d.GetVirtualDevice()
	if device.DeviceInfo != nil {
		if l := device.DeviceInfo.GetDescription().Label; l != "" {
			return l
		}
	}
	return fmt.Sprintf("device %d", device.Key)
}

// field reads a text field of a disk's backing: nine kinds of backing have the same fields without a common interface.
func field(backing any, name string) string {
	f := member(backing, name)
	if !f.IsValid() || f.Kind() != reflect.String {
		return ""
	}
	return f.String()
}

func member(backing any, name string) reflect.Value {
	b := reflect.ValueOf(backing)
	if b.Kind() == reflect.Pointer {
		b = b.Elem()
	}
	if b.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return b.FieldByName(name)
}

// judgeSharedBus finds what two VMs may write at once. Snapshots of such VMs are refused or break the other one.
func judgeSharedBus(v *view) finding {
	if !v.has(devicePath) {
		return unread(devicePath)
	}
	var evidence []string
	for _, d := range v.devices() {
		sharing := ""
		switch c := d.(type) {
		case types.BaseVirtualSCSIController:
			sharing = string(c.GetVirtualSCSIController().SharedBus)
		case *types.VirtualNVMEController:
			sharing = c.SharedBus
		case *types.VirtualDisk:
			sharing = field(c.Backing, "Sharing")
		}
		if sharing != "" && sharing != string(types.VirtualSCSISharingNoSharing) && sharing != string(types.VirtualDiskSharingSharingNone) {
			evidence = append(evidence, label(d)+" has "+sharing)
		}
	}
	if len(evidence) > 0 {
		return fail(evidence...)
	}
	return fine()
}

// judgeDisks finds disks that a snapshot leaves out. With some of them the rest can be protected; with all of them there is
// nothing.
func judgeDisks(v *view) finding {
	if !v.has(devicePath) {
		return unread(devicePath)
	}
	var evidence []string
	for _, d := range v.disks() {
		mode := field(d.Backing, "DiskMode")
		switch {
		case strings.HasPrefix(mode, "independent"):
			evidence = append(evidence, fmt.Sprintf("%s is %s", label(d), mode))
		case field(d.Backing, "CompatibilityMode") == string(types.VirtualDiskCompatibilityModePhysicalMode):
			evidence = append(evidence, label(d)+" is a raw device in physical mode")
		}
	}
	switch n := len(v.disks()); {
	case n == 0:
		return fail("it has no disk")
	case len(evidence) == n:
		return fail(evidence...)
	case len(evidence) > 0:
		return warn(evidence...)
	}
	return fine()
}

// judgePassthrough finds devices whose state no snapshot with memory could hold. We never ask for memory, so it warns only.
func judgePassthrough(v *view) finding {
	if !v.has(devicePath) {
		return unread(devicePath)
	}
	var evidence []string
	for _, d := range v.devices() {
		switch d.(type) {
		case *types.VirtualPCIPassthrough, *types.VirtualSriovEthernetCard:
			evidence = append(evidence, label(d)+" is passed through from the host")
		}
	}
	if len(evidence) > 0 {
		return warn(evidence...)
	}
	return fine()
}

func (v *view) encrypted() bool {
	if v.has("config.keyId") {
		return true
	}
	for _, d := range v.disks() {
		if k := member(d.Backing, "KeyId"); k.IsValid() && !k.IsZero() {
			return true
		}
	}
	return false
}

func judgeEncryption(v *view) finding {
	switch {
	case !v.has(devicePath):
		return unread(devicePath)
	case !v.encrypted():
		return fine()
	case !v.asked:
		return unknown("it is encrypted", v.why)
	}
	for _, m := range v.missing {
		if m.Privilege == cryptographerAccess {
			return fail("it is encrypted", fmt.Sprintf("privilege %s is missing on %s", m.Privilege, m.Object))
		}
	}
	return fine("it is encrypted")
}
