package agent_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

// network is a listener in memory, and the wire to it, which can be cut.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	wires []net.Conn
	slow  time.Duration // of a dial
}

func newNetwork() *network {
	return &network{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) dial(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	slow := n.slow
	n.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	theirs, ours := net.Pipe()
	select {
	case n.conns <- theirs:
	case <-n.closed:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires = append(n.wires, theirs, ours)
	return ours, nil
}

// cut ends every connection, on both sides at once.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.wires {
		if err := w.Close(); err != nil {
			panic(err) // a pipe's Close never fails
		}
	}
	n.wires = nil
}

// freezer holds two mounts, /data and then /log, as slowly as it is told.
type freezer struct {
	prepare, freeze, thaw time.Duration
	prepareErr, freezeErr error
	// deaf freezes to its end when Thaw comes meanwhile, like a system call in flight.
	deaf bool

	mu       sync.Mutex
	held     []string
	thawed   chan struct{}
	holdAt   time.Time
	freeAt   time.Time
	freezes  int
	closes   int
	prepared agent.PrepareRequest
}

func mounts() []protocol.Volume {
	return []protocol.Volume{{ID: "8:1", Mounts: []string{"/data"}, Supported: true}, {ID: "8:2", Mounts: []string{"/log"}, Supported: true}}
}

func (f *freezer) Volumes(context.Context) ([]protocol.Volume, error) { return mounts(), nil }

func (f *freezer) Prepare(_ context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	time.Sleep(f.prepare)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepared = r
	return agent.Prepared{Volumes: mounts()}, f.prepareErr
}

func (f *freezer) Freeze(_ context.Context, started func()) (agent.Held, error) {
	return agent.Held{}, f.reach(started)
}

func (f *freezer) reach(started func()) error {
	f.mu.Lock()
	thawed := make(chan struct{})
	f.thawed, f.held, f.holdAt = thawed, []string{"/data"}, time.Now()
	f.freezes++
	f.mu.Unlock()
	started()
	slow := time.NewTimer(f.freeze)
	defer slow.Stop()
	if f.deaf {
		thawed = nil
	}
	select {
	case <-slow.C:
	case <-thawed:
		return errors.New("thawed meanwhile")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.freezeErr == nil {
		f.held = append(f.held, "/log")
	}
	return f.freezeErr
}

func (f *freezer) Thaw(context.Context) agent.Release {
	time.Sleep(f.thaw)
	f.mu.Lock()
	defer f.mu.Unlock()
	results := []protocol.ThawResult{}
	for _, m := range f.held {
		results = append(results, protocol.ThawResult{Mount: m, OK: true})
	}
	if len(f.held) > 0 {
		f.held, f.freeAt = nil, time.Now()
	}
	if f.thawed != nil {
		close(f.thawed)
		f.thawed = nil
	}
	return agent.Release{Results: results}
}

func (f *freezer) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closes++
	if len(f.held) > 0 {
		return errors.New("closed while something is held")
	}
	return nil
}

// hold says for how long anything was held, and whether anything still is.
func (f *freezer) hold() (held time.Duration, still bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holdAt.IsZero() {
		return 0, false
	}
	if len(f.held) > 0 {
		return time.Since(f.holdAt), true
	}
	return f.freeAt.Sub(f.holdAt), false
}

// machine is a guest with its agent, and what is needed to reach it.
type machine struct {
	*network
	freezer *freezer
	peer    guest.Peer
	stop    context.CancelFunc // SIGTERM
	ended   chan struct{}
	err     error
	start   time.Time
	endedAt time.Duration
}

// boot starts the real agent with the freezer f. The agent has to end by itself before the bubble does.
func boot(t *testing.T, f *freezer) *machine {
	t.Helper()
	theirs, theirPin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the agent"))
	m := &machine{network: newNetwork(), freezer: f, ended: make(chan struct{}), start: time.Now()}
	m.peer = guest.Peer{
		Dial: m.dial, Own: own, Fingerprint: theirPin, Deployment: "d", VMUUID: vmUUID, SHA256: sum, Run: "r", Epoch: 5,
	}
	a := agent.New(agent.Options{
		Version: "1", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: f,
		Uptime: func() time.Duration { return time.Hour },
	})
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	go func() {
		m.err = a.Serve(ctx, tls.NewListener(m.network, protocol.ServerTLS(theirs, pin)))
		m.endedAt = time.Since(m.start)
		stop()
		close(m.ended)
	}()
	return m
}

// end waits for the agent to leave, and checks that it left nothing held.
func (m *machine) end(t *testing.T) {
	t.Helper()
	select {
	case <-m.ended:
	case <-time.After(48 * time.Hour):
		t.Fatal("the agent does not leave")
	}
	if m.err != nil {
		t.Errorf("Serve = %v, want nil", m.err)
	}
	if held, still := m.freezer.hold(); still {
		t.Errorf("the agent left the guest held, for %v by now", held)
	}
	if m.freezer.closes == 0 {
		t.Error("the freezer was not closed")
	}
}

func (m *machine) connect(t *testing.T) *guest.Session {
	t.Helper()
	s, err := guest.Connect(t.Context(), m.peer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wire is an orchestrator that speaks word by word, and rubbish.
type wire struct {
	*tls.Conn
	q   uint64
	got chan protocol.Message // closed when the connection ends
}

// dialWire connects with our own certificate and says HELLO.
func (m *machine) dialWire(t *testing.T) *wire {
	t.Helper()
	return m.openWire(t, 0, false)
}

// openWire is dialWire whose first frame follows q.
func (m *machine) openWire(t *testing.T, q uint64, resume bool) *wire {
	t.Helper()
	plain, err := m.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, protocol.ClientTLS(m.peer.Own, m.peer.Fingerprint, "d"))
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return wireOf(t, conn, q, resume)
}

// wireOf says HELLO on a connection that is proved.
func wireOf(t *testing.T, conn *tls.Conn, q uint64, resume bool) *wire {
	t.Helper()
	w := &wire{Conn: conn, q: q, got: make(chan protocol.Message, 64)}
	go func() {
		defer close(w.got)
		for {
			body, err := protocol.ReadFrame(w)
			if err != nil {
				return
			}
			if m, err := protocol.DecodeForOrchestrator(body); err == nil {
				w.got <- m
			}
		}
	}()
	w.say(t, &protocol.Hello{MinV: 1, MaxV: 1, Nonce: "n", VMUUID: vmUUID, Run: "r", Epoch: 5, Resume: resume}, protocol.WordHello)
	if _, ok := (<-w.got).(*protocol.HelloAnswer); !ok {
		t.Fatal("HELLO was not answered")
	}
	return w
}

func (w *wire) say(t *testing.T, m protocol.Message, kind protocol.Word) {
	t.Helper()
	w.q++
	h := m.Head()
	h.V, h.T, h.S, h.Q = 1, kind, ours, w.q
	body, err := protocol.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := protocol.AppendFrame(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	w.raw(t, frame)
}

func (w *wire) raw(t *testing.T, bytes []byte) {
	t.Helper()
	if _, err := w.Write(bytes); err != nil {
		t.Fatal(err)
	}
}

// until reads words up to the next of the kind M.
func until[M protocol.Message](t *testing.T, w *wire) M {
	t.Helper()
	var none M
	for {
		select {
		case m, open := <-w.got:
			if got, ok := m.(M); ok {
				return got
			}
			if !open {
				t.Fatalf("the connection ended before %T came", none)
			}
		case <-time.After(time.Hour):
			t.Fatalf("%T did not come", none)
		}
	}
}

// frozen has the guest armed and held.
func (m *machine) frozen(t *testing.T) *wire {
	t.Helper()
	w := m.dialWire(t)
	w.say(t, &protocol.Arm{Mode: "fs"}, protocol.WordArm)
	until[*protocol.Ready](t, w)
	w.say(t, &protocol.Go{Go: 7, HoldMS: 20000}, protocol.WordGo)
	until[*protocol.Frozen](t, w)
	return w
}
