package agent

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Limits of an agent that dials, no two equal.
const (
	// callLimit is how long one dial may take.
	callLimit = 4500 * time.Millisecond
	// firstPause and longestPause are between two dials, with those between doubled.
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
	// callQuiet is for how long a connection may carry nothing before a second one is made beside it: its other end may
	// have given it up unheard. An orchestrator says something every 5 s.
	callQuiet = 7 * time.Second
	// maxCalls are the connections at a time: one that serves or is dead, and one that waits for its turn.
	maxCalls = 2
)

// Caller is a listener that makes its connections itself, for a guest that cannot be reached but can reach the
// orchestrator. It dials whenever no connection is alive; one that nobody greets is closed by the agent, and made again.
type Caller struct {
	dial   func() (net.Conn, error) // within callLimit
	config *tls.Config
	stop   context.CancelFunc
	done   <-chan struct{} // closed by Close
	change chan struct{}   // a connection was closed

	mu    sync.Mutex
	calls map[*call]struct{}
	pause time.Duration // before the next dial
	next  time.Time
}

// NewCaller makes a Caller that dials with dial and proves both sides by config, that of a TLS client. It lives until its
// Close, whatever becomes of ctx: an agent that is told to stop still has words to say.
func NewCaller(ctx context.Context, dial func(context.Context) (net.Conn, error), config *tls.Config) *Caller {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	limited := func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		return dial(ctx)
	}
	return &Caller{
		dial: limited, config: config, stop: stop, done: ctx.Done(), change: make(chan struct{}, 1), calls: map[*call]struct{}{}, pause: firstPause,
	}
}

// Accept blocks until a connection is needed and made, or the Caller closed. TLS is still to be done on it.
func (c *Caller) Accept() (net.Conn, error) {
	for {
		select {
		case <-c.done:
			return nil, net.ErrClosed
		default:
		}
		if wait := c.wait(); wait > 0 {
			c.sleep(wait)
			continue
		}
		plain, err := c.dial()
		c.dialed()
		if err == nil {
			return tls.Client(c.keep(plain), c.config), nil
		}
	}
}

// wait is how long no connection has to be made.
func (c *Caller) wait() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) >= maxCalls {
		return time.Hour // the end of one of them wakes us
	}
	wait := time.Until(c.next)
	for k := range c.calls {
		wait = max(wait, callQuiet-time.Since(k.heard))
	}
	return wait
}

func (c *Caller) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.change:
	case <-c.done:
	}
}

// dialed lets a pause follow, longer each time.
func (c *Caller) dialed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = time.Now().Add(c.pause)
	c.pause = min(2*c.pause, longestPause)
}

func (c *Caller) keep(plain net.Conn) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &call{Conn: plain, owner: c, made: time.Now(), heard: time.Now()}
	c.calls[k] = struct{}{}
	return k
}

// forget takes a closed connection out. One that lived longer than the longest pause was no dial in vain.
func (c *Caller) forget(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, alive := c.calls[k]; !alive {
		return
	}
	delete(c.calls, k)
	if time.Since(k.made) > longestPause {
		c.pause = firstPause
	}
	select {
	case c.change <- struct{}{}:
	default:
	}
}

// Close ends Accept. Connections that were made stay.
func (c *Caller) Close() error {
	c.stop()
	return nil
}

// Addr is no address: nothing listens.
func (c *Caller) Addr() net.Addr { return &net.TCPAddr{} }

// call is a connection that a Caller made. The Caller's lock guards heard.
type call struct {
	net.Conn
	owner *Caller
	made  time.Time
	heard time.Time
}

func (k *call) Read(p []byte) (int, error) {
	n, err := k.Conn.Read(p)
	if n > 0 {
		k.owner.mu.Lock()
		k.heard = time.Now()
		k.owner.mu.Unlock()
	}
	return n, err
}

func (k *call) Close() error {
	defer k.owner.forget(k)
	return k.Conn.Close()
}
