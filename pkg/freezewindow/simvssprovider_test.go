package freezewindow_test

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// holdPhase is where our provider's hold stands.
type holdPhase uint8

const (
	holdWaiting holdPhase = iota
	holdHolding
	holdThawed
	holdDeadman
	holdIODeadman
	holdSystem
	holdVetoed
)

// ended says by whom a hold that was entered has ended, "" when Thaw did or we gave it up.
func (p holdPhase) ended() agent.ExpiredBy {
	switch p {
	case holdDeadman:
		return agent.ByDeadman
	case holdIODeadman:
		return agent.ByIODeadman
	case holdSystem:
		return agent.BySystem
	case holdWaiting, holdHolding, holdThawed, holdVetoed:
	}
	return ""
}

// provider is our VSS provider, as vss/provider does it: its methods run on VSS's own threads of the agent's process, and
// the thread that holds is the one that looks at its deadline.
type provider struct {
	w *world
	v *vss

	phase   holdPhase
	flush   string
	commits int
	aborted bool
	stops   []func() // of a flush that is in vain

	// By the guest's clock: when EndPrepareSnapshots returned, when the hold was entered and when its function returned.
	clock, entered, left time.Duration
	// The same by true time.
	trueClock, trueEntered, trueLeft time.Duration
	answer                           func(hr string)
	onLeft                           []func()
}

// move is the compare-and-swap that lets exactly one end a hold.
func (p *provider) move(from, to holdPhase) bool {
	if p.phase != from {
		return false
	}
	p.phase = to
	return true
}

// overdue lets the dead-man fire before the hold was entered: all further callbacks veto.
func (p *provider) overdue() bool {
	if p.clock == 0 || p.w.guestNow() < p.clock+p.v.session.order.Deadman {
		return false
	}
	if p.move(holdWaiting, holdDeadman) {
		p.inVain()
	}
	return p.phase == holdDeadman
}

// refuses tells that a callback comes too late to hold anything.
func (p *provider) refuses() bool {
	if p.w.code.vss.holdsAfterExpiry {
		p.phase = holdWaiting
	}
	return !p.w.code.vss.holdsAfterExpiry && p.overdue() || p.phase != holdWaiting || p.clock == 0
}

func (p *provider) inVain() {
	for _, stop := range p.stops {
		stop()
	}
	p.stops = nil
}

// end moves a hold to held, or one that was not entered to waiting.
func (p *provider) end(held, waiting holdPhase) {
	if p.move(holdWaiting, waiting) {
		p.inVain()
		return
	}
	if p.move(holdHolding, held) && !p.w.plan.vss.stuck {
		p.w.guestAfter(process, p.w.tiny(), p.leave)
	}
}

func (p *provider) endPrepare(answer func(hr string)) {
	if p.phase != holdWaiting || p.clock > 0 {
		answer(hrVeto)
		return
	}
	p.clock, p.trueClock = p.w.guestNow(), p.w.now
	p.w.tracef("the hold's clock starts")
	p.v.session.clockStarted()
	p.w.reach(pointArmed)
	answer(hrOK)
}

func (p *provider) preCommit(answer func(hr string)) {
	switch {
	case p.refuses():
		answer(hrVeto)
	case p.v.session.order.Mode == "io":
		answer(hrOK)
	default:
		p.flushThen(func() { p.hold(p.clock+p.v.session.order.Deadman, holdDeadman, answer) })
	}
}

// flushThen writes the volumes' caches, for at most 3 s or until it is in vain.
func (p *provider) flushThen(next func()) {
	over := false
	done := func(how string) func() {
		return func() {
			if !over {
				over, p.flush = true, how
				next()
			}
		}
	}
	p.stops = append(p.stops, func() { p.w.guestAfter(process, p.w.tiny(), done("none")) })
	p.w.guestAfter(process, p.v.plan.cache, done("full"))
	p.w.guestAfter(process, cacheLimit, done("partial"))
}

func (p *provider) commit(answer func(hr string)) {
	order := p.v.session.order
	switch {
	case order.Mode == "writer" && p.phase == holdThawed:
		answer(hrOK)
		return
	case order.Mode == "writer" || p.refuses():
		answer(hrVeto)
		return
	}
	p.flush = "full"
	deadline, by := p.clock+order.Deadman, holdDeadman
	if io := p.w.guestNow() + order.IODeadman; io < deadline || p.w.code.vss.holdsAfterExpiry {
		deadline, by = io, holdIODeadman
	}
	p.hold(deadline, by, answer)
}

// hold keeps its thread until the set is thawed or its deadline comes.
func (p *provider) hold(deadline time.Duration, by holdPhase, answer func(hr string)) {
	if !p.move(holdWaiting, holdHolding) {
		answer(hrVeto)
		return
	}
	p.entered, p.trueEntered, p.answer = p.w.guestNow(), p.w.now, answer
	p.w.tracef("the hold is entered")
	p.w.reach(pointHoldEntered)
	p.v.session.holdEntered()
	p.w.guestOn(process, deadline+time.Duration(p.w.rng.IntN(1e6)), func() { // the system's timer counts milliseconds
		if !p.w.plan.vss.stuck && p.move(holdHolding, by) {
			p.leave()
		}
	})
}

// leave is the return of the function that held.
func (p *provider) leave() {
	p.left, p.trueLeft = p.w.guestNow(), p.w.now
	p.w.tracef("the hold is left, phase %d", p.phase)
	p.w.judge.holdLeft()
	p.w.reach(pointReleased)
	if p.phase == holdThawed {
		p.answer(hrOK)
	} else {
		p.answer(hrVeto)
	}
	for _, f := range p.onLeft {
		f()
	}
	p.onLeft = nil
}

func (p *provider) postCommit(answer func(hr string)) {
	p.commits = p.v.plan.volumes
	answer(hrOK)
}

func (p *provider) abort(answer func(hr string)) {
	p.aborted = true
	p.end(holdSystem, holdSystem)
	answer(hrOK)
}
