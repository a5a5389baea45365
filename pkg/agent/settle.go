package agent

import (
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// settling is the reducer's memory of the aftermath of a release, where the freezer has one (Settler). All is zero
// elsewhere.
type settling struct {
	runs    bool // Settle has not returned
	was     Settled
	closing bool                     // Close was asked for and has not returned
	open    bool                     // Close could not end the session with the writers: the end of the process will
	re      uint64                   // the COMPLETE that is answered
	told    *protocol.CompleteAnswer // to repeat when asked again
	answer  *protocol.Abort          // waits for the end of the session with the writers
	leave   bool                     // the process leaves with the session
}

// mayHold says whether anything may be held, or is about to be.
func (s State) mayHold() bool {
	return s.Name == Freezing || s.Name == Frozen || s.Name == Thawing && !s.settle.runs
}

// holdExpired takes that the hold ended in the freezer itself.
func holdExpired(s State, at time.Duration, e HoldExpired) (State, []Command) {
	if s.Name != Freezing && s.Name != Frozen {
		return s, nil // the end of the thaw under way tells the same
	}
	s.Expired = e.By
	return s.release(at)
}

// settleWriters tells that the hold has ended, and asks how the writers are.
func (s State) settleWriters(at time.Duration) (State, []Command) {
	w := s.thawedWord(at)
	w.MaxGapUS, w.Trace, w.Final = s.hook.gap.Microseconds(), s.hook.trace, false
	s.Stored, s.settle.runs = w, true
	return s, []Command{StopTimer{TimerThawing}, Send{w}, Settle{}, SetTimer{TimerSettle, at + settleLimit}}
}

// settled takes how the writers are: the guest's last word on the hold.
func (s State) settled(at time.Duration, was Settled) (State, []Command) {
	if !s.settle.runs {
		return drop(s)
	}
	s.settle.runs, s.settle.was = false, was
	w := *s.Stored
	w.SetResult, w.Finished, w.Writers, w.Events = was.Result, s.finished(), listed(was.Writers), was.Events
	if was.Witness != nil {
		w.Witness = was.Witness
	}
	w.Final = !s.hook.owed()
	s.Stored = &w
	cmds := []Command{StopTimer{TimerSettle}, Send{s.Stored}}
	if s.Stopping || s.Ending || !s.finished() {
		ending := s.Ending
		var end []Command
		s, end = s.close(at)
		s.Ending = ending
		if !ending && !s.Stopping { // the last word may have to be said again
			end = append(end, s.silence(at)...)
		}
		return s, append(cmds, end...)
	}
	s.Name = Open
	cmds = append(cmds, SetTimer{TimerOpen, at + openLimit})
	return s, append(cmds, s.silence(at)...)
}

// complete has the writers told how the backup went.
func (s State) complete(re uint64, c Completion) (State, []Command) {
	s.Name, s.settle.re = Completing, re
	return s, []Command{StopTimer{TimerOpen}, StopTimer{TimerSilence}, Complete{c}}
}

// completed takes how the session with the writers ended.
func (s State) completed(at time.Duration, c Completed) (State, []Command) {
	if s.Name != Completing {
		return drop(s)
	}
	a := &protocol.CompleteAnswer{Result: c.Result, Writers: listed(c.Writers), Events: []string{}, Closed: c.Closed}
	if c.Err != nil {
		a.Events = append(a.Events, c.Err.Error())
	}
	a.T, a.Re = protocol.WordComplete, s.settle.re
	s.settle.told = a
	s, cmds := s.close(at)
	return s, append([]Command{Send{a}}, cmds...)
}

// closed takes that Close has returned: without an error no writer waits for us any more.
func (s State) closed(at time.Duration, e ClosedEvent) (State, []Command) {
	if !s.Self.Settles || s.Name != Closed {
		return s, nil
	}
	s.settle.closing, s.settle.open = false, s.settle.open || e.Err != nil
	var cmds []Command
	if s.settle.answer != nil {
		s.settle.answer.Closed = !s.settle.open
		cmds = append(cmds, Send{s.settle.answer})
		s.settle.answer = nil
	}
	if s.settle.leave || s.Stopping || s.Ending && !s.Linked {
		return s, append(cmds, Leave{})
	}
	if s.Ending {
		cmds = append(cmds, SetTimer{TimerLeave, at + leaveAfter})
	} else {
		cmds = append(cmds, StopTimer{TimerLeave})
	}
	return s, cmds
}

// mindClosing notes that Close is under way, and puts off a Leave until it has returned.
func (s State) mindClosing(cmds []Command) (State, []Command) {
	if !s.Self.Settles {
		return s, cmds
	}
	s.settle.closing = s.settle.closing || slices.Contains(cmds, Command(Finish{}))
	if !s.settle.closing {
		return s, cmds
	}
	kept := slices.DeleteFunc(slices.Clone(cmds), func(c Command) bool { return c == Leave{} })
	s.settle.leave = s.settle.leave || len(kept) < len(cmds)
	return s, kept
}
