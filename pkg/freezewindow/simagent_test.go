package freezewindow_test

import (
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

const (
	sessionID = "0123456789abcdef0123456789abcdef"
	vmUUID    = "420d5d0f-2f5a-4f0e-9d4a-000000000001"
	presentGo = uint64(1000)
	epoch     = uint64(7)
)

// posted is an event in the agent's channel.
type posted struct {
	at    time.Duration
	event agent.Event
}

// agentSide drives agent.Step as Agent does.
type agentSide struct {
	w       *world
	state   agent.State
	timers  [agent.Timers]time.Duration
	present *conn
	met     map[int]*conn
	q       uint64
	inbox   []posted
	left    bool
	freezes map[uint64]int // Freeze commands by go
}

func newAgentSide(w *world) *agentSide {
	return &agentSide{w: w, met: map[int]*conn{}, freezes: map[uint64]int{}}
}

// arm brings the agent to READY before the window begins; everything slow has gone well.
func (w *world) arm() {
	a := w.agent
	state, commands := agent.Start(agent.Self{Version: "sim", VMUUID: vmUUID, BootID: "boot", Settles: w.vss != nil}, 0)
	a.state = state
	a.do(commands)
	c := w.road.connect()
	a.met[c.id] = c
	w.now += odd(time.Second)
	say := func(m protocol.Message, t protocol.Word) protocol.Message {
		w.window.seal(m, t)
		return m
	}
	hello := say(&protocol.Hello{MinV: 1, MaxV: 1, Nonce: "n", VMUUID: vmUUID, Epoch: epoch}, protocol.WordHello)
	a.step(agent.Hello{Link: c.id, M: hello.(*protocol.Hello)})
	w.window.conn = c
	a.step(agent.Msg{M: say(w.armWord(), protocol.WordArm)})
	w.now += odd(100 * time.Millisecond)
	var volumes []protocol.Volume
	for _, name := range w.held.names() {
		volumes = append(volumes, protocol.Volume{ID: name, Mounts: []string{name}})
	}
	a.step(agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes}})
	for left := w.plan.readyFor; ; left -= 20 * time.Second {
		w.now += min(left, 20*time.Second)
		if left <= 20*time.Second {
			break
		}
		a.step(agent.Msg{M: say(&protocol.Heartbeat{}, protocol.WordHeartbeat)})
	}
	c.lanes = [2]lane{} // what was said until now has arrived
	w.window.heard = a.q
}

// armWord is the ARM of this world.
func (w *world) armWord() *protocol.Arm {
	b, _ := budgets(w.plan.budget)
	arm := &protocol.Arm{Mode: string(w.plan.mode()), Budget: protocol.Limits{HoldMS: b.Hold.Milliseconds(), DeadmanMS: b.Deadman.Milliseconds()}}
	if v := w.plan.vss; v != nil {
		arm.Budget.IODeadmanMS = b.IODeadman.Milliseconds()
		arm.Writers.Required = v.required()
	}
	if w.plan.otherMode {
		arm.Mode = "writer"
		if w.plan.mode() == fw.ModeWriter {
			arm.Mode = "io"
		}
	}
	return arm
}

// post puts an event of the agent's own process into its channel.
func (a *agentSide) post(e agent.Event) {
	a.inbox = append(a.inbox, posted{a.w.guestNow(), e})
	a.w.guestAfter(process, a.w.tiny(), func() {
		p := a.inbox[0]
		a.inbox = a.inbox[1:]
		a.stepAt(p.at, p.event)
	})
}

func (a *agentSide) step(e agent.Event) { a.stepAt(a.w.guestNow(), e) }

func (a *agentSide) stepAt(at time.Duration, e agent.Event) { a.take(at, e, false) }

// take is one step; stale says that the world knows the event to be of another time or session.
func (a *agentSide) take(at time.Duration, e agent.Event, stale bool) {
	if a.left {
		return
	}
	before := a.state
	var commands []agent.Command
	a.state, commands = a.w.code.agent(a.state, at, e)
	if a.w.tracing {
		a.w.tracef("agent: %s -> %s %s", tell(e), a.state.Name, tellAll(commands))
	}
	a.w.judge.agentStep(before, at, e, a.state, commands, stale)
	a.points(e)
	a.do(commands)
}

// points tells the faults where the agent is.
func (a *agentSide) points(e agent.Event) {
	switch e := e.(type) {
	case agent.HoldStarted:
		a.w.reach(pointHoldStarted)
	case agent.Msg:
		switch e.M.(type) {
		case *protocol.Go:
			a.w.reach(pointGoRead)
		case *protocol.Thaw:
			a.w.reach(pointThawRead)
		}
	}
}

func (a *agentSide) do(commands []agent.Command) {
	for _, c := range commands {
		switch c := c.(type) {
		case agent.Adopt:
			a.hangUp()
			a.present = a.met[c.Link]
		case agent.Refuse:
			k := a.met[c.Link]
			c.M.S = sessionID
			a.w.road.send(k, toDaemon, c.M, false)
			a.w.road.finish(k, toDaemon)
			k.closed[toDaemon] = true
		case agent.Send:
			a.send(c.M, false)
		case agent.SetTimer:
			a.setTimer(c)
		case agent.StopTimer:
			a.timers[c.Timer] = 0
		case agent.Leave:
			a.leave()
		case agent.Freeze:
			a.freezes[a.state.Go]++
			a.w.held.freeze()
		case agent.Thaw:
			a.w.held.thaw(c.Asked)
		case agent.Finish:
			a.w.held.release()
		default:
			a.withWriters(c)
		}
	}
}

// withWriters does what only a session with writers does.
func (a *agentSide) withWriters(c agent.Command) {
	v := a.w.vss
	if v == nil {
		return
	}
	switch c := c.(type) {
	case agent.Prepare:
		v.session.prepare(c.PrepareRequest)
	case agent.Settle:
		v.session.settle()
	case agent.Complete:
		v.session.complete(c.Completion)
	}
}

func (a *agentSide) setTimer(c agent.SetTimer) {
	a.timers[c.Timer] = c.At
	if c.At > a.w.horizon()+2*time.Minute {
		return
	}
	a.w.guestOn(process, c.At, func() {
		if a.timers[c.Timer] == c.At && !a.left {
			a.timers[c.Timer] = 0
			a.step(agent.Fired{Timer: c.Timer})
		}
	})
}

// send writes a word on the present connection, if there is one. A stored word is copied: it may be on the road twice.
func (a *agentSide) send(m protocol.Message, stale bool) {
	if t, ok := m.(*protocol.Thawed); ok {
		c := *t
		m = &c
	}
	a.q++
	h := m.Head()
	h.V, h.S, h.Q = 1, sessionID, a.q
	if a.present == nil {
		return
	}
	a.w.road.send(a.present, toDaemon, m, stale)
	if stale {
		return
	}
	switch m.(type) {
	case *protocol.Frozen:
		a.w.reach(pointFrozenSent)
	case *protocol.Thawed:
		a.w.reach(pointThawedSent)
	}
}

func (a *agentSide) hangUp() {
	if a.present != nil {
		a.w.road.finish(a.present, toDaemon)
		a.present.closed[toDaemon] = true
		a.present = nil
	}
}

// lost is the end of a connection as the agent meets it.
func (a *agentSide) lost(c *conn) {
	if a.present != c || a.left {
		return
	}
	a.hangUp()
	a.w.judge.linkClosed()
	a.step(agent.LinkLost{})
}

func (a *agentSide) service() {
	if !a.left {
		a.w.judge.service = true
		a.step(agent.ServiceStop{})
	}
}

// leave is the orderly end of the process: the freezer is closed, and the second net sees the end of file.
func (a *agentSide) leave() {
	a.hangUp()
	a.left = true
	a.w.held.release()
	a.w.after(nature, time.Millisecond, a.buried)
}

// kill is SIGKILL: the process is gone when its last call into the kernel has returned.
func (a *agentSide) kill() {
	if a.w.gone[process] || a.left {
		return
	}
	a.w.gone[process] = true
	a.w.judge.agentHurt, a.w.judge.agentDead = true, true
	a.w.after(nature, time.Millisecond, a.buried)
}

// buried waits for the calls in flight; then connections and pipes of the process are closed.
func (a *agentSide) buried() {
	busy := func(t *target) bool { return t.kernel == kernelFreezing || t.kernel == kernelThawing }
	f := a.w.freezer
	// A process that leaves in good order first waits for the calls that it made, and thaws what they froze too late.
	owed := func(t *target) bool { return t.own == ownFreezing || t.own == ownThawing }
	atWork := a.left && !a.w.gone[process] && (f.running || f.releasing || len(f.queued) > 0 || slices.ContainsFunc(f.targets, owed))
	if v := a.w.vss; v != nil {
		if a.left && !a.w.gone[process] && len(v.session.calls) > 0 {
			a.w.after(nature, 100*time.Millisecond, a.buried)
			return
		}
		v.processGone()
	}
	if atWork || slices.ContainsFunc(f.targets, busy) {
		a.w.after(nature, 10*time.Millisecond, a.buried)
		return
	}
	a.w.gone[process] = true
	a.hangUp()
	a.w.guestAfter(kernel, time.Duration(a.w.rng.IntN(80e6)), a.w.dog.endOfFile)
}
