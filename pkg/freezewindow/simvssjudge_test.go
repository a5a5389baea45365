package freezewindow_test

import (
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// The literal limits of the time inside CommitSnapshots; they are no constants of the code on purpose.
const (
	ioThawLimit    = 7500 * time.Millisecond
	ioDeadmanLimit = 8500 * time.Millisecond
)

// windowsInvariant gives the name of a number that only Windows worlds can break.
func windowsInvariant(n int) string {
	switch n {
	case 2:
		return "CommitSnapshots returns at its dead-man"
	case 7:
		return "a level above crash has every required writer well"
	case 15:
		return "the writers are told exactly one end, then asked and let go"
	case 16:
		return "BackupComplete(true) comes only after COMPLETE"
	case 109:
		return "was_held is what the hold itself says"
	case 110:
		return "the guest's last word comes after the writers were asked"
	case 111:
		return "BackupComplete comes only after a set that ended well"
	case 112:
		return "a writer is told of a success only when it was truly held"
	case 113:
		return "closed is said only when no writer waits any more"
	case 114:
		return "a hold that THAW did not end never looks well"
	}
	return "?"
}

// holdTruth is what really happened to one thing that is to be held: a writer, or the writes of the volumes.
type holdTruth struct {
	what     string
	from, to time.Duration
	ours     bool // not let go by itself
}

// covers tells that it was held by us for the whole true snapshot.
func (h holdTruth) covers(v *vcenter) bool {
	return h.ours && v.finished && h.from > 0 && h.from <= v.cutFrom && h.to >= v.cutTo
}

func (w *writer) truth() holdTruth {
	t := holdTruth{what: "writer " + w.class}
	if len(w.holds) > 0 {
		h := w.holds[0]
		t.from, t.to = h.frozen, h.to
		t.ours = h.by == "its set" || h.by == "the end of its set"
	}
	return t
}

// ioThawTime compares now with the last moment at which THAW may be sent in mode io: when FROZEN has come and the time
// inside CommitSnapshots is 7.5 s, but for what a clock that is 200 ppm wrong makes of the time since GO.
func (j *judge) ioThawTime(what string) {
	v := j.w.vss
	if v == nil || !j.frozen || v.writes.from == 0 || v.session.order.Mode != "io" || j.w.plan.otherMode {
		return
	}
	drift := time.Millisecond + (v.provider.trueEntered-j.goAt)/4000
	by := max(v.provider.trueEntered+ioThawLimit+drift, j.frozenAt)
	for _, p := range j.pauses {
		if p.from <= by && p.to > by-driftSlack {
			by = max(by, p.to+actSlack)
		}
	}
	if j.w.now > by {
		j.fail(3, "THAW %s %v after CommitSnapshots was entered, %v after GO", what, j.w.now-v.provider.trueEntered, j.w.now-j.goAt)
	}
}

// holdLeft looks at the function that held, as it returns. A stopped process acts as soon as it may.
func (j *judge) holdLeft() {
	w, p := j.w, j.w.vss.provider
	if j.agentHurt && w.now <= max(w.paused[process], w.guestFrom)+actSlack {
		return
	}
	if age := p.left - p.clock; age > j.limits().deadman+actSlack {
		j.fail(1, "the hold was left %v after EndPrepareSnapshots", age)
	}
	if age := p.left - p.entered; p.v.session.order.Mode == "io" && age > ioDeadmanLimit+actSlack {
		j.fail(2, "CommitSnapshots returned after %v", age)
	}
}

// saysOfSet compares words of the agent with the truth of VSS.
func (j *judge) saysOfSet(m protocol.Message, e agent.Event) {
	s := j.w.vss.session
	switch m := m.(type) {
	case *protocol.Frozen:
		if m.Go == presentGo && m.Mode != s.order.Mode {
			j.fail(19, "FROZEN says mode %s, the guest is held in mode %s", m.Mode, s.order.Mode)
		}
	case *protocol.Abort:
		if m.Closed && !s.released {
			j.fail(113, "ABORT is answered at %s, a writer may still wait", tell(e))
		}
	case *protocol.CompleteAnswer:
		if m.Closed && !s.released {
			j.fail(113, "COMPLETE is answered at %s, a writer may still wait", tell(e))
		}
	case *protocol.Thawed:
		if m.Go != presentGo {
			return
		}
		if m.WasHeld && s.v.provider.phase != holdThawed {
			j.fail(109, "THAWED says was_held, the hold ended in phase %d", s.v.provider.phase)
		}
		f, ok := e.(agent.Fired)
		late := ok && (f.Timer == agent.TimerThawing || f.Timer == agent.TimerSettle)
		j.saidEarly = j.saidEarly || late // and may say so again
		if m.Final && s.freezing && !s.settled && !j.saidEarly {
			j.fail(110, "the last THAWED was sent at %s", tell(e))
		}
		if m.Finished && (!s.finished() || len(m.ThawResults) != s.v.plan.volumes) {
			j.fail(27, "THAWED says finished, the set ended with %s: %+v", s.v.result, m.ThawResults)
		}
	}
}

// completed looks at BackupComplete.
func (j *judge) completed(ok bool) {
	s := j.w.vss.session
	if ok && !j.completeSaid {
		j.fail(16, "BackupComplete(true), but nobody said COMPLETE")
	}
	if !s.finished() {
		j.fail(111, "the set ended with %s in phase %d", s.v.result, s.v.provider.phase)
	}
}

// toldSuccess looks at one writer that is told of a good backup.
func (j *judge) toldSuccess(w *writer) {
	if t := w.truth(); !j.reported || !j.report.Verdict.Level.Consistent() || !t.covers(j.w.vcenter) {
		j.fail(112, "%s: %+v, level %s", t.what, t, j.report.Verdict.Level)
	}
}

// endOfSet compares what was said with the truth of VSS, when all is over.
func (j *judge) endOfSet(dead bool) {
	w, v := j.w, j.w.vss
	n := 101
	if dead {
		n = 4
	}
	if v.holds() || v.writes.from > 0 && v.writes.to == 0 || !v.session.over() {
		j.fail(n, "still held or open after %v: writers %v, writes %+v, session over %v", w.now, v.holds(), v.writes, v.session.over())
		return
	}
	j.sessionEnds()
	j.writersHeld()
	if v.result == hrFinished && w.agent.state.ThawAt == 0 {
		j.fail(114, "the set finished, but no THAW came")
	}
	if held := v.writes.guestTo - v.writes.guestFrom; !j.agentHurt && !v.dead && held > ioDeadmanLimit+2*actSlack || held > kernelLimit+actSlack {
		j.fail(2, "writes were held for %v", held)
	}
	for _, closed := range j.closedAt {
		if p := v.provider; !j.agentHurt && !w.plan.vss.stuck && p.entered > 0 && p.left > max(closed, p.entered)+time.Second {
			j.fail(28, "closed at %v, released at %v", closed, p.left)
		}
	}
}

// sessionEnds wants exactly one end told to the writers, unless the process was killed, which tells them too.
func (j *judge) sessionEnds() {
	s := j.w.vss.session
	told := s.completes + s.aborts
	orderly := !j.w.gone[process] || j.w.agent.left
	switch {
	case told > 1:
		j.fail(15, "BackupComplete %d times, AbortBackup %d times", s.completes, s.aborts)
	case orderly && !s.stuck && (told != 1 || !s.released):
		j.fail(15, "BackupComplete %d times, AbortBackup %d times, let go %v", s.completes, s.aborts, s.released)
	case orderly && s.completes == 1 && !s.statusAfter:
		j.fail(15, "the writers' status was not read after BackupComplete")
	case !orderly && s.completes == 1 && s.aborts == 0 && s.released && !s.statusAfter:
		j.fail(15, "let go before the writers' status was read")
	}
}

// writersHeld checks how long each writer was truly held. What nobody can cut short, an OnFreeze, a flush, a stopped
// process, ends only by the writer's own limit.
func (j *judge) writersHeld() {
	v := j.w.vss
	l := j.limits()
	var thaw time.Duration
	for _, w := range v.writers {
		thaw += w.thaw
	}
	due := max(v.provider.clock+l.deadman, v.flying) + v.plan.notice + thaw + 2*actSlack
	if v.plan.stuck {
		due += l.net - l.deadman
	}
	for _, w := range v.writers {
		for _, h := range w.holds {
			long := h.gone - h.guestFrom
			stopped := j.agentHurt && !j.agentDead || j.stopped
			switch {
			case stopped:
				j.worstStopped = max(j.worstStopped, long)
				continue
			case h.gone > due:
				j.fail(1, "writer %s was held for %v, due %v after EndPrepareSnapshots", w.class, long, due-v.provider.clock)
			}
			if thaw < 5*time.Second && v.flying < v.provider.clock+l.deadman && v.flying < max(v.provider.left, v.provider.clock) {
				j.worst = max(j.worst, long)
				if long > 20*time.Second {
					j.fail(105, "writer %s was held for %v", w.class, long)
				}
			}
		}
	}
}

// held is the longest true hold of a writer, by the guest's clock.
func (v *vss) held() time.Duration {
	var long time.Duration
	for _, w := range v.writers {
		for _, h := range w.holds {
			long = max(long, h.gone-h.guestFrom)
		}
	}
	return long
}

// setProofs are the evidence bits of Windows that a level above crash needs.
func (j *judge) setProofs(r fw.Report) {
	if !j.final {
		j.fail(7, "%s without the guest's last word", r.Verdict.Level)
	}
	for _, id := range j.w.plan.vss.required() {
		i := slices.IndexFunc(j.thawed.Writers, func(w fw.Writer) bool { return w.ClassID == id })
		if i < 0 || j.thawed.Writers[i].Failure != hrOK || j.thawed.Writers[i].State != writerStable && j.thawed.Writers[i].State != writerWaits {
			j.fail(7, "%s, required writer %s of %+v", r.Verdict.Level, id, j.thawed.Writers)
		}
	}
	if v := j.w.vss; string(r.Mode) != v.session.order.Mode {
		j.fail(19, "the report says mode %s, the guest was held in mode %s", r.Mode, v.session.order.Mode)
	}
}

// truthOfSet compares the report with the true holds and the true snapshot.
func (j *judge) truthOfSet() {
	r, v := j.report, j.w.vss
	if r.Verdict.Level.Consistent() {
		var must []holdTruth
		for _, w := range v.writers {
			if w.required {
				must = append(must, w.truth())
			}
		}
		if r.Mode == fw.ModeIO {
			must = append(must, holdTruth{"writes", v.writes.from, v.writes.to, !v.writes.ranOut})
		}
		for _, t := range must {
			if !t.covers(j.w.vcenter) {
				j.fail(102, "%s, %s, snapshot %v..%v", r.Verdict.Level, tell(t), j.w.vcenter.cutFrom, j.w.vcenter.cutTo)
			}
		}
	}
	p := v.provider
	if p.left == 0 {
		return
	}
	if r.HeldAtMostKnown && p.trueLeft-p.trueClock > r.HeldAtMost+driftSlack {
		j.fail(103, "held_at_most %v, truly %v", r.HeldAtMost, p.trueLeft-p.trueClock)
	}
	if r.HeldByGuestKnown && p.left-p.clock > r.HeldByGuest+time.Millisecond {
		j.fail(104, "held_by_guest %v, truly %v", r.HeldByGuest, p.left-p.clock)
	}
}
