// Package admission decides before a freeze whether its window will fit into the budget.
package admission

import (
	"cmp"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Sample is what one window took. A part that was not reached is 0 and is not counted.
type Sample struct {
	// At is when the window was written down, by the wall clock.
	At time.Time
	// Freeze is from GO to FROZEN, Snapshot from the call to the end of the task, Thaw from THAW to THAWED.
	Freeze, Snapshot, Thaw time.Duration
	// Late is true when the task outlived the window: Snapshot is its full time, or the time that it was waited for.
	Late bool
	// HoldTimeout is true when Windows itself let go of the writes (VSS_E_HOLD_WRITES_TIMEOUT 0x80042314).
	HoldTimeout bool
	// Mode is where the guest was held; empty in windows that were remembered before modes were.
	Mode freezewindow.Mode
	// Road and Channel are how the agent was reached.
	Road, Channel string
	// Via is the road on which the snapshot was asked for; empty when none was asked for, or roads were not remembered yet.
	Via SnapshotRoad
}

// Asked says whether a snapshot was asked for. Samples from before there were two roads say so by their time only.
func (s Sample) Asked() bool { return s.Via != "" || s.Snapshot > 0 }

func (s Sample) road() SnapshotRoad { return cmp.Or(s.Via, ThroughVCenter) }

// Keep is how many windows of one VM are remembered.
const Keep = 50

// few is how many samples a high percentile needs; with fewer it is read off the maximum.
const few = 20

// Times without any history (unverified: judgement, until the first windows were seen).
const (
	snapshot95 = 4 * time.Second
	snapshot99 = 8 * time.Second
	freeze99   = 5 * time.Second
	thaw99     = time.Second
)

// Prediction is what the next window of a VM will take.
type Prediction struct {
	// Samples is how many windows the prediction rests on; 0 means that it is the default for an unknown VM.
	Samples                            int
	Freeze99                           time.Duration
	Snapshot50, Snapshot95, Snapshot99 time.Duration
	Thaw99                             time.Duration
}

// Sum is the time that the guest will be held, by the 99th percentile of each part.
func (p Prediction) Sum() time.Duration { return p.Freeze99 + p.Snapshot99 + p.Thaw99 }

// Predict reads the prediction off a VM's windows, the last Keep of them.
func Predict(samples []Sample) Prediction {
	samples = samples[max(0, len(samples)-Keep):]
	part := func(of func(Sample) time.Duration) []time.Duration {
		var all []time.Duration
		for _, s := range samples {
			if d := of(s); d > 0 {
				all = append(all, d)
			}
		}
		slices.Sort(all)
		return all
	}
	freezes := part(func(s Sample) time.Duration { return s.Freeze })
	snapshots := part(func(s Sample) time.Duration { return s.Snapshot })
	thaws := part(func(s Sample) time.Duration { return s.Thaw })
	return Prediction{
		Samples:    len(samples),
		Freeze99:   high(freezes, 99, freeze99),
		Snapshot50: rank(snapshots, 50),
		Snapshot95: high(snapshots, 95, snapshot95),
		Snapshot99: high(snapshots, 99, snapshot99),
		Thaw99:     high(thaws, 99, thaw99),
	}
}

// rank is a quantile by nearest rank; 0 without samples. sorted is in rising order.
func rank(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}

// high is a percentile near the end: few samples do not have one, so that it is 1.25 times their maximum.
func high(sorted []time.Duration, percent int, unknown time.Duration) time.Duration {
	switch n := len(sorted); {
	case n == 0:
		return unknown
	case n < few:
		return sorted[n-1] * 5 / 4
	}
	return rank(sorted, percent)
}

// better names the hour of the day, in UTC, in which windows of this VM took the least; ok is false when no hour of which
// three windows are known fits into limit.
func better(samples []Sample, limit time.Duration) (hour int, ok bool) {
	const enough = 3
	type best struct {
		hour, n int
		worst   time.Duration
	}
	var hours [24]best
	for _, s := range samples[max(0, len(samples)-Keep):] {
		h := &hours[s.At.UTC().Hour()]
		h.n++
		h.worst = max(h.worst, s.Freeze+s.Snapshot+s.Thaw)
	}
	for i := range hours {
		hours[i].hour = i
	}
	fits := slices.DeleteFunc(hours[:], func(b best) bool { return b.n < enough || b.worst*5/4 > limit })
	if len(fits) == 0 {
		return 0, false
	}
	return slices.MinFunc(fits, func(a, b best) int { return cmp.Compare(a.worst, b.worst) }).hour, true
}
