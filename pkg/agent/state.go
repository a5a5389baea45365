package agent

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// StateName is where the agent's session stands, in the words of the protocol.
type StateName string

// The states.
const (
	Idle     StateName = "IDLE"
	Arming   StateName = "ARMING"
	Ready    StateName = "READY"
	Freezing StateName = "FREEZING"
	Frozen   StateName = "FROZEN"
	Thawing  StateName = "THAWING"
	Open     StateName = "OPEN"
	// Completing is only where the release has an aftermath: the writers are being told.
	Completing StateName = "COMPLETING"
	Closed     StateName = "CLOSED"
)

// Timer names one timer of the session.
type Timer uint8

// The timers.
const (
	// TimerIdle ends an agent to which nobody speaks.
	TimerIdle Timer = iota
	// TimerArm, TimerReady and TimerPrehold bound ARMING, READY, and FREEZING before anything is held.
	TimerArm
	TimerReady
	TimerPrehold
	// TimerDeadman thaws whatever anybody says.
	TimerDeadman
	// TimerThawing bounds the wait for the release.
	TimerThawing
	// TimerSilence bounds the time without a word where nothing is held; TimerOpen the whole of OPEN.
	TimerSilence
	TimerOpen
	// TimerLeave ends the process after the session.
	TimerLeave
	// TimerSettle bounds the wait for the writers after the release.
	TimerSettle
)

// Timers are as many.
const Timers = int(TimerSettle) + 1

// ExpiredBy says who released the guest when it was not THAW.
type ExpiredBy string

// The reasons for a release without THAW, in the words of the protocol.
const (
	NotExpired       ExpiredBy = "none"
	ByDeadman        ExpiredBy = "deadman"
	ByIODeadman      ExpiredBy = "io_deadman"
	ByLinkLost       ExpiredBy = "link_lost"
	ByServiceStop    ExpiredBy = "service_stop"
	BySystem         ExpiredBy = "system"
	maxVolumesListed           = 256
)

// State is the whole memory of the agent. Times are since the agent's start.
type State struct {
	Name StateName
	// Self is what the agent says of itself in HELLO; it never changes.
	Self Self

	// Session, Epoch, LastQ and Version belong to the peer that was last let in.
	Session string
	Epoch   uint64
	LastQ   uint64
	Linked  bool

	// Deadman is the dead-man of the armed session: the lower of the compiled and the asked one.
	Deadman time.Duration
	Mode    string
	Volumes []protocol.Volume
	// asked is what ARM asked of the freezer.
	asked PrepareRequest

	// Go is the id of the present freeze; Used are the ids that must not freeze again, GoTimes when freezes were asked.
	Go      uint64
	Used    []uint64
	GoTimes []time.Duration

	GoAt, HoldAt, FrozenAt, ThawAt, ReleasedAt time.Duration
	IOAt                                       time.Duration // entry into CommitSnapshots, 0 in other modes
	IO                                         time.Duration // how long writes were held there
	Flush                                      string
	Phases                                     map[string]time.Duration // of the freeze
	Holding                                    bool                     // the first hold has begun and the last release has not ended
	ReachedAll                                 bool                     // everything was held
	FreezeRuns                                 bool                     // the freezer's Freeze has not returned yet
	ThawsRun                                   int                      // calls of the freezer's Thaw that have not returned yet
	WasHeld                                    bool
	Expired                                    ExpiredBy
	Results                                    []protocol.ThawResult
	// Stored is the THAWED to repeat when asked again.
	Stored *protocol.Thawed
	// Stopping is true when the process was asked to end; Ending when the session's end was answered.
	Stopping, Ending bool

	// Renewing is true while the Keeper keeps what a PIN asked for.
	Renewing bool

	hook   hooking
	settle settling

	// Dropped counts frames that changed nothing: replayed, of an old session, or without meaning here.
	Dropped int
	last    time.Duration
}

// urgent says whether the orchestrator's words are awaited without delay.
func (s State) urgent() bool {
	return s.Name == Arming || s.Name == Ready || s.Name == Freezing || s.Name == Frozen || s.Name == Thawing
}

// Self is what the agent knows of itself and of its guest.
type Self struct {
	Version, ExeSHA256, VMUUID, BootID string
	OS                                 protocol.OS
	// Hooks says whether hooks are looked for, Settles whether the freezer is a Settler, Persistent whether there is a Keeper.
	Hooks, Settles, Persistent bool
}

// Event is what can happen to the agent. The types below are all there are.
type Event interface{ event() }

type (
	// Hello is the first frame of a new connection, Link its number.
	Hello struct {
		Link    int
		M       *protocol.Hello
		Volumes []protocol.Volume
		Uptime  time.Duration
		// Leaked counts the sessions with writers that never got their end.
		Leaked int
	}
	// Msg is any other frame of the present connection; M is an Envelope when the word is unknown.
	Msg struct{ M protocol.Message }
	// PreparedEvent ends ARMING.
	PreparedEvent struct {
		Prepared
		Err error
	}
	// HoldStarted comes right before the first hold.
	HoldStarted struct{}
	// FreezeEnded says that Freeze returned; HoldAt and IOAt are since the agent's start, HoldAt 0 when HoldStarted told it.
	FreezeEnded struct {
		HoldAt time.Duration
		IOAt   time.Duration
		Flush  string
		Phases map[string]time.Duration
		Err    error
	}
	// HoldExpired says that the hold ended in the freezer, without Thaw.
	HoldExpired struct{ By ExpiredBy }
	// ThawEnded says that Thaw returned.
	ThawEnded struct {
		Release
		MaxGap time.Duration
		Trace  []protocol.TraceEntry
	}
	// SettledEvent says that Settle returned, CompletedEvent that Complete did, ClosedEvent that Close did.
	SettledEvent   struct{ Settled }
	CompletedEvent struct{ Completed }
	ClosedEvent    struct{ Err error }
	// HookEnded says that the hooks of a point have ended or, at pre-freeze, hold.
	HookEnded struct {
		Point Point
		HookOutcome
	}
	// HooksReleased says that no hook of prepare or pre-freeze lives any more.
	HooksReleased struct{ Results []protocol.Hook }
	// PinKept says how Renew went; Re is the word that asked for it.
	PinKept struct {
		Re  uint64
		Own Own
		Err error
	}
	// Fired says that a timer fired.
	Fired struct{ Timer Timer }
	// LinkLost says that the present connection ended.
	LinkLost struct{}
	// NetLost says that the second net is gone while something may be held: nobody watches this process any more.
	NetLost struct{}
	// ServiceStop says that the process is asked to end.
	ServiceStop struct{}
)

func (Hello) event()         {}
func (Msg) event()           {}
func (PreparedEvent) event() {}
func (HoldStarted) event()   {}
func (FreezeEnded) event()   {}
func (HoldExpired) event()   {}
func (ThawEnded) event()     {}
func (HookEnded) event()     {}
func (HooksReleased) event() {}
func (Fired) event()         {}
func (LinkLost) event()      {}
func (NetLost) event()       {}
func (ServiceStop) event()   {}

func (SettledEvent) event()   {}
func (CompletedEvent) event() {}
func (PinKept) event()        {}
func (ClosedEvent) event()    {}

// Command is what the reducer asks of its driver. The types below are all there are.
type Command interface{ command() }

type (
	// Adopt makes a new connection the present one and ends the former; Refuse ends it with a last word.
	Adopt  struct{ Link int }
	Refuse struct {
		Link int
		M    *protocol.Error
	}
	// Send writes a word on the present connection.
	Send struct{ M protocol.Message }
	// Prepare, Freeze, Thaw and Finish call the Freezer; Finish is its Close. A Thaw that nobody asked for is a veto.
	Prepare struct{ PrepareRequest }
	Freeze  struct{}
	Thaw    struct{ Asked bool }
	Finish  struct{}
	// Settle and Complete call the Settler.
	Settle   struct{}
	Complete struct{ Completion }
	// RunHooks and EndHooks call Hooks; By is since the agent's start.
	RunHooks struct{ HookRequest }
	EndHooks struct{ By time.Duration }
	// KeepPin calls the Keeper.
	KeepPin struct {
		Re      uint64
		Renewal Renewal
	}
	// SetTimer arms a timer for a time since the agent's start, in place of an earlier one of that name.
	SetTimer struct {
		Timer Timer
		At    time.Duration
	}
	// StopTimer disarms a timer.
	StopTimer struct{ Timer Timer }
	// Leave ends the process, after the last words are written.
	Leave struct{}
)

func (Adopt) command()     {}
func (Refuse) command()    {}
func (Send) command()      {}
func (Prepare) command()   {}
func (Freeze) command()    {}
func (Thaw) command()      {}
func (Finish) command()    {}
func (Settle) command()    {}
func (Complete) command()  {}
func (RunHooks) command()  {}
func (EndHooks) command()  {}
func (KeepPin) command()   {}
func (SetTimer) command()  {}
func (StopTimer) command() {}
func (Leave) command()     {}
