package inventory

import "time"

// Snapshot is one vSphere snapshot of a VM.
type Snapshot struct {
	// Name is ours: stillframe-<run id>-<epoch>.
	Name string
	// Moref is the snapshot's managed object reference value.
	Moref string
	// VM is the moref value of the VM it belongs to.
	VM string
}

// Timing says when a vSphere task passed each of its stations.
type Timing struct {
	// Sent, Accepted and PushSeen are this machine's clock with its monotonic reading: the call was written, its answer
	// was read, the task's end was learnt. They are the truth for the window. Zero means that it did not happen.
	Sent, Accepted, PushSeen time.Time
	// Queued, Started and Completed are vCenter's wall clock. Use them only for differences among themselves.
	Queued, Started, Completed time.Time
}

// Task is the time that vCenter itself spent on the task, from queued to completed; 0 when vCenter did not say.
func (t Timing) Task() time.Duration {
	if t.Queued.IsZero() || t.Completed.IsZero() {
		return 0
	}
	return t.Completed.Sub(t.Queued)
}
