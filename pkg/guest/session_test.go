package guest_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

const vmUUID = "42136b27-a0c1-8d9e-0011-223344556677"

var program = sha256.Sum256([]byte("the agent's program"))

// scripted is an agent that answers as it is told; a word without an answer of its own is answered well.
type scripted struct {
	own, peer tls.Certificate
	pin       protocol.Fingerprint
	peerPin   protocol.Fingerprint
	answers   map[protocol.Word]func(*wire, protocol.Message)
	refuse    bool // nobody listens

	mu    sync.Mutex
	heard []protocol.Word
	said  uint64
	wires []*wire
}

// wire is one connection to the scripted agent.
type wire struct {
	*tls.Conn
	session string
	q       uint64
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	a := &scripted{answers: map[protocol.Word]func(*wire, protocol.Message){}}
	var err, err2 error
	a.own, a.pin, err = protocol.NewIdentity(time.Hour)
	a.peer, a.peerPin, err2 = protocol.NewIdentity(time.Hour)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *scripted) target() guest.Peer {
	return guest.Peer{
		Dial: a.dial, Own: a.peer, Fingerprint: a.pin, Deployment: "d", VMUUID: vmUUID, SHA256: program, Run: "r", Epoch: 5,
	}
}

func (a *scripted) dial(context.Context) (net.Conn, error) {
	a.mu.Lock()
	refuse := a.refuse
	a.mu.Unlock()
	if refuse {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	theirs, ours := net.Pipe()
	go a.serve(theirs)
	return ours, nil
}

// serve reads one connection to its end.
func (a *scripted) serve(plain net.Conn) {
	a.mu.Lock()
	config := protocol.ServerTLS(a.own, a.peerPin)
	a.mu.Unlock()
	a.talk(tls.Server(plain, config))
}

func (a *scripted) talk(conn *tls.Conn) {
	w := &wire{Conn: conn}
	a.mu.Lock()
	w.q = a.said // an agent counts its words through the session, not anew on each connection
	a.wires = append(a.wires, w)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.said = max(a.said, w.q)
		a.mu.Unlock()
		w.Conn.Close()
	}()
	for {
		body, err := protocol.ReadFrame(w)
		if err != nil {
			return
		}
		m, err := protocol.DecodeForAgent(body)
		if err != nil {
			return
		}
		w.session = m.Head().S
		a.mu.Lock()
		a.heard = append(a.heard, m.Head().T)
		answer, ok := a.answers[m.Head().T]
		a.mu.Unlock()
		if ok {
			answer(w, m)
		} else {
			w.well(m)
		}
	}
}

func (w *wire) well(m protocol.Message) {
	re := m.Head().Q
	switch m := m.(type) {
	case *protocol.Hello:
		w.say(protocol.WordHello, re, goodHello(m))
	case *protocol.Heartbeat:
		w.say(protocol.WordHeartbeat, re, &protocol.Heartbeat{State: "IDLE"})
	case *protocol.Arm:
		w.say(protocol.WordReady, 0, &protocol.Ready{Mode: m.Mode, ReadyLeftMS: 60000, Volumes: []protocol.Volume{{ID: "8:1", Mounts: []string{"/data", "/mnt"}}, {ID: "8:2"}}})
	case *protocol.Complete:
		w.say(protocol.WordComplete, re, &protocol.CompleteAnswer{Result: "ok", Closed: true})
	case *protocol.Abort:
		w.say(protocol.WordAbort, re, &protocol.Abort{Closed: true})
	}
}

func goodHello(m *protocol.Hello) *protocol.HelloAnswer {
	return &protocol.HelloAnswer{NonceEcho: m.Nonce, VMUUID: vmUUID, ExeSHA256: hex.EncodeToString(program[:]), BootID: "boot-1", AgentVersion: "1"}
}

func (w *wire) say(t protocol.Word, re uint64, m protocol.Message) {
	w.q++
	h := m.Head()
	h.T, h.Q, h.Re = t, w.q, re
	if h.V == 0 {
		h.V = 1
	}
	if h.S == "" {
		h.S = w.session
	}
	w.repeat(m)
}

// repeat writes m as it is.
func (w *wire) repeat(m protocol.Message) {
	body, err := protocol.Encode(m)
	if err != nil {
		panic(err)
	}
	w.body(body)
}

func (w *wire) body(body []byte) {
	frame, err := protocol.AppendFrame(nil, body)
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(frame); err != nil {
		return // the session is gone
	}
}

// answer has a word answered so from now on; listen says whether anybody listens.
func (a *scripted) answer(word protocol.Word, with func(*wire, protocol.Message)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[word] = with
}

func (a *scripted) listen(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = !on
}

func (a *scripted) cut(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.wires {
		if err := w.NetConn().Close(); err != nil {
			t.Error(err)
		}
	}
	a.wires = nil
}

func connect(t *testing.T, a *scripted) *guest.Session {
	t.Helper()
	s, err := guest.Connect(t.Context(), a.target())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConnectChecksHello(t *testing.T) {
	change := func(f func(*protocol.HelloAnswer)) func(*wire, protocol.Message) {
		return func(w *wire, m protocol.Message) {
			answer := goodHello(m.(*protocol.Hello))
			f(answer)
			w.say(protocol.WordHello, m.Head().Q, answer)
		}
	}
	cases := map[string]struct {
		answer func(*wire, protocol.Message)
		code   string
		gone   bool
		took   time.Duration
	}{
		"well":                    {answer: change(func(*protocol.HelloAnswer) {})},
		"uuid in the other order": {answer: change(func(m *protocol.HelloAnswer) { m.VMUUID = "276b1342-c1a0-9e8d-0011-223344556677" })},
		"a version of the future": {answer: change(func(m *protocol.HelloAnswer) { m.V = 2 }), code: "SF3704"},
		"another nonce":           {answer: change(func(m *protocol.HelloAnswer) { m.NonceEcho = strings.Repeat("0", 32) }), code: "SF3704"},
		"no nonce":                {answer: change(func(m *protocol.HelloAnswer) { m.NonceEcho = "" }), code: "SF3704"},
		"another session":         {answer: change(func(m *protocol.HelloAnswer) { m.S = strings.Repeat("0", 32) }), code: "SF3704"},
		"another VM":              {answer: change(func(m *protocol.HelloAnswer) { m.VMUUID = "42136b27-a0c1-8d9e-0011-223344556678" }), code: "SF3704"},
		"no VM":                   {answer: change(func(m *protocol.HelloAnswer) { m.VMUUID = "" }), code: "SF3704"},
		"another program":         {answer: change(func(m *protocol.HelloAnswer) { m.ExeSHA256 = strings.Repeat("0", 64) }), code: "SF3704"},
		"no program":              {answer: change(func(m *protocol.HelloAnswer) { m.ExeSHA256 = "" }), code: "SF3704"},
		"refused": {answer: func(w *wire, m protocol.Message) {
			w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: "SF4008", Text: "busy"})
		}, code: "SF4008", gone: true},
		"refused with another's code": {answer: func(w *wire, m protocol.Message) {
			w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: "SF3001", Text: "wrong password"})
		}, code: "SF3901", gone: true},
		"another word":             {answer: func(w *wire, _ protocol.Message) { w.say(protocol.WordReady, 0, &protocol.Ready{}) }, code: "SF3901"},
		"a word that nobody knows": {answer: func(w *wire, _ protocol.Message) { w.say("SLEEP", 0, &protocol.Heartbeat{}) }, code: "SF3901"},
		"rubbish":                  {answer: func(w *wire, _ protocol.Message) { w.body([]byte("GET / HTTP/1.1")) }, code: "SF3901"},
		"too large":                {answer: func(w *wire, _ protocol.Message) { w.Write([]byte{0xff, 0xff, 0xff, 0xff}) }, code: "SF3701"}, //nolint:errcheck // as body
		"silence":                  {answer: func(*wire, protocol.Message) {}, code: "SF3701", took: 8 * time.Second},
		"hangs up":                 {answer: func(w *wire, _ protocol.Message) { w.NetConn().Close() }, code: "SF3701"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				a.answers[protocol.WordHello] = c.answer
				begin := time.Now()
				s, err := guest.Connect(t.Context(), a.target())
				if took := time.Since(begin); c.took > 0 && took != c.took {
					t.Errorf("Connect took %v, want %v", took, c.took)
				}
				if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
					t.Errorf("Connect = %v with code %q, want %q", err, got, c.code)
				}
				var gone interface{ Gone() bool }
				if err != nil && (!errors.As(err, &gone) || gone.Gone() != c.gone) {
					t.Errorf("Connect = %v: nobody there %t, want %t", err, !c.gone, c.gone)
				}
				if err == nil {
					s.Close()
				}
			})
		})
	}
}

func TestArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		var asked *protocol.Arm
		a.answers[protocol.WordArm] = func(w *wire, m protocol.Message) { asked, _ = m.(*protocol.Arm); w.well(m) }
		s := connect(t, a)
		got, err := s.Arm(t.Context(), guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget(), Volumes: []string{"/data"}})
		if err != nil {
			t.Fatal(err)
		}
		want := freezewindow.Ready{Mode: freezewindow.ModeFS, Left: time.Minute, Volumes: []string{"/data", "8:2"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Arm (-want +got):\n%s", diff)
		}
		s.Close()
		synctest.Wait()
		if limits := (protocol.Limits{HoldMS: 20000, DeadmanMS: 18000, IODeadmanMS: 8500}); asked.Budget != limits || asked.Mode != "fs" || !cmp.Equal(asked.Volumes, []string{"/data"}) {
			t.Errorf("ARM asks for %+v, mode %q, volumes %q, want %+v, fs, /data", asked.Budget, asked.Mode, asked.Volumes, limits)
		}
	})
}

func TestAskFailures(t *testing.T) {
	silent := func(*wire, protocol.Message) {}
	no := func(w *wire, m protocol.Message) {
		w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: "SF4019", Text: "a hook failed", Fatal: true})
	}
	hangUp := func(w *wire, _ protocol.Message) { w.NetConn().Close() }
	arm := func(s *guest.Session, ctx context.Context) error {
		_, err := s.Arm(ctx, guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()})
		return err
	}
	rtt := func(s *guest.Session, ctx context.Context) error { _, err := s.RTT(ctx); return err }
	end := func(s *guest.Session, ctx context.Context) error { return s.End(ctx) }
	complete := func(s *guest.Session, ctx context.Context) error {
		return s.Complete(ctx, guest.Completion{Stored: true})
	}
	unwell := func(w *wire, m protocol.Message) {
		w.say(protocol.WordComplete, m.Head().Q, &protocol.CompleteAnswer{Result: "80042301", Closed: true, Events: []string{"a writer"}})
	}
	cases := map[string]struct {
		word   protocol.Word
		answer func(*wire, protocol.Message)
		ask    func(*guest.Session, context.Context) error
		code   string
		took   time.Duration
	}{
		"ARM refused":                {protocol.WordArm, no, arm, "SF4019", 0},
		"ARM not answered":           {protocol.WordArm, silent, arm, "SF3701", 605 * time.Second},
		"ARM and the link is lost":   {protocol.WordArm, hangUp, arm, "SF3701", 0},
		"RTT not answered":           {protocol.WordHeartbeat, silent, rtt, "SF4011", 2 * time.Second},
		"RTT and the link is lost":   {protocol.WordHeartbeat, hangUp, rtt, "SF4011", 0},
		"COMPLETE refused":           {protocol.WordComplete, no, complete, "SF4019", 0},
		"COMPLETE not answered":      {protocol.WordComplete, silent, complete, "SF3701", 2 * (6*time.Minute + 20*time.Second)},
		"ABORT not answered":         {protocol.WordAbort, silent, end, "SF3701", 20 * time.Second},
		"COMPLETE well":              {protocol.WordComplete, (*wire).well, complete, "", 0},
		"COMPLETE not well":          {protocol.WordComplete, unwell, complete, "SF4412", 0},
		"COMPLETE and no link":       {protocol.WordComplete, hangUp, complete, "SF3701", 0},
		"ABORT well":                 {protocol.WordAbort, (*wire).well, end, "", 0},
		"ABORT answered to another":  {protocol.WordAbort, func(w *wire, _ protocol.Message) { w.say(protocol.WordAbort, 999, &protocol.Abort{}) }, end, "SF3701", 20 * time.Second},
		"ARM after words of old":     {protocol.WordArm, func(w *wire, m protocol.Message) { w.say(protocol.WordAbort, 0, &protocol.Abort{}); w.well(m) }, arm, "", 0},
		"RTT of a slow road is told": {protocol.WordHeartbeat, func(w *wire, m protocol.Message) { time.Sleep(700 * time.Millisecond); w.well(m) }, rtt, "", 3500 * time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				a.answers[c.word] = c.answer
				s := connect(t, a)
				begin := time.Now()
				err := c.ask(s, t.Context())
				if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
					t.Errorf("= %v with code %q, want %q", err, got, c.code)
				}
				if took := time.Since(begin); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				s.Close()
			})
		})
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		a.answers[protocol.WordArm] = func(*wire, protocol.Message) {}
		s := connect(t, a)
		why := errors.New("the operator went home")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer time.AfterFunc(time.Second, func() { cancel(why) }).Stop()
		if _, err := s.Arm(ctx, guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()}); !errors.Is(err, why) {
			t.Errorf("Arm = %v, want %v", err, why)
		}
		s.Close()
	})
}

// events reads what is there.
func events(s *guest.Session) []freezewindow.Event {
	synctest.Wait()
	var out []freezewindow.Event
	for {
		select {
		case e := <-s.Events():
			out = append(out, e.Event)
		default:
			return out
		}
	}
}

func TestReplayedFramesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		a.answers[protocol.WordGo] = func(w *wire, m protocol.Message) {
			frozen := &protocol.Frozen{Go: 7, Mode: "fs", HoldUS: 1, SinceGoUS: 2, LeftUS: 3}
			w.say(protocol.WordFrozen, 0, frozen)
			w.repeat(frozen)                                                                                                             // the same frame again
			w.say(protocol.WordThawed, 0, &protocol.Thawed{Envelope: protocol.Envelope{S: strings.Repeat("0", 32)}, Go: 7, Final: true}) // of another session
			frozen.Q = 1
			w.repeat(frozen) // older than what was heard
			w.say("SLEEP", 0, &protocol.Heartbeat{})
			w.say(protocol.WordError, 0, &protocol.Error{Code: "SF4022", Text: "no"})
			w.say(protocol.WordError, 0, &protocol.Error{Code: "SF3001", Text: "no"})
		}
		s := connect(t, a)
		if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); err != nil {
			t.Fatal(err)
		}
		want := []freezewindow.Event{
			freezewindow.GuestFrozen{Go: 7, Mode: "fs", Hold: time.Microsecond, SinceGo: 2 * time.Microsecond, Left: 3 * time.Microsecond},
			freezewindow.GuestError{Code: "SF4022", Text: "no"},
			freezewindow.GuestError{Code: "SF3901", Text: "no"},
		}
		if diff := cmp.Diff(want, events(s)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if n := s.Dropped(); n != 3 {
			t.Errorf("%d words were dropped, want 3", n)
		}
		s.Close()
	})
}

func TestThawedIsPassedOnWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		a.answers[protocol.WordThaw] = func(w *wire, _ protocol.Message) {
			w.say(protocol.WordThawed, 0, &protocol.Thawed{
				Go: 7, Final: true, WasHeld: true, HeldUS: 2_000_000, IOUS: 5, Expired: true, ExpiredBy: "deadman", Finished: true, MaxGapUS: 9,
				ThawResults: []protocol.ThawResult{{Mount: "/b", OK: true}, {Mount: "/a", Error: "EINVAL"}, {Mount: "/c", OK: true}},
				Writers:     []protocol.Writer{{Name: "w", ClassID: "{c}", InstanceID: "{i}", State: 5, FailureHR: "00000000", Required: true}},
			})
		}
		s := connect(t, a)
		if err := errors.Join(s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}), s.Send(t.Context(), freezewindow.Word{Go: 7, Thaw: freezewindow.Deadline})); err != nil {
			t.Fatal(err)
		}
		want := []freezewindow.Event{freezewindow.GuestThawed{Go: 7, Final: true, Release: freezewindow.Release{
			WasHeld: true, Held: 2 * time.Second, IO: 5 * time.Microsecond, Expired: true, ExpiredBy: "deadman", Finished: true, MaxGap: 9 * time.Microsecond,
			Thawed: []string{"/b", "/c"}, Failed: map[string]string{"/a": "EINVAL"},
			Writers: []freezewindow.Writer{{Name: "w", ClassID: "{c}", InstanceID: "{i}", State: 5, Failure: "00000000", Required: true}},
		}}}
		if diff := cmp.Diff(want, events(s)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		s.Close()
	})
}

func losses(list []freezewindow.Event) (n int) {
	for _, e := range list {
		if _, ok := e.(freezewindow.LinkLost); ok {
			n++
		}
	}
	return n
}

func TestLinkLostIsToldOnce(t *testing.T) {
	rubbish := func(w *wire, _ protocol.Message) { w.body([]byte("GET / HTTP/1.1")) }
	cases := map[string]struct {
		thaw func(*wire, protocol.Message)
		then func(t *testing.T, a *scripted)
	}{
		"cut":                {(*wire).well, func(t *testing.T, a *scripted) { t.Helper(); a.cut(t) }},
		"rubbish":            {rubbish, func(*testing.T, *scripted) {}},
		"a write that fails": {func(w *wire, _ protocol.Message) { w.NetConn().Close() }, func(*testing.T, *scripted) {}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				a.answers[protocol.WordThaw] = c.thaw
				s := connect(t, a)
				if err := errors.Join(s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}), s.Send(t.Context(), freezewindow.Word{Go: 7, Thaw: freezewindow.Deadline})); err != nil {
					t.Fatal(err)
				}
				c.then(t, a)
				lost := losses(events(s))
				for range 3 {
					if err := s.Send(t.Context(), freezewindow.Word{}); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Send on a lost link = %v, want net.ErrClosed", err)
					}
				}
				if lost += losses(events(s)); lost != 1 {
					t.Errorf("the loss was told %d times, want once", lost)
				}
				s.Close()
			})
		})
	}
}

// A link that was lost before the window is told at the latest with GO.
func TestLinkLostBeforeGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		s := connect(t, a)
		a.cut(t)
		synctest.Wait()
		if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send = %v, want net.ErrClosed", err)
		}
		if losses(events(s)) == 0 {
			t.Error("the loss was not told")
		}
		s.Close()
	})
}

func TestResume(t *testing.T) {
	cases := map[string]struct {
		change func(*scripted)
		code   string
		gone   bool
	}{
		"well": {func(*scripted) {}, "", false},
		"guest rebooted": {func(a *scripted) {
			a.answers[protocol.WordHello] = func(w *wire, m protocol.Message) {
				h := goodHello(m.(*protocol.Hello))
				h.BootID = "boot-2"
				w.say(protocol.WordHello, m.Head().Q, h)
			}
		}, "SF3704", false},
		"session unknown": {func(a *scripted) {
			a.answers[protocol.WordHello] = func(w *wire, m protocol.Message) {
				w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: "SF4022"})
			}
		}, "SF4022", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				s := connect(t, a)
				if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); err != nil {
					t.Fatal(err)
				}
				a.cut(t)
				if n := losses(events(s)); n != 1 {
					t.Fatalf("the loss was told %d times, want once", n)
				}
				c.change(a)
				err := s.Resume(t.Context())
				if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
					t.Errorf("Resume = %v with code %q, want %q", err, got, c.code)
				}
				var gone interface{ Gone() bool }
				if errors.As(err, &gone) && gone.Gone() != c.gone {
					t.Errorf("Resume = %v: nobody there %t, want %t", err, gone.Gone(), c.gone)
				}
				if err == nil {
					if err := s.Send(t.Context(), freezewindow.Word{}); err != nil {
						t.Errorf("Send after Resume = %v, want nil", err)
					}
					if got := events(s); len(got) != 1 {
						t.Errorf("events after Resume are %v, want the heartbeat only", got)
					}
				}
				s.Close()
			})
		})
	}
}

// One refused connection may be a restart of something between; three in a row mean that nobody is there.
func TestResumeNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		s := connect(t, a)
		a.cut(t)
		a.refuse = true
		for n := 1; n <= 3; n++ {
			var gone interface{ Gone() bool }
			if err := s.Resume(t.Context()); !errors.As(err, &gone) || gone.Gone() != (n == 3) {
				t.Errorf("Resume %d = %v, want nobody there only with the third", n, err)
			}
		}
		s.Close()
	})
}

func TestHeartbeatsOutsideTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		s := connect(t, a)
		time.Sleep(31 * time.Second)
		if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second) // in the window the window beats
		s.Close()
		synctest.Wait()
		want := []protocol.Word{"HELLO", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT", "GO"}
		if diff := cmp.Diff(want, a.heard); diff != "" {
			t.Errorf("words (-want +got):\n%s", diff)
		}
	})
}

// The agent's last word is heard, though heartbeats that nobody waited for came before it and the end of the connection
// right behind it. Which of them comes to be looked at first is chance, so it is done often.
func TestLastWordIsHeard(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			a := newScripted(t)
			a.answers[protocol.WordAbort] = func(w *wire, m protocol.Message) { w.well(m); w.NetConn().Close() }
			s := connect(t, a)
			time.Sleep(5 * time.Minute)
			if err := s.End(t.Context()); err != nil {
				t.Errorf("End = %v, want the agent's answer", err)
			}
			s.Close()
		})
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		s := connect(t, a)
		s.Close()
		s.Close()
		if err := s.Send(t.Context(), freezewindow.Word{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after Close = %v, want net.ErrClosed", err)
		}
		if err := s.End(t.Context()); guest.CodeOf(err) != "SF3701" {
			t.Errorf("End after Close = %v, want SF3701", err)
		}
	})
}
