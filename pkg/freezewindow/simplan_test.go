package freezewindow_test

import (
	"math"
	"math/rand/v2"
	"time"

	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// point is a moment of a window that a fault can wait for.
type point uint8

const (
	pointStart point = iota
	pointGoSent
	pointGoRead
	pointArmed
	pointHoldStarted
	pointFirstFrozen
	pointFrozenSent
	pointFrozenReceived
	pointAccepted
	pointCutStarts
	pointCutEnds
	pointDoneReceived
	pointThawSent
	pointThawRead
	pointReleased
	pointThawedSent
	pointLinkLost
	pointLinkBack
	points = int(pointLinkBack) + 1
)

// kind is what can go wrong.
type kind uint8

const (
	faultCancel kind = iota
	faultKillAgent
	faultStopAgent
	faultService
	faultStun
	faultStopDaemon
	faultKillDaemon
	faultCut
	faultOneWay
	faultOutage
	faultForeignThaw
	faultStale
	faultKillDog
	kinds = int(faultKillDog) + 1
)

// fault is one thing that goes wrong, delay after point.
type fault struct {
	kind          kind
	point         point
	delay, length time.Duration
	roll          int
}

// limits are the literal numbers of the promise, one row for each budget that a world may have. They are no constants
// of the code on purpose.
type limits struct{ hold, thaw, deadman, net time.Duration }

// budgets gives the budget number i and what the judge expects of it.
func budgets(i int) (fw.Budget, limits) {
	switch i {
	case 1:
		return fw.Budget{
			Hold: 12e9, Reserve: 3e9, Deadman: 10e9, IOThaw: 7.5e9, IODeadman: 8.5e9,
		}, limits{12e9, 9e9, 10e9, 10.5e9}
	case 2:
		return fw.Budget{
			Hold: 20e9, Reserve: 6e9, Deadman: 17e9, IOThaw: 7.5e9, IODeadman: 8.5e9,
		}, limits{20e9, 14e9, 17e9, 17.5e9}
	}
	return fw.Budget{
		Hold: 20e9, Reserve: 3e9, Deadman: 18e9, IOThaw: 7.5e9, IODeadman: 8.5e9,
	}, limits{20e9, 17e9, 18e9, 18.5e9}
}

// mountPlan is how one file system behaves.
type mountPlan struct {
	freeze, thaw time.Duration
	err          string
}

// outcome is what vCenter makes of the call.
type outcome uint8

const (
	taskSucceeds outcome = iota
	taskFails
	callRefused
	callUnknown // the call breaks; whether the task runs is drawn
	taskSilent  // it never says that it has ended
)

// plan is what was drawn for a world before it begins.
type plan struct {
	budget     int
	ppm        int // how fast the guest's clock is
	rtt        time.Duration
	tail       float64 // part of the frames that take much longer
	readyFor   time.Duration
	armed      bool
	otherMode  bool
	prepare    time.Duration // from GO to the first hold
	mounts     []mountPlan
	kernelHang bool // a call into the kernel takes longer than any limit
	faults     []fault

	outcome                        outcome
	taskRuns, early                bool
	queue, task, cut, push, answer time.Duration
	stun                           time.Duration
	successor                      time.Duration // when another orchestrator comes after ours died, 0 = never
	need                           time.Duration

	vss *vssPlan // nil in a Linux guest
}

// mode is the hold mode that the orchestrator chose.
func (p *plan) mode() fw.Mode {
	if p.vss != nil {
		return p.vss.mode
	}
	return fw.ModeFS
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return odd(from + time.Duration(r.Int64N(int64(to-from))))
}

// lognormal has the given median.
func lognormal(r *rand.Rand, median time.Duration, sigma float64) time.Duration {
	return odd(time.Duration(float64(median) * math.Exp(sigma*r.NormFloat64())))
}

func draw(r *rand.Rand) plan {
	p := plan{ppm: r.IntN(401) - 200, rtt: min(lognormal(r, 4*time.Millisecond, 1.5), 600*time.Millisecond), armed: true}
	if chance(r, 0.1) {
		p.budget = 1 + r.IntN(2)
	}
	if chance(r, 0.3) {
		p.tail = 0.1 * r.Float64()
	}
	p.readyFor = between(r, 0, 2*time.Second)
	if chance(r, 0.03) {
		p.readyFor = between(r, 48*time.Second, 58*time.Second)
	}
	p.armed = !chance(r, 0.005)
	p.otherMode = chance(r, 0.005)
	p.prepare = between(r, 0, 5*time.Millisecond)
	switch {
	case chance(r, 0.1):
		p.prepare = between(r, 100*time.Millisecond, 16*time.Second)
	case chance(r, 0.02):
		p.prepare = between(r, 16*time.Second, 40*time.Second)
	}
	drawMounts(r, &p)
	drawTask(r, &p)
	n := [20]int{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4}[r.IntN(20)]
	for range n {
		p.faults = append(p.faults, drawFault(r))
	}
	if chance(r, 0.5) {
		p.successor = between(r, 100*time.Millisecond, 30*time.Second)
	}
	if chance(r, 0.2) {
		p.need = between(r, 0, 8*time.Second)
	}
	return p
}

func drawMounts(r *rand.Rand, p *plan) {
	n := 1 + r.IntN(4)
	for range n {
		m := mountPlan{freeze: lognormal(r, 60*time.Millisecond, 1), thaw: lognormal(r, 3*time.Millisecond, 1)}
		m.freeze = min(m.freeze, 4*time.Second)
		m.thaw = min(m.thaw, 250*time.Millisecond)
		switch x := r.Float64(); {
		case x < 0.04:
			m.freeze = between(r, 500*time.Millisecond, 5*time.Second)
		case x < 0.05:
			m.freeze = between(r, 4900*time.Millisecond, 9*time.Second)
		case x < 0.06:
			m.err = "EBUSY: device or resource busy"
		case x < 0.065:
			m.err = "EIO: input/output error"
		case x < 0.068:
			m.freeze, p.kernelHang = between(r, 9*time.Second, 60*time.Second), true
		case x < 0.071:
			m.thaw, p.kernelHang = between(r, 2*time.Second, 60*time.Second), true
		}
		p.mounts = append(p.mounts, m)
	}
}

func drawTask(r *rand.Rand, p *plan) {
	p.queue = lognormal(r, 150*time.Millisecond, 1)
	p.task = lognormal(r, 2500*time.Millisecond, 0.8)
	if chance(r, 0.05) {
		p.queue = between(r, time.Second, 25*time.Second)
	}
	if chance(r, 0.1) {
		p.task = between(r, 10*time.Second, 22*time.Second)
	}
	if chance(r, 0.02) {
		p.task = between(r, 20*time.Second, 200*time.Second)
	}
	p.cut = time.Duration(float64(p.task) * 0.3 * r.Float64())
	p.answer = p.rtt + lognormal(r, 10*time.Millisecond, 1)
	p.push = p.rtt/2 + lognormal(r, 5*time.Millisecond, 1)
	if chance(r, 0.03) {
		p.push = between(r, 0, 2800*time.Millisecond)
	}
	p.early = chance(r, 0.05)
	p.taskRuns = true
	switch x := r.Float64(); {
	case x < 0.03:
		p.outcome, p.taskRuns = callRefused, false
	case x < 0.07:
		p.outcome = taskFails
	case x < 0.10:
		p.outcome, p.taskRuns = callUnknown, chance(r, 0.5)
	case x < 0.12:
		p.outcome = taskSilent
	}
	switch {
	case chance(r, 0.3):
		p.stun = lognormal(r, 200*time.Millisecond, 1)
	case chance(r, 0.03):
		p.stun = between(r, time.Second, 20*time.Second)
	}
}

func drawFault(r *rand.Rand) fault {
	f := fault{kind: kind(r.IntN(kinds)), point: point(r.IntN(points)), roll: r.IntN(1 << 20)}
	switch r.IntN(4) {
	case 0:
		f.delay = between(r, 0, 100*time.Microsecond)
	case 1:
		f.delay = between(r, 0, 30*time.Millisecond)
	case 2:
		f.delay = between(r, 0, 3*time.Second)
	case 3:
		f.delay = between(r, 0, 20*time.Second)
	}
	if chance(r, 0.02) { // between the start of the second net and the first hold
		f.kind, f.point, f.delay = faultStopAgent, pointArmed, between(r, 0, 100*time.Microsecond)
	}
	f.length = between(r, 0, 2*time.Second)
	switch r.IntN(8) {
	case 0:
		f.length = [4]time.Duration{1e9, 10e9, 25e9, 60e9}[r.IntN(4)] + between(r, 0, 200*time.Millisecond)
	case 1:
		f.length = between(r, 0, 30*time.Second)
	}
	return f
}
