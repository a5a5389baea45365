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

// Listed is a snapshot as an inventory lists it. Created is by vCenter's clock.
type Listed struct {
	Name, Moref, Description string
	Created                  time.Time
}

// Timing says when a vSphere task passed each of its stations.
type Timing struct {
	// Sent, Accepted and PushSeen are this machine's clock with its monotonic reading: the call was written, its answer
	// was read, the task's end was learnt. They are the truth for the window. Zero means that it did not happen.
	Sent, Accepted, PushSeen time.Time
	// Queued, Started and Completed are vCenter's wall clock, which may be set at any moment. Use them only for differences
	// among themselves, and believe none that our own clock contradicts.
	Queued, Started, Completed time.Time
}

// Task is the time that vCenter itself spent on the task, from queued to completed; 0 when vCenter did not say. It lies
// within the time from our call to when we learnt the end: stamps between which vCenter's clock was set, so that they say
// less than nothing or more than that, are not believed, and our own time stands for them.
func (t Timing) Task() time.Duration {
	if t.Queued.IsZero() || t.Completed.IsZero() {
		return 0
	}
	task := t.Completed.Sub(t.Queued)
	var own time.Duration
	if !t.Sent.IsZero() && !t.PushSeen.IsZero() {
		own = t.PushSeen.Sub(t.Sent)
	}
	if task < 0 || task > own {
		return own
	}
	return task
}
