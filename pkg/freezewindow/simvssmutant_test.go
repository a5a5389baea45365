package freezewindow_test

import (
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// vssBugs are planted bugs of the provider and of the requestor, which the world plays.
type vssBugs struct {
	holdsAfterExpiry, forgetsAbort bool
}

// windowsMutants are the bugs that are planted in Windows worlds.
func windowsMutants() []mutant {
	return slices.Concat(setMutants(), ioMutants(), writersMutants(), lastWordMutants(), foundWindowsMutants())
}

// stepped plants a change of the agent's commands.
func stepped(change func(before agent.State, e agent.Event, commands []agent.Command) []agent.Command) func(*code) {
	return func(c *code) {
		c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
			after, commands := agent.Step(s, at, e)
			return after, change(s, e, commands)
		}
	}
}

// each changes every command of one kind.
func each[C agent.Command](change func(C) C) func(*code) {
	return stepped(func(_ agent.State, _ agent.Event, commands []agent.Command) []agent.Command {
		out := slices.Clone(commands)
		for i, c := range out {
			if c, ok := c.(C); ok {
				out[i] = change(c)
			}
		}
		return out
	})
}

// setMutants are bugs around the shadow copy set and its hold.
func setMutants() []mutant {
	return []mutant{
		{"P12 AbortBackup skipped after a failed set", []int{15}, func(c *code) { c.vss.forgetsAbort = true }},
		{"P14w mode changed without telling", []int{19, 102}, each(func(p agent.Prepare) agent.Prepare {
			if p.Mode == "io" {
				p.Mode = "writer"
			}
			return p
		})},
		{"P18w a callback entered after expiry holds anyway", []int{1}, func(c *code) { c.vss.holdsAfterExpiry = true }},
		{"O12 was_held kept although the hold's own dead-man won", []int{109}, func(c *code) {
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				if t, ok := e.(agent.ThawEnded); ok {
					t.Expired = ""
					e = t
				}
				return agent.Step(s, at, e)
			}
		}},
		{"O16 link loss ignored while a set is held", []int{28}, func(c *code) {
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				if _, ok := e.(agent.LinkLost); ok && s.Name == agent.Frozen {
					return s, nil
				}
				return agent.Step(s, at, e)
			}
		}},
		{"O17 a hold that nobody asked to end ends well", []int{114}, each(func(agent.Thaw) agent.Thaw { return agent.Thaw{Asked: true} })},
	}
}

// ioMutants are bugs of the time inside CommitSnapshots.
func ioMutants() []mutant {
	io := func(change func(s fw.State, e fw.GuestFrozen, at time.Duration, c fw.SetTimer) []fw.Command) func(*code) {
		return func(c *code) {
			c.window = func(s fw.State, at time.Duration, e fw.Event) (fw.State, []fw.Command) {
				s, commands := fw.Step(s, at, e)
				f, ok := e.(fw.GuestFrozen)
				if !ok {
					return s, commands
				}
				var out []fw.Command
				for _, c := range commands {
					if t, ok := c.(fw.SetTimer); ok && t.Timer == fw.IOBy {
						out = append(out, change(s, f, at, t)...)
						continue
					}
					out = append(out, c)
				}
				return s, out
			}
		}
	}
	return []mutant{
		{"P13 io age counted from FROZEN received", []int{3}, io(func(s fw.State, e fw.GuestFrozen, at time.Duration, t fw.SetTimer) []fw.Command {
			t.At = at + s.Budget.IOThaw - e.IO
			return []fw.Command{t}
		})},
		{"O13 the timer of the io age is never set", []int{3}, io(func(fw.State, fw.GuestFrozen, time.Duration, fw.SetTimer) []fw.Command { return nil })},
		{"O18 no dead-man inside CommitSnapshots", []int{2}, each(func(p agent.Prepare) agent.Prepare {
			p.IODeadman = time.Hour
			return p
		})},
	}
}

// writersMutants are bugs in what is believed of the writers and of what Windows says.
func writersMutants() []mutant {
	return []mutant{
		{"P5 the writers taken from the set's result only", []int{7, 102}, judged(func(s *fw.State) {
			s.Final, s.Release.Writers = true, nil
			for _, id := range s.Ready.Writers {
				s.Release.Writers = append(s.Release.Writers, fw.Writer{ClassID: id, State: writerWaits, Failure: hrOK, Required: true})
			}
		})},
		{"P5b a required writer that does not answer is overlooked", []int{7}, judged(func(s *fw.State) {
			s.Release.Writers = slices.DeleteFunc(slices.Clone(s.Release.Writers), func(w fw.Writer) bool { return w.Failure == hrNoAnswer })
			s.Ready.Writers = nil
		})},
		{"O15 the log of Windows is not believed", []int{102}, judged(func(s *fw.State) { s.Release.Witness = fw.Witness{} })},
		{"O19 the set's result is not looked at", []int{6}, judged(func(s *fw.State) { s.Release.Finished = true })},
	}
}

// lastWordMutants are bugs in what is told last, to the orchestrator and to the writers.
func lastWordMutants() []mutant {
	return []mutant{
		{"P15 BackupComplete(true) before COMPLETE", []int{16}, stepped(func(_ agent.State, e agent.Event, commands []agent.Command) []agent.Command {
			if was, ok := e.(agent.SettledEvent); ok && was.Finished {
				return append(slices.Clone(commands), agent.Complete{Completion: agent.Completion{OK: "all"}})
			}
			return commands
		})},
		{"P15b a backup that nobody completes counts as good", []int{16}, each(func(agent.Complete) agent.Complete {
			return agent.Complete{Completion: agent.Completion{OK: "all"}}
		})},
		{"O14 THAWED is the last word before the writers were read", []int{110}, stepped(func(_ agent.State, _ agent.Event, commands []agent.Command) []agent.Command {
			asks := slices.ContainsFunc(commands, func(c agent.Command) bool { return c == agent.Settle{} })
			out := slices.Clone(commands)
			for i, c := range out {
				if say, ok := c.(agent.Send); ok && asks {
					if t, ok := say.M.(*protocol.Thawed); ok {
						last := *t
						last.Final = true
						out[i] = agent.Send{M: &last}
					}
				}
			}
			return out
		})},
		{"O20 ABORT answered before the session has ended", []int{113}, stepped(func(_ agent.State, e agent.Event, commands []agent.Command) []agent.Command {
			if m, ok := e.(agent.Msg); ok && m.M.Head().T == protocol.WordAbort {
				a := &protocol.Abort{Closed: true}
				a.T = protocol.WordAbort
				return append([]agent.Command{agent.Send{M: a}}, commands...)
			}
			return commands
		})},
	}
}

// foundWindowsMutants are the bugs that Windows worlds found in the reducers, planted again.
func foundWindowsMutants() []mutant {
	return []mutant{
		{"B6 a set that failed without a cause", []int{107}, causeless(fw.CauseHoldTimeout)},
		{"B7 a last word that never came without a cause", []int{107}, causeless(fw.CauseLinkLost)},
		{"B8 the hold begins when the agent learns of it", []int{103, 104}, func(c *code) {
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				if f, ok := e.(agent.FreezeEnded); ok {
					f.HoldAt = 0
					e = f
				}
				return agent.Step(s, at, e)
			}
		}},
		{"B9 was_held told before the hold itself has said so", []int{109}, stepped(func(before agent.State, e agent.Event, commands []agent.Command) []agent.Command {
			if f, ok := e.(agent.Fired); ok && f.Timer == agent.TimerThawing {
				for _, c := range commands {
					if say, ok := c.(agent.Send); ok {
						say.M.(*protocol.Thawed).WasHeld = before.WasHeld
					}
				}
			}
			return commands
		})},
		{"B10 closed is said although the session could not be ended", []int{113}, func(c *code) {
			c.agent = func(s agent.State, at time.Duration, e agent.Event) (agent.State, []agent.Command) {
				if _, ok := e.(agent.ClosedEvent); ok {
					e = agent.ClosedEvent{}
				}
				return agent.Step(s, at, e)
			}
		}},
	}
}
