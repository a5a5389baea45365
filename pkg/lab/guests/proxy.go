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

// Shape is how a proxy carries bytes. The zero value carries them as they come.
type Shape struct {
	// CutToGuest and CutFromGuest reset a connection when it has carried that many bytes in that direction, also in the
	// middle of a TLS record; 0 is never. Cuts is how many connections meet that; 0 is one.
	CutToGuest, CutFromGuest int64
	Cuts                     int
	// Slice is the most bytes written at once, Pause the time between two slices; 0 is no limit. One byte is the harshest.
	Slice int
	Pause time.Duration
}

func (s Shape) check() error {
	if s.CutToGuest < 0 || s.CutFromGuest < 0 || s.Cuts < 0 || s.Slice < 0 || s.Pause < 0 {
		return fmt.Errorf("shape the network: %+v has a number below 0", s)
	}
	return nil
}

// Proxy is the network between the orchestrator and one guest's agent: TCP from the guest's outside address to its
// inside address, which the lab can cut or stall. It knows nothing of what it carries.
type Proxy struct {
	inside   string
	listener *net.TCPListener

	mu      sync.Mutex
	pairs   map[*net.TCPConn]*net.TCPConn
	refuse  bool
	closed  bool
	stalled chan struct{} // nil while bytes flow, else closed by Restore
	oneWay  bool          // only what goes to the guest is stalled
	shape   Shape
	opened  func()

	toGuest, fromGuest atomic.Int64
	done               sync.WaitGroup
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

// Carried counts the bytes carried to the guest and from it.
func (p *Proxy) Carried() (toGuest, fromGuest int64) { return p.toGuest.Load(), p.fromGuest.Load() }

// Shape changes how bytes are carried from now on; a cut counts the bytes of each connection from its beginning.
func (p *Proxy) Shape(s Shape) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.Cuts == 0 {
		s.Cuts = 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shape = s
	return nil
}

// OnOpen sets the hook that is told of each connection that was made through to the guest; it must not block.
func (p *Proxy) OnOpen(hook func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = hook
}

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
func (p *Proxy) Stall() { p.stall(false) }

// StallToGuest stops carrying bytes to the guest only, until Restore: what the guest says still arrives.
func (p *Proxy) StallToGuest() { p.stall(true) }

func (p *Proxy) stall(oneWay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.oneWay = oneWay
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
	opened := p.opened
	p.mu.Unlock()
	if opened != nil {
		opened()
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(b, a, true) })
	both.Go(func() { p.copy(a, b, false) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, a)
	p.mu.Unlock()
	reset(a)
	reset(b)
}

// copy carries one direction until its end, and passes the end on: FIN as FIN, anything else as RST.
func (p *Proxy) copy(to, from *net.TCPConn, toGuest bool) {
	buf := make([]byte, 32<<10)
	var passed int64
	for {
		n, err := from.Read(buf)
		if !p.write(to, buf[:n], &passed, toGuest) {
			reset(from)
			reset(to)
			return
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

// write carries one buffer in the slices of the present shape; false when the connection is over or was cut.
func (p *Proxy) write(to *net.TCPConn, buf []byte, passed *int64, toGuest bool) bool {
	for len(buf) > 0 {
		p.mu.Lock()
		stalled, shape := p.stalled, p.shape
		if p.oneWay && !toGuest {
			stalled = nil
		}
		p.mu.Unlock()
		if stalled != nil {
			<-stalled
			continue
		}
		piece := buf
		if shape.Slice > 0 {
			piece = piece[:min(shape.Slice, len(piece))]
		}
		limit, count := shape.CutFromGuest, &p.fromGuest
		if toGuest {
			limit, count = shape.CutToGuest, &p.toGuest
		}
		cut := limit > 0 && shape.Cuts > 0 && *passed+int64(len(piece)) >= limit
		if cut {
			piece = piece[:max(limit-*passed, 0)]
		}
		count.Add(int64(len(piece))) // before the write: whoever has read the bytes finds them counted
		if n, err := to.Write(piece); err != nil {
			count.Add(int64(n - len(piece)))
			return false
		}
		*passed += int64(len(piece))
		if cut && p.cutNow() {
			return false
		}
		buf = buf[len(piece):]
		if shape.Pause > 0 && shape.Slice > 0 {
			<-time.After(shape.Pause)
		}
	}
	return true
}

// cutNow uses up one of the cuts that are planned; false when another connection took the last.
func (p *Proxy) cutNow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shape.Cuts == 0 {
		return false
	}
	p.shape.Cuts--
	return true
}
