package agent_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// snapshot takes its time.
type snapshot struct{ takes time.Duration }

func (s snapshot) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	accepted("task-1")
	select {
	case <-time.After(s.takes):
		return inventory.Snapshot{Moref: "snapshot-1"}, inventory.Timing{}, nil
	case <-ctx.Done():
		return inventory.Snapshot{}, inventory.Timing{}, context.Cause(ctx)
	}
}

// window arms the guest and runs one real window against the real agent; cutAfter > 0 cuts the wire so long after GO.
func (m *machine) window(t *testing.T, s *guest.Session, takes, cutAfter time.Duration) freezewindow.Report {
	t.Helper()
	r, err := s.Arm(t.Context(), guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()})
	if err != nil {
		t.Fatal(err)
	}
	r.Go, r.Armed, r.Name = 7, true, "stillframe-r-5"
	if cutAfter > 0 {
		defer time.AfterFunc(cutAfter, m.cut).Stop()
	}
	report, pending := freezewindow.Run(t.Context(), freezewindow.DefaultBudget(), r, s, snapshot{takes})
	if pending != nil {
		pending.Stop()
	}
	return report
}

// slowly is a freezer whose delays are odd, so that no two events fall on one instant.
func slowly() *freezer {
	return &freezer{prepare: 211 * time.Millisecond, freeze: 307 * time.Millisecond, thaw: 13 * time.Millisecond}
}

func TestServeGoodWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		s := m.connect(t)
		if rtt, err := s.RTT(t.Context()); err != nil || rtt != 0 {
			t.Errorf("RTT = %v, %v, want no time at all on a wire in memory", rtt, err)
		}
		r := m.window(t, s, 2003*time.Millisecond, 0)
		if r.Verdict.Level != freezewindow.Filesystem || r.Verdict.Cause != freezewindow.CauseNone || r.LinkLosses != 0 {
			t.Errorf("verdict %+v with %d losses, want filesystem", r.Verdict, r.LinkLosses)
		}
		want := 307*time.Millisecond + 2003*time.Millisecond + 13*time.Millisecond
		if held, still := m.freezer.hold(); held != want || still {
			t.Errorf("the freezer held for %v, still %t, want %v", held, still, want)
		}
		if r.HeldByGuest != want || r.HeldAtMost != want {
			t.Errorf("reported %v by the guest and at most %v, want %v", r.HeldByGuest, r.HeldAtMost, want)
		}
		if percent := debug.SetGCPercent(100); percent == -1 {
			t.Error("garbage collections are still off, although nothing is held")
		}
		if m.freezer.prepared.SecondNet != 18500*time.Millisecond {
			t.Errorf("the second net acts after %v, want 18.5s", m.freezer.prepared.SecondNet)
		}
		if err := s.Complete(t.Context(), guest.Completion{Stored: true}); err != nil {
			t.Errorf("End = %v, want nil", err)
		}
		if n := s.Dropped(); n != 0 {
			t.Errorf("%d words were dropped, want 0", n)
		}
		s.Close()
		s.Close()
		m.end(t)
	})
}

// The wire is cut while the guest is held: it is released at once, whatever anybody says, and what happened is fetched
// over a new connection.
func TestServeCutWhileFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		s := m.connect(t)
		m.slow = 1501 * time.Millisecond // so the snapshot, done at 2.31 s, is seen while nobody is there
		r := m.window(t, s, 2003*time.Millisecond, 1009*time.Millisecond)
		want := 1009*time.Millisecond + 13*time.Millisecond
		if held, still := m.freezer.hold(); held != want || still {
			t.Errorf("the freezer held for %v, still %t, want %v", held, still, want)
		}
		if r.Verdict.Level != freezewindow.Crash || r.Verdict.Cause != freezewindow.CauseLinkLost {
			t.Errorf("verdict %+v, want crash because the link was lost", r.Verdict)
		}
		if !r.SelfReleased || r.Release.ExpiredBy != "link_lost" || r.HeldByGuest != want || r.LinkLosses != 1 {
			t.Errorf("released itself %t by %q, held %v, %d losses, want true by link_lost, %v, 1",
				r.SelfReleased, r.Release.ExpiredBy, r.HeldByGuest, r.LinkLosses, want)
		}
		if err := s.End(t.Context()); err != nil {
			t.Errorf("End = %v, want nil", err)
		}
		s.Close()
		m.end(t)
	})
}

// The task runs into the limit: THAW at 17 s, and the guest never meets its dead-man.
func TestServeSlowSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		s := m.connect(t)
		r := m.window(t, s, time.Minute, 0)
		if held, _ := m.freezer.hold(); held != 17013*time.Millisecond {
			t.Errorf("the freezer held for %v, want 17.013s", held)
		}
		if r.Verdict.Cause != freezewindow.CauseSnapshotSlow || r.SelfReleased || !r.Release.WasHeld {
			t.Errorf("cause %q, released itself %t, was held %t, want snapshot_slow, false, true", r.Verdict.Cause, r.SelfReleased, r.Release.WasHeld)
		}
		if err := s.End(t.Context()); err != nil {
			t.Error(err)
		}
		s.Close()
		m.end(t)
	})
}

// The orchestrator hangs with the connection open: the dead-man needs nobody.
func TestServeSilentOrchestrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		w := m.frozen(t)
		told := until[*protocol.Thawed](t, w)
		want := 18*time.Second + 13*time.Millisecond
		if held, still := m.freezer.hold(); held != want || still {
			t.Errorf("the freezer held for %v, still %t, want %v", held, still, want)
		}
		if !told.Expired || told.ExpiredBy != "deadman" || told.WasHeld || told.HeldUS != want.Microseconds() {
			t.Errorf("THAWED says expired %t by %q, was held %t, %d us, want it expired by deadman", told.Expired, told.ExpiredBy, told.WasHeld, told.HeldUS)
		}
		if told.MaxGapUS > 20_000 {
			t.Errorf("the agent says that it did not run for %d us, want at most 20000", told.MaxGapUS)
		}
		m.end(t) // nobody speaks: 15 min later
		if m.endedAt < 15*time.Minute || m.endedAt > 16*time.Minute {
			t.Errorf("the agent left after %v, want 15 minutes of silence", m.endedAt)
		}
	})
}

func TestServeBadFreezers(t *testing.T) {
	fails := slowly()
	fails.freezeErr = &agent.CodedError{Code: "SF4019", Err: errors.New("EBUSY")}
	slow := slowly()
	slow.freeze = 20*time.Second + 7*time.Millisecond
	deaf := slowly()
	deaf.freeze, deaf.deaf = slow.freeze, true
	hangs := slowly()
	hangs.thaw = 27*time.Second + 13*time.Millisecond
	cases := map[string]struct {
		f     *freezer
		held  time.Duration
		told  time.Duration // by the agent: until its last thaw returned
		level freezewindow.Level
		cause freezewindow.Cause
		code  string
	}{
		"fails":                       {fails, 320 * time.Millisecond, 320 * time.Millisecond, freezewindow.Unproved, freezewindow.CauseGuestError, "SF4019"},
		"slower than the window":      {slow, 17013 * time.Millisecond, 17026 * time.Millisecond, freezewindow.Unproved, freezewindow.CauseFreezeSlow, ""},
		"deaf: cannot be interrupted": {deaf, 20020 * time.Millisecond, 20020 * time.Millisecond, freezewindow.Unproved, freezewindow.CauseFreezeSlow, ""},
		// Five THAWs without an answer are taken for a dead connection.
		"thaws later than it may": {hangs, 29323 * time.Millisecond, 29323 * time.Millisecond, freezewindow.Crash, freezewindow.CauseHoldTimeout, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := boot(t, c.f)
				s := m.connect(t)
				r := m.window(t, s, 2003*time.Millisecond, 0)
				if held, still := m.freezer.hold(); held != c.held || still {
					t.Errorf("the freezer held for %v, still %t, want %v", held, still, c.held)
				}
				if r.Verdict.Level != c.level || r.Verdict.Cause != c.cause || r.GuestCode != c.code {
					t.Errorf("verdict %s because of %q, code %q, want %s, %q, %q: %q", r.Verdict.Level, r.Verdict.Cause, r.GuestCode, c.level, c.cause, c.code, r.Verdict.Reasons)
				}
				if !r.HeldByGuestKnown || r.HeldByGuest != c.told {
					t.Errorf("the guest says it held for %v (known %t), want %v", r.HeldByGuest, r.HeldByGuestKnown, c.told)
				}
				if err := s.End(t.Context()); err != nil {
					t.Errorf("End = %v, want nil", err)
				}
				s.Close()
				m.end(t)
			})
		})
	}
}

// A thaw that hangs in the kernel for longer than the agent waits is never reported as a clean end, and the agent stays
// until it has returned.
func TestServeHangingThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slowly()
		f.thaw = 10 * time.Minute
		m := boot(t, f)
		s := m.connect(t)
		r := m.window(t, s, 2003*time.Millisecond, 0)
		if r.Verdict.Level.Consistent() || r.Release.Finished {
			t.Errorf("verdict %+v, finished %t, while the guest is still held", r.Verdict, r.Release.Finished)
		}
		if _, still := f.hold(); !still {
			t.Error("the guest is free, but its thaw has not returned")
		}
		s.Close()
		m.stop()
		m.end(t)
		if held, _ := f.hold(); held < 10*time.Minute {
			t.Errorf("the agent left after %v, before its thaw returned", held)
		}
	})
}

func TestServeLeaves(t *testing.T) {
	arm := func(t *testing.T, w *wire) {
		t.Helper()
		w.say(t, &protocol.Arm{Mode: "fs"}, protocol.WordArm)
		until[*protocol.Ready](t, w)
	}
	abort := func(t *testing.T, w *wire) {
		t.Helper()
		w.say(t, &protocol.Abort{Reason: "x"}, protocol.WordAbort)
		until[*protocol.Abort](t, w)
	}
	cases := map[string]struct {
		do   func(t *testing.T, m *machine)
		want time.Duration
	}{
		"nobody comes":               {func(*testing.T, *machine) {}, 60 * time.Second},
		"SIGTERM":                    {func(_ *testing.T, m *machine) { m.stop() }, 0},
		"HELLO and then silence":     {func(t *testing.T, m *machine) { t.Helper(); m.dialWire(t) }, 31 * time.Second},
		"HELLO and gone":             {func(t *testing.T, m *machine) { t.Helper(); m.dialWire(t); m.cut() }, 60 * time.Second},
		"ABORT, connection open":     {func(t *testing.T, m *machine) { t.Helper(); abort(t, m.dialWire(t)) }, 10 * time.Second},
		"ABORT, connection closed":   {func(t *testing.T, m *machine) { t.Helper(); abort(t, m.dialWire(t)); m.cut() }, 0},
		"READY and then silence":     {func(t *testing.T, m *machine) { t.Helper(); arm(t, m.dialWire(t)) }, 211*time.Millisecond + 31*time.Second + 10*time.Second},
		"READY and gone":             {func(t *testing.T, m *machine) { t.Helper(); arm(t, m.dialWire(t)); m.cut() }, 211*time.Millisecond + 10*time.Second},
		"ABORT while frozen":         {func(t *testing.T, m *machine) { t.Helper(); abort(t, m.frozen(t)) }, 531 * time.Millisecond},
		"SIGTERM while frozen":       {func(t *testing.T, m *machine) { t.Helper(); m.frozen(t); m.stop() }, 531 * time.Millisecond},
		"COMPLETE, connection open":  {func(t *testing.T, m *machine) { t.Helper(); m.complete(t) }, 531*time.Millisecond + 10*time.Second},
		"COMPLETE, connection close": {func(t *testing.T, m *machine) { t.Helper(); m.complete(t); m.cut() }, 531 * time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := boot(t, slowly())
				c.do(t, m)
				m.end(t)
				if m.endedAt != c.want {
					t.Errorf("the agent left after %v, want %v", m.endedAt, c.want)
				}
				if _, err := m.dial(t.Context()); err == nil {
					t.Error("somebody still listens")
				}
			})
		})
	}
}

// complete does a whole session by hand.
func (m *machine) complete(t *testing.T) {
	t.Helper()
	w := m.frozen(t)
	w.say(t, &protocol.Thaw{Go: 7, Reason: "snapshot_done"}, protocol.WordThaw)
	if told := until[*protocol.Thawed](t, w); !told.WasHeld || !told.Finished || told.Expired {
		t.Errorf("THAWED says was held %t, finished %t, expired %t, want true, true, false", told.WasHeld, told.Finished, told.Expired)
	}
	w.say(t, &protocol.Complete{OK: "all"}, protocol.WordComplete)
	if told := until[*protocol.CompleteAnswer](t, w); !told.Closed {
		t.Error("the session was not closed")
	}
}

// Whatever ends the trust in the connection while the guest is held releases it at once.
func TestServeRubbishWhileFrozen(t *testing.T) {
	frame := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	cases := map[string][]byte{
		"no JSON":        frame("GET / HTTP/1.1"),
		"empty frame":    {0, 0, 0, 0},
		"too large":      binary.BigEndian.AppendUint32(nil, protocol.MaxFrame+1),
		"broken word":    frame(`{"t":"THAW","go":"seven"}`),
		"not even JSON ": frame("\xff\xfe"),
	}
	for name, rubbish := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := boot(t, slowly())
				w := m.frozen(t)
				time.Sleep(3 * time.Second)
				w.raw(t, rubbish)
				for range w.got { // until the agent has closed the connection
					continue
				}
				time.Sleep(time.Second)
				if held, still := m.freezer.hold(); still || held != 3320*time.Millisecond {
					t.Errorf("the freezer held for %v, still %t, want 3.32s", held, still)
				}
				m.stop()
				m.end(t)
			})
		})
	}
}

// A word of the future is answered and changes nothing.
func TestServeUnknownWordWhileFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		w := m.frozen(t)
		w.say(t, &protocol.Heartbeat{}, "SLEEP")
		if no := until[*protocol.Error](t, w); no.Code != "SF3704" || no.Fatal {
			t.Errorf("ERROR %s, fatal %t, want SF3704 and not fatal", no.Code, no.Fatal)
		}
		if _, still := m.freezer.hold(); !still {
			t.Error("an unknown word released the guest")
		}
		m.stop()
		m.end(t)
	})
}

func TestServeRefusals(t *testing.T) {
	stranger, _, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*guest.Peer)
		code   string
	}{
		"a second session":         {func(*guest.Peer) {}, "SF4008"},
		"a stranger's certificate": {func(p *guest.Peer) { p.Own = stranger }, "SF3701"},
		"another VM was expected":  {func(p *guest.Peer) { p.VMUUID = "42136b27-a0c1-8d9e-0011-223344556678" }, "SF3704"},
		"an older epoch":           {func(p *guest.Peer) { p.Epoch = 4 }, "SF4022"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := boot(t, slowly())
				w := m.frozen(t)
				peer := m.peer
				c.change(&peer)
				s, err := guest.Connect(t.Context(), peer)
				if err == nil {
					s.Close()
				}
				if got := guest.CodeOf(err); got != c.code {
					t.Errorf("Connect = %v with code %q, want %q", err, got, c.code)
				}
				if _, still := m.freezer.hold(); !still {
					t.Error("the refused one released the guest")
				}
				w.say(t, &protocol.Thaw{Go: 7}, protocol.WordThaw)
				if told := until[*protocol.Thawed](t, w); !told.WasHeld {
					t.Error("the true peer's THAW found nothing held")
				}
				m.stop()
				m.end(t)
			})
		})
	}
}

// Strangers that say nothing take up room for a few seconds only.
func TestServeSilentStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		silent := make([]net.Conn, 20)
		for i := range silent {
			var err error
			if silent[i], err = m.dial(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(6 * time.Second)
		s := m.connect(t)
		if err := s.End(t.Context()); err != nil {
			t.Error(err)
		}
		s.Close()
		m.end(t)
		for _, c := range silent {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// The wire dies without a word on either side: the orchestrator comes back on a second connection while the agent still
// takes the first for good; the guest stays held and is thawed over the new one.
func TestServeResumeWhileFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := boot(t, slowly())
		first := m.frozen(t)
		time.Sleep(time.Second)
		w := m.openWire(t, first.q, true)
		for range first.got { // the agent ends the former connection
			continue
		}
		if _, still := m.freezer.hold(); !still {
			t.Error("the resume released the guest")
		}
		w.say(t, &protocol.Thaw{Go: 7}, protocol.WordThaw)
		if told := until[*protocol.Thawed](t, w); !told.WasHeld || told.Expired {
			t.Errorf("THAWED says was held %t, expired %t, want true and false", told.WasHeld, told.Expired)
		}
		m.stop()
		m.end(t)
	})
}
