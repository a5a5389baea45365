package inventory

// Task is a vSphere task on a VM that is queued or runs.
type Task struct {
	// Moref is the task's managed object reference value.
	Moref string
	// Kind is what it does, such as createSnapshot, removeSnapshot or consolidateDisks.
	Kind string
	// State is queued or running.
	State string
}

// Snapshots says whether the task works on the VM's snapshots or disk chain, so that another snapshot has to wait for it.
func (t Task) Snapshots() bool {
	switch t.Kind {
	case "createSnapshot", "createSnapshotEx", "removeSnapshot", "removeAllSnapshots", "revertToCurrentSnapshot", "consolidateDisks":
		return true
	}
	return false
}
