package freezewindow_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// kernelState is the truth of one file system.
type kernelState uint8

const (
	kernelFree kernelState = iota
	kernelFreezing
	kernelFrozen
	kernelThawing
)

// ownState is what the freezer believes of it.
type ownState uint8

const (
	ownReleased ownState = iota
	ownFreezing
	ownHeld
	ownThawing
)

const tooLate = "too late"

// hold is one true hold of one file system; to is 0 while it lasts, frozen is 0 before FIFREEZE has returned.
type hold struct {
	from, frozen, to             time.Duration
	guestFrom, guestFrozen, gone time.Duration // the same by the guest's clock
	by                           string
}

// target is one file system: the truth and the freezer's belief.
type target struct {
	mountPlan
	name     string
	kernel   kernelState
	own      ownState
	inFlight bool // FIFREEZE was called and its goroutine has not ended
	tooLate  bool
	late     *protocol.ThawResult
	holds    []hold
	blocked  []func(err string) // thaws that wait for the lock of another
}

// freezer does what fsfreeze.Freezer does, on file systems of this world.
type freezer struct {
	w         *world
	targets   []*target
	began     time.Duration
	running   bool
	stopped   bool
	settled   bool
	waiting   *target // of which Freeze waits for FIFREEZE
	releasing bool
	queued    []func()
	onReturn  func()
	releaseMe bool // Close was asked for while Freeze ran
	commands  int  // Freeze commands seen
}

func newFreezer(w *world) *freezer {
	f := &freezer{w: w}
	for i, m := range w.plan.mounts {
		f.targets = append(f.targets, &target{mountPlan: m, name: fmt.Sprintf("/m%d", i)})
	}
	return f
}

func (f *freezer) names() []string {
	var n []string
	for _, t := range f.targets {
		n = append(n, t.name)
	}
	return n
}

// quiet tells that nothing is held and nothing will be.
func (f *freezer) quiet() bool {
	if f.running && !f.w.gone[process] || f.releasing && !f.w.gone[process] {
		return false
	}
	return !slices.ContainsFunc(f.targets, func(t *target) bool { return t.kernel != kernelFree })
}

// fifreeze is the system call; done is called when it returns, in the kernel's time.
func (f *freezer) fifreeze(t *target, done func(err string)) {
	w := f.w
	if t.err != "" || t.kernel != kernelFree {
		err := t.err
		if err == "" {
			err = "EBUSY: device or resource busy"
		}
		w.guestAfter(kernel, w.tiny(), func() { done(err) })
		return
	}
	t.kernel = kernelFreezing
	t.holds = append(t.holds, hold{from: w.now, guestFrom: w.guestNow()})
	w.tracef("kernel: %s freezes", t.name)
	w.guestAfter(kernel, t.freeze, func() {
		t.kernel = kernelFrozen
		h := &t.holds[len(t.holds)-1]
		h.frozen, h.guestFrozen = w.now, w.guestNow()
		w.tracef("kernel: %s frozen", t.name)
		w.reach(pointFirstFrozen)
		done("")
	})
}

// fithaw is the system call, made by whom; done may be nil.
func (f *freezer) fithaw(t *target, by string, done func(err string)) {
	w := f.w
	if t.kernel == kernelThawing { // it waits for the other one's lock
		t.blocked = append(t.blocked, done)
		return
	}
	if t.kernel != kernelFrozen {
		w.guestAfter(kernel, w.tiny(), func() {
			if done != nil {
				done("EINVAL: invalid argument")
			}
		})
		return
	}
	t.kernel = kernelThawing
	w.guestAfter(kernel, t.thaw, func() {
		t.kernel = kernelFree
		h := &t.holds[len(t.holds)-1]
		h.to, h.gone, h.by = w.now, w.guestNow(), by
		w.tracef("kernel: %s thawed by %s", t.name, by)
		w.reach(pointReleased)
		if done != nil {
			done("")
		}
		for _, done := range t.blocked {
			if done != nil {
				done("EINVAL: invalid argument")
			}
		}
		t.blocked = nil
	})
}

// foreign thaws one file system behind everybody's back.
func (f *freezer) foreign(roll int) {
	t := f.targets[roll%len(f.targets)]
	if t.kernel == kernelFrozen {
		f.w.judge.foreign = true
		f.fithaw(t, "foreign", nil)
	}
}

// freeze is Freezer.Freeze.
func (f *freezer) freeze() {
	f.commands++
	f.running = true
	f.w.guestAfter(process, f.w.plan.prepare, func() {
		if f.began != 0 || f.stopped {
			f.freezeEnded(errors.New("freeze: not prepared, or this session has frozen already"))
			return
		}
		f.began = max(f.w.guestNow(), 1)
		if !f.w.dog.arm() {
			f.fail("freeze: arm the watchdog: the watchdog has ended")
			return
		}
		f.w.reach(pointArmed)
		f.w.guestAfter(process, f.w.tiny(), func() {
			f.w.agent.post(agent.HoldStarted{})
			f.w.guestAfter(process, f.w.tiny(), func() { f.freezeOne(0) })
		})
	})
}

// freezeOne freezes the file system i and then the next.
func (f *freezer) freezeOne(i int) {
	w := f.w
	switch {
	case i == len(f.targets) && !f.stopped:
		f.freezeEnded(nil)
		return
	case f.stopped:
		f.fail("thawed meanwhile")
		return
	case w.guestNow()-f.began >= 10*time.Second || !w.dog.alive:
		f.fail("late, or the watchdog has ended")
		return
	}
	t := f.targets[i]
	t.own, t.inFlight, f.waiting = ownFreezing, true, t
	w.guestAfter(process, w.tiny(), func() { // a stopped process makes the call when it goes on
		next := func(err string) {
			if f.waiting != t {
				return
			}
			f.waiting = nil
			if err != "" {
				f.fail("freeze " + t.name + ": " + err)
				return
			}
			f.freezeOne(i + 1)
		}
		f.fifreeze(t, func(err string) {
			w.guestAfter(process, w.tiny(), func() { f.returned(t, err, next) })
		})
		limit := min(w.guestNow()+5*time.Second, f.began+10*time.Second)
		w.guestOn(process, limit, func() { next(tooLate) })
	})
}

// returned is the end of the goroutine of one FIFREEZE: what comes too late thaws itself.
func (f *freezer) returned(t *target, err string, next func(string)) {
	end := func() {
		t.inFlight = false
		if f.onReturn != nil {
			f.onReturn()
		}
	}
	switch {
	case err != "":
		t.own = ownReleased
		end()
		next(err)
	case !f.stopped:
		t.own = ownHeld
		end()
		next("")
	default:
		t.own, t.tooLate = ownThawing, true
		f.fithaw(t, "agent, late", func(err string) {
			f.w.guestAfter(process, f.w.tiny(), func() {
				t.own, t.late = ownReleased, row(t, err)
				end()
				next("")
			})
		})
	}
}

func row(t *target, err string) *protocol.ThawResult {
	return &protocol.ThawResult{Mount: t.name, OK: err == "", Error: err}
}

func (f *freezer) fail(why string) {
	f.thawAll(0, func(rows []protocol.ThawResult) {
		// fsfreeze tells of a thaw that hangs here in the error of Freeze only, so THAWED does not know of it.
		late := func(r protocol.ThawResult) bool { return r.Error == tooLate }
		f.w.judge.untold = f.w.judge.untold || slices.ContainsFunc(rows, late)
		f.freezeEnded(errors.New(why))
	})
}

func (f *freezer) freezeEnded(err error) {
	f.running = false
	f.w.agent.post(agent.FreezeEnded{Err: err})
	if f.releaseMe {
		f.releaseMe = false
		f.thawAll(4*time.Second, func([]protocol.ThawResult) {})
	}
}

// thawAll releases what is held, the last frozen first, and waits a while for what is still freezing.
func (f *freezer) thawAll(wait time.Duration, done func([]protocol.ThawResult)) {
	f.stopped = true
	run := func() {
		f.releasing = true
		var rows []protocol.ThawResult
		f.thawNext(len(f.targets)-1, &rows, func() {
			f.awaitLate(wait, &rows, func() {
				f.settle()
				f.releasing = false
				done(rows)
				if len(f.queued) > 0 {
					next := f.queued[0]
					f.queued = f.queued[1:]
					next()
				}
			})
		})
	}
	if f.releasing {
		f.queued = append(f.queued, run)
		return
	}
	run()
}

// thawNext thaws from the file system i downwards, each for at most 4 s.
func (f *freezer) thawNext(i int, rows *[]protocol.ThawResult, done func()) {
	w := f.w
	for i >= 0 && f.targets[i].own != ownHeld {
		i--
	}
	if i < 0 {
		done()
		return
	}
	t := f.targets[i]
	t.own = ownThawing
	answered := false
	answer := func(err string, late bool) {
		if answered {
			return
		}
		answered = true
		if !late {
			t.own = ownReleased
		}
		*rows = append(*rows, *row(t, err))
		f.thawNext(i-1, rows, done)
	}
	f.fithaw(t, "agent", func(err string) {
		w.guestAfter(process, w.tiny(), func() { answer(err, false) })
	})
	w.guestAfter(process, 4*time.Second, func() { answer(tooLate, true) })
}

// awaitLate waits for the calls in flight and adds their rows.
func (f *freezer) awaitLate(wait time.Duration, rows *[]protocol.ThawResult, done func()) {
	over := false
	finish := func() {
		if over {
			return
		}
		over, f.onReturn = true, nil
		for _, t := range slices.Backward(f.targets) {
			switch {
			case t.late != nil:
				*rows = append(*rows, *t.late)
				t.late = nil
			case t.own == ownFreezing, t.own == ownThawing && t.tooLate:
				*rows = append(*rows, *row(t, "still freezing: it is thawed when the system call returns"))
			}
		}
		done()
	}
	flying := func(t *target) bool { return t.inFlight }
	if wait == 0 || !slices.ContainsFunc(f.targets, flying) {
		finish()
		return
	}
	f.onReturn = func() {
		if !slices.ContainsFunc(f.targets, flying) {
			finish()
		}
	}
	f.w.guestAfter(process, wait, finish)
}

func (f *freezer) settle() {
	if f.settled || f.began == 0 || slices.ContainsFunc(f.targets, func(t *target) bool { return t.own != ownReleased }) {
		return
	}
	f.settled = true
	f.w.dog.leave()
}

// thaw is Freezer.Thaw.
func (f *freezer) thaw(bool) {
	f.w.guestAfter(process, f.w.tiny(), func() {
		f.thawAll(4*time.Second, func(rows []protocol.ThawResult) {
			f.w.agent.post(agent.ThawEnded{Release: agent.Release{Results: rows}})
		})
	})
}

// release is Freezer.Close.
func (f *freezer) release() {
	if f.running {
		f.releaseMe = true
		return
	}
	f.thawAll(4*time.Second, func([]protocol.ThawResult) {})
}

// dog is the second net, a process of its own.
type dog struct {
	w       *world
	alive   bool
	armed   bool
	acted   bool
	actedAt time.Duration // by the guest's clock
	// killed is true when it did not end by itself.
	killed bool
	tries  int
}

func (d *dog) arm() bool {
	if !d.alive {
		return false
	}
	if d.armed {
		return true
	}
	d.armed = true
	_, limit := budgets(d.w.plan.budget)
	d.w.guestAfter(kernel, limit.net, d.pass)
	return true
}

func (d *dog) leave() { d.alive = false }

// endOfFile is the end of the agent: a last pass.
func (d *dog) endOfFile() {
	if d.alive && d.armed {
		d.tries = 300
		d.pass()
	}
}

// pass thaws what is held and, while its agent lives, looks again for what was still freezing.
func (d *dog) pass() {
	if !d.alive {
		return
	}
	if !d.acted {
		d.w.tracef("the second net acts")
		d.actedAt = d.w.guestNow()
	}
	d.acted = true
	for _, t := range slices.Backward(d.w.freezer.targets) {
		if t.kernel == kernelFrozen {
			d.w.freezer.fithaw(t, "second net", nil)
		}
	}
	if d.tries++; d.tries < 300 {
		d.w.guestAfter(kernel, 200*time.Millisecond, d.pass)
	}
}
