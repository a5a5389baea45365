package guests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxyDial bounds the connection to the inside address.
const proxyDial = 5 * time.Second

// Proxy is the network between the orchestrator and one guest's agent: TCP from the guest's outside address to its
// inside address, which the lab can cut or stall. It knows nothing of what it carries.
type Proxy struct {
	inside   string
	listener *net.TCPListener

	mu      sync.Mutex
	pairs   map[*net.TCPConn]*net.TCPConn
	refuse  bool
	closed  bool
	stalled chan struct{} // nil while bytes flow, else closed by Resume

	carried atomic.Int64
	done    sync.WaitGroup
}

// StartProxy listens on outside and forwards to inside, both host:port. The caller closes it.
func StartProxy(ctx context.Context, outside, inside string) (*Proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", outside)
	if err != nil {
		return nil, fmt.Errorf("start the proxy in front of %s: %w", inside, err)
	}
	p := &Proxy{inside: inside, listener: l.(*net.TCPListener), pairs: map[*net.TCPConn]*net.TCPConn{}}
	lifetime := context.WithoutCancel(ctx)
	p.done.Go(func() { p.accept(lifetime) })
	return p, nil
}

// Addr is the outside address.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Carried counts the bytes carried, both directions together.
func (p *Proxy) Carried() int64 { return p.carried.Load() }

// Cut resets all connections at both ends. With refuse it also resets each new one until Restore.
func (p *Proxy) Cut(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
	for a, b := range p.pairs {
		reset(a)
		reset(b)
	}
}

// Stall stops carrying bytes, without closing anything, until Restore. Up to one buffer in flight is kept back.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// Restore ends a stall, and takes new connections again.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restore()
}

func (p *Proxy) restore() {
	p.refuse = false
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// Close ends the proxy and resets what it carried. It is idempotent.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.restore()
	for a, b := range p.pairs {
		reset(a)
		reset(b)
	}
	p.mu.Unlock()
	err := p.listener.Close()
	p.done.Wait()
	return err
}

// reset closes a connection so that its peer sees RST. An error means that the connection has gone already, which is
// what was asked for.
func reset(c *net.TCPConn) {
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return
	}
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		a, err := p.listener.AcceptTCP()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		refuse := p.refuse || p.closed
		p.mu.Unlock()
		if refuse {
			reset(a)
			continue
		}
		p.done.Go(func() { p.carry(ctx, a) })
	}
}

func (p *Proxy) carry(ctx context.Context, a *net.TCPConn) {
	conn, err := (&net.Dialer{Timeout: proxyDial}).DialContext(ctx, "tcp", p.inside)
	if err != nil {
		reset(a) // nobody listens inside: the caller sees a connection that breaks at once
		return
	}
	b := conn.(*net.TCPConn)
	p.mu.Lock()
	if p.refuse || p.closed {
		p.mu.Unlock()
		reset(a)
		reset(b)
		return
	}
	p.pairs[a] = b
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(b, a) })
	both.Go(func() { p.copy(a, b) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, a)
	p.mu.Unlock()
	reset(a)
	reset(b)
}

// copy carries one direction until its end, and passes the end on: FIN as FIN, anything else as RST.
func (p *Proxy) copy(to, from *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		stalled := p.stalled
		p.mu.Unlock()
		if stalled != nil {
			<-stalled
		}
		if n > 0 {
			p.carried.Add(int64(n))
			if _, err := to.Write(buf[:n]); err != nil {
				reset(from)
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if to.CloseWrite() != nil {
				reset(from)
			}
			return
		case err != nil:
			reset(to)
			return
		}
	}
}
