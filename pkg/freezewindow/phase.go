package freezewindow

import "time"

// Phase is where the window stands.
type Phase uint8

// The phases, in their order.
const (
	New Phase = iota
	Going
	Frozen
	Thawing
	Settling
	Done
)

func (p Phase) String() string {
	return [...]string{"new", "going", "frozen", "thawing", "settling", "done"}[p]
}

// Mode is where the guest waits while it is held.
type Mode string

// The hold modes: inside CommitSnapshots, inside PreCommitSnapshots, and after the last FIFREEZE of a Linux guest.
const (
	ModeIO     Mode = "io"
	ModeWriter Mode = "writer"
	ModeFS     Mode = "fs"
)

// Reason says why THAW was sent.
type Reason string

// The reasons, in the words of the protocol.
const (
	SnapshotDone    Reason = "snapshot_done"
	SnapshotFailed  Reason = "snapshot_failed"
	SnapshotUnknown Reason = "snapshot_unknown"
	Deadline        Reason = "deadline"
	NoTime          Reason = "no_time"
	Cancelled       Reason = "cancelled"
)

// Timer names one timer of the window.
type Timer uint8

// The timers.
const (
	// ThawBy fires when the hold may be Hold-Reserve old.
	ThawBy Timer = iota
	// IOBy fires when the time inside CommitSnapshots may be IOThaw.
	IOBy
	// Beat asks for the next heartbeat.
	Beat
	// ThawAck fires when THAW was not answered.
	ThawAck
	// Reconnect tries the link again.
	Reconnect
	// SettleBy ends the wait for the guest's last word.
	SettleBy
)

// Timers are as many.
const Timers = int(SettleBy) + 1

// Limits of the orchestrator's own waits.
const (
	beatEvery      = time.Second
	thawAckAfter   = time.Second
	thawSends      = 5
	reconnectEvery = 2 * time.Second
	// settleSet is the guest's 30 s for the release (of the shadow copy set, or of the file systems) plus 5 s of road;
	// settleWriters are the 60 s in which VSS writers may tell their state.
	settleSet = 35 * time.Second
	// settleLost is the age of the hold at which a guest that cannot be reached must be free by its own means: the
	// watchdog's 18.5 s and 1 s more. Waiting longer for its word would only keep help from outside away.
	settleLost = 19500 * time.Millisecond
	// maxLosses ends a window whose link never lasts: each return of the link would grant the guest more time.
	maxLosses = 8
	// lateTimer is how late THAW may leave before the orchestrator itself is to blame: it did not run.
	lateTimer     = time.Second
	settleWriters = 60 * time.Second
)

// MinNeed is the least time that is worth asking for a snapshot.
const MinNeed = 500 * time.Millisecond

// MinReadyLeft is how long the agent must still stay ready when GO is written.
const MinReadyLeft = 5 * time.Second
