package mailbox

import (
	"io"
	"net"
	"os"
	"time"
)

// Conn is one stream. The line's lock guards it.
type Conn struct {
	line   *Line
	stream string
	wake   chan struct{} // closed and replaced at every change

	out   []byte    // not in a segment yet
	since time.Time // of the first byte of out
	seq   uint64    // segments with data that were sent
	acked uint64    // of them, received
	sent  []byte    // the data of segment seq
	putAt time.Time // of the last text

	in      []byte
	heard   uint64   // segments received
	stalled *segment // the next one, for which in has no room
	owed    bool     // an acknowledgement
	oweAt   time.Time

	err     error // for Read after in, and for Write
	closing bool
	closeBy time.Time
	ended   bool // nothing is put any more

	readBy, writeBy       time.Time
	readTimer, writeTimer *time.Timer
}

var _ net.Conn = (*Conn)(nil)

// change wakes who waits; the caller holds the lock.
func (c *Conn) change() {
	close(c.wake)
	c.wake = make(chan struct{})
	c.line.poke()
}

// fail ends the stream with an error, the first one; the caller holds the lock.
func (c *Conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	if err != io.EOF || c.closing { //nolint:errorlint // the very value: the other side has closed, what it sent can be read
		c.end()
	}
	c.change()
}

// end takes the stream out of the line; the caller holds the lock.
func (c *Conn) end() {
	if c.ended {
		return
	}
	c.ended = true
	delete(c.line.streams, c.stream)
	if c.line.current == c {
		c.line.current = nil
	}
	c.line.over()
}

// owe has an acknowledgement put after d; the caller holds the lock.
func (c *Conn) owe(d time.Duration) {
	at := time.Now().Add(d)
	if !c.owed || at.Before(c.oweAt) {
		c.owed, c.oweAt = true, at
	}
}

// take looks at the other side's segment, and says whether it can be one. Whatever is old, comes again or cannot come yet
// changes nothing. The caller holds the lock.
func (c *Conn) take(s segment) bool {
	if s.ack > c.seq || s.seq > c.heard+1 || s.seq < c.heard {
		return false
	}
	if s.ack == c.seq && c.acked < c.seq {
		c.acked, c.sent = s.ack, nil
	}
	switch {
	case s.seq == c.heard: // as before; if it came again because our text was overwritten, that one is put again
		if len(s.data) > 0 {
			c.owe(c.line.o.RepeatAfter)
		}
	case len(s.data) == 0:
		return false
	case len(c.in)+len(s.data) > maxBuffer:
		c.stalled = &s
	default:
		c.receive(s)
	}
	c.change()
	return true
}

func (c *Conn) receive(s segment) {
	c.in = append(c.in, s.data...)
	c.heard = s.seq
	c.owe(c.line.o.AckAfter)
}

// due gives the text to put now, or how long there is none; the caller holds the lock.
func (c *Conn) due(now time.Time) (text string, put bool, wait time.Duration) {
	wait = time.Hour
	read := c.acked == c.seq
	soon := func(at time.Time) bool {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			return false
		}
		return true
	}
	switch {
	case c.closing && (c.err != nil || soon(c.closeBy)):
		c.fail(net.ErrClosed)
		return "", false, 0
	case c.closing && read && len(c.out) == 0:
		return "", true, 0
	case read && len(c.out) > 0 && soon(c.since.Add(gatherFor)):
		n := min(len(c.out), MaxData)
		c.seq++
		c.sent, c.out = c.out[:n:n], c.out[n:]
		c.change()
	case c.owed && soon(c.oweAt):
	case !read && soon(c.putAt.Add(c.line.o.RepeatAfter)):
	default:
		return "", false, wait
	}
	c.owed, c.putAt = false, now
	return segment{c.stream, c.seq, c.heard, c.sent}.text(), true, 0
}

// Read blocks for data, the end of the stream or the deadline.
func (c *Conn) Read(p []byte) (int, error) {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	for {
		switch {
		case c.closing:
			return 0, net.ErrClosed
		case len(c.in) > 0:
			n := copy(p, c.in)
			c.in = c.in[n:]
			if c.stalled != nil && len(c.in) <= maxBuffer/2 {
				c.receive(*c.stalled)
				c.stalled = nil
				c.change()
			}
			return n, nil
		case c.err != nil:
			return 0, c.err
		case passed(c.readBy):
			return 0, os.ErrDeadlineExceeded
		}
		c.wait()
	}
}

// Write takes p, and blocks only while more than 1 MiB is still to be sent.
func (c *Conn) Write(p []byte) (int, error) {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	for n := 0; ; c.wait() {
		switch {
		case c.closing:
			return n, net.ErrClosed
		case c.err == io.EOF: //nolint:errorlint // as fail
			return n, io.ErrClosedPipe
		case c.err != nil:
			return n, c.err
		case passed(c.writeBy):
			return n, os.ErrDeadlineExceeded
		}
		if len(c.out) == 0 {
			c.since = time.Now()
		}
		more := min(len(p)-n, maxBuffer-len(c.out))
		c.out = append(c.out, p[n:n+more]...)
		c.line.poke()
		if n += more; n == len(p) {
			return n, nil
		}
	}
}

// wait waits for a change, with the lock let go meanwhile.
func (c *Conn) wait() {
	wake := c.wake
	c.line.mu.Unlock()
	<-wake
	c.line.mu.Lock()
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Close ends the stream. It blocks for at most Linger until the other side has what was written; with none it throws away
// what was not put yet, and does not block. It is idempotent.
func (c *Conn) Close() error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.closing {
		return nil
	}
	c.closing = true
	linger := c.line.o.Linger
	c.closeBy = time.Now().Add(linger)
	if linger == 0 {
		c.out, c.closeBy = nil, time.Now().Add(c.line.o.RepeatAfter)
	}
	if c.err != nil || c.line.current != c {
		c.end()
	}
	c.change()
	for linger > 0 && !c.ended {
		c.wait()
	}
	return nil
}

// LocalAddr is no address, nor is RemoteAddr.
func (c *Conn) LocalAddr() net.Addr { return address(c.stream) }

// RemoteAddr is no address.
func (c *Conn) RemoteAddr() net.Addr { return address(c.stream) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.readBy, c.readTimer = t, c.alarm(c.readTimer, t)
	c.writeBy, c.writeTimer = t, c.alarm(c.writeTimer, t)
	c.change()
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.readBy, c.readTimer = t, c.alarm(c.readTimer, t)
	c.change()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.writeBy, c.writeTimer = t, c.alarm(c.writeTimer, t)
	c.change()
	return nil
}

// alarm wakes who waits at t, in place of a former alarm; the caller holds the lock.
func (c *Conn) alarm(former *time.Timer, t time.Time) *time.Timer {
	if former != nil {
		former.Stop()
	}
	if t.IsZero() {
		return nil
	}
	return time.AfterFunc(time.Until(t), func() {
		c.line.mu.Lock()
		defer c.line.mu.Unlock()
		c.change()
	})
}
