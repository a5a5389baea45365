package agent_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// called is a machine whose agent dials the orchestrator's Reverser.
type called struct {
	*machine
	reverser *guest.Reverser
	caller   *guest.Caller
	dials    int
	deaf     bool // the way to the orchestrator is closed
}

// bootCalling is boot with an agent that dials.
func bootCalling(t *testing.T, f *freezer) *called {
	t.Helper()
	theirs, theirPin, err := protocol.NewIdentity(time.Hour)
	own, pin, err2 := protocol.NewIdentity(time.Hour)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the agent"))
	m := &called{machine: &machine{network: newNetwork(), freezer: f, ended: make(chan struct{}), start: time.Now()}}
	m.reverser = guest.NewReverser(t.Context(), m.network)
	if m.caller, err = m.reverser.Expect("d"); err != nil {
		t.Fatal(err)
	}
	m.caller.Prove(own, theirPin)
	m.peer = guest.Peer{
		Await: m.caller.Await, Own: own, Fingerprint: theirPin, Deployment: "d", VMUUID: vmUUID, SHA256: sum, Run: "r", Epoch: 5,
	}
	a := agent.New(agent.Options{
		Version: "1", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: f,
		Uptime: func() time.Duration { return time.Hour },
	})
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	go func() {
		m.err = a.Serve(ctx, agent.NewCaller(ctx, m.count, protocol.ClientTLS(theirs, pin, "d")))
		m.endedAt = time.Since(m.start)
		stop()
		close(m.ended)
	}()
	return m
}

// count is dial, and counts.
func (m *called) count(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	deaf := m.deaf
	m.mu.Unlock()
	if deaf {
		return nil, errors.New("no route")
	}
	return m.dial(ctx)
}

func (m *called) dialled() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dials
}

func (m *called) close(t *testing.T, s *guest.Session) {
	t.Helper()
	s.Close()
	m.end(t)
	if err := m.reverser.Close(); err != nil {
		t.Error(err)
	}
}

func TestCallGoodWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootCalling(t, slowly())
		s := m.connect(t)
		r := m.window(t, s, 2003*time.Millisecond, 0)
		want := 307*time.Millisecond + 2003*time.Millisecond + 13*time.Millisecond
		if r.Verdict.Level != freezewindow.Filesystem || r.LinkLosses != 0 || r.HeldByGuest != want || r.HeldAtMost != want {
			t.Errorf("verdict %+v, %d losses, held %v by the guest, at most %v, want filesystem, 0, %v", r.Verdict, r.LinkLosses, r.HeldByGuest, r.HeldAtMost, want)
		}
		if err := s.Complete(t.Context(), guest.Completion{Stored: true}); err != nil {
			t.Errorf("Complete = %v, want nil", err)
		}
		if n := m.dialled(); n != 1 {
			t.Errorf("the agent dialled %d times, want once", n)
		}
		m.close(t, s)
	})
}

// The link is cut in every part of a session: what the guest does is what it does with a link that was dialled to it, and
// the agent dials again so that the session can be taken up.
func TestCallCut(t *testing.T) {
	cases := map[string]struct {
		at    time.Duration // since GO
		level freezewindow.Level
		by    string
		held  time.Duration
	}{
		"while freezing":    {101 * time.Millisecond, freezewindow.Unproved, "link_lost", 101*time.Millisecond + 13*time.Millisecond},
		"while frozen":      {1009 * time.Millisecond, freezewindow.Unproved, "link_lost", 1009*time.Millisecond + 13*time.Millisecond},
		"while thawing":     {307*time.Millisecond + 2003*time.Millisecond + 7*time.Millisecond, freezewindow.Filesystem, "none", 2323 * time.Millisecond},
		"after the release": {3001 * time.Millisecond, freezewindow.Filesystem, "none", 2323 * time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootCalling(t, slowly())
				s := m.connect(t)
				r := m.window(t, s, 2003*time.Millisecond, c.at)
				if held, still := m.freezer.hold(); held != c.held || still {
					t.Errorf("the freezer held for %v, still %t, want %v", held, still, c.held)
				}
				if r.Verdict.Level != c.level || !r.HeldByGuestKnown || r.Release.ExpiredBy != c.by {
					t.Errorf("verdict %+v, known %t, by %q, want %s, true, %q", r.Verdict, r.HeldByGuestKnown, r.Release.ExpiredBy, c.level, c.by)
				}
				m.cut() // once more, and the session goes on all the same
				if err := s.Resume(t.Context()); err != nil {
					t.Errorf("Resume = %v, want nil", err)
				}
				if err := s.End(t.Context()); err != nil {
					t.Errorf("End = %v, want nil", err)
				}
				m.close(t, s)
			})
		})
	}
}

// The orchestrator is away: the dials are bounded in number and time, and the agent leaves as any agent does.
func TestCallNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootCalling(t, slowly())
		m.mu.Lock()
		m.deaf = true
		m.mu.Unlock()
		m.end(t)
		if m.endedAt != time.Minute {
			t.Errorf("the agent left after %v, want 1m0s", m.endedAt)
		}
		if n := m.dialled(); n < 55 || n > 65 { // 0.1, 0.2, 0.4, 0.8 s, and then every second
			t.Errorf("the agent dialled %d times in a minute, want about 63", n)
		}
		if err := m.reverser.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The orchestrator's end of the link is dead, the agent's does not know it: a second connection waits beside it, within the
// agent's limits, and the guest that is frozen meanwhile is thawed over it.
func TestCallHalfDeadLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootCalling(t, slowly())
		conn, err := m.caller.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := wireOf(t, conn, 0, false)
		w.say(t, &protocol.Arm{Mode: "fs"}, protocol.WordArm)
		until[*protocol.Ready](t, w)
		w.say(t, &protocol.Go{Go: 7, HoldMS: 20000}, protocol.WordGo)
		until[*protocol.Frozen](t, w)
		begin := time.Now()
		conn, err = m.caller.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if quiet := time.Since(begin); quiet < 6*time.Second || quiet > 7*time.Second {
			t.Errorf("the second connection came after %v, want after 7s without a word", quiet)
		}
		second := wireOf(t, conn, w.q, true)
		if _, still := m.freezer.hold(); !still {
			t.Error("the second connection released the guest")
		}
		second.say(t, &protocol.Thaw{Go: 7}, protocol.WordThaw)
		if told := until[*protocol.Thawed](t, second); !told.WasHeld || told.Expired {
			t.Errorf("THAWED says was held %t, expired %t, want true and false", told.WasHeld, told.Expired)
		}
		m.stop()
		m.end(t)
		if n := m.dialled(); n != 2 {
			t.Errorf("the agent dialled %d times, want 2", n)
		}
		if err := m.reverser.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Cut before anything is held, the session is over, as on a link that was dialled to the agent; nothing was ever held.
func TestCallCutBeforeGo(t *testing.T) {
	cases := map[string]struct {
		after time.Duration // since ARM was written, which takes 211 ms
		code  string        // of ARM
	}{
		"while arming": {101 * time.Millisecond, "SF3701"},
		"while ready":  {307 * time.Millisecond, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootCalling(t, slowly())
				s := m.connect(t)
				defer time.AfterFunc(c.after, m.cut).Stop()
				_, err := s.Arm(t.Context(), guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()})
				if guest.CodeOf(err) != c.code {
					t.Errorf("Arm = %v with code %q, want %q", err, guest.CodeOf(err), c.code)
				}
				time.Sleep(time.Second)
				if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: 20 * time.Second}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("GO = %v, want net.ErrClosed", err)
				}
				m.close(t, s)
				if m.freezer.freezes != 0 {
					t.Error("the guest was frozen")
				}
			})
		})
	}
}

// The first connection is cut in the middle of HELLO: the agent dials again, and the second try is good.
func TestCallCutInHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootCalling(t, slowly())
		conn, err := m.caller.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		frame, err := protocol.AppendFrame(nil, []byte(`{"v":1,"t":"HELLO"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(frame[:9]); err != nil {
			t.Fatal(err)
		}
		m.cut()
		begin := time.Now()
		s := m.connect(t)
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("the second connection took %v, want the shortest pause", took)
		}
		if err := s.End(t.Context()); err != nil {
			t.Error(err)
		}
		m.close(t, s)
	})
}

// A way on which each dial takes 2 s: the window is as good as on any other, and a cut one is told whole.
func TestCallSlowLink(t *testing.T) {
	for name, cut := range map[string]time.Duration{"whole": 0, "cut while frozen": 1009 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootCalling(t, slowly())
				m.mu.Lock()
				m.slow = 2003 * time.Millisecond
				m.mu.Unlock()
				s := m.connect(t)
				r := m.window(t, s, 2003*time.Millisecond, cut)
				if !r.HeldByGuestKnown || (r.Verdict.Level == freezewindow.Filesystem) != (cut == 0) || r.SelfReleased != (cut > 0) {
					t.Errorf("verdict %+v, known %t, released itself %t", r.Verdict, r.HeldByGuestKnown, r.SelfReleased)
				}
				if held, still := m.freezer.hold(); r.HeldByGuest != held || still {
					t.Errorf("the freezer held for %v, still %t, the guest says %v", held, still, r.HeldByGuest)
				}
				if err := s.End(t.Context()); err != nil {
					t.Error(err)
				}
				m.close(t, s)
			})
		})
	}
}
