package agent_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

func hookEnded(p agent.Point, err error) agent.Event {
	o := agent.HookOutcome{Installed: []string{"10-app"}, Holding: 1, Err: err}
	if p != agent.PointPreFreeze {
		o.Results = []protocol.Hook{{Name: "10-app", Point: string(p), OK: err == nil}}
	}
	return agent.HookEnded{Point: p, HookOutcome: o}
}

func hooksReleased(ok bool) agent.Event {
	return agent.HooksReleased{Results: []protocol.Hook{{Name: "10-app", Point: "pre-freeze", OK: ok, Holds: true, Required: true}}}
}

// hooked follows a way of an agent that has hooks, and names what it did after the first two events.
func hooked(way []happening) (agent.State, []string) {
	s, _ := agent.Start(agent.Self{Version: "1", VMUUID: vmUUID, BootID: "b", Hooks: true}, 0)
	var done []string
	for i, h := range way {
		var commands []agent.Command
		s, commands = agent.Step(s, h.at, h.event)
		if i == 0 {
			continue
		}
		text := string(s.Name)
		for _, c := range commands {
			switch c := c.(type) {
			case agent.RunHooks:
				text += fmt.Sprintf(" run:%s:%t", c.Point, c.OK)
			case agent.EndHooks:
				text += fmt.Sprintf(" end:%v", c.By)
			case agent.Send:
				text += " " + said(c.M)
			case agent.SetTimer, agent.StopTimer:
			default:
				text += " " + strings.TrimPrefix(fmt.Sprintf("%T", c), "agent.")
			}
		}
		done = append(done, text)
	}
	return s, done
}

func said(m protocol.Message) string {
	switch m := m.(type) {
	case *protocol.Thawed:
		return fmt.Sprintf("THAWED:final=%t,hooks=%d,held=%d", m.Final, len(m.Hooks), m.HeldUS/1000)
	case *protocol.Error:
		return m.Code
	}
	return string(m.Head().T)
}

// TestHooksStep is the way of hooks through the session: where they run, what waits for them, what they end.
func TestHooksStep(t *testing.T) {
	begin := with(nil, ms(1000), hello(1, nil), ms(2000), word(2, &protocol.Arm{Mode: "fs"}))
	ready := with(begin, ms(2500), hookEnded("prepare", nil), ms(3000), agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}})
	going := with(ready, ms(4000), word(3, &protocol.Go{Go: 7}), ms(4010), agent.HoldStarted{})
	held := with(going, ms(4200), hookEnded("pre-freeze", nil), ms(4210), agent.HoldStarted{}, ms(4300), agent.FreezeEnded{})
	thawing := with(held, ms(6000), word(4, &protocol.Thaw{Go: 7}))
	refused := agent.CodedError{Code: "SF4019", Err: errors.New("no")}
	armed := []string{"ARMING run:prepare:true"}
	prepared := append(slices.Clone(armed), "ARMING Prepare", "READY READY")
	gone := append(slices.Clone(prepared), "FREEZING run:pre-freeze:true", "FREEZING")
	frozen := append(slices.Clone(gone), "FREEZING Freeze", "FREEZING", "FROZEN FROZEN")
	thawed := append(slices.Clone(frozen), "THAWING Thaw")
	for _, c := range []struct {
		name string
		way  []happening
		want []string
	}{
		{"a good window", with(thawing, ms(6020), thawEnded(true), ms(6100), hooksReleased(true), ms(6900), hookEnded("post-thaw", nil)), append(
			slices.Clone(thawed), "THAWING end:9.02s", "OPEN THAWED:final=false,hooks=2,held=2090 run:post-thaw:true", "OPEN THAWED:final=true,hooks=3,held=2090",
		)},
		{"a hook that fails in ARMING", with(begin, ms(2500), hookEnded("prepare", &refused), ms(2600), hookEnded("post-thaw", nil)), append(
			slices.Clone(armed), "CLOSED SF4019 Finish run:post-thaw:false", "CLOSED",
		)},
		{"hooks that cannot be read", with(begin, ms(2500), agent.HookEnded{Point: "prepare", HookOutcome: agent.HookOutcome{Err: &refused}}), append(
			slices.Clone(armed), "CLOSED SF4019 Finish",
		)},
		{"no hooks at all", with(begin, ms(2500), agent.HookEnded{Point: "prepare"}, ms(3000), agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}}, ms(4000), word(3, &protocol.Go{Go: 7})), append(
			slices.Clone(prepared), "FREEZING Freeze",
		)},
		{"ABORT in READY", with(ready, ms(3500), word(3, &protocol.Abort{}), ms(4000), hookEnded("post-thaw", nil), ms(13500), agent.Fired{Timer: agent.TimerLeave}), append(
			slices.Clone(prepared), "CLOSED Finish run:post-thaw:false", "CLOSED ABORT", "CLOSED Finish Leave",
		)},
		{"ABORT while prepare runs", with(begin, ms(2100), word(3, &protocol.Abort{}), ms(2200), agent.HooksReleased{}, ms(2300), hookEnded("prepare", errors.New("killed")), ms(2900), hookEnded("post-thaw", nil)), append(
			slices.Clone(armed), "CLOSED Finish end:2.1s", "CLOSED", "CLOSED run:post-thaw:false", "CLOSED ABORT",
		)},
		{"ABORT while prepare finds no hooks", with(begin, ms(2100), word(3, &protocol.Abort{}), ms(2200), agent.HookEnded{Point: "prepare"}, ms(2300), agent.HooksReleased{}), append(
			slices.Clone(armed), "CLOSED Finish end:2.1s", "CLOSED ABORT", "CLOSED",
		)},
		{"service stop while prepare finds no hooks", with(begin, ms(2100), agent.ServiceStop{}, ms(2200), agent.HookEnded{Point: "prepare"}), append(
			slices.Clone(armed), "CLOSED Finish end:2.1s", "CLOSED Leave",
		)},
		{"service stop in READY", with(ready, ms(3500), agent.ServiceStop{}, ms(4000), hookEnded("post-thaw", nil)), append(
			slices.Clone(prepared), "CLOSED Finish run:post-thaw:false", "CLOSED Leave",
		)},
		{"link lost in READY", with(ready, ms(3500), agent.LinkLost{}, ms(13600), agent.Fired{Timer: agent.TimerLeave}, ms(14000), hookEnded("post-thaw", nil)), append(
			slices.Clone(prepared), "CLOSED Finish run:post-thaw:false", "CLOSED Finish", "CLOSED Leave",
		)},
		{"a hook that fails after GO", with(going, ms(4200), hookEnded("pre-freeze", &refused), ms(4210), thawEnded(true), ms(4220), hooksReleased(false)), append(
			slices.Clone(gone), "THAWING SF4019 Thaw", "THAWING end:7.21s", "CLOSED THAWED:final=false,hooks=2,held=210 run:post-thaw:false",
		)},
		{"THAW while pre-freeze runs", with(going, ms(4100), word(4, &protocol.Thaw{Go: 7}), ms(4110), agent.ThawEnded{}, ms(4120), hooksReleased(false), ms(4130), hookEnded("pre-freeze", errors.New("killed"))), append(
			slices.Clone(gone), "THAWING Thaw end:4.1s", "THAWING", "THAWING", "CLOSED THAWED:final=false,hooks=2,held=120 run:post-thaw:false",
		)},
		{"link lost while frozen", with(held, ms(6000), agent.LinkLost{}, ms(6010), thawEnded(true), ms(6020), hooksReleased(true)), append(
			slices.Clone(frozen), "THAWING Thaw", "THAWING end:9.01s", "OPEN THAWED:final=false,hooks=2,held=2010 run:post-thaw:false",
		)},
		{"the dead-man", with(held, ms(22010), agent.Fired{Timer: agent.TimerDeadman}, ms(22020), thawEnded(true), ms(22030), hooksReleased(false)), append(
			slices.Clone(frozen), "THAWING Thaw end:22.01s", "THAWING", "OPEN THAWED:final=false,hooks=2,held=18020 run:post-thaw:false",
		)},
		{"a late THAW leaves less time to end", with(held, ms(21000), word(4, &protocol.Thaw{Go: 7}), ms(21020), thawEnded(true)), append(
			slices.Clone(frozen), "THAWING Thaw", "THAWING end:22.01s",
		)},
		{"the dead-man while the thaw hangs", with(thawing, ms(22010), agent.Fired{Timer: agent.TimerDeadman}, ms(22020), hooksReleased(false), ms(23000), thawEnded(true)), append(
			slices.Clone(thawed), "THAWING end:22.01s", "THAWING", "OPEN THAWED:final=false,hooks=2,held=18990 run:post-thaw:true",
		)},
	} {
		_, got := hooked(c.way)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestHooksHoldTheirTimer is the dead-man after THAW: it stays armed until the holding hooks have ended.
func TestHooksHoldTheirTimer(t *testing.T) {
	way := with(nil, ms(1000), hello(1, nil), ms(2000), word(2, &protocol.Arm{Mode: "fs"}), ms(2500), hookEnded("prepare", nil),
		ms(3000), agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}}, ms(4000), word(3, &protocol.Go{Go: 7}), ms(4010), agent.HoldStarted{},
		ms(4200), hookEnded("pre-freeze", nil), ms(4300), agent.FreezeEnded{})
	s, _ := agent.Start(agent.Self{VMUUID: vmUUID, Hooks: true}, 0)
	for _, h := range way {
		s, _ = agent.Step(s, h.at, h.event)
	}
	_, commands := agent.Step(s, ms(6000), word(4, &protocol.Thaw{Go: 7}))
	last := slices.IndexFunc(commands, func(c agent.Command) bool {
		return c == agent.Command(agent.SetTimer{Timer: agent.TimerDeadman, At: ms(22010)})
	})
	stopped := slices.Index(commands, agent.Command(agent.StopTimer{Timer: agent.TimerDeadman}))
	if last < 0 || stopped > last {
		t.Errorf("commands %v, want the dead-man armed for 22.01 s", commands)
	}
}

// TestHooksAnyOrder throws events at the session at random, with hooks and a freezer that answer when they like.
func TestHooksAnyOrder(t *testing.T) {
	for seed := range uint64(20000) {
		if why := anyOrder(seed); why != "" {
			t.Fatalf("seed %d: %s", seed, why)
		}
	}
}

// life is one agent with hooks, and a freezer and hooks that answer when they like.
type life struct {
	r   *rand.Rand
	s   agent.State
	at  time.Duration
	due []agent.Event // answers that may come now

	ends, posts, running           int
	frozen, left, preRan, postOver bool
}

// anyOrder is one life of an agent; it says what was wrong.
func anyOrder(seed uint64) string {
	l := &life{r: rand.New(rand.NewPCG(seed, 7))}
	l.s, _ = agent.Start(agent.Self{VMUUID: vmUUID, Hooks: true}, 0)
	q := uint64(1)
	say := func(m protocol.Message) agent.Event { q++; return word(q, m) }
	next := agent.Event(hello(1, nil))
	for i := 0; i < 60 && !l.left; i++ {
		l.at += time.Duration(l.r.IntN(2000)) * time.Millisecond
		var commands []agent.Command
		l.s, commands = agent.Step(l.s, l.at, next)
		if h, ok := next.(agent.HookEnded); ok {
			l.running--
			l.postOver = l.postOver || h.Point == agent.PointPostThaw
		}
		l.frozen = l.frozen && l.s.Holding
		for _, c := range commands {
			if why := l.take(c); why != "" {
				return why
			}
		}
		next = pick(l.r, l.s, say, &l.due)
	}
	switch {
	case l.posts > 1:
		return "post-thaw ran twice"
	case l.left && (l.ends > 0 || l.preRan) && !l.postOver:
		return "the process left before post-thaw had ended"
	case l.left && l.running > 0:
		return "the process left while hooks ran"
	}
	return ""
}

// take does one command, and says what is wrong with it.
func (l *life) take(c agent.Command) string {
	switch c := c.(type) {
	case agent.Prepare:
		l.due = append(l.due, agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}})
	case agent.Freeze:
		l.frozen = true
		l.due = append(l.due, agent.HoldStarted{}, agent.FreezeEnded{})
	case agent.Thaw:
		l.due = append(l.due, thawEnded(true))
	case agent.RunHooks:
		return l.run(c)
	case agent.EndHooks:
		l.ends++
		l.due = append(l.due, hooksReleased(true))
		switch {
		case l.ends > 1:
			return "End was called twice"
		case l.s.Holding && c.By > max(l.s.HoldAt+l.s.Deadman, l.at): // at once, when the dead-man itself is late
			return fmt.Sprintf("the hooks may live until %v, the dead-man is at %v", c.By, l.s.HoldAt+l.s.Deadman)
		}
	case agent.Send:
		if w, ok := c.M.(*protocol.Thawed); ok && l.preRan && l.s.Stored != nil && l.s.Name != agent.Thawing && l.ends == 0 {
			return "THAWED before the hooks were let go: " + said(w)
		}
	case agent.Leave:
		l.left = true
	}
	return ""
}

func (l *life) run(c agent.RunHooks) string {
	l.running++
	switch {
	case l.running > 1:
		return "two points run at once"
	case l.frozen:
		return "a hook was started while file systems may be frozen"
	}
	var err error
	if l.r.IntN(4) == 0 {
		err = errors.New("no")
	}
	if c.Point == agent.PointPreFreeze {
		l.preRan = true
		l.due = append(l.due, agent.HoldStarted{})
	}
	if c.Point == agent.PointPostThaw {
		l.posts++
	}
	l.due = append(l.due, hookEnded(c.Point, err))
	return ""
}

// pick is the next event: mostly an answer that is due, in the order in which each of them was asked for.
func pick(r *rand.Rand, s agent.State, say func(protocol.Message) agent.Event, due *[]agent.Event) agent.Event {
	if len(*due) > 0 && r.IntN(3) > 0 {
		i := r.IntN(len(*due))
		switch (*due)[i].(type) {
		case agent.HookEnded, agent.FreezeEnded: // never before the start of the hold that belongs to it
			i = 0
		}
		e := (*due)[i]
		*due = slices.Delete(*due, i, i+1)
		return e
	}
	switch r.IntN(12) {
	case 0:
		return say(&protocol.Abort{})
	case 1:
		return agent.LinkLost{}
	case 2:
		return agent.ServiceStop{}
	case 3:
		timer := agent.Timer(r.IntN(agent.Timers))
		if timer == agent.TimerOpen && s.Name != agent.Open || timer == agent.TimerLeave && s.Name != agent.Closed {
			timer = agent.TimerDeadman // those are not armed
		}
		return agent.Fired{Timer: timer}
	case 4, 5, 6:
		return say(&protocol.Arm{Mode: "fs"})
	case 7, 8:
		return say(&protocol.Go{Go: 7})
	case 9:
		return say(&protocol.Complete{})
	}
	if s.Name == agent.Ready {
		return say(&protocol.Go{Go: 7})
	}
	return say(&protocol.Thaw{Go: 7})
}
