package freezewindow_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// owner is whose time an item of the queue runs in: what is stopped or dead does nothing.
type owner uint8

const (
	nature  owner = iota // the faults and the road: always
	daemon               // the orchestrator's process
	process              // the agent's process
	kernel               // the guest outside the agent: its file systems and the second net
	owners  = int(kernel) + 1
)

// item is something that will happen. guestAt, when set, is the guest's clock at which it is due: its true time moves
// when the guest is stunned.
type item struct {
	at, guestAt time.Duration
	tie         uint64
	owner       owner
	run         func()
}

// horizon ends a world that does not come to rest; a session with writers may wait 15 minutes for its last word.
const (
	horizon        = 10 * time.Minute
	windowsHorizon = 40 * time.Minute
)

// linger is how long a world runs on after everything seems to be over.
const linger = 1500 * time.Millisecond

// world is one window with all that is around it: true time, the guest's clock, the two sides and the road between.
type world struct {
	rng    *rand.Rand
	plan   plan
	code   code
	now    time.Duration
	queue  []item
	seq    uint64
	paused [owners]time.Duration // stopped until
	gone   [owners]bool

	guestRate time.Duration // parts in a million that the guest's clock is fast
	guestAt   time.Duration // the guest's clock at guestFrom
	guestFrom time.Duration // true time; later than now while the guest is stunned

	window  *windowSide
	agent   *agentSide
	freezer *freezer
	dog     *dog
	road    *road
	vcenter *vcenter
	judge   *judge

	vss  *vss  // nil in a Linux guest
	held guest // what the agent freezes: the freezer, or a session with vss

	pending [allPoints][]fault
	rested  time.Duration // when everything was first over
	tracing bool
	log     []string
}

// guest is what the agent freezes, as agent.Freezer.
type guest interface {
	names() []string
	freeze()
	thaw(asked bool)
	release()
	// quiet tells that nothing is held and nothing will be.
	quiet() bool
}

// streams are of the random numbers: a seed means the same Linux world for ever, whatever Windows worlds draw.
var streams = [...]uint64{linux: 0x9e3779b97f4a7c15, windows: 0xd1b54a32d192ed03}

// newWorld draws a world from a seed.
func newWorld(s system, seed uint64, c code, tracing bool) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, streams[s])), code: c, tracing: tracing}
	if s == windows {
		w.plan = drawWindows(w.rng)
	} else {
		w.plan = draw(w.rng)
	}
	w.guestRate = time.Duration(w.plan.ppm)
	w.judge = &judge{w: w, seed: seed}
	w.dog = &dog{w: w, alive: true}
	w.freezer = newFreezer(w)
	w.held = w.freezer
	if s == windows {
		w.vss = newVSS(w)
		w.held = w.vss.session
	}
	w.road = &road{w: w}
	w.vcenter = &vcenter{w: w}
	w.agent = newAgentSide(w)
	w.window = newWindow(w)
	return w
}

// simulate runs the world to its rest and gives its judge.
func (w *world) simulate() *judge {
	w.arm()
	for _, f := range w.plan.faults {
		w.pending[f.point] = append(w.pending[f.point], f)
	}
	w.reach(pointStart)
	w.after(daemon, 1, w.window.open)
	for len(w.queue) > 0 {
		it := w.pop()
		w.now = max(w.now, it.at)
		if w.now > w.horizon() || w.judge.failed() && !w.tracing && !w.code.goOn {
			break
		}
		if w.gone[it.owner] {
			continue
		}
		if until := w.heldUp(it.owner); until > w.now {
			it.at = until + w.tiny()
			w.push(it)
			continue
		}
		if it.guestAt > 0 && w.guestNow() < it.guestAt {
			it.at = w.trueAt(it.guestAt)
			w.push(it)
			continue
		}
		it.run()
		if w.over() {
			break
		}
	}
	w.judge.end()
	return w.judge
}

func (w *world) system() system {
	if w.vss != nil {
		return windows
	}
	return linux
}

func (w *world) horizon() time.Duration {
	if w.vss != nil {
		return windowsHorizon
	}
	return horizon
}

// over tells that nothing more can happen that matters.
func (w *world) over() bool {
	quiet := (w.window.done || w.gone[daemon]) && w.held.quiet()
	if !quiet {
		w.rested = 0
		return false
	}
	if w.rested == 0 {
		w.rested = w.now
	}
	return w.now-w.rested > linger
}

func (w *world) heldUp(o owner) time.Duration {
	until := w.paused[o]
	if o == process || o == kernel {
		until = max(until, w.guestFrom)
	}
	return until
}

// after puts run into the queue, d from now in true time.
func (w *world) after(o owner, d time.Duration, run func()) {
	w.push(item{at: w.now + odd(d), owner: o, run: run})
}

// guestAfter puts run into the queue, d from now by the guest's clock.
func (w *world) guestAfter(o owner, d time.Duration, run func()) {
	w.guestOn(o, w.guestNow()+odd(d), run)
}

// guestOn puts run into the queue for the moment at of the guest's clock.
func (w *world) guestOn(o owner, at time.Duration, run func()) {
	w.push(item{at: w.trueAt(at), guestAt: max(at, 1), owner: o, run: run})
}

// odd makes a delay an odd number of nanoseconds, so that two of them rarely meet.
func odd(d time.Duration) time.Duration { return max(d, 0) | 1 }

// tiny is the time that a computer needs to come to the next thing.
func (w *world) tiny() time.Duration { return odd(time.Duration(1000 + w.rng.IntN(60000))) }

func (w *world) guestNow() time.Duration {
	d := w.now - w.guestFrom
	if d <= 0 {
		return w.guestAt
	}
	return w.guestAt + d + d*w.guestRate/1e6
}

// trueAt is when the guest's clock will show at, if it is not stunned before.
func (w *world) trueAt(at time.Duration) time.Duration {
	left := at - w.guestNow()
	if left <= 0 {
		return w.now
	}
	return max(w.now, w.guestFrom) + time.Duration(math.Ceil(float64(left)*1e6/(1e6+float64(w.guestRate)))) + 1
}

// stun stops the whole guest, its clock with it.
func (w *world) stun(d time.Duration) {
	w.tracef("guest stunned for %v", d)
	w.judge.stuns++
	w.guestAt, w.guestFrom = w.guestNow(), max(w.now, w.guestFrom)+odd(d)
}

func (w *world) push(it item) {
	w.seq++
	it.tie = uint64(w.rng.Uint32())<<32 | w.seq
	w.queue = append(w.queue, it)
	i := len(w.queue) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !w.queue[i].before(w.queue[up]) {
			break
		}
		w.queue[i], w.queue[up] = w.queue[up], w.queue[i]
		i = up
	}
}

func (a item) before(b item) bool { return a.at < b.at || a.at == b.at && a.tie < b.tie }

func (w *world) pop() item {
	top := w.queue[0]
	n := len(w.queue) - 1
	w.queue[0] = w.queue[n]
	w.queue[n] = item{}
	w.queue = w.queue[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return top
		}
		if down+1 < n && w.queue[down+1].before(w.queue[down]) {
			down++
		}
		if !w.queue[down].before(w.queue[i]) {
			return top
		}
		w.queue[i], w.queue[down] = w.queue[down], w.queue[i]
		i = down
	}
}

// reach fires the faults that wait for a point of the window, each once.
func (w *world) reach(p point) {
	faults := w.pending[p]
	w.pending[p] = nil
	for _, f := range faults {
		w.after(nature, f.delay, func() { w.strike(f) })
	}
}

// strike does one fault.
func (w *world) strike(f fault) {
	w.tracef("fault %v for %v", f.kind, f.length)
	if w.dog.killed && (f.kind == faultKillAgent || f.kind == faultStopAgent) {
		return // nobody promises anything when both the agent and its second net are shot
	}
	switch f.kind {
	case faultCancel:
		w.after(daemon, 1, w.window.cancel)
	case faultKillAgent:
		w.agent.kill()
	case faultStopAgent:
		w.judge.agentHurt, w.judge.stopped = true, true
		w.paused[process] = max(w.paused[process], w.now+f.length)
	case faultService:
		w.after(process, 1, w.agent.service)
	case faultStun:
		w.stun(f.length)
	case faultStopDaemon:
		w.judge.pauses = append(w.judge.pauses, pause{w.now, w.now + f.length})
		w.paused[daemon] = max(w.paused[daemon], w.now+f.length)
	case faultKillDaemon:
		w.window.die(f.roll)
	case faultCut:
		w.road.cut(f)
	case faultOneWay:
		way := f.roll % 2
		w.road.stall[way] = max(w.road.stall[way], w.now+f.length)
	case faultOutage:
		w.road.out = max(w.road.out, w.now+f.length)
		w.road.cut(f)
	case faultForeignThaw:
		w.freezer.foreign(f.roll)
	case faultStale:
		w.road.stale(f)
	case faultWriterDies:
		w.vss.writerDies(f.roll)
	case faultVSSDies:
		w.vss.die()
	case faultForeignSet:
		w.after(process, 1, func() { w.vss.provider.end(holdSystem, holdSystem) })
	case faultKillDog:
		if !w.gone[process] && !w.judge.agentHurt {
			w.dog.alive, w.dog.killed = false, true
		}
	}
}

func (w *world) tracef(format string, a ...any) {
	if w.tracing {
		w.log = append(w.log, fmt.Sprintf("%12.6f guest %12.6f  ", w.now.Seconds(), w.guestNow().Seconds())+fmt.Sprintf(format, a...))
	}
}

func (w *world) trace() string { return strings.Join(w.log, "\n") }
