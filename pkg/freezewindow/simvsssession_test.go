package freezewindow_test

import (
	"errors"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// The limits of vss.Freezer.
const (
	statusLimit = 60 * time.Second
	settleLimit = 30 * time.Second
	cancelLimit = 59 * time.Second
)

// session is our requestor, as vss.Freezer does it: one set, and exactly one end told to the writers.
type session struct {
	w     *world
	v     *vss
	order agent.PrepareRequest

	calls []func() // Freeze, Settle, Complete and Close, one after the other

	open      bool // the writers were asked and have been told no end
	closed    bool
	released  bool
	freezing  bool
	froze     bool // Freeze has returned
	cancelled bool
	known     bool // the end of the set is known
	reported  bool
	settled   bool // Settle has returned
	stuck     bool
	onKnown   []func()
	onPrepare func()
	onHold    func()
	statuses  []protocol.Writer

	completes, aborts, statusReads int
	succeeded                      bool // BackupComplete was called with components that went well
	statusAfter                    bool // the writers' status was read after BackupComplete
}

// prepare is Prepare, in which all goes well.
func (s *session) prepare(r agent.PrepareRequest) {
	s.order, s.open = r, true
	s.v.provider.flush = "none"
}

func (s *session) names() []string {
	return []string{`C:\`, `D:\`, `E:\`}[:s.v.plan.volumes]
}

func (s *session) quiet() bool { return s.v.quiet() }

// over tells that the writers wait for nothing from us.
func (s *session) over() bool { return !s.open && s.released && len(s.calls) == 0 || s.w.gone[process] }

// serial runs the calls of the requestor one after the other; f says done at its end.
func (s *session) serial(f func(done func())) {
	run := func() {
		f(func() {
			s.calls = s.calls[1:]
			if len(s.calls) > 0 {
				s.w.guestAfter(process, s.w.tiny(), s.calls[0])
			}
		})
	}
	s.calls = append(s.calls, run)
	if len(s.calls) == 1 {
		s.w.guestAfter(process, s.w.tiny(), run)
	}
}

// soon is a moment in which the requestor looks how the set stands: every 10 ms.
func (s *session) soon(f func()) {
	s.w.guestAfter(process, time.Duration(s.w.rng.IntN(10e6)), f)
}

func (s *session) freeze() {
	s.serial(func(done func()) {
		ended := func(held bool) {
			if s.froze {
				return
			}
			s.froze = true
			s.onPrepare, s.onHold = nil, nil
			s.frozen(held)
			done()
		}
		s.freezing = true
		s.onPrepare = func() { s.w.agent.post(agent.HoldStarted{}) }
		s.onHold = func() { ended(true) }
		s.onKnown = append(s.onKnown, func() { ended(s.v.provider.entered > 0) })
		s.w.guestAfter(process, s.w.tiny(), s.v.begin)
	})
}

// frozen tells the agent how Freeze ended.
func (s *session) frozen(held bool) {
	p := s.v.provider
	e := agent.FreezeEnded{Flush: p.flush, HoldAt: p.clock}
	switch {
	case !held:
		e.Err = errors.New("the shadow copy set ended before anything was held: " + s.v.result)
	case s.order.Mode == "io":
		e.IOAt = p.entered
	}
	s.w.agent.post(e)
}

// clockStarted and holdEntered wake the call that waits for our provider.
func (s *session) clockStarted() {
	s.w.guestAfter(process, s.w.tiny(), func() {
		if s.onPrepare != nil {
			s.onPrepare()
			s.onPrepare = nil
		}
	})
	p := s.v.provider
	s.w.guestOn(process, p.clock+s.order.Deadman, func() {
		s.soon(func() {
			if p.overdue() {
				s.v.cancel()
			}
		})
	})
	s.w.guestOn(process, p.clock+s.order.SecondNet+s.w.tiny(), func() {
		if p.entered > 0 && p.left == 0 {
			s.w.tracef("the process ends itself")
			s.w.judge.netActed = true
			s.w.agent.kill()
		}
	})
}

func (s *session) holdEntered() {
	p := s.v.provider
	s.w.guestAfter(process, s.w.tiny(), func() {
		if s.onHold == nil {
			return
		}
		if s.onPrepare != nil { // both at once
			s.onPrepare()
		}
		s.onHold()
		tell := func() {
			if by := p.phase.ended(); by != "" {
				s.w.guestAfter(process, s.w.tiny(), func() { s.w.agent.post(agent.HoldExpired{By: by}) })
			}
		}
		if p.left > 0 {
			tell()
		} else {
			p.onLeft = append(p.onLeft, tell)
		}
	})
}

// setEnded is the end of DoSnapshotSet, of which the requestor learns when it looks.
func (s *session) setEnded() {
	s.soon(func() {
		s.known = true
		s.v.provider.end(holdSystem, holdSystem)
		for _, f := range s.onKnown {
			f()
		}
		s.onKnown = nil
	})
}

// cancel asks VSS for the end of the set.
func (s *session) cancel() {
	if !s.cancelled && s.freezing {
		s.cancelled = true
		s.soon(s.v.cancel)
	}
}

func (s *session) giveUp() {
	s.cancel()
	s.v.provider.end(holdVetoed, holdVetoed)
}

func (s *session) thaw(asked bool) {
	if !asked {
		s.giveUp()
	}
	s.w.guestAfter(process, s.w.tiny(), func() {
		p := s.v.provider
		p.end(holdThawed, holdVetoed)
		if p.phase != holdThawed {
			s.cancel()
		}
		told := func() { s.w.agent.post(agent.ThawEnded{Release: s.outcome()}) }
		if p.entered == 0 || p.left > 0 {
			told()
			return
		}
		p.onLeft = append(p.onLeft, func() { s.w.guestAfter(process, s.w.tiny(), told) })
	})
}

// outcome is what Thaw tells.
func (s *session) outcome() agent.Release {
	p := s.v.provider
	var r agent.Release
	if p.entered == 0 {
		return r
	}
	r.Expired = p.phase.ended()
	if s.order.Mode == "io" {
		r.IO = p.left - p.entered
	}
	if p.phase == holdThawed && !s.reported {
		s.reported = true
		for _, name := range s.names() {
			r.Results = append(r.Results, protocol.ThawResult{Mount: name, OK: true})
		}
	}
	return r
}

// whenKnown goes on when the set has ended, or with false after limit.
func (s *session) whenKnown(limit time.Duration, next func(bool)) {
	over := false
	once := func(known bool) {
		if !over {
			over = true
			next(known)
		}
	}
	switch {
	case !s.freezing:
		next(false)
	case s.known:
		next(true)
	default:
		s.onKnown = append(s.onKnown, func() { once(true) })
		s.w.guestAfter(process, limit, func() { once(false) })
	}
}

func (s *session) finished() bool {
	p := s.v.provider
	return s.v.result == hrFinished && p.phase == holdThawed && !p.aborted && p.commits == s.v.plan.volumes
}

func (s *session) settle() {
	s.serial(func(done func()) {
		tell := func(was agent.Settled) {
			s.settled = true
			s.w.agent.post(agent.SettledEvent{Settled: was})
			s.w.reach(pointSettled)
			done()
		}
		s.whenKnown(settleLimit, func(known bool) {
			if !known {
				s.cancel()
				tell(agent.Settled{Result: hrPending})
				return
			}
			was := agent.Settled{Result: s.v.result, Finished: s.finished(), Witness: s.witness()}
			s.readStatus(0, func() {
				was.Writers = s.statuses
				tell(was)
			})
		})
	})
}

// witness is what the log of Windows tells.
func (s *session) witness() map[string]string {
	out := map[string]string{}
	if s.v.writes.ranOut {
		out[protocol.WitnessHoldRanOut] = "1"
	}
	if s.v.flushRanOut {
		out[protocol.WitnessFlushRanOut] = "1"
	}
	return out
}

// readStatus asks the writers how they are, once more when an answer got lost. One that hangs is given up.
func (s *session) readStatus(again int, done func()) {
	plan := s.v.plan
	takes := plan.status
	if plan.statusHangs {
		takes = statusLimit + cancelLimit
	}
	s.w.guestAfter(process, takes, func() {
		s.statusReads++
		s.statuses = s.v.status(again < plan.statusLost)
		switch {
		case plan.statusHangs || takes >= statusLimit:
			for i := range s.statuses {
				s.statuses[i].State, s.statuses[i].FailureHR = writerUnknown, hrNoAnswer
			}
		case again == 0 && plan.statusLost > 0:
			s.readStatus(1, done)
			return
		}
		done()
	})
}

func (s *session) complete(c agent.Completion) {
	s.serial(func(done func()) {
		s.w.reach(pointClosing)
		tell := func(err error) {
			s.w.agent.post(agent.CompletedEvent{Completed: agent.Completed{Result: hrFinished, Writers: s.statuses, Closed: s.released, Err: err}})
			done()
		}
		s.whenKnown(settleLimit, func(known bool) {
			switch {
			case !known:
				tell(errors.New("the set has not ended"))
			case s.released:
				tell(errors.New("the session has been ended"))
			case !s.finished():
				s.abort()
				tell(errors.New("the set did not end well"))
			default:
				s.completeBackup(c, tell)
			}
		})
	})
}

// completeBackup tells each writer how its components went, then all, and reads how they are.
func (s *session) completeBackup(c agent.Completion, tell func(error)) {
	for i, row := range s.statuses {
		if c.OK == "all" && row.FailureHR == hrOK && (row.State == writerStable || row.State == writerWaits) {
			s.succeeded = true
			s.w.judge.toldSuccess(s.v.writers[i])
		}
	}
	s.w.guestAfter(process, s.v.plan.complete, func() {
		if s.v.plan.completeFails || s.v.dead {
			s.abort()
			tell(errors.New("BackupComplete fails"))
			return
		}
		s.completes++
		s.open = false
		s.w.judge.completed(c.OK == "all")
		s.readStatus(0, func() {
			s.statusAfter = true
			s.abort() // nothing is left to abort: this lets go
			tell(nil)
		})
	})
}

// abort ends the session in the writers, if nothing has, and lets go of it.
func (s *session) abort() {
	if s.released {
		return
	}
	if s.open && !(s.w.code.vss.forgetsAbort && s.v.ended && !s.finished()) {
		s.aborts++
	}
	s.open, s.released = false, true
	s.w.tracef("the session is let go: completed %d, aborted %d", s.completes, s.aborts)
}

// release is Close.
func (s *session) release() {
	s.serial(func(done func()) {
		s.w.reach(pointClosing)
		end := func(err error) {
			s.w.agent.post(agent.ClosedEvent{Err: err})
			done()
		}
		if s.closed {
			end(nil)
			return
		}
		s.closed = true
		s.giveUp()
		let := func(bool) {
			if s.freezing && !s.known {
				s.stuck = true
				end(errors.New("the set does not end"))
				return
			}
			s.abort()
			end(nil)
		}
		if s.freezing {
			s.whenKnown(cancelLimit, let)
		} else {
			let(true)
		}
	})
}
