package statefile

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
)

// stepped is a wall clock that a test sets.
type stepped struct{ at time.Time }

func (c *stepped) now() time.Time       { return c.at }
func (c *stepped) step(d time.Duration) { c.at = c.at.Add(d) }

func steppedStore(t *testing.T) (*Store, *stepped) {
	t.Helper()
	clock := &stepped{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s, err := Open(filepath.Join(t.TempDir(), "state"), Options{Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return s, clock
}

// TestEpochRises: each epoch is above the last, whatever the clock does.
func TestEpochRises(t *testing.T) {
	s, clock := steppedStore(t)
	last := uint64(0)
	for _, step := range []time.Duration{0, -time.Hour, time.Hour, -200 * 365 * 24 * time.Hour, 0, 250 * 365 * 24 * time.Hour, -time.Millisecond} {
		clock.step(step)
		begun, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if begun.Epoch <= last || begun.Epoch > uint64(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()) {
			t.Errorf("after a step of %v: epoch %d, the last was %d", step, begun.Epoch, last)
		}
		last = begun.Epoch
	}
}

// TestEpochBefore1970: a clock before the epoch's own beginning, as of a machine without a battery, gives a small epoch.
func TestEpochBefore1970(t *testing.T) {
	s, clock := steppedStore(t)
	clock.at = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)
	for want := uint64(1); want < 3; want++ {
		if begun, err := s.Begin(t.Context()); err != nil || begun.Epoch != want {
			t.Errorf("Begin = %d, %v, want %d", begun.Epoch, err, want)
		}
	}
}

// TestRefusalUnderSteps: a refused secret is locked for 15 min of the clock, a step back begins them anew and no more, a
// step forward ends them.
func TestRefusalUnderSteps(t *testing.T) {
	for name, c := range map[string]struct {
		steps  []time.Duration
		locked bool
	}{
		"no time":                         {[]time.Duration{0}, true},
		"just not over":                   {[]time.Duration{breakerFor - 1}, true},
		"over":                            {[]time.Duration{breakerFor}, false},
		"an hour forward":                 {[]time.Duration{time.Hour}, false},
		"a second back":                   {[]time.Duration{-time.Second}, true},
		"an hour back":                    {[]time.Duration{-time.Hour}, true},
		"an hour back, just not over":     {[]time.Duration{-time.Hour, breakerFor - 1}, true},
		"an hour back, over":              {[]time.Duration{-time.Hour, breakerFor}, false},
		"ten years back, over":            {[]time.Duration{-10 * 365 * 24 * time.Hour, breakerFor}, false},
		"back and forward":                {[]time.Duration{-time.Hour, time.Hour}, false},
		"back twice, over after the last": {[]time.Duration{-time.Hour, -time.Hour, breakerFor}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, clock := steppedStore(t)
			if err := s.Refuse(t.Context(), "root", "hunter2", "SF3001"); err != nil {
				t.Fatal(err)
			}
			var err error
			for _, step := range c.steps {
				clock.step(step)
				err = s.Tried(t.Context(), "root", "hunter2")
			}
			if (code(err) == "SF1104") != c.locked || (err == nil) == c.locked {
				t.Errorf("Tried = %v, want locked: %v", err, c.locked)
			}
		})
	}
}

// TestOldRefusalsGo: one that is stamped in the future is forgotten like any other.
func TestOldRefusalsGo(t *testing.T) {
	s, clock := steppedStore(t)
	ctx := t.Context()
	if err := s.Refuse(ctx, "a", "x", "SF3001"); err != nil {
		t.Fatal(err)
	}
	clock.step(-time.Hour)
	if err := s.Refuse(ctx, "b", "x", "SF3001"); err != nil {
		t.Fatal(err)
	}
	clock.step(breakerFor)
	if err := s.Refuse(ctx, "c", "x", "SF3001"); err != nil {
		t.Fatal(err)
	}
	err := s.view(ctx, "look", func(now *state) error {
		if len(now.Refusals) != 1 {
			t.Errorf("%d refusals are kept, want the last one", len(now.Refusals))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWindowsUnderSteps: no window that is given out lies in the future, what is written down keeps its order, and a step
// back is noticed once.
func TestWindowsUnderSteps(t *testing.T) {
	s, clock := steppedStore(t)
	ctx := t.Context()
	for _, step := range []time.Duration{0, time.Hour, -2 * time.Hour} {
		clock.step(step)
		if err := s.Record(ctx, "vm", admission.Sample{Snapshot: time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	set := clock.at
	clock.step(time.Minute)
	got, err := s.Windows(ctx, "vm")
	if err != nil || len(got) != 3 {
		t.Fatalf("Windows = %v, %v", got, err)
	}
	for _, w := range got {
		if !w.At.Equal(set) {
			t.Errorf("a window lies at %v, want %v, when the clock was found to be set back", w.At, set)
		}
	}
}

// TestOwnersUnderSteps: who works on a VM is told by its process, never by a clock.
func TestOwnersUnderSteps(t *testing.T) {
	s, clock := steppedStore(t)
	ctx := t.Context()
	if err := s.Acquire(ctx, "vm", "mine"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{-time.Hour, 2 * time.Hour, 10 * 365 * 24 * time.Hour} {
		clock.step(step)
		if err := s.Acquire(ctx, "vm", "other"); code(err) != "SF1103" {
			t.Errorf("after a step of %v: Acquire = %v, want SF1103", step, err)
		}
	}
}

// TestIntentsUnderSteps: what is open stays open whatever the clock does, and is stamped by it.
func TestIntentsUnderSteps(t *testing.T) {
	s, clock := steppedStore(t)
	ctx := t.Context()
	at := clock.at
	i := Intent{Kind: Snapshot, Subject: "s", VM: "vm"}
	if err := s.Intend(ctx, i); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{-time.Hour, 10 * 365 * 24 * time.Hour} {
		clock.step(step)
		if open, err := s.Intents(ctx, "vm"); err != nil || len(open) != 1 || !open[0].At.Equal(at) {
			t.Errorf("after a step of %v: open %v, %v", step, open, err)
		}
	}
	if err := s.Settle(ctx, i); err != nil {
		t.Fatal(err)
	}
}
