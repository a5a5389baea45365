package freezewindow

import (
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// SnapState is what is known of the vSphere snapshot.
type SnapState uint8

// The states of the snapshot.
const (
	SnapNone SnapState = iota
	SnapCalled
	SnapTaken // vSphere accepted the call; the task runs
	SnapSucceeded
	SnapErrored // there is no snapshot
	SnapLost    // whether there is, or will be, a snapshot is not known
)

// HeldState is what is known of the guest.
type HeldState uint8

// The states of the guest.
const (
	NotYet HeldState = iota
	Holding
	Released
	Expired
	HeldUnknown
)

// State is the whole memory of a window. Times are since the moment before GO was written; 0 means not yet.
type State struct {
	Phase  Phase
	Budget Budget
	Ready  Ready
	Snap   SnapState
	Held   HeldState

	// FrozenAt .. EndAt are when the word or the outcome reached us, or was sent by us.
	FrozenAt, CallAt, AcceptedAt, TaskEndAt, ThawSentAt, ReleasedAt, EndAt time.Duration
	// HoldFrom is the earliest moment at which the hold can have begun: 0 until FROZEN told how long the guest prepared.
	HoldFrom time.Duration

	Why     Reason
	Frozen  GuestFrozen
	Release Release
	// Final is true when the guest's last word came.
	Final bool
	Thaws int
	// Late is true for ever once the outcome of the snapshot was learnt after THAW was sent or the link was lost.
	Late bool
	// HeardAt is when the last heartbeat was answered.
	HeardAt time.Duration
	// LostAt is when the connection to the agent was lost first.
	LostAt time.Duration
	// Linked is false while the connection to the agent is lost; Losses counts how often it was lost while not settled.
	Linked   bool
	Losses   int
	settling bool

	Task     string
	Snapshot inventory.Snapshot
	Timing   inventory.Timing
	// SnapCode and GuestCode are the codes of what went wrong on either side, SnapErr and GuestErr the text.
	SnapCode, SnapErr   string
	GuestCode, GuestErr string
	// Cause is what first kept the window from being perfect.
	Cause Cause
	// Ignored counts events that had no meaning where they came.
	Ignored int

	last time.Duration
}
