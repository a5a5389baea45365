package freezewindow

import "time"

// Command is what the reducer asks of its driver. The types of this file are all there are.
type Command interface{ command() }

// SendGo writes GO, SendThaw THAW, SendBeat a heartbeat.
type (
	SendGo   struct{ Go uint64 }
	SendThaw struct {
		Go     uint64
		Reason Reason
	}
	SendBeat struct{}
)

// CallSnapshot makes the one vSphere call of the window.
type CallSnapshot struct{}

// SetTimer arms a timer for a time since the start of the window, in place of an earlier one of that name.
type SetTimer struct {
	Timer Timer
	At    time.Duration
}

// StopTimer disarms a timer.
type StopTimer struct{ Timer Timer }

// TryResume reconnects to the agent and resumes the session.
type TryResume struct{}

// HandOver gives a snapshot task that has not ended, or whose outcome is unknown, to whoever outlives the window.
type HandOver struct{ Task, Name string }

// Finish ends the window; no command follows it.
type Finish struct{}

func (SendGo) command()       {}
func (SendThaw) command()     {}
func (SendBeat) command()     {}
func (CallSnapshot) command() {}
func (SetTimer) command()     {}
func (StopTimer) command()    {}
func (TryResume) command()    {}
func (HandOver) command()     {}
func (Finish) command()       {}
