package freezewindow_test

import (
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// The results of VSS that the world needs (vss.h), and those of a call into a process that is gone (winerror.h).
const (
	hrOK           = "00000000"
	hrPending      = "00042309"
	hrFinished     = "0004230a"
	hrCancelled    = "0004230b"
	hrVeto         = "80042306"
	hrProvider     = "8004230f"
	hrFlush        = "80042313"
	hrHoldTimeout  = "80042314"
	hrNoAnswer     = "80042319"
	hrNoStatus     = "80042409"
	hrWriterGaveUp = "800423f2"
	hrWriterFails  = "800423f4"
	hrCallFailed   = "800706be"
)

// The states of a writer (vss.h, VSS_WRITER_STATE).
const (
	writerUnknown         = 0
	writerStable          = 1
	writerWaits           = 5
	writerFailedAtPrepare = 8
	writerFailedAtFreeze  = 9
	writerFailedAtThaw    = 10
	writerFailedAtPost    = 11
)

// writer is the truth of one writer.
type writer struct {
	writerPlan
	holds   []hold
	busy    bool // its OnFreeze has not returned
	held    bool
	gone    bool
	state   int
	failure string
}

// volsnap is the truth of the hold of writes: from and to by true time, by the guest's clock beside it.
type volsnap struct {
	from, to, guestFrom, guestTo time.Duration
	ranOut                       bool
}

// flight is one call into our provider that has not returned.
type flight struct {
	done   bool
	answer func(hr string)
}

// vss coordinates one shadow copy set, with the truth of all writers and of the hold of writes.
type vss struct {
	w        *world
	plan     *vssPlan
	writers  []*writer
	writes   volsnap
	provider *provider
	session  *session
	flights  []*flight

	running, freezing bool
	prepared          bool // our provider's EndPrepareSnapshots was called
	cancelled         bool
	ending            bool // the set fails, and writers are being thawed
	dead              bool // the service itself is gone
	result            string
	ended             bool
	flushRanOut       bool
	// flying is when the last step that nobody can cut short ended, by the guest's clock.
	flying time.Duration
}

func newVSS(w *world) *vss {
	v := &vss{w: w, plan: w.plan.vss, result: hrPending}
	for _, p := range v.plan.writers {
		v.writers = append(v.writers, &writer{writerPlan: p, state: writerStable, failure: hrOK})
	}
	v.provider = &provider{w: w, v: v, flush: "none", commits: -1}
	v.session = &session{w: w, v: v}
	return v
}

// quiet tells that nothing is held and nothing will be.
func (v *vss) quiet() bool {
	writing := v.writes.from == 0 || v.writes.to > 0
	return v.session.over() && (!v.running || v.ended) && writing && !v.holds()
}

// holds tells that a writer is held, or may still be.
func (v *vss) holds() bool {
	return slices.ContainsFunc(v.writers, func(w *writer) bool { return w.held || w.busy })
}

// call has our provider do something on a thread of its process; answer runs when it has, or when the process is gone.
func (v *vss) call(method func(answer func(hr string)), answer func(hr string)) {
	w := v.w
	f := &flight{answer: answer}
	back := func(hr string) {
		w.guestAfter(kernel, w.tiny(), func() {
			if !f.done && !v.dead {
				f.done = true
				f.answer(hr)
			}
		})
	}
	v.flights = append(v.flights, f)
	if w.gone[process] {
		back(hrCallFailed)
		return
	}
	w.guestAfter(process, w.tiny(), func() { method(back) })
}

// processGone is what VSS notices of the end of the agent: calls into it fail, and without a requestor the set ends.
func (v *vss) processGone() {
	v.w.guestAfter(kernel, v.w.tiny(), func() {
		for _, f := range v.flights {
			if !f.done && !v.dead {
				f.done = true
				f.answer(hrCallFailed)
			}
		}
	})
	v.w.guestAfter(kernel, v.plan.notice, func() {
		if v.running && !v.ended && !v.dead {
			v.flying = v.w.guestNow()
			v.fail(hrCallFailed)
		}
	})
}

// die is the end of the service: nothing is called any more, and writers thaw by themselves after a moment.
func (v *vss) die() {
	if v.dead {
		return
	}
	v.w.tracef("VSS dies")
	v.dead, v.flying = true, v.w.guestNow()
	v.w.guestAfter(kernel, v.plan.notice, func() { v.thawWriters(0, "VSS died", func() {}) })
	if v.running && !v.ended {
		v.end(hrCallFailed)
	}
}

// begin is DoSnapshotSet.
func (v *vss) begin() {
	v.running = true
	if v.dead {
		v.end(hrCallFailed)
		return
	}
	v.w.guestAfter(kernel, v.w.plan.prepare, func() {
		if v.stop() {
			return
		}
		for _, w := range v.writers {
			if w.fails == failsPrepare && !w.gone {
				w.state, w.failure = writerFailedAtPrepare, hrWriterFails
			}
		}
		if v.plan.failsBefore {
			v.fail(hrWriterFails)
			return
		}
		v.prepared = true
		v.step(v.provider.endPrepare, v.freezeWriters)
	})
}

// stop ends a set that was cancelled, and tells whether it is over.
func (v *vss) stop() bool {
	if v.cancelled && !v.ending && !v.ended {
		v.fail(hrCancelled)
	}
	return v.ending || v.ended || v.dead
}

// step has our provider do one method, and goes on when it has done it well.
func (v *vss) step(method func(answer func(hr string)), next func()) {
	v.call(method, func(hr string) {
		switch {
		case v.stop():
		case hr == hrOK:
			next()
		case hr == hrVeto && v.w.rng.IntN(2) == 0: // on some systems a veto is told as a failure of the provider
			v.fail(hrProvider)
		default:
			v.fail(hr)
		}
	})
}

// freezeWriters has all writers freeze at once and goes on when the last has answered.
func (v *vss) freezeWriters() {
	v.freezing = true
	for _, w := range v.writers {
		if w.gone || w.state == writerFailedAtPrepare {
			continue
		}
		w.busy = true
		v.w.guestAfter(kernel, w.after, func() { v.freeze(w) })
	}
	v.frozenAll()
}

// freeze is one writer's OnFreeze.
func (v *vss) freeze(w *writer) {
	switch {
	case w.gone:
		return
	case !v.freezing:
		v.answered(w)
		return
	}
	w.held = true
	w.holds = append(w.holds, hold{from: v.w.now, guestFrom: v.w.guestNow()})
	v.w.guestAfter(kernel, w.limit, func() {
		if w.held {
			w.state, w.failure = writerFailedAtFreeze, hrWriterGaveUp
			v.let(w, "itself")
		}
	})
	v.w.guestAfter(kernel, w.freeze, func() {
		if w.gone {
			return
		}
		if w.held {
			h := &w.holds[0]
			h.frozen, h.guestFrozen = v.w.now, v.w.guestNow()
			w.state = writerWaits
		}
		if w.fails == failsFreeze && w.held {
			w.state, w.failure = writerFailedAtFreeze, hrWriterFails
			v.let(w, "itself")
		}
		v.w.reach(pointFirstFrozen)
		v.answered(w)
	})
}

func (v *vss) answered(w *writer) {
	w.busy = false
	v.flying = v.w.guestNow()
	if !v.freezing || v.dead { // the thaw was put off until now
		if w.held {
			v.w.guestAfter(kernel, w.thaw, func() {
				if w.held {
					v.let(w, "the end of its set")
				}
			})
		}
		return
	}
	v.frozenAll()
}

// frozenAll goes on to the hold when no writer freezes any more.
func (v *vss) frozenAll() {
	if v.stop() || slices.ContainsFunc(v.writers, func(w *writer) bool { return w.busy }) {
		return
	}
	v.freezing = false
	v.step(v.provider.preCommit, func() {
		v.w.guestAfter(kernel, min(v.plan.flush, vssFlushLimit), func() {
			v.flying = v.w.guestNow()
			switch {
			case v.stop():
			case v.plan.flush >= vssFlushLimit:
				v.flushRanOut = true
				v.fail(hrFlush)
			default:
				v.commit()
			}
		})
	})
}

// commit holds all writes and calls CommitSnapshots.
func (v *vss) commit() {
	v.writes.from, v.writes.guestFrom = v.w.now, v.w.guestNow()
	v.w.tracef("Windows holds writes")
	v.w.guestAfter(kernel, v.plan.kernel, func() {
		if v.writes.to > 0 {
			return
		}
		v.writes.ranOut = true
		v.flow()
		if v.plan.tells && !v.stop() {
			v.fail(hrHoldTimeout)
		}
	})
	v.call(v.provider.commit, func(hr string) {
		v.flow()
		switch {
		case v.stop():
		case hr != hrOK:
			v.fail(hr)
		case v.writes.ranOut && !v.plan.unnoticed:
			v.fail(hrHoldTimeout)
		default:
			v.step(v.provider.postCommit, func() { v.thawWriters(0, "its set", func() { v.end(hrFinished) }) })
		}
	})
}

// flow lets writes go on.
func (v *vss) flow() {
	if v.writes.from > 0 && v.writes.to == 0 {
		v.writes.to, v.writes.guestTo = v.w.now, v.w.guestNow()
		v.w.tracef("writes go on, Windows let go by itself: %v", v.writes.ranOut)
	}
}

// fail ends the set: our provider is told, then the writers thaw.
func (v *vss) fail(hr string) {
	if v.ending || v.ended || v.dead {
		return
	}
	v.ending, v.freezing = true, false
	v.w.tracef("the set fails with %s", hr)
	thaw := func(string) {
		v.flow()
		v.thawWriters(0, "the end of its set", func() { v.end(hr) })
	}
	if !v.prepared {
		thaw("")
		return
	}
	v.call(v.provider.abort, thaw)
}

// thawWriters thaws one writer after the other.
func (v *vss) thawWriters(i int, by string, done func()) {
	v.freezing = false
	for i < len(v.writers) && (!v.writers[i].held || v.writers[i].busy) {
		i++
	}
	if i == len(v.writers) {
		done()
		return
	}
	w := v.writers[i]
	v.w.guestAfter(kernel, w.thaw, func() {
		if w.held {
			v.let(w, by)
			switch w.fails {
			case failsThaw:
				w.state, w.failure = writerFailedAtThaw, hrWriterFails
			case failsPostSnapshot:
				w.state, w.failure = writerFailedAtPost, hrWriterFails
			case writerWell, failsPrepare, failsFreeze:
			}
		}
		v.thawWriters(i+1, by, done)
	})
}

func (v *vss) let(w *writer, by string) {
	w.held = false
	h := &w.holds[len(w.holds)-1]
	h.to, h.gone, h.by = v.w.now, v.w.guestNow(), by
	v.w.tracef("writer %s thawed by %s", w.class[:5], by)
}

func (v *vss) end(hr string) {
	if v.ended {
		return
	}
	v.ended, v.result = true, hr
	v.w.tracef("the set has ended with %s", hr)
	v.w.reach(pointSetEnded)
	v.session.setEnded()
}

// cancel is IVssAsync::Cancel.
func (v *vss) cancel() {
	if v.cancelled || v.dead || v.plan.deaf {
		return
	}
	v.cancelled = true
	if v.plan.prompt && v.freezing {
		v.stop()
	}
}

// writerDies ends the service of a writer: what it held is held no more, and nobody answers for it.
func (v *vss) writerDies(roll int) {
	w := v.writers[roll%len(v.writers)]
	if w.gone {
		return
	}
	w.gone = true
	if w.held {
		v.let(w, "its end")
	}
	if w.busy {
		v.answered(w)
	}
}

// status is what VSS tells of the writers in our own session; lost is true when one answer got lost.
func (v *vss) status(lost bool) []protocol.Writer {
	var rows []protocol.Writer
	for i, w := range v.writers {
		row := protocol.Writer{Name: w.class, ClassID: w.class, State: w.state, FailureHR: w.failure, Required: w.required}
		switch {
		case w.gone || v.dead:
			row.State, row.FailureHR = writerUnknown, hrNoAnswer
		case lost && i == 0:
			row.State, row.FailureHR = writerUnknown, hrNoStatus
		}
		rows = append(rows, row)
	}
	return rows
}
