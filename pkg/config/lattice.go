package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Limits of the other layers, which no file moves. A test holds each to the constant of the layer that keeps it.
const (
	// The agent: it takes the lower of its own limits and those that it is asked for.
	agentDeadman   = 18 * time.Second
	agentIODeadman = 8500 * time.Millisecond
	agentReady     = 60 * time.Second
	agentOpen      = 24 * time.Hour
	agentGoes      = 12 // an hour
	// slowestRTT is the longest round trip that admission lets through.
	slowestRTT = 500 * time.Millisecond
	// firstRead is when the watcher of the snapshot task reads it because no push came.
	firstRead = time.Second
	// httpCall is the limit of one call to vCenter.
	httpCall = 60 * time.Second

	// The lease on a vCenter, when several daemons share one database: it is renewed each leaseRenew; older than leaseGo no
	// window begins, older than leaseWork no run, older than leaseStop all stops, and after leaseTTL another daemon takes it.
	leaseRenew = 3 * time.Second
	leaseGo    = 4 * time.Second
	leaseWork  = 6 * time.Second
	leaseStop  = 8 * time.Second
	leaseTTL   = 10 * time.Second

	// The end of the daemon: open windows end, then drainRest for all else; at drainDump it gives up by itself, at
	// systemdStop systemd kills it. systemdWatchdog is how long it may be silent before.
	drainRest       = 30 * time.Second
	drainDump       = 80 * time.Second
	systemdStop     = 90 * time.Second
	systemdWatchdog = 30 * time.Second
)

// limit is one time limit of one layer.
type limit struct {
	layer, name string
	value       time.Duration
	// paths are the keys that move it; none when it is compiled in.
	paths []pointer
}

// rung says that less must be shorter than more.
type rung struct {
	less, more limit
	// orEqual lets both be the same: more is a promise and not a race.
	orEqual bool
	why     string
}

func (r rung) holds() bool {
	return r.less.value < r.more.value || r.orEqual && r.less.value == r.more.value
}

// explain names both numbers.
func (r rung) explain() string {
	must := "must be less than"
	if r.orEqual {
		must = "must not be more than"
	}
	return fmt.Sprintf("%s (%s) %v %s %s (%s) %v: %s", r.less.name, r.less.layer, r.less.value, must, r.more.name, r.more.layer, r.more.value, r.why)
}

// lattice are the limits of every layer that a window depends on, as pairs that must keep their order.
func (c *Config) lattice() []rung {
	all := append(c.Window.rungs(), c.Limits.rungs()...)
	all = append(all, fixedRungs()...)
	for i, j := range c.Jobs {
		all = append(all, j.rungs(pointer{"jobs"}.index(i))...)
	}
	return all
}

func (w Window) rungs() []rung {
	asked := w.Hold.Duration
	w.Hold.Duration = min(asked, freezewindow.ExchangeLimit) // what is asked for beyond it is one mistake, and not many
	b := w.Budget()
	hold, reserve := []pointer{{"window", "hold"}}, []pointer{{"window", "reserve"}}
	holds := limit{"configuration", "window.hold", b.Hold, hold}
	thaw := limit{"configuration", "window.hold - window.reserve", b.ThawBy(), slices.Concat(reserve, hold)}
	deadman := limit{"agent", "dead-man", b.Deadman, hold}
	io := limit{"agent", "dead-man of held writes", b.IODeadman, hold}
	return []rung{
		{limit{"configuration", "window.hold", asked, hold}, limit{"application", "Exchange's own limit", freezewindow.ExchangeLimit, nil}, true, "after it the writer fails by itself"},
		{
			limit{"network", "hold after the dead-man + slowest round trip", b.Hold - b.Deadman + slowestRTT, nil},
			limit{"configuration", "window.reserve", b.Reserve, reserve},
			false, "THAW has to reach the guest before its dead-man",
		},
		{limit{"configuration", "least reserve", freezewindow.MinReserve, nil}, limit{"configuration", "window.reserve", b.Reserve, reserve}, true, "less leaves the thaw no time"},
		{thaw, deadman, false, "THAW goes before the guest thaws by itself"},
		{deadman, holds, false, "the guest thaws by itself within the budget"},
		{deadman, limit{"agent", "compiled dead-man", agentDeadman, nil}, true, "the agent takes no longer one"},
		{io, limit{"agent", "compiled dead-man of held writes", agentIODeadman, nil}, true, "the agent takes no longer one"},
		{io, limit{"Windows", "limit of flush-and-hold", freezewindow.FlushHoldLimit, nil}, false, "Windows lets go then"},
		{limit{"task", "first read of a task without a push", firstRead, nil}, thaw, false, "a snapshot whose push is lost is still seen in time"},
		{limit{"task", "least time worth a snapshot", freezewindow.MinNeed, nil}, thaw, false, "a window must have room for a snapshot"},
		{holds, limit{"HTTP", "one call to vCenter", httpCall, nil}, false, "a call is not cut off while its window is open"},
		{holds, limit{"systemd", "WatchdogSec", systemdWatchdog, nil}, false, "a window is no reason to be killed"},
		{
			limit{"daemon", "window.hold + drain", b.Hold + drainRest, hold},
			limit{"daemon", "end by itself", drainDump, nil},
			false, "open windows end in good order when the daemon is stopped",
		},
	}
}

func (l Limits) rungs() []rung {
	return []rung{{
		limit{"configuration", "limits.window_wait + what READY must have left", l.WindowWait.Duration + freezewindow.MinReadyLeft, []pointer{{"limits", "window_wait"}}},
		limit{"agent", "READY", agentReady, nil},
		false, "a guest that waits longer gives up",
	}}
}

func fixedRungs() []rung {
	ttl := limit{"lease", "time to live", leaseTTL, nil}
	stop := limit{"lease", "age at which all stops", leaseStop, nil}
	work := limit{"lease", "age without new runs", leaseWork, nil}
	begin := limit{"lease", "age without new windows", leaseGo, nil}
	return []rung{
		{limit{"lease", "renewal", leaseRenew, nil}, begin, false, "a lease that is renewed lets windows begin"},
		{begin, work, false, "windows stop first"},
		{work, stop, false, "then runs"},
		{stop, ttl, false, "all has stopped before another daemon begins"},
		{limit{"daemon", "end by itself", drainDump, nil}, limit{"systemd", "TimeoutStopSec", systemdStop, nil}, false, "the daemon says why before it is killed"},
	}
}

func (j Job) rungs(path pointer) []rung {
	mover, wait := path.child("mover").child("limit"), path.child("retry").child("wait")
	return []rung{
		{
			limit{"configuration", mover.dotted(), j.Mover.Limit.Duration, []pointer{mover}},
			limit{"agent", "time for COMPLETE after THAWED", agentOpen, nil},
			false, "the guest closes its session then, and truncates no logs",
		},
		{
			limit{"agent", "time between two freezes", time.Hour / agentGoes, nil},
			limit{"configuration", wait.dotted(), j.Retry.Wait.Duration, []pointer{wait}},
			true, "the agent takes no more freezes in an hour",
		},
	}
}

// checkLattice refuses limits that do not fit together, once for each key. Where a key is wrong by itself, that was told.
func (k *checker) checkLattice() {
	refused := map[string]bool{}
	for _, r := range k.config.lattice() {
		if r.holds() {
			continue
		}
		paths := slices.Concat(r.less.paths, r.more.paths)
		if len(paths) == 0 || slices.ContainsFunc(paths, k.told) {
			continue
		}
		path := paths[0]
		for _, p := range paths {
			if k.src.stands(p) {
				path = p
				break
			}
		}
		if !refused[path.key()] {
			k.refuse(codeLattice, path, r.explain(), "")
		}
		refused[path.key()] = true
	}
}
