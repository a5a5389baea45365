package guest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Limits on those who dial in, so that strangers cost little and shut nobody out.
const (
	// proveLimit is how long one may take to prove itself.
	proveLimit = 10 * time.Second
	// maxUnproved are the connections at a time that are not proved yet, maxOfOne those of one address.
	maxUnproved = 64
	maxOfOne    = 8
	// parkLimit is for how long a proved connection may be waited with: agents close one without a HELLO after 8 s.
	parkLimit = 7 * time.Second
	// acceptPause follows an Accept that failed, such as for want of file descriptors.
	acceptPause = 100 * time.Millisecond
)

var (
	// ErrUnexpected is why a connection is dropped whose server name is no deployment that is waited for.
	ErrUnexpected = errors.New("no agent of that name is waited for")
	// errNobodyCalled is why a Caller gives no connection.
	errNobodyCalled = errors.New("the agent has not dialled the orchestrator; is the way from the guest to the listener of reverse connections open?")
)

// Reverser is the daemon's listener for agents that dial out. A connection is matched by its TLS server name, which is the
// deployment, and proved by the exact fingerprint of the agent's certificate. The name is no secret, so that everybody may
// use it: nobody is kept from his agent by others who do.
type Reverser struct {
	listener net.Listener
	stop     context.CancelFunc
	group    sync.WaitGroup

	mu       sync.Mutex
	callers  map[string]*Caller
	unproved map[string]int // by address
	counts   ReverseCounts
	closed   bool
}

// ReverseCounts say what became of the connections of a Reverser.
type ReverseCounts struct {
	// Crowded were dropped for want of room, Unexpected for a name that nobody waits for, Strangers for a wrong fingerprint,
	// Garbled for no or bad TLS, or none in time.
	Crowded, Unexpected, Strangers, Garbled uint64
	// Proved are agents.
	Proved uint64
	// Unproved is how many have still to prove themselves.
	Unproved int
}

// Listen opens the listener at the address, host and port. The owner closes it.
func Listen(ctx context.Context, address string) (*Reverser, error) {
	l, err := (&net.ListenConfig{KeepAlive: keepAlive}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for agents that dial out: %w", err)
	}
	return NewReverser(ctx, l), nil
}

// NewReverser serves the listener l until Close, whatever becomes of ctx, and closes it then.
func NewReverser(ctx context.Context, l net.Listener) *Reverser {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &Reverser{listener: l, stop: stop, callers: map[string]*Caller{}, unproved: map[string]int{}}
	r.group.Go(func() { r.accept(ctx) })
	return r
}

// Addr is where the Reverser listens.
func (r *Reverser) Addr() net.Addr { return r.listener.Addr() }

// Counts says what became of the connections so far.
func (r *Reverser) Counts() ReverseCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	for _, n := range r.unproved {
		c.Unproved += n
	}
	return c
}

// Close ends all that is not handed out yet. It is idempotent.
func (r *Reverser) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	err := r.listener.Close()
	r.stop()
	r.group.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.callers {
		c.drop()
	}
	return err
}

func (r *Reverser) accept(ctx context.Context) {
	for {
		conn, err := r.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-time.After(acceptPause):
				continue
			case <-ctx.Done():
				return
			}
		}
		from := host(conn)
		if !r.enter(from) {
			closeQuietly(conn)
			continue
		}
		r.group.Go(func() {
			defer r.leave(from)
			r.meet(ctx, conn)
		})
	}
}

// host is the address that a connection comes from, without its port.
func host(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return conn.RemoteAddr().String()
	}
	return host
}

// enter finds room for one more that is not proved.
func (r *Reverser) enter(from string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := 0
	for _, n := range r.unproved {
		all += n
	}
	if r.closed || all >= maxUnproved || r.unproved[from] >= maxOfOne {
		r.counts.Crowded++
		return false
	}
	r.unproved[from]++
	return true
}

func (r *Reverser) leave(from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unproved[from]--; r.unproved[from] == 0 {
		delete(r.unproved, from)
	}
}

// meet has one who dialled in prove itself, and hands it to who waits for it.
func (r *Reverser) meet(ctx context.Context, plain net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, proveLimit)
	defer cancel()
	var caller *Caller
	conn := tls.Server(plain, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { //nolint:contextcheck // the hello has a child of ctx
			if caller = r.caller(hello.ServerName); caller == nil {
				return nil, ErrUnexpected
			}
			return caller.config(hello.Context())
		},
	})
	err := conn.HandshakeContext(ctx)
	r.count(err, caller)
	if err != nil || !caller.park(conn) {
		closeQuietly(plain)
	}
}

func (r *Reverser) caller(deployment string) *Caller {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.callers[deployment]
}

func (r *Reverser) count(err error, caller *Caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.counts.Proved++
	case errors.Is(err, ErrUnexpected):
		r.counts.Unexpected++
	case errors.Is(err, protocol.ErrFingerprint):
		r.counts.Strangers++
		caller.strange()
	default:
		r.counts.Garbled++
	}
}

// Expect lets an agent dial in from now on, before it is started. The owner closes the Caller.
func (r *Reverser) Expect(deployment string) (*Caller, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case deployment == "":
		return nil, errors.New("an agent that dials out has to be a deployment")
	case r.closed:
		return nil, net.ErrClosed
	case r.callers[deployment] != nil:
		return nil, fmt.Errorf("deployment %q is waited for already", deployment)
	}
	c := &Caller{reverser: r, deployment: deployment, known: make(chan struct{}), arrived: make(chan struct{}, 1), closed: make(chan struct{})}
	r.callers[deployment] = c
	return c, nil
}

// Caller is an agent that will dial in, more than once if its connection is lost.
type Caller struct {
	reverser   *Reverser
	deployment string

	known   chan struct{} // closed by Prove
	closed  chan struct{} // closed by Close
	arrived chan struct{} // conn was set
	tls     *tls.Config   // set before known is closed

	mu        sync.Mutex
	conn      *tls.Conn // proved, and not asked for yet: the newest
	parked    time.Time // since when
	strangers int       // since a connection was last asked for with success
}

// Prove says who the agent is, once it has said READY: what has dialled in until then waits for it.
func (c *Caller) Prove(own tls.Certificate, agent protocol.Fingerprint) {
	if isClosed(c.known) {
		return // one deployment is one agent
	}
	c.tls = protocol.ServerTLS(own, agent)
	close(c.known)
}

// config waits until it is known whom to let in.
func (c *Caller) config(ctx context.Context) (*tls.Config, error) {
	select {
	case <-c.known:
		return c.tls, nil
	case <-c.closed:
		return nil, ErrUnexpected
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// park keeps a proved connection until it is asked for. A newer one replaces it: the agent dials again only when it takes
// the former for dead.
func (c *Caller) park(conn *tls.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isClosed(c.closed) {
		return false
	}
	if c.conn != nil {
		closeQuietly(c.conn.NetConn())
	}
	c.conn, c.parked = conn, time.Now()
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	return true
}

func (c *Caller) strange() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strangers++
}

// Await gives the next connection of the agent, proved. It blocks until the agent dials or ctx ends; the error is then
// protocol.ErrFingerprint when only others have dialled in its name.
func (c *Caller) Await(ctx context.Context) (*tls.Conn, error) {
	for {
		conn := c.take()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-c.arrived:
		case <-c.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			c.mu.Lock()
			strangers := c.strangers
			c.mu.Unlock()
			if strangers > 0 {
				return nil, fmt.Errorf("%d dialled in the agent's name: %w", strangers, protocol.ErrFingerprint)
			}
			return nil, errors.Join(errNobodyCalled, context.Cause(ctx))
		}
	}
}

// take gives the parked connection, nil when there is none that the agent still waits with.
func (c *Caller) take() *tls.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conn
	c.conn = nil
	if conn != nil && time.Since(c.parked) > parkLimit {
		closeQuietly(conn.NetConn())
		return nil
	}
	if conn != nil {
		c.strangers = 0
	}
	return conn
}

// Close lets the agent dial in no more. It is idempotent; connections that were handed out stay.
func (c *Caller) Close() {
	c.reverser.mu.Lock()
	defer c.reverser.mu.Unlock()
	if c.reverser.callers[c.deployment] == c {
		delete(c.reverser.callers, c.deployment)
	}
	c.drop()
}

func (c *Caller) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !isClosed(c.closed) {
		close(c.closed)
	}
	if c.conn != nil {
		closeQuietly(c.conn.NetConn())
		c.conn = nil
	}
}

// proved makes sure once more that a connection that the agent made is the agent's.
func proved(conn *tls.Conn, agent protocol.Fingerprint) error {
	state := conn.ConnectionState()
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 || sha256.Sum256(state.PeerCertificates[0].Raw) != agent || agent == (protocol.Fingerprint{}) {
		return protocol.ErrFingerprint
	}
	return nil
}
