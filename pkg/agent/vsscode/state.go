package vsscode

import "fmt"

// WriterState is VSS_WRITER_STATE (vss.h).
type WriterState uint32

// The states of a writer (vss.h).
const (
	Stable WriterState = 1 + iota
	WaitingForFreeze
	WaitingForThaw
	WaitingForPostSnapshot
	WaitingForBackupComplete
	FailedAtIdentify
	FailedAtPrepareBackup
	FailedAtPrepareSnapshot
	FailedAtFreeze
	FailedAtThaw
	FailedAtPostSnapshot
	FailedAtBackupComplete
	FailedAtPreRestore
	FailedAtPostRestore
	FailedAtBackupShutdown
)

// stateNames are in the order of the states.
var stateNames = [...]string{
	"unknown", "stable", "waiting for freeze", "waiting for thaw", "waiting for post-snapshot", "waiting for backup complete",
	"failed at identify", "failed at prepare backup", "failed at prepare snapshot", "failed at freeze", "failed at thaw",
	"failed at post-snapshot", "failed at backup complete", "failed at pre-restore", "failed at post-restore", "failed at backup shutdown",
}

// Failed says whether the writer gave up.
func (s WriterState) Failed() bool { return s >= FailedAtIdentify && s <= FailedAtBackupShutdown }

// Well says whether a writer in this state after the freeze holds a good shadow copy: it is stable, or waits for the end
// of the backup.
func (s WriterState) Well() bool { return s == Stable || s == WaitingForBackupComplete }

func (s WriterState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}
