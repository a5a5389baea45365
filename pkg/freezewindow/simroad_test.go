package freezewindow_test

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// The two ways of the road. A way also names the side that sends on it.
const (
	toGuest  = 0
	toDaemon = 1
)

// frame is one word on its way; fin is the end of the connection behind the words.
type frame struct {
	m          protocol.Message
	stale, fin bool
}

// lane is one way of one connection: first in, first out.
type lane struct {
	queue []frame
	last  time.Duration
}

// conn is one connection.
type conn struct {
	id     int
	lanes  [2]lane
	broken bool    // nothing passes any more
	resets bool    // a write on the broken connection is answered by a reset
	closed [2]bool // the side that sends on this way has closed its end, or knows of the end
}

// road is the network between the two sides.
type road struct {
	w     *world
	conns int
	stall [2]time.Duration // nothing is delivered on this way before
	out   time.Duration    // no new connection before
	past  []protocol.Message
}

func (r *road) connect() *conn {
	r.conns++
	return &conn{id: r.conns}
}

// delay is one way's time for one frame.
func (r *road) delay() time.Duration {
	w := r.w
	d := w.plan.rtt/2 + time.Duration(w.rng.Int64N(int64(w.plan.rtt/8+2)))
	if w.plan.tail > 0 && chance(w.rng, w.plan.tail) {
		d += time.Duration(w.rng.Int64N(int64(3 * time.Second)))
	}
	return odd(d)
}

// owner is who reads at the end of a way.
func reader(way int) owner {
	if way == toGuest {
		return process
	}
	return daemon
}

// send puts a word on its way.
func (r *road) send(c *conn, way int, m protocol.Message, stale bool) {
	r.put(c, way, frame{m: m, stale: stale})
}

// finish closes the sender's end behind what was sent.
func (r *road) finish(c *conn, way int) { r.put(c, way, frame{fin: true}) }

func (r *road) put(c *conn, way int, f frame) {
	w := r.w
	if c.closed[way] {
		return
	}
	if c.broken {
		if c.resets {
			w.after(nature, w.plan.rtt, func() { r.notice(c, way) })
		}
		return
	}
	l := &c.lanes[way]
	l.queue = append(l.queue, f)
	l.last = max(w.now+r.delay(), l.last+2, r.stall[way])
	w.push(item{at: l.last, owner: reader(way), run: func() { r.deliver(c, way) }})
}

// deliver hands over the first frame of a lane.
func (r *road) deliver(c *conn, way int) {
	w := r.w
	l := &c.lanes[way]
	if c.broken || len(l.queue) == 0 {
		return
	}
	if until := r.stall[way]; until > w.now {
		w.push(item{at: until + w.tiny(), owner: reader(way), run: func() { r.deliver(c, way) }})
		return
	}
	f := l.queue[0]
	l.queue = l.queue[1:]
	switch {
	case c.closed[1-way]:
	case f.fin:
		r.notice(c, 1-way)
	case way == toGuest:
		if w.agent.present == c {
			w.agent.take(w.guestNow(), agent.Msg{M: f.m}, f.stale)
		}
	default:
		w.window.hear(c, f)
	}
}

// notice tells one side, which sends on way, that the connection has ended.
func (r *road) notice(c *conn, way int) {
	if c.closed[way] {
		return
	}
	r.w.after(reader(1-way), r.w.tiny(), func() {
		if c.closed[way] {
			return
		}
		if way == toDaemon {
			r.w.agent.lost(c)
		} else {
			r.w.window.lost(c)
		}
		c.closed[way] = true
	})
}

// cut breaks the present connection: both sides learn it at once, one of them late, or nobody.
func (r *road) cut(f fault) {
	c := r.w.window.conn
	if c == nil {
		c = r.w.agent.present
	}
	if c == nil || c.broken {
		return
	}
	c.broken = true
	late := f.length
	first, second := f.roll%2, 1-f.roll%2
	switch (f.roll / 2) % 6 {
	case 0, 1: // both
		r.notice(c, first)
		r.notice(c, second)
	case 2, 3: // half-open: one side learns it later
		r.notice(c, first)
		r.w.after(nature, late, func() { r.notice(c, second) })
	case 4: // half-open: the other side learns it only when it writes
		c.resets = true
		r.notice(c, first)
	case 5: // a hole that swallows everything
		c.resets = f.roll%4 == 0
	}
}

// attempt is one try to resume.
type attempt struct {
	conn *conn
	over bool
}

// resume closes the old connection and tries to go on with the session on a new one.
func (r *road) resume() {
	w := r.w
	d := w.window
	if old := d.conn; old != nil {
		d.conn = nil
		r.finish(old, toGuest)
		old.closed[toGuest] = true
		w.after(daemon, 1, func() { d.step(lostLink(), false) })
	}
	a := &attempt{}
	d.attempt = a
	fail := func(after time.Duration, gone bool) {
		w.after(daemon, after, func() {
			if !a.over {
				a.over = true
				d.resumeFailed(gone)
			}
		})
	}
	trip := func() time.Duration { return r.delay() + r.delay() }
	switch {
	case w.now < r.out:
		fail(5*time.Second, false)
		return
	case w.agent.left || w.gone[process]:
		d.refused++
		fail(trip(), d.refused >= 3)
		return
	}
	d.refused = 0
	a.conn = r.connect()
	c := a.conn
	hello := &protocol.Hello{MinV: 1, MaxV: 1, Nonce: "n", VMUUID: vmUUID, Epoch: epoch, Resume: true}
	w.after(daemon, trip(), func() {
		d.seal(hello, protocol.WordHello)
		w.push(item{at: max(w.now+r.delay(), r.stall[toGuest]), owner: process, run: func() {
			w.agent.met[c.id] = c
			w.agent.step(agent.Hello{Link: c.id, M: hello})
		}})
		w.after(daemon, 8*time.Second, func() {
			if !a.over {
				r.finish(c, toGuest)
				c.closed[toGuest] = true
			}
			fail(0, false)
		})
	})
}

// stale brings words of another time: replays, old sessions, other freezes, old epochs, a GO said twice.
func (r *road) stale(f fault) {
	w := r.w
	a, d := w.agent, w.window
	if w.gone[process] || a.left {
		return
	}
	say := func(m protocol.Message, t protocol.Word, s string, q uint64) {
		h := m.Head()
		h.V, h.T, h.S, h.Q = 1, t, s, q
		w.after(process, w.tiny(), func() {
			if a.present != nil {
				// A word of another freeze means nothing only once this one is known.
				a.take(w.guestNow(), agent.Msg{M: m}, s != sessionID || q <= a.state.LastQ || a.state.Go != 0)
			}
		})
	}
	hello := func(m *protocol.Hello, s string) {
		m.MinV, m.MaxV, m.VMUUID, m.S, m.T = 1, 1, vmUUID, s, protocol.WordHello
		c := r.connect()
		a.met[c.id] = c
		w.after(process, w.tiny(), func() { a.take(w.guestNow(), agent.Hello{Link: c.id, M: m}, true) })
	}
	other := "f" + sessionID[1:]
	old := presentGo - 1
	menu := 14
	if w.vss != nil {
		menu = 16
	}
	switch f.roll % menu {
	case 0, 1:
		if len(r.past) > 0 {
			m := r.past[(f.roll/16)%len(r.past)]
			w.after(process, w.tiny(), func() {
				if a.present != nil {
					a.take(w.guestNow(), agent.Msg{M: m}, m.Head().Q <= a.state.LastQ)
				}
			})
		}
	case 2:
		say(&protocol.Thaw{Go: presentGo}, protocol.WordThaw, other, 1<<40)
	case 3:
		say(&protocol.Go{Go: presentGo + 1, HoldMS: 20000}, protocol.WordGo, other, 1<<40)
	case 4:
		say(&protocol.Abort{}, protocol.WordAbort, other, 1<<40)
	case 5:
		d.say(&protocol.Thaw{Go: old, Reason: "cancelled"}, protocol.WordThaw, a.state.Go != 0)
	case 6, 7:
		d.say(&protocol.Go{Go: presentGo, HoldMS: 20000}, protocol.WordGo, false)
	case 8:
		hello(&protocol.Hello{Epoch: epoch - 1, Envelope: protocol.Envelope{Q: 1}}, other)
	case 9:
		hello(&protocol.Hello{Epoch: epoch, Resume: true, Envelope: protocol.Envelope{Q: 1}}, sessionID)
	case 10:
		hello(&protocol.Hello{Epoch: epoch + 1, Resume: true, Envelope: protocol.Envelope{Q: 1 << 40}}, other)
	case 11:
		a.send(oldThawed(old, w.held.names(), true), true)
	case 12:
		a.send(oldThawed(old, w.held.names(), false), true)
	case 13:
		f := &protocol.Frozen{Go: old, Mode: string(w.plan.mode()), LeftUS: 18e6}
		f.T = protocol.WordFrozen
		a.send(f, true)
	case 14, 15:
		say(&protocol.Complete{OK: "all"}, protocol.WordComplete, other, 1<<40)
	}
}

// oldThawed is the good end of a freeze that was not this one.
func oldThawed(id uint64, mounts []string, final bool) *protocol.Thawed {
	t := &protocol.Thawed{Go: id, Final: final, WasHeld: true, Finished: true, ExpiredBy: "none", HeldUS: 2e6}
	t.T = protocol.WordThawed
	for _, m := range mounts {
		t.ThawResults = append(t.ThawResults, protocol.ThawResult{Mount: m, OK: true})
	}
	return t
}
