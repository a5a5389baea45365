package freezewindow_test

import (
	"math/rand/v2"
	"time"

	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// system is what a guest runs.
type system uint8

const (
	linux system = iota
	windows
)

func (s system) String() string { return [...]string{"linux", "windows"}[s] }

// The points of a Windows window, besides those of all.
const (
	pointHoldEntered = point(points) + iota
	pointSetEnded
	pointSettled
	pointClosing
	allPoints = int(pointClosing) + 1
)

// What can go wrong only in Windows.
const (
	faultWriterDies = kind(kinds) + iota // the service of a writer ends
	faultVSSDies                         // the service that coordinates the set ends
	faultForeignSet                      // another set begins, ours is gone without notice
)

// windowsKinds are the faults of a Windows world.
var windowsKinds = [...]kind{
	faultCancel, faultKillAgent, faultStopAgent, faultService, faultStun, faultStopDaemon, faultKillDaemon, faultCut,
	faultOneWay, faultOutage, faultStale, faultWriterDies, faultVSSDies, faultForeignSet,
}

// failure is where a writer fails by itself.
type failure uint8

const (
	writerWell failure = iota
	failsPrepare
	failsFreeze
	failsThaw
	failsPostSnapshot
	failures = int(failsPostSnapshot)
)

// writerPlan is how one writer behaves. Its limit counts from its own OnFreeze.
type writerPlan struct {
	class               string
	required            bool
	limit               time.Duration
	after, freeze, thaw time.Duration // until its OnFreeze, in it, and in its OnThaw
	fails               failure
}

// vssPlan is what was drawn for VSS and for what comes after the window.
type vssPlan struct {
	mode    fw.Mode
	volumes int
	writers []writerPlan
	flush   time.Duration // by VSS, before writes are held
	cache   time.Duration // by our provider, in mode writer
	kernel  time.Duration // how long Windows holds writes
	// tells is true when VSS ends the set as soon as Windows lets go of the writes, not when Commit returns; unnoticed when
	// the set then looks well, and only the log knows.
	tells, unnoticed bool
	prompt, deaf     bool          // a cancelled set ends at once, or only by our provider's veto, else at its next step
	notice           time.Duration // until VSS acts on the end of a process
	stuck            bool          // the thread that holds does not wake up
	failsBefore      bool          // VSS itself fails before our provider's first callback
	status, complete time.Duration
	statusHangs      bool
	statusLost       int // times that a writer's status is not available
	completeFails    bool
	transfer         time.Duration
	transferFails    bool
	answers          bool // who gets no answer to the last word says it again
}

// Class ids of writers; the first is Exchange's, the second SQL Server's.
var writerClasses = [...]string{
	"{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}", "{a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}",
	"{4dc3bdd4-ab48-4d07-adb0-3bee2926fd7f}", "{e8132975-6f93-4464-a53e-1050253ae220}",
	"{b2014c9e-8711-4c5c-a5a9-3cf384484757}",
}

const (
	exchangeLimit = 20 * time.Second // Veeam KB1680
	writerLimit   = 60 * time.Second
	kernelLimit   = 10 * time.Second // of the hold of writes
	vssFlushLimit = 15 * time.Second // of the flush before it
	cacheLimit    = 3 * time.Second
)

// drawWindows draws a world with a Windows guest.
func drawWindows(r *rand.Rand) plan {
	p := draw(r)
	p.mounts, p.kernelHang = nil, false
	for i := range p.faults {
		f := &p.faults[i]
		f.kind = windowsKinds[r.IntN(len(windowsKinds))]
		f.point = point(r.IntN(allPoints))
	}
	if p.task > 6*time.Second && chance(r, 0.3) {
		p.task /= 2
	}
	v := &vssPlan{mode: fw.ModeIO, volumes: 1 + r.IntN(3), kernel: kernelLimit, prompt: chance(r, 0.5)}
	if chance(r, 0.4) {
		v.mode = fw.ModeWriter
	}
	if chance(r, 0.06) {
		v.kernel = between(r, 300*time.Millisecond, 8400*time.Millisecond)
	}
	v.tells, v.unnoticed = chance(r, 0.5), chance(r, 0.3)
	drawWriters(r, v)
	drawFlush(r, v)
	drawAfter(r, v)
	p.vss = v
	return p
}

func drawWriters(r *rand.Rand, v *vssPlan) {
	n := 1 + r.IntN(len(writerClasses))
	for i := range n {
		w := writerPlan{class: writerClasses[i], required: i < 2 || chance(r, 0.4), limit: writerLimit}
		if i == 0 && chance(r, 0.5) {
			w.class, w.required = writerClasses[3], chance(r, 0.5)
			if n > 3 {
				w.class = "{" + sessionID[:8] + "-0000-0000-0000-000000000000}"
			}
		}
		if w.class == writerClasses[0] {
			w.limit = exchangeLimit
		}
		w.after, w.freeze = between(r, 0, 20*time.Millisecond), min(lognormal(r, 150*time.Millisecond, 1), 6*time.Second)
		w.thaw = min(lognormal(r, 20*time.Millisecond, 1), 400*time.Millisecond)
		switch x := r.Float64(); {
		case x < 0.03:
			w.freeze = between(r, time.Second, 17*time.Second)
		case x < 0.04:
			w.freeze = between(r, 17*time.Second, 150*time.Second)
		case x < 0.05:
			w.after = between(r, 0, 9*time.Second)
		case x < 0.07:
			w.limit = between(r, time.Second, 19*time.Second) // a writer may lower it
		case x < 0.074:
			w.thaw = between(r, 10*time.Second, 200*time.Second)
		case x < 0.10:
			w.fails = 1 + failure(r.IntN(failures))
		}
		v.writers = append(v.writers, w)
	}
}

func drawFlush(r *rand.Rand, v *vssPlan) {
	v.flush, v.cache = min(lognormal(r, 100*time.Millisecond, 1), 4*time.Second), min(lognormal(r, 80*time.Millisecond, 1), 2*time.Second)
	switch x := r.Float64(); {
	case x < 0.02:
		v.flush = between(r, 2*time.Second, vssFlushLimit-time.Second)
	case x < 0.03:
		v.flush = between(r, vssFlushLimit, vssFlushLimit+5*time.Second)
	case x < 0.05:
		v.cache = between(r, 2*time.Second, 6*time.Second)
	}
	v.notice = between(r, 0, 400*time.Millisecond)
	v.stuck = chance(r, 0.004)
	v.failsBefore, v.deaf = chance(r, 0.01), chance(r, 0.3)
}

// drawAfter draws what comes after the hold.
func drawAfter(r *rand.Rand, v *vssPlan) {
	v.status, v.complete = lognormal(r, 120*time.Millisecond, 1), lognormal(r, 100*time.Millisecond, 1)
	if chance(r, 0.03) {
		v.status = between(r, time.Second, 58*time.Second)
	}
	v.statusHangs = chance(r, 0.01)
	if chance(r, 0.03) {
		v.statusLost = 1 + r.IntN(2)
	}
	v.completeFails = chance(r, 0.03)
	v.transfer = between(r, 100*time.Millisecond, 5*time.Second)
	v.transferFails = chance(r, 0.1)
	v.answers = chance(r, 0.7)
}

func (p *plan) requiredWriters() []string {
	if p.vss == nil {
		return nil
	}
	return p.vss.required()
}

// required are the class ids of the writers that must be well.
func (v *vssPlan) required() []string {
	var ids []string
	for _, w := range v.writers {
		if w.required {
			ids = append(ids, w.class)
		}
	}
	return ids
}
