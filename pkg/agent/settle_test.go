package agent_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const finishedSet = "0004230a" // VSS_S_ASYNC_FINISHED

func setEnded(ok bool) agent.Event {
	e := agent.SettledEvent{Settled: agent.Settled{Result: finishedSet, Finished: ok, Writers: []protocol.Writer{{Name: "w", State: 5}}}}
	if !ok {
		e.Result = "80042314"
	}
	return e
}

// settled follows a way of an agent whose freezer has an aftermath, and names what it did after the first event.
func settled(way []happening) (agent.State, []string) {
	s, _ := agent.Start(agent.Self{Version: "1", VMUUID: vmUUID, BootID: "b", Settles: true}, 0)
	var done []string
	for i, h := range way {
		var commands []agent.Command
		if s, commands = agent.Step(s, h.at, h.event); i == 0 {
			continue
		}
		text := string(s.Name)
		for _, c := range commands {
			switch c := c.(type) {
			case agent.SetTimer, agent.StopTimer:
			case agent.Thaw:
				text += fmt.Sprintf(" Thaw:%t", c.Asked)
			case agent.Complete:
				text += " Complete:" + c.OK
			case agent.Send:
				text += " " + toldOf(c.M)
			default:
				text += " " + strings.TrimPrefix(fmt.Sprintf("%T", c), "agent.")
			}
		}
		done = append(done, text)
	}
	return s, done
}

func toldOf(m protocol.Message) string {
	switch m := m.(type) {
	case *protocol.Thawed:
		return fmt.Sprintf("THAWED:final=%t,held=%t,by=%s,finished=%t,io=%d,writers=%d", m.Final, m.WasHeld, m.ExpiredBy, m.Finished, m.IOUS/1000, len(m.Writers))
	case *protocol.Frozen:
		return fmt.Sprintf("FROZEN:io=%d,left=%d", m.IOUS/1000, m.LeftUS/1000)
	case *protocol.Abort:
		return fmt.Sprintf("ABORT:closed=%t", m.Closed)
	case *protocol.CompleteAnswer:
		return fmt.Sprintf("COMPLETE:re=%d,closed=%t", m.Re, m.Closed)
	case *protocol.Error:
		return m.Code
	}
	return string(m.Head().T)
}

// TestSettleStep is the way of a shadow copy set through the session: THAWED twice, one end told to the writers.
func TestSettleStep(t *testing.T) {
	begin := with(nil, ms(1000), hello(1, nil), ms(2000), word(2, &protocol.Arm{Mode: "io", Budget: protocol.Limits{DeadmanMS: 18000, IODeadmanMS: 8000}}))
	ready := with(begin, ms(3000), agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}})
	going := with(ready, ms(4000), word(3, &protocol.Go{Go: 7}), ms(4100), agent.HoldStarted{})
	held := with(going, ms(4300), agent.FreezeEnded{IOAt: ms(4290)})
	thaw := with(held, ms(6000), word(4, &protocol.Thaw{Go: 7}), ms(6010), agent.ThawEnded{Release: agent.Release{IO: ms(1715)}})
	open := with(thaw, ms(6200), setEnded(true))
	armed := []string{"ARMING Prepare"}
	prepared := append(slices.Clone(armed), "READY READY")
	gone := append(slices.Clone(prepared), "FREEZING Freeze", "FREEZING")
	frozen := append(slices.Clone(gone), "FROZEN FROZEN:io=10,left=7990")
	thawed := append(slices.Clone(frozen), "THAWING Thaw:true", "THAWING THAWED:final=false,held=true,by=none,finished=false,io=1715,writers=0 Settle")
	opened := append(slices.Clone(thawed), "OPEN THAWED:final=true,held=true,by=none,finished=true,io=1715,writers=1")
	for _, c := range []struct {
		name string
		way  []happening
		want []string
	}{
		{"a good set, completed", with(open, ms(9000), word(5, &protocol.Complete{OK: "all"}), ms(9500), agent.CompletedEvent{Completed: agent.Completed{Closed: true}},
			ms(9600), agent.ClosedEvent{}, ms(9700), word(6, &protocol.Complete{OK: "all"}), ms(19600), agent.Fired{Timer: agent.TimerLeave}), append(slices.Clone(opened),
			"COMPLETING Complete:all", "CLOSED COMPLETE:re=5,closed=true Finish", "CLOSED", "CLOSED COMPLETE:re=6,closed=true", "CLOSED Finish")},
		{"COMPLETE again while the writers are told", with(open, ms(9000), word(5, &protocol.Complete{OK: "all"}), ms(9400), word(6, &protocol.Complete{OK: "all"}), ms(9500), agent.CompletedEvent{Completed: agent.Completed{Closed: true}}), append(slices.Clone(opened),
			"COMPLETING Complete:all", "COMPLETING", "CLOSED COMPLETE:re=6,closed=true Finish")},
		{"a good set, aborted", with(open, ms(9000), word(5, &protocol.Abort{}), ms(9600), agent.ClosedEvent{}), append(slices.Clone(opened),
			"CLOSED Finish", "CLOSED ABORT:closed=true")},
		{"a good set that nobody completes", with(open, ms(1000000), agent.Fired{Timer: agent.TimerSilence}, ms(1000100), agent.CompletedEvent{Completed: agent.Completed{Closed: true}}, ms(1000200), agent.ClosedEvent{}), append(slices.Clone(opened),
			"COMPLETING Complete:none", "CLOSED COMPLETE:re=0,closed=true Finish", "CLOSED Leave")},
		{"a good set, service stop", with(open, ms(9000), agent.ServiceStop{}, ms(9500), agent.CompletedEvent{Completed: agent.Completed{Closed: true}}, ms(9600), agent.ClosedEvent{}), append(slices.Clone(opened),
			"COMPLETING Complete:none", "CLOSED COMPLETE:re=0,closed=true Finish", "CLOSED Leave")},
		{"a set that failed", with(thaw, ms(6200), setEnded(false), ms(6300), agent.ClosedEvent{}, ms(6400), word(5, &protocol.Thaw{Go: 7}), ms(7000), word(6, &protocol.Abort{}), ms(7010), agent.ClosedEvent{}), append(slices.Clone(thawed),
			"CLOSED THAWED:final=true,held=true,by=none,finished=false,io=1715,writers=1 Finish", "CLOSED",
			"CLOSED THAWED:final=true,held=true,by=none,finished=false,io=1715,writers=1", "CLOSED Finish", "CLOSED ABORT:closed=true")},
		{"THAW again before the writers are known", with(thaw, ms(6100), word(5, &protocol.Thaw{Go: 7})), append(slices.Clone(thawed),
			"THAWING THAWED:final=false,held=true,by=none,finished=false,io=1715,writers=0")},
		{"writers that never answer", with(thaw, ms(102100), agent.Fired{Timer: agent.TimerSettle}, ms(102200), setEnded(true)), append(slices.Clone(thawed),
			"CLOSED THAWED:final=true,held=true,by=none,finished=false,io=1715,writers=0 Finish", "CLOSED")},
		{"the hold's own dead-man", with(held, ms(12290), agent.HoldExpired{By: agent.ByIODeadman}, ms(12300), agent.ThawEnded{Release: agent.Release{IO: ms(8000), Expired: agent.ByIODeadman}}, ms(12400), setEnded(false)), append(slices.Clone(frozen),
			"THAWING Thaw:false", "THAWING THAWED:final=false,held=false,by=io_deadman,finished=false,io=8000,writers=0 Settle",
			"CLOSED THAWED:final=true,held=false,by=io_deadman,finished=false,io=8000,writers=1 Finish")},
		{"the dead-man wins against THAW in the hold itself", with(held, ms(12289), word(4, &protocol.Thaw{Go: 7}), ms(12290), agent.ThawEnded{Release: agent.Release{IO: ms(8000), Expired: agent.ByIODeadman}}), append(slices.Clone(frozen),
			"THAWING Thaw:true", "THAWING THAWED:final=false,held=false,by=io_deadman,finished=false,io=8000,writers=0 Settle")},
		{"service stop while held", with(held, ms(6000), agent.ServiceStop{}, ms(6010), agent.ThawEnded{}, ms(6100), setEnded(false), ms(6200), agent.ClosedEvent{}), append(slices.Clone(frozen),
			"THAWING Thaw:false", "THAWING THAWED:final=false,held=false,by=service_stop,finished=false,io=0,writers=0 Settle",
			"CLOSED THAWED:final=true,held=false,by=service_stop,finished=false,io=0,writers=1 Finish", "CLOSED Leave")},
		{"link lost while held", with(held, ms(6000), agent.LinkLost{}, ms(6010), agent.ThawEnded{}, ms(6100), setEnded(false)), append(slices.Clone(frozen),
			"THAWING Thaw:false", "THAWING THAWED:final=false,held=false,by=link_lost,finished=false,io=0,writers=0 Settle",
			"CLOSED THAWED:final=true,held=false,by=link_lost,finished=false,io=0,writers=1 Finish")},
		{"ABORT while the writers are asked", with(thaw, ms(6100), word(5, &protocol.Abort{}), ms(6200), setEnded(true), ms(6300), agent.ClosedEvent{}), append(slices.Clone(thawed),
			"THAWING", "CLOSED THAWED:final=true,held=true,by=none,finished=true,io=1715,writers=1 Finish", "CLOSED ABORT:closed=true")},
		{"COMPLETE too early", with(thaw, ms(6100), word(5, &protocol.Complete{OK: "all"})), append(slices.Clone(thawed), "THAWING SF4020")},
		{"THAW before everything is held", with(going, ms(4200), word(4, &protocol.Thaw{Go: 7}), ms(4210), agent.ThawEnded{}, ms(4300), agent.FreezeEnded{Err: errors.New("veto")}, ms(4310), agent.ThawEnded{}, ms(4400), setEnded(false)), append(slices.Clone(gone),
			"THAWING Thaw:false", "THAWING", "THAWING Thaw:false", "THAWING THAWED:final=false,held=false,by=none,finished=false,io=0,writers=0 Settle",
			"CLOSED THAWED:final=true,held=false,by=none,finished=false,io=0,writers=1 Finish")},
		{"a writer refuses in ARMING", with(begin, ms(3000), agent.PreparedEvent{Err: &agent.CodedError{Code: "SF4013", Err: errors.New("no")}}, ms(3100), agent.ClosedEvent{}), append(slices.Clone(armed),
			"CLOSED SF4013 Finish", "CLOSED")},
		{"link lost in READY", with(ready, ms(3500), agent.LinkLost{}, ms(3600), agent.ClosedEvent{}), append(slices.Clone(prepared), "CLOSED Finish", "CLOSED Leave")},
		{"a close that cannot end the session", with(open, ms(9000), word(5, &protocol.Abort{}), ms(68000), agent.ClosedEvent{Err: errors.New("stuck")},
			ms(68100), word(6, &protocol.Abort{}), ms(68200), agent.ClosedEvent{}), append(slices.Clone(opened),
			"CLOSED Finish", "CLOSED ABORT:closed=false", "CLOSED Finish", "CLOSED ABORT:closed=false")},
		{"a start of the hold that is heard of late", with(ready, ms(4000), word(3, &protocol.Go{Go: 7}), ms(9000), agent.HoldStarted{}, ms(9300), agent.FreezeEnded{HoldAt: ms(4100)}), append(slices.Clone(gone),
			"FROZEN FROZEN:io=0,left=12800")},
		{"a start of the hold that is heard of too late", with(ready, ms(4000), word(3, &protocol.Go{Go: 7}), ms(9000), agent.HoldStarted{}, ms(22200), agent.FreezeEnded{HoldAt: ms(4100)}), append(slices.Clone(gone),
			"THAWING Thaw:false")},
		{"a hold that does not end", with(held, ms(6000), word(4, &protocol.Thaw{Go: 7}), ms(35000), agent.Fired{Timer: agent.TimerThawing}), append(slices.Clone(frozen),
			"THAWING Thaw:true", "THAWING THAWED:final=true,held=false,by=none,finished=false,io=0,writers=0")},
		{"a close that hangs", with(open, ms(9000), word(5, &protocol.Abort{}), ms(430000), agent.Fired{Timer: agent.TimerLeave}), append(slices.Clone(opened), "CLOSED Finish", "CLOSED Leave")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := settled(c.way); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestSettleAnyOrder throws events at the session at random: the session with the writers is always ended, and nothing
// is asked of them after.
func TestSettleAnyOrder(t *testing.T) {
	for seed := range uint64(20000) {
		if why := settleAnyOrder(seed); why != "" {
			t.Fatalf("seed %d: %s", seed, why)
		}
	}
}

// set is what the freezer of TestSettleAnyOrder knows.
type set struct {
	due                                           []agent.Event
	prepares, freezes, settles, completes, closes int
	left                                          bool
}

func settleAnyOrder(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 11))
	s, _ := agent.Start(agent.Self{VMUUID: vmUUID, Settles: true}, 0)
	q := uint64(1)
	say := func(m protocol.Message) agent.Event { q++; return word(q, m) }
	f := &set{}
	next := agent.Event(hello(1, nil))
	var at time.Duration
	for i := 0; i < 80 && !f.left; i++ {
		at += time.Duration(r.IntN(2000)) * time.Millisecond
		var commands []agent.Command
		s, commands = agent.Step(s, at, next)
		for _, c := range commands {
			if why := f.take(r, c); why != "" {
				return why
			}
		}
		next = pick(r, s, say, &f.due)
	}
	if f.left && f.prepares > 0 && f.closes == 0 {
		return "the process left without an end for the writers"
	}
	return ""
}

// take does one command, and says what is wrong with it.
func (f *set) take(r *rand.Rand, c agent.Command) string {
	switch c.(type) {
	case agent.Prepare:
		f.prepares++
		f.due = append(f.due, agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}})
	case agent.Freeze:
		f.freezes++
		f.due = append(f.due, agent.HoldStarted{}, agent.FreezeEnded{})
	case agent.Thaw:
		f.due = append(f.due, thawEnded(true))
	case agent.Settle:
		f.settles++
		f.due = append(f.due, setEnded(r.IntN(3) > 0))
	case agent.Complete:
		f.completes++
		f.due = append(f.due, agent.CompletedEvent{Completed: agent.Completed{Closed: true}})
	case agent.Finish:
		f.closes++
		f.due = append(f.due, agent.ClosedEvent{})
	case agent.Leave:
		f.left = true
	}
	switch {
	case f.freezes > 1 || f.settles > 1 || f.completes > 1:
		return fmt.Sprintf("%d freezes, %d settles, %d completes", f.freezes, f.settles, f.completes)
	case f.settles > f.freezes:
		return "the writers were asked without a freeze"
	case f.completes > 0 && f.settles == 0:
		return "completed before it was settled"
	}
	return ""
}
