package vcenter

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestSpread: times vary by the seed, the median stays, the tail is heavy but bounded, and a seed gives the same times again.
func TestSpread(t *testing.T) {
	plan := TaskPlan{Queue: time.Second, Run: time.Second, Cut: 100 * time.Millisecond, Spread: 1, Worst: 15 * time.Second}
	draw := func(seed uint64) (runs []time.Duration) {
		random := rand.New(rand.NewPCG(seed, 0))
		for range 1000 {
			p := plan.drawn(random)
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			runs = append(runs, p.Run)
		}
		return runs
	}
	runs := draw(1)
	if !slices.Equal(runs, draw(1)) || slices.Equal(runs, draw(2)) {
		t.Error("the times do not hang on the seed alone")
	}
	slices.Sort(runs)
	if median := runs[500]; median < 900*time.Millisecond || median > 1100*time.Millisecond {
		t.Errorf("the median is %v, want about 1s", median)
	}
	if late, worst := runs[980], runs[999]; late < 6*time.Second || late > 12*time.Second || worst != 15*time.Second {
		t.Errorf("1 in 50 takes %v, the worst %v, want about 8s, 15s", late, worst)
	}
}
