package freezewindow_test

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// lastWord is what the run says to the writers after the transfer: COMPLETE only of what is consistent and stored.
func (d *windowSide) lastWord() {
	good := d.report.Verdict.Level.Consistent() && !d.w.plan.vss.transferFails
	var m protocol.Message = &protocol.Abort{Reason: "the run ends"}
	t := protocol.WordAbort
	if good {
		m, t = &protocol.Complete{OK: "all"}, protocol.WordComplete
		d.w.judge.completeSaid = true
	}
	d.said = true
	if d.conn != nil {
		d.say(m, t, false)
		d.w.after(daemon, 20*time.Second, func() {
			if !d.answered && d.w.plan.vss.answers {
				d.takeOver(good)
			}
		})
		return
	}
	d.takeOver(good)
}

// takeOver resumes the session with a higher epoch, as a run does that has lost its connection, and says the last word.
func (d *windowSide) takeOver(good bool) {
	w := d.w
	if w.agent.left || w.gone[process] {
		return
	}
	c := w.road.connect()
	w.agent.met[c.id] = c
	hello := &protocol.Hello{MinV: 1, MaxV: 1, VMUUID: vmUUID, Epoch: epoch + 1, Resume: true}
	hello.S, hello.Q, hello.T = sessionID, 1<<30, protocol.WordHello
	var m protocol.Message = &protocol.Abort{Reason: "the orchestrator died"}
	t := protocol.WordAbort
	if good {
		m, t = &protocol.Complete{OK: "all"}, protocol.WordComplete
	}
	h := m.Head()
	h.V, h.S, h.Q, h.T = 1, sessionID, 1<<30+1, t
	w.after(process, w.road.delay(), func() { w.agent.step(agent.Hello{Link: c.id, M: hello}) })
	w.after(process, 2*w.road.delay()+time.Millisecond, func() {
		if w.agent.present == c {
			w.agent.step(agent.Msg{M: m})
		}
	})
}
