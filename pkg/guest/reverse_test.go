package guest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// street is a listener in memory to which everybody can come, from an address of his choice.
type street struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newStreet() *street { return &street{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (s *street) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *street) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *street) Addr() net.Addr { return &net.TCPAddr{} }

type visitor struct {
	net.Conn
	from net.Addr
}

func (v visitor) RemoteAddr() net.Addr { return v.from }

// come dials in from the address 192.0.2.n.
func (s *street) come(t *testing.T, n int) net.Conn {
	t.Helper()
	theirs, ours := net.Pipe()
	select {
	case s.conns <- visitor{theirs, &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(n)), Port: 1024 + n}}:
	case <-s.closed:
		t.Fatal("nobody listens")
	}
	return ours
}

// ends is when the other end of a connection was closed.
func ends(conn net.Conn) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		if err == nil || errors.Is(err, io.ErrClosedPipe) {
			at <- time.Now()
		}
		close(at)
	}()
	return at
}

// reversed is a Reverser in memory that waits for the scripted agent.
type reversed struct {
	*street
	*guest.Reverser
	caller *guest.Caller
	agent  *scripted
}

func reverse(t *testing.T) *reversed {
	t.Helper()
	r := &reversed{street: newStreet(), agent: newScripted(t)}
	r.Reverser = guest.NewReverser(t.Context(), r.street)
	var err error
	if r.caller, err = r.Expect("d"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reversed) prove() { r.caller.Prove(r.agent.peer, r.agent.pin) }

// peer is how the session sees the agent.
func (r *reversed) peer() guest.Peer {
	p := r.agent.target()
	p.Dial, p.Await = nil, r.caller.Await
	return p
}

// dialIn has the agent dial from 192.0.2.n and serve.
func (r *reversed) dialIn(t *testing.T, n int) {
	t.Helper()
	conn := r.come(t, n)
	go r.agent.talk(tls.Client(conn, protocol.ClientTLS(r.agent.own, r.agent.peerPin, "d")))
}

func (r *reversed) end(t *testing.T) {
	t.Helper()
	r.caller.Close()
	if err := errors.Join(r.Reverser.Close(), r.Reverser.Close()); err != nil {
		t.Error(err)
	}
	if c := r.Counts(); c.Unproved != 0 {
		t.Errorf("%d connections are still waited for", c.Unproved)
	}
}

// insist does its part of TLS and stays until it is thrown out.
func insist(conn *tls.Conn) {
	if conn.Handshake() == nil {
		conn.Read(make([]byte, 1)) //nolint:errcheck // a refusal comes after the handshake
	}
}

// Whoever else dials in, in whatever way: he is dropped and counted, and the agent is served at once.
func TestReverseStrangers(t *testing.T) {
	own, _, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	as := func(name string) func(*testing.T, *reversed, net.Conn) {
		return func(_ *testing.T, r *reversed, c net.Conn) {
			go insist(tls.Client(c, protocol.ClientTLS(own, r.agent.peerPin, name)))
		}
	}
	writes := func(text string) func(*testing.T, *reversed, net.Conn) {
		return func(_ *testing.T, _ *reversed, c net.Conn) {
			go io.Copy(io.Discard, c) //nolint:errcheck // until it is closed
			go func() {
				for i := range len(text) { // byte by byte, as slowly as may be
					if _, err := io.WriteString(c, text[i:i+1]); err != nil {
						return
					}
				}
			}()
		}
	}
	cases := map[string]struct {
		do    func(*testing.T, *reversed, net.Conn)
		want  guest.ReverseCounts
		after time.Duration
	}{
		"another certificate": {as("d"), guest.ReverseCounts{Strangers: 1, Proved: 1}, 0},
		"another name":        {as("e"), guest.ReverseCounts{Unexpected: 1, Proved: 1}, 0},
		"no name":             {as(""), guest.ReverseCounts{Unexpected: 1, Proved: 1}, 0},
		"no certificate": {func(_ *testing.T, _ *reversed, c net.Conn) {
			go insist(tls.Client(c, &tls.Config{ServerName: "d", InsecureSkipVerify: true}))
		}, guest.ReverseCounts{Garbled: 1, Proved: 1}, 0},
		"TLS 1.2": {func(_ *testing.T, r *reversed, c net.Conn) {
			config := protocol.ClientTLS(r.agent.own, r.agent.peerPin, "d")
			config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			go insist(tls.Client(c, config))
		}, guest.ReverseCounts{Garbled: 1, Proved: 1}, 0},
		"HTTP":            {writes("GET / HTTP/1.1\r\n\r\n"), guest.ReverseCounts{Garbled: 1, Proved: 1}, 0},
		"a long record":   {writes("\x16\x03\x01\xff\xff\x01" + strings.Repeat("\xff", 32)), guest.ReverseCounts{Garbled: 1, Proved: 1}, 0},
		"half a greeting": {writes("\x16\x03\x01\x00\x80\x01"), guest.ReverseCounts{Garbled: 1, Proved: 1}, 10 * time.Second},
		"nothing":         {func(*testing.T, *reversed, net.Conn) {}, guest.ReverseCounts{Garbled: 1, Proved: 1}, 10 * time.Second},
		"hangs up": {func(t *testing.T, _ *reversed, c net.Conn) {
			t.Helper()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}, guest.ReverseCounts{Garbled: 1, Proved: 1}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := reverse(t)
				r.prove()
				begin := time.Now()
				stranger := r.come(t, 1)
				c.do(t, r, stranger)
				r.dialIn(t, 2)
				s, err := guest.Connect(t.Context(), r.peer())
				if err != nil || time.Since(begin) != 0 {
					t.Fatalf("Connect = %v after %v, want nil at once", err, time.Since(begin))
				}
				time.Sleep(c.after)
				synctest.Wait()
				if diff := cmp.Diff(c.want, r.Counts()); diff != "" {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
				if err := s.End(t.Context()); err != nil {
					t.Error(err)
				}
				s.Close()
				r.end(t)
				if err := stranger.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What an agent sent once opens nothing when somebody sends it again.
func TestReverseReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reverse(t)
		r.prove()
		conn := r.come(t, 1)
		tape := &recorder{Conn: conn}
		go r.agent.talk(tls.Client(tape, protocol.ClientTLS(r.agent.own, r.agent.peerPin, "d")))
		s, err := guest.Connect(t.Context(), r.peer())
		if err != nil {
			t.Fatal(err)
		}
		again := r.come(t, 2)
		closed := ends(again)
		if _, err := again.Write(tape.bytes()); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		<-closed
		synctest.Wait()
		if got, want := r.Counts(), (guest.ReverseCounts{Garbled: 1, Proved: 1}); got != want {
			t.Errorf("counts are %+v, want %+v", got, want)
		}
		s.Close()
		r.end(t)
	})
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	said []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.said = append(r.said, p...)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

// Those that say nothing fill the room for 10 s, each address only its part of it, and an agent that waits in it for its
// orchestrator is served.
func TestReverseRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reverse(t)
		r.dialIn(t, 99) // before its orchestrator knows it
		var ended []<-chan time.Time
		begin := time.Now()
		come := func(n int, from func(i int) int, want guest.ReverseCounts) {
			t.Helper()
			for i := range n {
				ended = append(ended, ends(r.come(t, from(i))))
				synctest.Wait()
			}
			if got := r.Counts(); got != want {
				t.Errorf("counts are %+v, want %+v", got, want)
			}
		}
		come(20, func(i int) int { return i % 2 * i }, guest.ReverseCounts{Crowded: 2, Unproved: 19}) // ten of them from one address
		come(60, func(i int) int { return 100 + i }, guest.ReverseCounts{Crowded: 2 + 15, Unproved: 64})
		r.prove()
		s, err := guest.Connect(t.Context(), r.peer())
		if err != nil {
			t.Fatal(err)
		}
		in := map[time.Duration]int{}
		for _, e := range ended {
			at, ok := <-e
			if !ok {
				t.Fatal("a connection did not end")
			}
			in[at.Sub(begin)]++
		}
		if diff := cmp.Diff(map[time.Duration]int{0: 17, 10 * time.Second: 63}, in); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
		synctest.Wait()
		if got, want := r.Counts(), (guest.ReverseCounts{Crowded: 17, Garbled: 63, Proved: 1}); got != want {
			t.Errorf("counts are %+v, want %+v", got, want)
		}
		s.Close()
		r.end(t)
	})
}

func TestReverseConnectFailures(t *testing.T) {
	own, _, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger := func(t *testing.T, r *reversed) {
		t.Helper()
		conn := r.come(t, 1)
		go insist(tls.Client(conn, protocol.ClientTLS(own, r.agent.peerPin, "d")))
	}
	cases := map[string]struct {
		do   func(*testing.T, *reversed)
		code string
		took time.Duration
	}{
		"nobody dials":         {func(*testing.T, *reversed) {}, "SF3701", 5 * time.Second},
		"a stranger dials":     {stranger, "SF3702", 5 * time.Second},
		"strangers dial":       {func(t *testing.T, r *reversed) { t.Helper(); stranger(t, r); stranger(t, r) }, "SF3702", 5 * time.Second},
		"it is not waited for": {func(_ *testing.T, r *reversed) { r.caller.Close() }, "SF3701", 0},
		"the agent waited too long": {func(t *testing.T, r *reversed) {
			t.Helper()
			r.dialIn(t, 1)
			time.Sleep(7*time.Second + 1)
		}, "SF3701", 5 * time.Second},
		"the agent hangs up": {func(t *testing.T, r *reversed) {
			t.Helper()
			r.agent.answers[protocol.WordHello] = func(w *wire, _ protocol.Message) { w.NetConn().Close() }
			r.dialIn(t, 1)
		}, "SF3701", 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := reverse(t)
				r.prove()
				c.do(t, r)
				begin := time.Now()
				_, err := guest.Connect(t.Context(), r.peer())
				if guest.CodeOf(err) != c.code || time.Since(begin) != c.took {
					t.Errorf("Connect = %v with code %q after %v, want %q after %v", err, guest.CodeOf(err), time.Since(begin), c.code, c.took)
				}
				r.end(t)
			})
		})
	}
}

// A session is resumed over the connection that the agent makes when it has lost one, and the newest counts.
func TestReverseResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reverse(t)
		r.prove()
		r.dialIn(t, 1)
		s, err := guest.Connect(t.Context(), r.peer())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); err != nil {
			t.Fatal(err)
		}
		r.agent.cut(t)
		if n := losses(events(s)); n != 1 {
			t.Fatalf("the loss was told %d times, want once", n)
		}
		r.dialIn(t, 1)
		synctest.Wait()
		r.dialIn(t, 1)
		synctest.Wait()
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), freezewindow.Word{}); err != nil {
			t.Errorf("Send after Resume = %v, want nil", err)
		}
		s.Close()
		r.end(t)
	})
}

func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reverse(t)
		if _, err := r.Expect("d"); err == nil {
			t.Error("a second agent is waited for under the same name")
		}
		if _, err := r.Expect(""); err == nil {
			t.Error("an agent without a name is waited for")
		}
		r.caller.Close()
		r.caller.Close()
		again, err := r.Expect("d")
		if err != nil {
			t.Fatal(err)
		}
		r.caller.Close() // of the former; the new one stays
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := again.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await = %v, want the deadline", err)
		}
		r.end(t)
		if _, err := again.Await(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Await after Close = %v, want net.ErrClosed", err)
		}
		if _, err := r.Expect("f"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Expect after Close = %v, want net.ErrClosed", err)
		}
	})
}

// A connection that is not the agent's is no session's, whoever hands it over.
func TestSessionProvesWhatItIsGiven(t *testing.T) {
	a := newScripted(t)
	own, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		client tls.Certificate
		let    protocol.Fingerprint
		shake  bool
	}{
		"another's":  {own, pin, true},
		"not proved": {a.own, a.pin, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			theirs, ours := net.Pipe()
			go tls.Client(theirs, protocol.ClientTLS(c.client, a.peerPin, "d")).Handshake() //nolint:errcheck // its other end tells
			conn := tls.Server(ours, protocol.ServerTLS(a.peer, c.let))
			if c.shake {
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			p := a.target()
			p.Await = func(context.Context) (*tls.Conn, error) { return conn, nil }
			if _, err := guest.Connect(t.Context(), p); guest.CodeOf(err) != "SF3702" || !errors.Is(err, protocol.ErrFingerprint) {
				t.Errorf("Connect = %v with code %q, want SF3702", err, guest.CodeOf(err))
			}
			if err := theirs.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// On real sockets: the Reverser says where it listens, and an address that is taken is told.
func TestListen(t *testing.T) {
	r, err := guest.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Listen(t.Context(), r.Addr().String()); err == nil || !strings.Contains(err.Error(), "agents that dial out") {
		t.Errorf("Listen on a taken address = %v", err)
	}
	c, err := r.Expect("d")
	if err != nil {
		t.Fatal(err)
	}
	a := newScripted(t)
	c.Prove(a.peer, a.pin)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { a.talk(tls.Client(conn, protocol.ClientTLS(a.own, a.peerPin, "d"))) })
	p := a.target()
	p.Dial, p.Await = nil, c.Await
	s, err := guest.Connect(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
	if got := fmt.Sprint(r.Counts()); got != fmt.Sprint(guest.ReverseCounts{Proved: 1}) {
		t.Errorf("counts are %s", got)
	}
}
