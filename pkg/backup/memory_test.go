package backup

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
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const vmUUID = "42136b27-a0c1-8d9e-0011-223344556677"

// codedError is what *vsphere.Error looks like.
type codedError struct {
	code    string
	unknown bool
}

func (e codedError) Error() string        { return "vCenter says " + e.code }
func (e codedError) Code() string         { return e.code }
func (e codedError) OutcomeUnknown() bool { return e.unknown }

// hypervisor has one VM, whose snapshots it keeps by name.
type hypervisor struct {
	vm        inventory.VM
	fail      map[string]error
	takes     time.Duration // of the snapshot task
	unsettled string
	onReady   func()

	mu        sync.Mutex
	calls     []string
	snapshots []inventory.Snapshot
	closed    bool
	making    bool // a snapshot
}

// make says whether a snapshot is made from now on.
func (h *hypervisor) make(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.making = on
}

func (h *hypervisor) made(s inventory.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.snapshots = append(h.snapshots, s)
}

func (h *hypervisor) busy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.making
}

func (h *hypervisor) call(what string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, what)
	return h.fail[what]
}

func (h *hypervisor) Find(context.Context, string) (inventory.VM, error) {
	return h.vm, h.call("find")
}

func (h *hypervisor) Prepare(_ context.Context, vm inventory.VM, name, _ string) (Snapshot, error) {
	if err := h.call("prepare"); err != nil {
		return nil, err
	}
	return &prepared{h, inventory.Snapshot{Name: name, Moref: "snapshot-1", VM: vm.Moref}}, nil
}

func (h *hypervisor) Ready(context.Context) error {
	if h.onReady != nil {
		h.onReady()
	}
	return h.call("ready")
}

func (h *hypervisor) Remove(ctx context.Context, s inventory.Snapshot) (string, error) {
	if err := errors.Join(h.call("remove"), ctx.Err()); err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, have := range h.snapshots {
		if have.Moref == s.Moref {
			h.snapshots = append(h.snapshots[:i:i], h.snapshots[i+1:]...)
			return h.unsettled, nil
		}
	}
	return h.unsettled, nil
}

func (h *hypervisor) FindSnapshots(ctx context.Context, _ inventory.VM, _ string) ([]inventory.Snapshot, error) {
	if err := errors.Join(h.call("look"), ctx.Err()); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]inventory.Snapshot{}, h.snapshots...), nil
}

// prepared is the one snapshot of a run.
type prepared struct {
	h        *hypervisor
	snapshot inventory.Snapshot
}

func (p *prepared) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	if err := p.h.call("create"); err != nil {
		return inventory.Snapshot{}, inventory.Timing{}, err
	}
	queued := time.Now()
	p.h.make(true)
	defer p.h.make(false)
	accepted("task-7")
	select {
	case <-time.After(p.h.takes):
	case <-ctx.Done():
		return inventory.Snapshot{}, inventory.Timing{}, codedError{"SF2004", true}
	}
	p.h.made(p.snapshot)
	return p.snapshot, inventory.Timing{Sent: queued, PushSeen: time.Now(), Queued: queued, Completed: time.Now()}, nil
}

func (p *prepared) Close(ctx context.Context) error {
	p.h.closed = true
	return errors.Join(p.h.call("close"), ctx.Err())
}

// machine is the guest of the VM: the real agent with a freezer in memory, on a wire in memory.
type machine struct {
	conns chan net.Conn
	gone  chan struct{}
	once  sync.Once
	open  error // what Open fails with
	post  *post // the way in, nil for a wire
	stop  context.CancelFunc
	ended chan struct{}
	peer  guest.Peer

	mu    sync.Mutex
	wires []net.Conn
	held  bool
	holds int
	none  bool // nothing is to be held
}

func boot(t *testing.T, family string) *machine {
	t.Helper()
	theirs, theirPin, err := protocol.NewIdentity(time.Hour)
	own, pin, err2 := protocol.NewIdentity(time.Hour)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the agent"))
	m := &machine{conns: make(chan net.Conn), gone: make(chan struct{}), ended: make(chan struct{})}
	m.peer = guest.Peer{Dial: m.dial, Own: own, Fingerprint: theirPin, Deployment: "d", VMUUID: vmUUID, SHA256: sum, Run: "r", Epoch: 5}
	a := agent.New(agent.Options{
		Version: "1.2.3", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: m,
		OS: protocol.OS{Family: family, Edition: "Debian", Version: "12"},
	})
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	go func() {
		defer close(m.ended)
		if err := a.Serve(ctx, tls.NewListener((*listener)(m), protocol.ServerTLS(theirs, pin))); err != nil {
			t.Error(err)
		}
	}()
	return m
}

// end has the agent end if it has not, and checks that nothing is held.
func (m *machine) end(t *testing.T) {
	t.Helper()
	m.stop()
	<-m.ended
	if m.held {
		t.Error("the guest is still held")
	}
}

func (m *machine) dial(context.Context) (net.Conn, error) {
	theirs, ours := net.Pipe()
	select {
	case m.conns <- theirs:
	case <-m.gone:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wires = append(m.wires, theirs, ours)
	return ours, nil
}

// cut ends every connection.
func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.wires {
		if err := w.Close(); err != nil {
			panic(err) // a pipe's Close never fails
		}
	}
	m.wires = nil
}

type listener machine

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.gone) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

// Open connects to the agent as a Deployer would, without a road.
func (m *machine) Open(ctx context.Context, _ inventory.VM, _ string, _ uint64) (*guest.Deployment, error) {
	attempts := []guest.Attempt{{Way: guest.WayGuestOps, Stage: guest.StagePush, OK: true, Took: 1500 * time.Millisecond}}
	if m.post != nil {
		return m.post.open(ctx)
	}
	if m.open != nil {
		attempts = append(attempts, guest.Attempt{Way: guest.WayGuestOps, Stage: guest.StageStart, Code: guest.CodeOf(m.open), Text: m.open.Error()})
		return &guest.Deployment{Attempts: attempts}, m.open
	}
	s, err := guest.Connect(ctx, m.peer)
	attempts = append(attempts, guest.Attempt{Way: guest.WayGuestOps, Stage: guest.StageHello, OK: err == nil, Took: 250 * time.Millisecond})
	return &guest.Deployment{Session: s, Attempts: attempts}, err
}

func (m *machine) Volumes(context.Context) ([]protocol.Volume, error) { return nil, nil }

func (m *machine) Prepare(context.Context, agent.PrepareRequest) (agent.Prepared, error) {
	time.Sleep(203 * time.Millisecond)
	if m.none {
		return agent.Prepared{}, nil
	}
	return agent.Prepared{SetID: "{" + strings.ToUpper(theSet) + "}", Volumes: []protocol.Volume{{ID: "8:1", Mounts: []string{"/data"}, Supported: true}}}, nil
}

func (m *machine) Freeze(_ context.Context, started func()) (agent.Held, error) {
	m.mu.Lock()
	m.held = true
	m.holds++
	m.mu.Unlock()
	started()
	time.Sleep(101 * time.Millisecond)
	return agent.Held{}, nil
}

func (m *machine) Thaw(context.Context) agent.Release {
	time.Sleep(11 * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.held || m.none {
		m.held = false
		return agent.Release{}
	}
	m.held = false
	return agent.Release{Results: []protocol.ThawResult{{Mount: "/data", OK: true}}}
}

func (m *machine) Close() error { return nil }
