package inventory

// Disk is one virtual disk as a snapshot holds it.
type Disk struct {
	// Key is the device key, which stays with the disk for the life of the VM (2000).
	Key int32
	// Label is the name that operators know, such as Hard disk 1.
	Label string
	// File is the datastore path of the disk at the snapshot's instant, such as [ds1] vm/vm.vmdk.
	File string
	// UUID is the backing's own; empty where the backing has none.
	UUID          string
	CapacityBytes int64
	// ChangeID names the snapshot's instant for changed block tracking; empty when it is off for this disk.
	ChangeID string
}
