package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Missed is what becomes of ticks at which nobody ran.
type Missed string

// The policies for missed ticks. RunOnce makes one run for all of them.
const (
	RunOnce Missed = "run_once"
	Skip    Missed = "skip"
)

// DefaultMaxCatchUp is the age to which a missed tick is made up for: half a day, so that a run of the night is not made up
// for in the next night, which has its own (value unverified).
const DefaultMaxCatchUp = 12 * time.Hour

// CatchUp is the policy for missed ticks. The zero CatchUp makes up for nothing.
type CatchUp struct {
	Missed Missed
	// Max is the age to which the last missed tick is made up for.
	Max time.Duration
}

// The bounds of max_catchup: below, a tick is not missed yet; above, a month's rule would run for the month before.
const (
	minCatchUp = Grace
	maxCatchUp = 31 * day
)

// ParseCatchUp reads a policy. Empty is run_once, and 0 is DefaultMaxCatchUp. The error is an *Error.
func ParseCatchUp(missed string, limit time.Duration) (CatchUp, error) {
	p := CatchUp{Missed: Missed(missed), Max: limit}
	if missed == "" {
		p.Missed = RunOnce
	}
	if limit == 0 {
		p.Max = DefaultMaxCatchUp
	}
	switch {
	case p.Missed != RunOnce && p.Missed != Skip:
		return CatchUp{}, &Error{codeCatchUp, "missed", missed, "is neither run_once nor skip", "write run_once to make up for what was missed by one run, skip to leave it out"}
	case p.Max < minCatchUp || p.Max > maxCatchUp:
		return CatchUp{}, &Error{codeCatchUp, "max_catchup", limit.String(), "is not between 1m and 744h (31 days)", "write the age to which a missed run is still worth making, such as 12h; to make none, set missed to skip"}
	}
	return p, nil
}

// Grace is the age to which a tick counts as on time: longer than a takeover by another node takes.
const Grace = time.Minute

// maxMissed bounds the counting of missed ticks.
const maxMissed = 10_000

// Due is what a look at the clock found.
type Due struct {
	// Tick is the one that a run is due for, or zero. It never is more than one.
	Tick time.Time
	// CatchUp says that the tick was missed and is made up for.
	CatchUp bool
	// Missed is how many ticks will never have a run; at 10,000 the counting ends.
	Missed int
	// FirstMissed and LastMissed are the ends of those, and Why says why the last of them was not made up for; it is empty
	// when a later tick runs instead.
	FirstMissed, LastMissed time.Time
	Why                     string
	// Settled is what the next call takes.
	Settled time.Time
	// Next is when the next tick comes, or zero for the zero Schedule.
	Next time.Time
}

// Due says what is due now. Settled is the latest of: what the last call settled, and when the job was created, edited or
// enabled, so that none of these fires at once. Ticks after it and up to now are looked at. The last of them is due when it
// is on time; whether windows let the run begin is then asked at its start. A late one is made up for by the policy, while
// windows are open for what the run needs. All others are missed.
//
// A clock that was set back leaves settled in the future. Nothing is due then and settled goes back to now, so that the
// job does not stand still until the clock is there again; ticks then come again, and the caller knows which it has run.
func (s *Schedule) Due(settled, now time.Time, p CatchUp, ws Windows, need time.Duration) Due {
	d := Due{Settled: settled}
	d.Next, _ = s.Next(now)
	if settled.After(now) {
		d.Settled = now
		return d
	}
	last := s.look(settled, now, &d)
	if last.IsZero() {
		return d
	}
	d.Settled = last
	if now.Sub(last) <= Grace {
		d.Tick = last
		return d
	}
	if d.Why = p.refuse(now.Sub(last)); d.Why == "" {
		if open, reason, _ := ws.Open(now, need); !open {
			d.Why = reason
		}
	}
	if d.Why == "" {
		d.Tick, d.CatchUp = last, true
		return d
	}
	d.miss(last)
	return d
}

// look counts all ticks but the last as missed, and returns the last. When the count has ended, it jumps to those that may
// still be made up for.
func (s *Schedule) look(settled, now time.Time, d *Due) (last time.Time) {
	for from := settled; ; {
		t, ok := s.Next(from)
		if !ok || t.After(now) {
			return last
		}
		if !last.IsZero() {
			d.miss(last)
		}
		last, from = t, t
		if young := now.Add(-maxCatchUp); d.Missed == maxMissed && from.Before(young) {
			from = young
		}
	}
}

func (d *Due) miss(t time.Time) {
	if d.Missed == 0 {
		d.FirstMissed = t
	}
	d.LastMissed = t
	if d.Missed < maxMissed {
		d.Missed++
	}
}

// refuse says why a tick of an age is not made up for.
func (p CatchUp) refuse(age time.Duration) string {
	switch {
	case p.Missed != RunOnce:
		return "the policy is to skip missed runs"
	case age > p.Max:
		return "it is older than max_catchup, " + p.Max.String()
	}
	return ""
}

// Jitter is how long after its tick a VM's run starts: always the same for one VM, in every process, and spread evenly
// below the limit. A limit below 1 ms gives none.
func Jitter(vm string, limit time.Duration) time.Duration {
	limit /= time.Millisecond
	if limit <= 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(vm))
	return time.Duration(binary.BigEndian.Uint64(sum[:8])%uint64(limit)) * time.Millisecond
}
