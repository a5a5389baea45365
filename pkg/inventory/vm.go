// Package inventory names the things of the virtual estate.
package inventory

// VM is one virtual machine as vCenter (or an ESXi host) told it when it was looked up. It is a plain value: nothing in
// it follows later changes.
type VM struct {
	// Name is the display name; it need not be unique.
	Name string
	// Path is the inventory path, such as /DC0/vm/folder/name.
	Path string
	// Moref is the managed object reference's value (vm-42). It is good only on the endpoint that gave it.
	Moref string
	// InstanceUUID is the identity that lasts (config.instanceUuid).
	InstanceUUID string
	// UUID is the SMBIOS uuid (config.uuid): what the guest itself sees.
	UUID string
	// PowerState is poweredOn, poweredOff or suspended.
	PowerState string
	// Template is true for a template, which cannot run.
	Template bool
	// ConnectionState is connected, or why vCenter cannot reach the VM (orphaned, inaccessible, disconnected, invalid).
	ConnectionState string
	// GuestFamily is linuxGuest, windowsGuest or empty when VMware Tools have not reported it.
	GuestFamily string
	// GuestID is the guest's system by vSphere's identifiers (windows9Server64Guest): what VMware Tools report, else what
	// the VM is configured for.
	GuestID string
	// ToolsRunning is true when VMware Tools report guestToolsRunning.
	ToolsRunning bool
	// Addresses are the guest's addresses as VMware Tools report them, the primary one first.
	Addresses []string
	// ConsolidationNeeded is runtime.consolidationNeeded.
	ConsolidationNeeded bool
}
