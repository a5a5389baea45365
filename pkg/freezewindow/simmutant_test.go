package freezewindow_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// code is what the simulation runs: the real reducers, or ones with a planted bug.
type code struct {
	window   func(fw.State, time.Duration, fw.Event) (fw.State, []fw.Command)
	agent    func(agent.State, time.Duration, agent.Event) (agent.State, []agent.Command)
	conclude func(fw.State) fw.Report
	// replay gives the events to the reducer once more; goOn runs a world on after an invariant fell.
	replay, goOn bool
	vss          vssBugs
}

func realCode() code {
	return code{window: fw.Step, agent: agent.Step, conclude: fw.Conclude, replay: true}
}

// mutant is one planted bug; plant makes it afresh for every window. The names P.. are those of the design, O.. are our
// own, B.. are bugs that this simulation found in the reducers.
type mutant struct {
	name string
	// wants are the invariants that must fall.
	wants []int
	plant func(c *code)
}

type agentStep = func(agent.State, time.Duration, agent.Event) (agent.State, []agent.Command)

func without[C any](commands []C, drop func(C) bool) []C {
	return slices.DeleteFunc(slices.Clone(commands), drop)
}

func mutants() []mutant {
	return slices.Concat(windowMutants(), ownWindowMutants(), verdictMutants(), agentMutants(), sessionMutants(), foundMutants())
}

func windowMutants() []mutant {
	step := fw.Step
	return []mutant{
		{"P1 THAW waits for the task", []int{3, 12}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				if f, ok := e.(fw.Fired); ok && f.Timer == fw.ThawBy && s.Phase == fw.Frozen {
					return s, nil
				}
				return step(s, at, e)
			}
		}},
		{"P7a Reserve is 0", []int{3}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := step(s, at, e)
				return s, later(commands, s.Budget.Reserve)
			}
		}},
		{"P8 THAWED of an older go accepted", []int{6, 18}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				if t, ok := e.(fw.GuestThawed); ok {
					t.Go = s.Ready.Go
					e = t
				}
				return step(s, at, e)
			}
		}},
		{"P11 unfinished task dropped at Finish", []int{14}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := step(s, at, e)
				return s, without(commands, func(c fw.Command) bool { _, ok := c.(fw.HandOver); return ok })
			}
		}},
		{"P16 snapshot called before FROZEN", []int{10, 102}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := step(s, at, e)
				if _, ok := e.(fw.Start); ok && s.Phase == fw.Going {
					s.Snap = fw.SnapCalled
					return s, append(commands, fw.CallSnapshot{})
				}
				return s, without(commands, func(c fw.Command) bool { _, ok := c.(fw.CallSnapshot); return ok })
			}
		}},
	}
}

// ownWindowMutants are bugs of the window that the design does not name.
func ownWindowMutants() []mutant {
	step := fw.Step
	return []mutant{
		{"O1 cancel waits for the task", []int{12}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				if _, ok := e.(fw.Cancel); ok && s.Phase == fw.Frozen {
					return s, nil
				}
				return step(s, at, e)
			}
		}},
		{"O2 a beat goes on after Finish", []int{13}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				done := s.Phase == fw.Done
				s, commands := step(s, at, e)
				if done {
					commands = append(commands, fw.SendBeat{})
				}
				return s, commands
			}
		}},
		{"O3 a new link begins the deadline again", []int{25}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := step(s, at, e)
				if _, ok := e.(fw.LinkBack); ok && s.Phase != fw.Done {
					commands = append(commands, fw.SetTimer{Timer: fw.ThawBy, At: at + 17*time.Second})
				}
				return s, commands
			}
		}},
		{"O4 the guest's preparation is counted twice", []int{3}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := step(s, at, e)
				return s, later(commands, s.HoldFrom)
			}
		}},
	}
}

// later moves the deadline of THAW.
func later(commands []fw.Command, by time.Duration) []fw.Command {
	out := slices.Clone(commands)
	for i, c := range out {
		if t, ok := c.(fw.SetTimer); ok && t.Timer == fw.ThawBy {
			out[i] = fw.SetTimer{Timer: t.Timer, At: t.At + by}
		}
	}
	return out
}

// judged changes the state that the verdict is read from.
func judged(change func(*fw.State)) func(*code) {
	return func(c *code) {
		c.conclude = func(s fw.State) fw.Report {
			change(&s)
			return fw.Conclude(s)
		}
	}
}

func verdictMutants() []mutant {
	return []mutant{
		{"P3 verdict ignores expired", []int{8}, judged(func(s *fw.State) {
			if s.Held == fw.Expired {
				s.Held, s.Release.Expired, s.Release.WasHeld = fw.Released, false, true
			}
		})},
		{"P4 late success counted as in time", []int{9, 102}, judged(func(s *fw.State) { s.Late = false })},
		{"P6 was_held from the orchestrator's clock", []int{6}, judged(func(s *fw.State) {
			if s.ThawSentAt > 0 && s.Held != fw.HeldUnknown && s.Held != fw.NotYet {
				s.Held = fw.Released
				s.Release.WasHeld = s.ThawSentAt-s.HoldFrom < s.Budget.Deadman
				s.Release.Expired = !s.Release.WasHeld
			}
		})},
		{"O5 silence at the end read as held", []int{102, 103}, judged(func(s *fw.State) {
			if s.Held == fw.HeldUnknown && s.Losses == 0 {
				s.Held = fw.Released
			}
			if s.Held == fw.HeldUnknown {
				s.Held, s.ReleasedAt = fw.Released, s.FrozenAt
				s.Release = fw.Release{WasHeld: true, Finished: true, Thawed: s.Ready.Volumes}
			}
		})},
		{"O6 a foreign thaw is overlooked", []int{6, 102}, judged(func(s *fw.State) {
			if len(s.Release.Failed) > 0 && s.Release.WasHeld {
				s.Release.Failed, s.Release.Finished, s.Release.Thawed = nil, true, s.Ready.Volumes
			}
		})},
		{"O7 held_at_most from FROZEN received", []int{103}, judged(func(s *fw.State) {
			if s.FrozenAt > 0 {
				s.HoldFrom = s.FrozenAt
			}
		})},
		{"P14 mode changed without telling the report", []int{19}, judged(func(s *fw.State) { s.Ready.Mode = fw.ModeWriter })},
	}
}

func agentMutants() []mutant {
	step := agent.Step
	wrap := func(name string, wants []int, f agentStep) mutant {
		return mutant{name, wants, func(c *code) { c.agent = f }}
	}
	return []mutant{
		wrap("P2 dead-man re-armed by a heartbeat", []int{1, 5}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			s, commands := step(s, at, e)
			if m, ok := e.(agent.Msg); ok && s.Holding && m.M.Head().T == protocol.WordHeartbeat {
				s.HoldAt = at
				commands = append(commands, agent.SetTimer{Timer: agent.TimerDeadman, At: at + s.Deadman})
			}
			return s, commands
		}),
		wrap("P7b the dead-man is Hold", []int{1}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			s, commands := step(s, at, e)
			if _, ok := e.(agent.HoldStarted); ok {
				s.Deadman += 2 * time.Second
				commands = []agent.Command{agent.SetTimer{Timer: agent.TimerDeadman, At: at + s.Deadman}, agent.StopTimer{Timer: agent.TimerPrehold}}
			}
			return s, commands
		}),
		wrap("P9 link loss ignored while frozen", []int{28}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if _, ok := e.(agent.LinkLost); ok && s.Name == agent.Frozen {
				return s, nil
			}
			return step(s, at, e)
		}),
	}
}

// sessionMutants are bugs of the agent in who may say what.
func sessionMutants() []mutant {
	step := agent.Step
	isThaw := func(c agent.Command) bool { _, ok := c.(agent.Thaw); return ok }
	wrap := func(name string, wants []int, f agentStep) mutant {
		return mutant{name, wants, func(c *code) { c.agent = f }}
	}
	return []mutant{
		{"P10 GO repeated after a reconnect, used ids forgotten", []int{17}, func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := fw.Step(s, at, e)
				if _, ok := e.(fw.LinkBack); ok && len(commands) > 0 {
					commands = append([]fw.Command{fw.SendGo{Go: s.Ready.Go}}, commands...)
				}
				return s, commands
			}
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				if m, ok := e.(agent.Msg); ok && m.M.Head().T == protocol.WordGo && s.Name != agent.Ready {
					s.Name, s.Go, s.Used = agent.Ready, 0, nil
				}
				return step(s, at, e)
			}
		}},
		wrap("P10b a GO said twice freezes twice", []int{17}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if m, ok := e.(agent.Msg); ok && m.M.Head().T == protocol.WordGo && s.Name == agent.Frozen {
				s.Name, s.Go, s.Used = agent.Ready, 0, nil
			}
			return step(s, at, e)
		}),
		wrap("P18 release forgotten when THAW overtakes FREEZING", []int{1}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			early := s.ThawAt > 0 && !s.WasHeld || s.Name == agent.Freezing
			s, commands := step(s, at, e)
			if early && s.ThawAt > 0 && !s.WasHeld {
				commands = without(commands, isThaw)
			}
			return s, commands
		}),
		wrap("O8 sequences are not compared", []int{18}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if m, ok := e.(agent.Msg); ok && m.M.Head().S == s.Session {
				s.LastQ = min(s.LastQ, m.M.Head().Q-1)
			}
			return step(s, at, e)
		}),
		wrap("O9 a service stop waits for THAW", []int{25}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if _, ok := e.(agent.ServiceStop); ok && s.Name == agent.Frozen {
				s.Stopping = true
				return s, nil
			}
			return step(s, at, e)
		}),
		wrap("O10 was_held without a look at what was released", []int{27, 102}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if t, ok := e.(agent.ThawEnded); ok {
				rows := slices.Clone(t.Results)
				for i := range rows {
					rows[i].OK, rows[i].Error = true, ""
				}
				t.Results = rows
				return step(s, at, t)
			}
			return step(s, at, e)
		}),
		wrap("O11 an old epoch is let in", []int{18}, func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			if h, ok := e.(agent.Hello); ok && h.M.Epoch < s.Epoch {
				s.Name, s.Session = agent.Idle, ""
				s.Epoch = h.M.Epoch
			}
			return step(s, at, e)
		}),
	}
}

// foundMutants are the bugs that this simulation found in the reducers, planted again.
func foundMutants() []mutant {
	return []mutant{
		{"B1 a volume that may still be held counts as released", []int{103, 104}, func(c *code) {
			c.conclude = func(s fw.State) fw.Report {
				r := fw.Conclude(s)
				if s.Held == fw.Released || s.Held == fw.Expired {
					r.HeldAtMost, r.HeldAtMostKnown = s.ReleasedAt-s.HoldFrom, true
					r.HeldByGuest, r.HeldByGuestKnown = s.Release.Held, true
				}
				return r
			}
		}},
		{"B2 a foreign thaw without a cause", []int{107}, causeless(fw.CauseForeignThaw)},
		{"B3 THAW of a GO that never came is answered for go 0", []int{106}, func(c *code) {
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				s, commands := agent.Step(s, at, e)
				for _, c := range commands {
					if w, ok := c.(agent.Send); ok && s.Name == agent.Closed && s.Go == 0 {
						if t, ok := w.M.(*protocol.Thawed); ok {
							t.Go = 0
						}
					}
				}
				return s, commands
			}
		}},
		{"B4 a guest that never answered without a cause", []int{107}, causeless(fw.CauseUnknown)},
		{"B5 the hold begins when the loop hears of it", []int{103, 104}, func(c *code) {
			last := time.Duration(0)
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				last = max(last, at)
				return agent.Step(s, last, e)
			}
		}},
	}
}

// causeless forgets one cause.
func causeless(cause fw.Cause) func(*code) {
	return func(c *code) {
		c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
			s, commands := fw.Step(s, at, e)
			if s.Cause == cause {
				s.Cause = fw.CauseNone
			}
			return s, commands
		}
	}
}

// maxMutantSeeds bounds the search for seeds that catch a planted bug.
const maxMutantSeeds = 100_000

// catch plays worlds of one system and gives, for each invariant that must fall, the first seed that makes it fall, and those that fell besides.
func catch(s system, m mutant) map[int]uint64 {
	fell := map[int]uint64{}
	missing := slices.Clone(m.wants)
	for seed := uint64(1); seed <= maxMutantSeeds && len(missing) > 0; seed++ {
		c := realCode()
		c.replay, c.goOn = false, true
		m.plant(&c)
		for _, b := range newWorld(s, seed, c, false).simulate().fell {
			if _, known := fell[b.number]; !known {
				fell[b.number] = seed
			}
			missing = slices.DeleteFunc(missing, func(n int) bool { return n == b.number })
		}
	}
	return fell
}

// TestMutants plants each bug and wants each caught by the invariants named for it.
func TestMutants(t *testing.T) {
	missed := []string{}
	planted := 0
	for s, list := range [][]mutant{linux: mutants(), windows: windowsMutants()} {
		planted += len(list)
		for _, m := range list {
			fell := catch(system(s), m)
			if len(fell) == 0 {
				missed = append(missed, m.name)
			}
			for _, n := range m.wants {
				if fell[n] == 0 {
					t.Errorf("%s: invariant %d (%s) did not fall within %d seeds", m.name, n, invariant(n), maxMutantSeeds)
				}
			}
			t.Logf("%-60s invariants by first seed %v", m.name, fell)
		}
	}
	if *simFlags.mutantsOut == "" {
		return
	}
	out, err := json.MarshalIndent(map[string]any{"planted": planted, "caught": planted - len(missed), "missed": missed}, "", "  ")
	if err == nil {
		err = os.WriteFile(*simFlags.mutantsOut, append(out, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
