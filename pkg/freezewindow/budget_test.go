package freezewindow_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// The limits are written out here once more: a test against the code's own constants would move with them.
func TestDefaultBudget(t *testing.T) {
	b := freezewindow.DefaultBudget()
	want := freezewindow.Budget{
		Hold: 20 * time.Second, Reserve: 3 * time.Second, Deadman: 18 * time.Second,
		IOThaw: 7500 * time.Millisecond, IODeadman: 8500 * time.Millisecond,
	}
	if b != want {
		t.Errorf("DefaultBudget() = %+v, want %+v", b, want)
	}
	if err := b.Check(0); err != nil {
		t.Errorf("Check(0) = %v, want nil", err)
	}
	if got := b.ThawBy(); got != 17*time.Second {
		t.Errorf("ThawBy() = %v, want 17s", got)
	}
}

func TestBudgetLattice(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	cases := map[string]struct {
		change func(*freezewindow.Budget)
		rtt    time.Duration
		ok     bool
	}{
		"the default on a slow road":          {func(*freezewindow.Budget) {}, 999 * ms, true},
		"everything lowered":                  {func(b *freezewindow.Budget) { *b = freezewindow.Budget{10 * s, 3 * s, 8 * s, 3 * s, 4 * s} }, 100 * ms, true},
		"the zero budget":                     {func(b *freezewindow.Budget) { *b = freezewindow.Budget{} }, 0, false},
		"no hold":                             {func(b *freezewindow.Budget) { b.Hold = 0 }, 0, false},
		"a negative hold":                     {func(b *freezewindow.Budget) { b.Hold = -s }, 0, false},
		"a hold above the promise":            {func(b *freezewindow.Budget) { b.Hold = 20*s + 1; b.Reserve = 3*s + 1 }, 0, false},
		"no reserve":                          {func(b *freezewindow.Budget) { b.Reserve = 0 }, 0, false},
		"a reserve below 2.5 s":               {func(b *freezewindow.Budget) { b.Reserve = 2499 * ms; b.Deadman = 18500 * ms }, 0, false},
		"a reserve of the whole hold":         {func(b *freezewindow.Budget) { b.Reserve = b.Hold }, 0, false},
		"a reserve above the hold":            {func(b *freezewindow.Budget) { b.Reserve = b.Hold + s }, 0, false},
		"no dead-man":                         {func(b *freezewindow.Budget) { b.Deadman = 0 }, 0, false},
		"dead-man at the thaw":                {func(b *freezewindow.Budget) { b.Deadman = 17 * s }, 0, false},
		"dead-man before the thaw":            {func(b *freezewindow.Budget) { b.Deadman = 16 * s }, 0, false},
		"dead-man at the hold limit":          {func(b *freezewindow.Budget) { b.Deadman = 20 * s }, 0, false},
		"dead-man after the hold limit":       {func(b *freezewindow.Budget) { b.Deadman = 21 * s }, 0, false},
		"the round trip eats the reserve":     {func(*freezewindow.Budget) {}, s, false},
		"the round trip is beyond any budget": {func(*freezewindow.Budget) {}, time.Hour, false},
		"no io thaw":                          {func(b *freezewindow.Budget) { b.IOThaw = 0 }, 0, false},
		"no io dead-man":                      {func(b *freezewindow.Budget) { b.IODeadman = 0 }, 0, false},
		"io thaw at the io dead-man":          {func(b *freezewindow.Budget) { b.IOThaw = b.IODeadman }, 0, false},
		"io thaw after the io dead-man":       {func(b *freezewindow.Budget) { b.IOThaw = b.IODeadman + 1 }, 0, false},
		"io dead-man at the limit of Windows": {func(b *freezewindow.Budget) { b.IODeadman = 10 * s }, 0, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := freezewindow.DefaultBudget()
			c.change(&b)
			err := b.Check(c.rtt)
			if c.ok && err != nil {
				t.Errorf("%+v: Check(%v) = %v, want nil", b, c.rtt, err)
			}
			if !c.ok && !errors.Is(err, freezewindow.ErrBudget) {
				t.Errorf("%+v: Check(%v) = %v, want ErrBudget", b, c.rtt, err)
			}
		})
	}
}

// The two machines' limits are compiled apart and must agree; the second net outside the agent lies between them.
func TestBudgetMatchesTheAgent(t *testing.T) {
	b := freezewindow.DefaultBudget()
	if agent.Hold != b.Hold || agent.Deadman != b.Deadman || agent.IODeadman != b.IODeadman {
		t.Errorf("the agent holds for %v, dead-man %v, io dead-man %v, want %v, %v, %v",
			agent.Hold, agent.Deadman, agent.IODeadman, b.Hold, b.Deadman, b.IODeadman)
	}
	if agent.SecondNet <= agent.Deadman || agent.SecondNet >= b.Hold {
		t.Errorf("the second net acts at %v, want between the dead-man %v and the hold %v", agent.SecondNet, agent.Deadman, b.Hold)
	}
}
