package freezewindow_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// Slack of the judge: what a computer needs to act, and what a clock that is 200 ppm wrong makes of half a minute.
const (
	actSlack   = 50 * time.Millisecond
	driftSlack = 10 * time.Millisecond
)

// invariant gives the name of a number. Up to 28 they are those of the design; from 101 on they are the judge's own.
func invariant(n int) string {
	switch n {
	case 1:
		return "the guest is released at its dead-man"
	case 3:
		return "THAW is sent when the hold may be Hold-Reserve old"
	case 4:
		return "nobody holds after both sides are dead"
	case 5:
		return "the dead-man never moves later"
	case 6:
		return "a level above crash has every proof"
	case 8:
		return "expired is at most crash"
	case 9:
		return "a success seen after THAW was sent is at most crash"
	case 10:
		return "the snapshot is asked for once, in Frozen"
	case 11:
		return "after GO, THAW is sent or the link is lost"
	case 12:
		return "THAW waits for nothing"
	case 13:
		return "Finish comes once and last"
	case 14:
		return "a task without an outcome is handed over"
	case 17:
		return "a go freezes at most once"
	case 18:
		return "what is stale changes nothing"
	case 19:
		return "the mode used is the mode reported"
	case 21:
		return "GO needs every token and time"
	case 22:
		return "an empty window is unproved"
	case 23:
		return "the phases add up"
	case 24:
		return "the same events give the same report"
	case 25:
		return "reconnect, cancel and stop never lengthen a hold"
	case 27:
		return "what is thawed is what was frozen"
	case 28:
		return "a closed connection releases within 1 s"
	case 101:
		return "the guest is free at the end"
	case 102:
		return "above crash, everything was truly held for the whole true snapshot"
	case 103:
		return "held_at_most is not below the true hold"
	case 104:
		return "held_by_guest is not below the true hold"
	case 105:
		return "no hold is longer than the promise"
	case 106:
		return "each THAW is answered"
	case 108:
		return "a guest that the second net released is reported as released by itself"
	case 107:
		return "what is not consistent has a cause and a reason"
	}
	return windowsInvariant(n)
}

// pause is a time in which a process was stopped.
type pause struct{ from, to time.Duration }

// broken is one invariant that fell.
type broken struct {
	number int
	text   string
}

// judge stands outside, knows the truth, and believes neither side.
type judge struct {
	w    *world
	seed uint64
	fell []broken

	// What happened to the world.
	pauses                                 []pause
	stuns                                  int
	agentHurt, agentDead, service, foreign bool
	untold                                 bool            // a hanging thaw that the agent was not told of
	closedAt                               []time.Duration // guest's time of each end of a connection while held

	// What the window was told and did.
	goSent, frozen, thawSent, lost, released bool
	calls, finishes, losses, backs           int
	outcome                                  fw.Event
	inTime, handed                           bool
	thawed                                   *fw.Release
	expired                                  bool
	report                                   fw.Report
	reported                                 bool
	deadman                                  time.Duration
	worst                                    time.Duration

	// Of Windows worlds.
	goAt, frozenAt    time.Duration // when GO was sent and FROZEN first came
	final             bool          // the guest's last word came
	netActed, stopped bool          // the agent ended itself, or was stopped
	completeSaid      bool
	saidEarly         bool          // a limit made the agent say its last word before the writers were asked
	worstStopped      time.Duration // the longest true hold while the agent was stopped
}

func (j *judge) failed() bool { return len(j.fell) > 0 }

func (j *judge) fail(n int, format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	j.w.tracef("INVARIANT %d BROKEN (%s): %s", n, invariant(n), text)
	if len(j.fell) < 8 {
		j.fell = append(j.fell, broken{n, text})
	}
}

func (j *judge) limits() limits {
	_, l := budgets(j.w.plan.budget)
	return l
}

// firstHold is the true time of the first hold, 0 while there was none.
func (j *judge) firstHold() time.Duration {
	first := time.Duration(0)
	if j.w.vss != nil {
		first = j.w.vss.provider.trueClock
	}
	for _, t := range j.w.freezer.targets {
		for _, h := range t.holds {
			if first == 0 || h.from < first {
				first = h.from
			}
		}
	}
	return first
}

// open tells that the window may hold and was not asked to end.
func (j *judge) open() bool {
	return j.goSent && !j.thawSent && !j.lost && !j.released && j.finishes == 0
}

// windowStep looks at one step of the window.
func (j *judge) windowStep(before fw.State, at time.Duration, e fw.Event, after fw.State, commands []fw.Command, stale bool) {
	if stale {
		// A heartbeat changes nothing but the time of the last event and of the last sign of life.
		same, _ := fw.Step(before, at, fw.GuestBeat{})
		after.Ignored, same.HeardAt = same.Ignored, before.HeardAt
		if len(commands) > 0 || !reflect.DeepEqual(same, after) {
			j.fail(18, "the window took %s", tell(e))
		}
		return
	}
	if j.finishes > 0 && len(commands) > 0 {
		j.fail(13, "%s after Finish", tellAll(commands))
	}
	mustThaw := j.open() && j.mustThaw(e)
	j.hear(e)
	thaws := 0
	for i, c := range commands {
		switch c := c.(type) {
		case fw.SendGo:
			j.sendGo()
		case fw.SendThaw:
			thaws++
			j.sendThaw()
		case fw.CallSnapshot:
			j.calls++
			if j.calls > 1 || !j.frozen || j.thawSent || j.lost || after.Phase != fw.Frozen {
				j.fail(10, "call %d in phase %s, FROZEN received %v", j.calls, after.Phase, j.frozen)
			}
		case fw.SetTimer:
			j.windowTimer(e, c)
		case fw.HandOver:
			j.handed = true
		case fw.Finish:
			j.finishes++
			if j.finishes > 1 || i != len(commands)-1 {
				j.fail(13, "Finish %d, then %s", j.finishes, tellAll(commands[i+1:]))
			}
		}
	}
	if mustThaw && thaws == 0 {
		j.fail(12, "no THAW at %s", tell(e))
	}
	if j.open() {
		j.thawTime("not sent")
	}
}

// mustThaw tells whether an event ends the hold at once.
func (j *judge) mustThaw(e fw.Event) bool {
	switch e := e.(type) {
	case fw.Cancel:
		return true
	case fw.SnapDone, fw.SnapFailed, fw.SnapUnknown:
		return j.calls > 0
	case fw.GuestError:
		return e.Fatal
	case fw.Fired:
		return e.Timer == fw.ThawBy
	}
	return false
}

// hear keeps what the window was told.
func (j *judge) hear(e fw.Event) {
	switch e := e.(type) {
	case fw.GuestFrozen:
		if e.Go == presentGo && j.goSent && !j.frozen {
			j.frozen, j.frozenAt = true, j.w.now
		}
	case fw.GuestThawed:
		if e.Go == presentGo {
			r := e.Release
			j.thawed, j.released, j.final = &r, true, e.Final
			j.expired = j.expired || e.Expired
		}
	case fw.LinkLost:
		if j.goSent && !j.lost || j.backs > 0 {
			j.losses++
		}
		j.lost = j.lost || j.goSent
	case fw.LinkBack:
		j.backs++
	case fw.SnapDone:
		j.outcome, j.inTime = e, j.open() && j.calls > 0
	case fw.SnapFailed, fw.SnapUnknown:
		j.outcome = e
	}
}

func (j *judge) sendGo() {
	if j.goSent {
		j.fail(17, "GO was sent twice")
	}
	j.goSent, j.goAt = true, j.w.now
	if !j.w.plan.armed || j.w.plan.readyFor > 55*time.Second {
		j.fail(21, "armed %v, ready for %v already", j.w.plan.armed, j.w.plan.readyFor)
	}
}

func (j *judge) sendThaw() {
	if !j.thawSent && !j.lost && !j.released {
		j.thawTime("sent")
	}
	j.thawSent = true
}

// thawTime compares now with the last moment at which THAW may be sent: Hold-Reserve after GO, or, when FROZEN has
// come, when the true hold is as old. A stopped process acts as soon as it may.
func (j *judge) thawTime(what string) {
	from := j.w.window.start
	if first := j.firstHold(); j.frozen && first > 0 {
		from = first
	}
	by := from + j.limits().thaw + driftSlack
	for _, p := range j.pauses {
		if p.from <= by && p.to > by-driftSlack {
			by = max(by, p.to+actSlack)
		}
	}
	j.ioThawTime(what)
	if j.w.now > by {
		j.fail(3, "THAW %s %v after GO, at a true hold of %v", what, j.w.now-j.w.window.start, j.w.now-from)
	}
}

func (j *judge) windowTimer(e fw.Event, c fw.SetTimer) {
	if c.Timer != fw.ThawBy && c.Timer != fw.IOBy {
		return
	}
	switch e.(type) {
	case fw.Start, fw.GuestFrozen:
	default:
		j.fail(25, "%s set for %v by %s", tell(c), c.At, tell(e))
	}
}

// agentStep looks at one step of the agent.
func (j *judge) agentStep(before agent.State, at time.Duration, e agent.Event, after agent.State, commands []agent.Command, stale bool) {
	if stale {
		same, _ := agent.Step(before, at, agent.Fired{Timer: agent.Timer(agent.Timers)}) // a timer that does not exist
		after.Dropped = same.Dropped
		if m, ok := e.(agent.Msg); ok && m.M.Head().S == sessionID && m.M.Head().Q > before.LastQ {
			same.LastQ = m.M.Head().Q // a new word of this session about another freeze
		}
		quiet := !slices.ContainsFunc(commands, func(c agent.Command) bool {
			switch c := c.(type) {
			case agent.Refuse:
				return false
			case agent.Send:
				_, no := c.M.(*protocol.Error)
				return !no
			case agent.SetTimer:
				return c.Timer != agent.TimerSilence
			case agent.StopTimer:
				return c.Timer != agent.TimerSilence
			}
			return true
		})
		if !quiet || !reflect.DeepEqual(same, after) {
			j.fail(18, "the agent took %s", tell(e))
		}
		return
	}
	held := before.Name == agent.Freezing || before.Name == agent.Frozen
	thaws, answered := false, false
	for _, c := range commands {
		switch c := c.(type) {
		case agent.Thaw:
			thaws = true
		case agent.Freeze:
			if j.w.agent.freezes[after.Go] > 0 || after.Go == 0 {
				j.fail(17, "go %d freezes again", after.Go)
			}
		case agent.SetTimer:
			j.agentTimer(c)
		case agent.Send:
			if j.w.vss != nil {
				j.saysOfSet(c.M, e)
			}
			if t, ok := c.M.(*protocol.Thawed); ok {
				answered = answered || t.Go == presentGo
				j.saysThawed(t)
			}
		}
	}
	for _, c := range commands {
		if c, ok := c.(agent.StopTimer); ok && c.Timer == agent.TimerDeadman && !thaws {
			j.fail(5, "the dead-man was stopped without a thaw at %s", tell(e))
		}
	}
	j.ends(e, held, thaws, before, answered)
}

// ends looks at the events that must end a hold, or be answered.
func (j *judge) ends(e agent.Event, held, thaws bool, before agent.State, answered bool) {
	switch e := e.(type) {
	case agent.ServiceStop:
		if held && !thaws {
			j.fail(25, "held on at %s", tell(e))
		}
	case agent.Msg:
		switch m := e.M.(type) {
		case *protocol.Abort:
			if held && !thaws {
				j.fail(25, "held on at %s", tell(e))
			}
		case *protocol.Thaw:
			if m.Go != presentGo || m.Q <= before.LastQ || before.Name == agent.Thawing && before.Stored == nil {
				return
			}
			if held && !thaws || !held && before.Name != agent.Thawing && !answered {
				j.fail(106, "THAW in %s was not answered", before.Name)
			}
		}
	}
}

func (j *judge) agentTimer(c agent.SetTimer) {
	if c.Timer != agent.TimerDeadman {
		return
	}
	if j.deadman > 0 && c.At > j.deadman {
		j.fail(5, "the dead-man moved from %v to %v", j.deadman, c.At)
	}
	j.deadman = c.At
}

// saysThawed compares a good THAWED with the truth.
func (j *judge) saysThawed(t *protocol.Thawed) {
	if t.Go != presentGo || !t.Finished {
		return
	}
	for _, m := range j.w.freezer.targets {
		ours := len(m.holds) > 0 && strings.HasPrefix(m.holds[len(m.holds)-1].by, "agent")
		says := slices.ContainsFunc(t.ThawResults, func(r protocol.ThawResult) bool { return r.OK && r.Mount == m.name })
		if m.kernel != kernelFree || !ours || !says {
			j.fail(27, "THAWED says finished: %s, our own thaw %v, told %v", m.name, ours, says)
		}
	}
}

// linkClosed keeps when the guest learnt of the end of its connection while it held.
func (j *judge) linkClosed() {
	if v := j.w.vss; v != nil && v.provider.clock > 0 && !v.ended {
		j.closedAt = append(j.closedAt, j.w.guestNow())
	}
	if slices.ContainsFunc(j.w.freezer.targets, func(t *target) bool { return t.kernel != kernelFree }) {
		j.closedAt = append(j.closedAt, j.w.guestNow())
	}
}

// concluded looks at the report.
func (j *judge) concluded(r fw.Report) {
	j.report, j.reported = r, true
	level := r.Verdict.Level
	if !j.goSent && (level != fw.Unproved || r.Verdict.Cause != fw.CauseNotReady) {
		j.fail(22, "no GO, but %s, cause %q", level, r.Verdict.Cause)
	}
	if r.Mode != j.w.plan.mode() || j.w.plan.otherMode && level.Consistent() {
		j.fail(19, "mode %s, armed with another %v, level %s", r.Mode, j.w.plan.otherMode, level)
	}
	_, unknown := j.outcome.(fw.SnapUnknown)
	if j.calls > 0 && (j.outcome == nil || unknown) && !j.handed {
		j.fail(14, "the task was called, its outcome is %T", j.outcome)
	}
	if len(r.Verdict.Reasons) == 0 || !level.Consistent() && r.Verdict.Cause == fw.CauseNone {
		j.fail(107, "level %s, cause %q, reasons %q", level, r.Verdict.Cause, r.Verdict.Reasons)
	}
	j.phases(r)
	if level.Consistent() {
		j.proofs(r)
	}
}

func (j *judge) phases(r fw.Report) {
	if !j.goSent {
		return
	}
	var sum time.Duration
	for _, p := range r.Phases {
		if p.Start != sum || p.Duration < 0 {
			j.fail(23, "phase %s starts at %v, not at %v", p.Name, p.Start, sum)
		}
		sum += p.Duration
	}
	if whole := j.w.now - j.w.window.start; (sum - whole).Abs() > time.Millisecond {
		j.fail(23, "the phases are %v, the window is %v", sum, whole)
	}
}

// proofs are the evidence bits that a level above crash needs, read from what was said and not from the state.
func (j *judge) proofs(r fw.Report) {
	if !j.frozen || j.calls != 1 || j.thawed == nil || !j.thawed.WasHeld || !j.thawed.Finished || len(j.thawed.Failed) > 0 {
		j.fail(6, "FROZEN %v, calls %d, THAWED %+v", j.frozen, j.calls, j.thawed)
	}
	if j.expired {
		j.fail(8, "expired by %s, but %s", j.thawed.ExpiredBy, r.Verdict.Level)
	}
	if _, ok := j.outcome.(fw.SnapDone); !ok || !j.inTime {
		j.fail(9, "outcome %T, seen before THAW %v", j.outcome, j.inTime)
	}
	if j.w.vss != nil && j.thawed != nil {
		j.setProofs(r)
	}
	if r.SelfReleased {
		j.fail(6, "%s, but released by itself", r.Verdict.Level)
	}
}

// end compares what was said with the truth, when all is over.
func (j *judge) end() {
	w := j.w
	if j.failed() && !w.code.goOn {
		return
	}
	dead := w.gone[daemon] && (w.gone[process] || w.agent.left)
	for _, t := range w.freezer.targets {
		if t.kernel != kernelFree {
			n := 101
			if dead {
				n = 4
			}
			j.fail(n, "%s is still held after %v", t.name, w.now)
		}
	}
	if !w.gone[daemon] && j.finishes == 0 {
		j.fail(13, "no Finish within %v", w.now)
	}
	if j.goSent && !j.thawSent && !j.lost && !w.gone[daemon] {
		j.fail(11, "neither THAW nor a lost link")
	}
	if w.vss != nil {
		j.endOfSet(dead)
	} else {
		j.holds()
	}
	switch {
	case j.reported && w.vss != nil:
		j.truthOfSet()
	case j.reported:
		j.truth()
	}
	if w.code.replay && j.seed%16 == 0 {
		j.replay()
	}
}

// span is a time in which at least one file system was held, by the guest's clock. flying is when the last call to
// freeze that had not returned in time returned.
type span struct{ from, to, flying time.Duration }

// spans joins the holds of all file systems.
func (j *judge) spans() []span {
	var all []span
	for _, t := range j.w.freezer.targets {
		for _, h := range t.holds {
			if h.to > 0 {
				all = append(all, span{h.guestFrom, h.gone, h.guestFrozen})
			}
		}
	}
	slices.SortFunc(all, func(a, b span) int { return int(a.from - b.from) })
	var out []span
	for _, s := range all {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to, out[n-1].flying = max(out[n-1].to, s.to), max(out[n-1].flying, s.flying)
			continue
		}
		out = append(out, s)
	}
	return out
}

// holds checks the length of every true hold.
func (j *judge) holds() {
	w, l := j.w, j.limits()
	var thaw time.Duration
	for _, m := range w.plan.mounts {
		thaw += m.thaw
	}
	limit := l.deadman + actSlack
	if j.agentHurt || w.agent.left {
		limit = l.net + 200*time.Millisecond + actSlack
	}
	for _, s := range j.spans() {
		long := s.to - s.from
		if !w.plan.kernelHang {
			j.worst = max(j.worst, long)
			// Under a lowered budget a call that freezes can last longer than all of it.
			if long > 20*time.Second || long > l.hold && s.flying-s.from < l.deadman {
				j.fail(105, "held for %v", long)
			}
		}
		// A call into the kernel that has not returned cannot be undone by anybody.
		due := max(s.from+limit, s.flying+200*time.Millisecond+actSlack) + thaw
		if !w.plan.kernelHang && s.to > due || w.plan.kernelHang && s.to > due+thaw {
			j.fail(1, "held for %v, due after %v", long, due-s.from)
		}
		for _, closed := range j.closedAt {
			due := max(closed+time.Second, s.flying+actSlack) + thaw
			if !j.agentHurt && !w.plan.kernelHang && s.from <= closed && closed < s.to && s.to > due {
				j.fail(28, "closed at %v, released at %v", closed, s.to)
			}
		}
	}
}

// truth compares the report with the true holds and the true snapshot.
func (j *judge) truth() {
	r, v := j.report, j.w.vcenter
	first, last, guestFirst, guestLast := time.Duration(0), time.Duration(0), time.Duration(0), time.Duration(0)
	for _, t := range j.w.freezer.targets {
		covered := false
		for _, h := range t.holds {
			if first == 0 || h.from < first {
				first, guestFirst = h.from, h.guestFrom
			}
			last, guestLast = max(last, h.to), max(guestLast, h.gone)
			covered = covered || h.frozen > 0 && h.frozen <= v.cutFrom && h.to >= v.cutTo
		}
		if r.Verdict.Level.Consistent() && (!covered || !v.finished) {
			j.fail(102, "%s: holds %+v, snapshot %v..%v", t.name, t.holds, v.cutFrom, v.cutTo)
		}
	}
	agentState := j.w.agent.state
	due := j.w.dog.acted && j.w.dog.actedAt >= agentState.HoldAt+j.limits().deadman
	if due && agentState.ReachedAll && !j.w.plan.kernelHang && !r.SelfReleased && slices.ContainsFunc(j.w.freezer.targets, func(t *target) bool {
		return slices.ContainsFunc(t.holds, func(h hold) bool { return h.by == "second net" })
	}) {
		j.fail(108, "held %v, %+v", r.HeldByGuest, r.Release)
	}
	if first == 0 || j.untold {
		return
	}
	if r.HeldAtMostKnown && last-first > r.HeldAtMost+driftSlack {
		j.fail(103, "held_at_most %v, truly %v", r.HeldAtMost, last-first)
	}
	if r.HeldByGuestKnown && guestLast-guestFirst > r.HeldByGuest+time.Millisecond {
		j.fail(104, "held_by_guest %v, truly %v", r.HeldByGuest, guestLast-guestFirst)
	}
}

// replay gives the reducer the same events again.
func (j *judge) replay() {
	d := j.w.window
	s := fw.State{}
	s.Budget, _ = budgets(j.w.plan.budget)
	for _, t := range d.events {
		s, _ = fw.Step(s, t.at, t.event)
	}
	if !d.done {
		return
	}
	again := fw.Conclude(s)
	if !d.w.gone[daemon] {
		again.Ignored = j.report.Ignored // events after Finish are counted, too
	}
	a, errA := json.Marshal(j.report)
	b, errB := json.Marshal(again)
	if errA != nil || errB != nil || string(a) != string(b) {
		j.fail(24, "%s\n%s\n%v %v", a, b, errA, errB)
	}
}
