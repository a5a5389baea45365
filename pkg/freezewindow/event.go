package freezewindow

import (
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Event is what can happen to a window. The types of this file are all there are.
type Event interface{ event() }

// Start opens the window.
type Start struct{ Ready Ready }

// Ready is what is known when everything slow is done.
type Ready struct {
	// Go is the id of this freeze, unique for the life of the agent.
	Go uint64
	// Mode is the hold mode that the agent prepared.
	Mode Mode
	// Left is how long the agent still stays ready.
	Left time.Duration
	// Need is the least time worth a snapshot: max(p50 of this VM, MinNeed). 0 means MinNeed.
	Need time.Duration
	// Armed is true when the task watcher waits and every token is held.
	Armed bool
	// Volumes are the mount points or volume ids that will be held.
	Volumes []string
	// Writers are the class ids of the writers that must be well (Windows).
	Writers []string
	// Name is the snapshot's name.
	Name string
}

// GuestFrozen is FROZEN: everything is held.
type GuestFrozen struct {
	Go   uint64
	Mode Mode
	// Hold is the age of the hold, SinceGo the time since the guest read GO, both when the word was written.
	Hold, SinceGo time.Duration
	// IO is the age of the hold inside CommitSnapshots in mode io.
	IO time.Duration
	// Left is the time until the guest's dead-man.
	Left time.Duration
}

// GuestThawed is THAWED: everything is released.
type GuestThawed struct {
	Go    uint64
	Final bool
	Release
}

// Release is what the guest says of the end of its hold.
type Release struct {
	// WasHeld is true when everything was still held as THAW arrived, ThawArrived after the start of the hold.
	WasHeld     bool
	ThawArrived time.Duration
	// Held is from the first hold to the last release, IO the part inside CommitSnapshots.
	Held, IO time.Duration
	// Expired is true when the guest released itself, ExpiredBy says why.
	Expired   bool
	ExpiredBy string
	// Finished is true when the freeze was reached and all of it was released without error.
	Finished bool
	// Thawed and Failed name the volumes that our own thaw released, or did not.
	Thawed []string
	Failed map[string]string
	// Hooks are the guest's own programs around the freeze; those of post-thaw come with the last word.
	Hooks []Hook
	// SetResult is the HRESULT of the shadow copy set in 8 hexadecimal digits, Writers the writers' states in our own
	// session, Witness and Events what the guest's logs have from around the hold (Windows). All come with the last word.
	SetResult string
	Writers   []Writer
	Witness   Witness
	Events    []LogEvent
	// MaxGap is the longest time that the agent itself did not run.
	MaxGap time.Duration
}

// Hook is how one program of the guest's owner went at one point.
type Hook struct {
	Name string
	// Point is prepare, pre-freeze or post-thaw.
	Point string
	// OK is true when it did all that was asked of it; one that Holds has then held until it was let go, and ended well.
	OK bool
	// Held is how long a holding hook lived.
	Held            time.Duration
	Required, Holds bool
	// Error is empty when OK.
	Error string
}

// mayHold says whether a volume may still be held: its release failed, and not because somebody else had thawed it.
func (r Release) mayHold() bool {
	for _, why := range r.Failed {
		if !strings.HasPrefix(why, "EINVAL") {
			return true
		}
	}
	return false
}

// Witness is what parts of the guest that know nothing of us say of the hold. The zero Witness has seen nothing.
type Witness struct {
	// HoldRanOut and FlushRanOut are true when Windows says that it let go of the writes (volsnap event 8), or that the
	// flush before them took too long (volsnap event 9).
	HoldRanOut, FlushRanOut bool
	// SQLHeld is for how long SQL Server says that the I/O of a database was frozen (events 3197 and 3198), the shortest of
	// all, 0 when it says nothing.
	SQLHeld time.Duration
}

// LogEvent is one entry of a log of the guest.
type LogEvent struct {
	Provider string
	ID       int
	Channel  string
	// HR is the result code that it tells, in 8 hexadecimal digits, or empty.
	HR string
	// Age is how long before the end of the hold's aftermath it was written.
	Age  time.Duration
	Text string
}

// Writer is one writer's state as the guest read it in our own session.
type Writer struct {
	Name, ClassID, InstanceID string
	// State is one of VSS_WRITER_STATE (vss.h); Failure an HRESULT in 8 hexadecimal digits; the application's own ones
	// are empty when it gave none.
	State                  int
	Failure                string
	AppFailure, AppMessage string
	Required               bool
}

// Failed says whether the writer is not as it should be between a freeze and the end of its session: stable (1) or
// waiting for BackupComplete (5), without a failure (vss.h, VSS_WRITER_STATE).
func (w Writer) Failed() bool { return w.Failure != "00000000" || w.State != 1 && w.State != 5 }

// GuestError is the agent's ERROR.
type GuestError struct {
	Code, Text string
	Fatal      bool
}

// GuestBeat is an answered heartbeat.
type GuestBeat struct {
	State      string
	Hold, Left time.Duration
}

// LinkLost says that the connection to the agent ended.
type LinkLost struct{ Err error }

// LinkBack says that the session was resumed on a new connection.
type LinkBack struct{}

// ResumeFailed says that the session was not resumed. Gone is true when nobody is there who could answer.
type ResumeFailed struct {
	Gone bool
	Err  error
}

// SnapAccepted says that vSphere took the call.
type SnapAccepted struct{ Task string }

// SnapDone says that the task succeeded.
type SnapDone struct {
	Snapshot inventory.Snapshot
	Timing   inventory.Timing
}

// SnapFailed says that there is no snapshot: vSphere refused the call, or the task failed.
type SnapFailed struct {
	Code string
	Err  error
}

// SnapUnknown says that the call ended without telling whether there is, or will be, a snapshot.
type SnapUnknown struct {
	Code string
	Err  error
}

// Fired says that a timer fired.
type Fired struct{ Timer Timer }

// Cancel asks for the end of the window: thaw first.
type Cancel struct{}

func (Start) event()        {}
func (GuestFrozen) event()  {}
func (GuestThawed) event()  {}
func (GuestError) event()   {}
func (GuestBeat) event()    {}
func (LinkLost) event()     {}
func (LinkBack) event()     {}
func (ResumeFailed) event() {}
func (SnapAccepted) event() {}
func (SnapDone) event()     {}
func (SnapFailed) event()   {}
func (SnapUnknown) event()  {}
func (Fired) event()        {}
func (Cancel) event()       {}
