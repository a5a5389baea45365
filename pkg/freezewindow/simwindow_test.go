package freezewindow_test

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// told is one event as the window's reducer got it.
type told struct {
	at    time.Duration
	event fw.Event
}

// windowSide drives freezewindow.Step as Run does, and stands for the session of pkg/guest.
type windowSide struct {
	w       *world
	state   fw.State
	start   time.Duration
	opened  bool
	done    bool
	timers  [fw.Timers]time.Duration
	events  []told
	report  fw.Report
	dieAt   int // commands until the process dies, 0 = never
	conn    *conn
	attempt *attempt
	q       uint64
	heard   uint64
	refused int

	said, answered bool // the last word of the run to the writers
}

func newWindow(w *world) *windowSide {
	d := &windowSide{w: w}
	d.state.Budget, _ = budgets(w.plan.budget)
	return d
}

func lostLink() fw.Event { return fw.LinkLost{Err: errors.New("reset")} }

// open begins the window: everything slow is done.
func (d *windowSide) open() {
	d.start, d.opened = d.w.now, true
	d.step(fw.Start{Ready: fw.Ready{
		Go: presentGo, Mode: d.w.plan.mode(), Left: 60*time.Second - d.w.plan.readyFor, Need: d.w.plan.need,
		Armed: d.w.plan.armed, Volumes: d.w.held.names(), Writers: d.w.plan.requiredWriters(), Name: "stillframe-sim-1",
	}}, false)
}

func (d *windowSide) cancel() {
	if d.opened {
		d.step(fw.Cancel{}, false)
	}
}

// step is one step; stale says that the world knows the event to be of another freeze.
func (d *windowSide) step(e fw.Event, stale bool) {
	if !d.opened || d.w.gone[daemon] {
		return
	}
	at := d.w.now - d.start
	before := d.state
	var commands []fw.Command
	d.state, commands = d.w.code.window(d.state, at, e)
	d.events = append(d.events, told{at, e})
	if d.w.tracing {
		d.w.tracef("window: %s -> %s %s", tell(e), d.state.Phase, tellAll(commands))
	}
	d.w.judge.windowStep(before, at, e, d.state, commands, stale)
	d.points(e)
	for _, c := range commands {
		if d.w.gone[daemon] {
			return
		}
		d.do(c)
	}
}

// points tells the faults where the window is.
func (d *windowSide) points(e fw.Event) {
	switch e.(type) {
	case fw.GuestFrozen:
		d.w.reach(pointFrozenReceived)
	case fw.SnapAccepted:
		d.w.reach(pointAccepted)
	case fw.SnapDone:
		d.w.reach(pointDoneReceived)
	case fw.LinkLost:
		d.w.reach(pointLinkLost)
	case fw.LinkBack:
		d.w.reach(pointLinkBack)
	}
}

func (d *windowSide) do(c fw.Command) {
	if d.dieAt > 0 {
		if d.dieAt--; d.dieAt == 0 {
			d.dead()
			return
		}
	}
	switch c := c.(type) {
	case fw.SendGo:
		d.w.reach(pointGoSent)
		d.say(&protocol.Go{Go: c.Go, HoldMS: d.state.Budget.Hold.Milliseconds()}, protocol.WordGo, false)
	case fw.SendThaw:
		d.w.reach(pointThawSent)
		d.say(&protocol.Thaw{Go: c.Go, Reason: string(c.Reason)}, protocol.WordThaw, false)
	case fw.SendBeat:
		d.say(&protocol.Heartbeat{}, protocol.WordHeartbeat, false)
	case fw.CallSnapshot:
		d.w.vcenter.call()
	case fw.SetTimer:
		d.setTimer(c)
	case fw.StopTimer:
		d.timers[c.Timer] = 0
	case fw.TryResume:
		if !d.done {
			d.w.road.resume()
		}
	case fw.HandOver:
	case fw.Finish:
		d.finish()
	}
}

// finish ends the window as Run does, and the run goes on to close the agent's session.
func (d *windowSide) finish() {
	d.done = true
	if d.attempt != nil {
		d.attempt.over = true
	}
	d.report = d.w.code.conclude(d.state)
	d.w.judge.concluded(d.report)
	if d.w.vss != nil {
		d.w.after(daemon, d.w.plan.vss.transfer, d.lastWord)
		return
	}
	d.w.after(daemon, d.w.tiny(), func() {
		if d.report.Verdict.Level.Consistent() {
			d.say(&protocol.Complete{OK: "all"}, protocol.WordComplete, false)
		} else {
			d.say(&protocol.Abort{Reason: "the run ends"}, protocol.WordAbort, false)
		}
	})
}

func (d *windowSide) setTimer(c fw.SetTimer) {
	d.timers[c.Timer] = c.At
	d.w.push(item{at: max(d.start+c.At, d.w.now), owner: daemon, run: func() {
		if d.timers[c.Timer] == c.At && !d.done {
			d.timers[c.Timer] = 0
			d.step(fw.Fired{Timer: c.Timer}, false)
		}
	}})
}

// die makes the process die: between two commands later on, with or without an end of its connection.
func (d *windowSide) die(roll int) {
	if roll%2 == 0 {
		d.dieAt = 1 + roll/2%8
		return
	}
	d.dead()
}

func (d *windowSide) dead() {
	w := d.w
	if w.gone[daemon] || d.done {
		return
	}
	w.gone[daemon] = true
	w.tracef("the orchestrator dies")
	if d.conn != nil {
		if w.rng.IntN(3) > 0 { // its kernel closes the connection, else its whole host is gone
			w.road.finish(d.conn, toGuest)
		}
		d.conn.closed[toGuest] = true
	}
	if w.plan.successor > 0 {
		w.after(nature, w.plan.successor, d.succeed)
	}
}

// succeed is another orchestrator with a higher epoch that ends the session it finds.
func (d *windowSide) succeed() { d.takeOver(false) }

// seal fills in the envelope of a word of ours.
func (d *windowSide) seal(m protocol.Message, t protocol.Word) {
	d.q++
	h := m.Head()
	h.V, h.T, h.S, h.Q = 1, t, sessionID, d.q
}

// say writes a word on the present connection; without one it is lost.
func (d *windowSide) say(m protocol.Message, t protocol.Word, stale bool) {
	d.seal(m, t)
	d.w.road.past = append(d.w.road.past, m)
	if d.conn != nil {
		d.w.road.send(d.conn, toGuest, m, stale)
	}
}

// lost is the end of a connection as the session's reader meets it.
func (d *windowSide) lost(c *conn) {
	if a := d.attempt; a != nil && a.conn == c && !a.over && d.conn != c {
		a.over = true
		d.resumeFailed(false)
		return
	}
	if d.conn != c {
		return
	}
	d.conn = nil
	d.step(lostLink(), false)
}

func (d *windowSide) resumeFailed(gone bool) {
	d.step(fw.ResumeFailed{Gone: gone, Err: errors.New("not resumed")}, false)
}

// hear is the session's reader: what is replayed or of another session ends here.
func (d *windowSide) hear(c *conn, f frame) {
	h := f.m.Head()
	if a := d.attempt; a != nil && a.conn == c && !a.over && d.conn != c {
		a.over = true
		if _, ok := f.m.(*protocol.HelloAnswer); !ok {
			c.closed[toGuest] = true
			d.resumeFailed(true)
			return
		}
		d.heard = max(d.heard, h.Q)
		d.conn = c
		d.w.after(daemon, d.w.tiny(), func() { d.step(fw.LinkBack{}, false) })
		return
	}
	if c != d.conn || h.S != sessionID || h.Q <= d.heard {
		return
	}
	d.heard = h.Q
	switch m := f.m.(type) {
	case *protocol.Frozen:
		d.step(fw.GuestFrozen{
			Go: m.Go, Mode: fw.Mode(m.Mode), Hold: us(m.HoldUS), SinceGo: us(m.SinceGoUS), IO: us(m.IOUS), Left: us(m.LeftUS),
		}, f.stale)
	case *protocol.Thawed:
		d.step(fw.GuestThawed{Go: m.Go, Final: m.Final, Release: release(m)}, f.stale)
	case *protocol.Error:
		d.step(fw.GuestError{Code: m.Code, Text: m.Text, Fatal: m.Fatal}, f.stale)
	case *protocol.CompleteAnswer, *protocol.Abort:
		d.answered = true
	case *protocol.Heartbeat:
		d.step(fw.GuestBeat{State: m.State, Hold: us(m.HoldUS), Left: us(m.LeftUS)}, f.stale)
	}
}

func us(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func release(m *protocol.Thawed) fw.Release {
	r := fw.Release{
		WasHeld: m.WasHeld, ThawArrived: us(m.ThawArrivedUS), Held: us(m.HeldUS), IO: us(m.IOUS), Expired: m.Expired, ExpiredBy: m.ExpiredBy,
		Finished: m.Finished, SetResult: m.SetResult,
	}
	r.Witness.HoldRanOut, r.Witness.FlushRanOut = m.Witness[protocol.WitnessHoldRanOut] != "", m.Witness[protocol.WitnessFlushRanOut] != ""
	for _, w := range m.Writers {
		r.Writers = append(r.Writers, fw.Writer{Name: w.Name, ClassID: w.ClassID, State: w.State, Failure: w.FailureHR, Required: w.Required})
	}
	for _, t := range m.ThawResults {
		if t.OK {
			r.Thawed = append(r.Thawed, t.Mount)
			continue
		}
		if r.Failed == nil {
			r.Failed = map[string]string{}
		}
		r.Failed[t.Mount] = t.Error
	}
	return r
}

// vcenter takes the snapshot, or does not.
type vcenter struct {
	w        *world
	calls    int
	cutFrom  time.Duration // of the task's run, in which the disks are cut; 0 = not yet
	cutTo    time.Duration
	finished bool
}

func (v *vcenter) call() {
	w, p := v.w, &v.w.plan
	v.calls++
	if v.calls > 1 {
		return
	}
	tell := func(after time.Duration, e fw.Event) { w.after(daemon, after, func() { w.window.step(e, false) }) }
	switch p.outcome {
	case callRefused:
		tell(p.answer, fw.SnapFailed{Code: "SF2101", Err: errors.New("refused")})
		return
	case callUnknown:
		tell(p.answer+p.task/2, fw.SnapUnknown{Code: "SF4016", Err: errors.New("broken")})
	case taskSucceeds, taskFails, taskSilent:
		accepted := p.answer
		if p.early {
			accepted = p.queue + p.task + p.push + 50*time.Millisecond
		}
		tell(accepted, fw.SnapAccepted{Task: "task-1"})
	}
	if !p.taskRuns {
		return
	}
	w.after(nature, p.rtt/2+p.queue, func() {
		v.cutFrom = w.now
		w.tracef("vCenter cuts the disks")
		w.reach(pointCutStarts)
		if p.stun > 0 {
			w.after(nature, p.cut, func() { w.stun(p.stun) })
		}
		w.after(nature, max(p.task, p.cut+p.stun), func() {
			v.cutTo, v.finished = w.now, true
			w.tracef("vCenter has cut the disks")
			w.reach(pointCutEnds)
			switch p.outcome {
			case taskSucceeds:
				tell(p.push, fw.SnapDone{Snapshot: inventory.Snapshot{Name: "stillframe-sim-1", Moref: "snapshot-1"}})
			case taskFails:
				tell(p.push, fw.SnapFailed{Code: "SF4015", Err: errors.New("failed")})
			case callRefused, callUnknown, taskSilent:
			}
		})
	})
}

// tell names an event or a command for the log.
func tell(v any) string {
	switch v := v.(type) {
	case agent.Msg:
		return fmt.Sprintf("word %s q%d", v.M.Head().T, v.M.Head().Q)
	case agent.Hello:
		return fmt.Sprintf("hello q%d resume %v link %d", v.M.Q, v.M.Resume, v.Link)
	case agent.Send:
		if t, ok := v.M.(*protocol.Thawed); ok {
			return fmt.Sprintf("Send{THAWED go %d held %v expired %s finished %v %dus %v}", t.Go, t.WasHeld, t.ExpiredBy, t.Finished, t.HeldUS, t.ThawResults)
		}
		if e, ok := v.M.(*protocol.Error); ok {
			return fmt.Sprintf("Send{ERROR %s %s}", e.Code, e.Text)
		}
		return fmt.Sprintf("Send{%s}", v.M.Head().T)
	case agent.Refuse:
		return "Refuse{" + v.M.Text + "}"
	case agent.PreparedEvent:
		return "prepared"
	}
	return strings.ReplaceAll(fmt.Sprintf("%T%+v", v, v), "freezewindow.", "")
}

func tellAll[T any](commands []T) string {
	var s []string
	for _, c := range commands {
		s = append(s, tell(c))
	}
	return "[" + strings.Join(s, " ") + "]"
}
