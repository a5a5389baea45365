package agent_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/mailbox"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// variables are what the VM and its guest write to each other. The orchestrator's texts take reconfigure, and none may be
// written while a snapshot is made.
type variables struct {
	reconfigure time.Duration

	mu       sync.Mutex
	down, up string
	change   chan struct{}
	busy     bool // a snapshot is made
	broken   error
	tasks    int
	quick    bool
	closed   bool
	early    int // tasks while the snapshot was made
}

func (v *variables) set(text *string, to string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*text = to
	close(v.change)
	v.change = make(chan struct{})
}

// Put is the orchestrator's task.
func (v *variables) Put(ctx context.Context, text string) error {
	v.mu.Lock()
	v.tasks++
	if v.busy {
		v.early++
	}
	err := v.broken
	v.mu.Unlock()
	select {
	case <-time.After(v.reconfigure):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err == nil {
		v.set(&v.down, text)
	}
	return err
}

// written counts the orchestrator's tasks.
func (v *variables) written() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tasks
}

// Next is pushed.
func (v *variables) Next(ctx context.Context, last string) (string, error) {
	for {
		v.mu.Lock()
		text, change := v.up, v.change
		v.mu.Unlock()
		if text != last {
			return text, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func (v *variables) Close(context.Context) error {
	v.set(&v.down, "")
	v.set(&v.up, "")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	return nil
}

// inside is the guest's side, which looks every 50 ms while it is urgent, else every 250 ms.
type inside struct{ *variables }

func (i inside) Put(_ context.Context, text string) error { i.set(&i.up, text); return nil }

func (i inside) Next(ctx context.Context, last string) (string, error) {
	for {
		i.mu.Lock()
		text, quick := i.down, i.quick
		i.mu.Unlock()
		if text != last {
			return text, nil
		}
		pause := 250 * time.Millisecond
		if quick {
			pause = 50 * time.Millisecond
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", context.Cause(ctx)
		}
	}
}

// posted is a machine that is spoken to through its variables.
type posted struct {
	*machine
	*variables
	mailbox *guest.Mailbox
}

func bootPosted(t *testing.T, f *freezer, reconfigure time.Duration) *posted {
	t.Helper()
	theirs, theirPin, err := protocol.NewIdentity(time.Hour)
	own, pin, err2 := protocol.NewIdentity(time.Hour)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the agent"))
	m := &posted{
		machine:   &machine{network: newNetwork(), freezer: f, ended: make(chan struct{}), start: time.Now()},
		variables: &variables{reconfigure: reconfigure, change: make(chan struct{})},
	}
	m.mailbox = guest.OpenMailbox(t.Context(), m.variables, "d")
	m.peer = guest.Peer{
		Dial: m.mailbox.Dial, Slow: true, Own: own, Fingerprint: theirPin, Deployment: "d", VMUUID: vmUUID, SHA256: sum, Run: "r", Epoch: 5,
	}
	a := agent.New(agent.Options{
		Version: "1", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: f, Slow: true,
		Uptime: func() time.Duration { return time.Hour },
		Urgent: func(on bool) {
			m.variables.mu.Lock()
			defer m.variables.mu.Unlock()
			m.quick = on
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	line := mailbox.Open(ctx, inside{m.variables}, "d", mailbox.Options{Called: true, AckAfter: 25 * time.Millisecond, RepeatAfter: 5 * time.Second, Linger: 2 * time.Second})
	go func() {
		m.err = a.Serve(ctx, tls.NewListener(line, protocol.ServerTLS(theirs, pin)))
		m.endedAt = time.Since(m.start)
		stop()
		line.Wait(ctx) // ctx has ended: what is still open is given up
		close(m.ended)
	}()
	return m
}

// window is one real window, with the snapshot made around the mailbox.
func (m *posted) window(t *testing.T, s *guest.Session, takes time.Duration) freezewindow.Report {
	t.Helper()
	budget := m.mailbox.Budget(freezewindow.DefaultBudget())
	if err := budget.Check(time.Second); err != nil || budget.Reserve != 5*time.Second {
		t.Fatalf("the budget of a mailbox is %+v: %v", budget, err)
	}
	r, err := s.Arm(t.Context(), guest.Order{Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	r.Go, r.Armed, r.Name = 7, true, "stillframe-r-5"
	report, pending := freezewindow.Run(t.Context(), budget, r, s, m.mailbox.Around(m.snapshot(takes)))
	if pending != nil {
		pending.Stop()
	}
	return report
}

// reserved is a snapshot during which the VM must not be reconfigured.
type reserved struct {
	snapshot
	v *variables
}

func (r reserved) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	r.v.reserve(true)
	defer r.v.reserve(false)
	return r.snapshot.Create(ctx, accepted)
}

func (v *variables) reserve(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.busy = on
}

func (m *posted) snapshot(takes time.Duration) freezewindow.Snapshotter {
	return reserved{snapshot{takes}, m.variables}
}

func (m *posted) finish(t *testing.T, s *guest.Session) {
	t.Helper()
	if err := s.End(t.Context()); err != nil {
		t.Errorf("End = %v, want nil", err)
	}
	s.Close()
	m.end(t)
	if err := m.mailbox.Close(t.Context()); err != nil {
		t.Error(err)
	}
	m.variables.mu.Lock()
	defer m.variables.mu.Unlock()
	if m.down != "" || m.up != "" || !m.variables.closed {
		t.Errorf("the variables are left with %.40q and %.40q", m.down, m.up)
	}
	if m.early != 0 {
		t.Errorf("%d texts were written while the snapshot was made", m.early)
	}
}

func TestMailboxGoodWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootPosted(t, slowly(), 701*time.Millisecond)
		s := m.connect(t)
		if took := time.Since(m.start); took > 3*time.Second {
			t.Errorf("the connection took %v, want at most 3s", took)
		}
		rtt, err := s.RTT(t.Context())
		if err != nil || rtt < 701*time.Millisecond || rtt > 1100*time.Millisecond {
			t.Errorf("RTT = %v, %v, want one text, one look and a moment", rtt, err)
		}
		before := m.written()
		r := m.window(t, s, 2003*time.Millisecond)
		if n := m.written() - before; n > 4 { // ARM, GO, THAW, and one for what THAWED says
			t.Errorf("the window took %d tasks, want ARM, GO, THAW and one more", n)
		}
		if r.Verdict.Level != freezewindow.Filesystem || r.LinkLosses != 0 || r.SelfReleased {
			t.Errorf("verdict %+v, %d losses, released itself %t, want filesystem, 0, false", r.Verdict, r.LinkLosses, r.SelfReleased)
		}
		held, _ := m.freezer.hold()
		if r.HeldByGuest != held || r.HeldAtMost < held || held > 3200*time.Millisecond {
			t.Errorf("held %v, the guest says %v, at most %v, want all alike and below 3.2s", held, r.HeldByGuest, r.HeldAtMost)
		}
		m.finish(t, s)
	})
}

// The snapshot takes so long that THAW is due first: it waits, the dead-man ends the hold, and the level is crash.
func TestMailboxSlowSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootPosted(t, slowly(), 701*time.Millisecond)
		s := m.connect(t)
		r := m.window(t, s, 40*time.Second)
		if held, still := m.freezer.hold(); held != 18013*time.Millisecond || still {
			t.Errorf("the freezer held for %v, still %t, want 18.013s", held, still)
		}
		if r.Verdict.Level.Consistent() || !r.SelfReleased {
			t.Errorf("verdict %+v, released itself %t, want true and no consistent level", r.Verdict, r.SelfReleased)
		}
		m.finish(t, s)
	})
}

// A slow vCenter: each text takes 3 s. The window is good, or says that it is not.
func TestMailboxSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootPosted(t, slowly(), 3001*time.Millisecond)
		s := m.connect(t)
		before := m.written()
		r := m.window(t, s, 2003*time.Millisecond)
		if n := m.written() - before; n > 4 { // THAW was asked for once a second
			t.Errorf("the window took %d tasks, want ARM, GO, THAW and one more", n)
		}
		if held, _ := m.freezer.hold(); held > 6*time.Second || r.HeldByGuest != held {
			t.Errorf("the freezer held for %v, the guest says %v, want less than 6s", held, r.HeldByGuest)
		}
		if r.Verdict.Level != freezewindow.Filesystem {
			t.Errorf("verdict %+v, want filesystem", r.Verdict)
		}
		m.finish(t, s)
	})
}

// The link fails in every word of a session, from the one or the other side: no hold outlives its dead-man, no verdict is
// better than the truth, and the mailbox can be used again.
func TestMailboxFails(t *testing.T) {
	cases := map[string]struct {
		at, lasts time.Duration // since GO was written
	}{
		"in GO":             {5 * time.Millisecond, time.Second},
		"before FROZEN":     {750 * time.Millisecond, 3 * time.Second},
		"while frozen":      {2 * time.Second, 2 * time.Second},
		"in THAW":           {3100 * time.Millisecond, time.Second},
		"after THAW":        {4 * time.Second, 3 * time.Second},
		"until the release": {2 * time.Second, 20 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootPosted(t, slowly(), 701*time.Millisecond)
				s := m.connect(t)
				begin := time.Now()
				fail := func(err error) func() {
					return func() {
						m.variables.mu.Lock()
						defer m.variables.mu.Unlock()
						m.broken = err
					}
				}
				arming := 1200 * time.Millisecond // ARM and READY
				defer time.AfterFunc(arming+c.at, fail(errors.New("vCenter is away"))).Stop()
				defer time.AfterFunc(arming+c.at+c.lasts, fail(nil)).Stop()
				r := m.window(t, s, 2003*time.Millisecond)
				held, still := m.freezer.hold()
				if held > 18014*time.Millisecond || still {
					t.Errorf("the freezer held for %v, still %t", held, still)
				}
				if r.Verdict.Level.Consistent() && (r.SelfReleased || !r.HeldByGuestKnown) {
					t.Errorf("verdict %+v, released itself %t, known %t", r.Verdict, r.SelfReleased, r.HeldByGuestKnown)
				}
				if r.HeldByGuestKnown && r.HeldByGuest != held {
					t.Errorf("the guest says that it held for %v, it was %v", r.HeldByGuest, held)
				}
				if took := time.Since(begin); took > 5*time.Minute {
					t.Errorf("the window took %v", took)
				}
				s.Close()
				m.stop()
				m.end(t)
				if err := m.mailbox.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Whoever can write the variables can hinder. He gets nothing released that is not, and nothing said that was not.
func TestMailboxStranger(t *testing.T) {
	cases := map[string]func(m *posted, down, up string) (string, string){
		"garbage":        func(*posted, string, string) (string, string) { return "x", "y" },
		"empties both":   func(*posted, string, string) (string, string) { return "", "" },
		"swaps them":     func(_ *posted, down, up string) (string, string) { return up, down },
		"his own stream": func(*posted, string, string) (string, string) { return "d-99.1.0.eA==", "d-99.1.0.eA==" },
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootPosted(t, slowly(), 701*time.Millisecond)
				s := m.connect(t)
				defer time.AfterFunc(3300*time.Millisecond, func() { // it is frozen by now
					m.variables.mu.Lock()
					down, up := c(m, m.down, m.up)
					m.variables.mu.Unlock()
					m.set(&m.down, down)
					m.set(&m.up, up)
				}).Stop()
				r := m.window(t, s, 2003*time.Millisecond)
				held, still := m.freezer.hold()
				if held > 18014*time.Millisecond || still {
					t.Errorf("the freezer held for %v, still %t", held, still)
				}
				if r.HeldByGuestKnown && r.HeldByGuest != held || r.Verdict.Level.Consistent() && r.SelfReleased {
					t.Errorf("verdict %+v, the guest says that it held for %v, it was %v", r.Verdict, r.HeldByGuest, held)
				}
				s.Close()
				m.stop()
				m.end(t)
				if err := m.mailbox.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Other certificates than the two that know each other open nothing.
func TestMailboxRefusals(t *testing.T) {
	stranger, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*guest.Peer)
		code   string
	}{
		"a stranger's certificate": {func(p *guest.Peer) { p.Own = stranger }, "SF3706"},
		"another agent's":          {func(p *guest.Peer) { p.Fingerprint = pin }, "SF3702"},
		"another VM":               {func(p *guest.Peer) { p.VMUUID = "42136b27-a0c1-8d9e-0011-223344556678" }, "SF3704"},
		"nobody is there": {func(p *guest.Peer) {
			p.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("none") }
		}, "SF3701"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bootPosted(t, slowly(), 701*time.Millisecond)
				peer := m.peer
				c.change(&peer)
				_, err := guest.Connect(t.Context(), peer)
				if got := guest.CodeOf(err); got != c.code {
					t.Errorf("Connect = %v with code %q, want %q", err, got, c.code)
				}
				s := m.connect(t) // the right one is let in all the same
				m.finish(t, s)
			})
		})
	}
}

// The mode io is not for a THAW that takes its time.
func TestMailboxMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootPosted(t, slowly(), 701*time.Millisecond)
		s := m.connect(t)
		before := m.written()
		if _, err := s.Arm(t.Context(), guest.Order{Mode: freezewindow.ModeIO, Budget: freezewindow.DefaultBudget()}); guest.CodeOf(err) != "SF4010" {
			t.Errorf("Arm = %v, want SF4010", err)
		}
		if m.written() != before {
			t.Error("a mode that is refused was sent")
		}
		s.Hello.OS.Family = "windows"
		if r, err := s.Arm(t.Context(), guest.Order{Budget: freezewindow.DefaultBudget()}); m.freezer.prepared.Mode != "writer" {
			t.Errorf("Arm = %+v, %v: the guest was armed for %q, want writer", r, err, m.freezer.prepared.Mode)
		}
		m.finish(t, s)
	})
}

// While data is moved for hours the session stays, at the price of a word and an acknowledgement each 4 min.
func TestMailboxStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bootPosted(t, slowly(), 701*time.Millisecond)
		s := m.connect(t)
		m.window(t, s, 2003*time.Millisecond)
		before := m.written()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour+time.Second)
		defer cancel()
		if err := s.StayOpen(ctx); err != nil {
			t.Errorf("StayOpen = %v", err)
		}
		if n := m.written() - before; n < 140 || n > 160 {
			t.Errorf("5 h took %d tasks, want about 150: a word and an acknowledgement each 4 min", n)
		}
		if err := s.Complete(t.Context(), guest.Completion{Stored: true}); err != nil {
			t.Errorf("Complete = %v", err)
		}
		s.Close()
		m.end(t)
		if err := m.mailbox.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
