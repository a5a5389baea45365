package mailbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Limits of a line.
const (
	// maxStreams are the streams at a time of one that is called: the one that serves, one that takes its place, and strangers.
	maxStreams = 4
	// maxBuffer is what a stream keeps for its reader, and from its writer, in bytes.
	maxBuffer = 1 << 20
	// gatherFor is how long data wait for more of them, because each text is dear.
	gatherFor = 5 * time.Millisecond
	// brokenPause follows a text that could not be read or written.
	brokenPause = time.Second
)

// Box is two texts. Both methods may be called at the same time, each by one goroutine at a time.
type Box interface {
	// Put replaces our text, and returns when the other side can read it.
	Put(ctx context.Context, text string) error
	// Next blocks until the other side's text is another one than last, and gives it; "" is no text.
	Next(ctx context.Context, last string) (string, error)
}

// Options are how a Line behaves.
type Options struct {
	// Called lets the other side open streams; without it we do.
	Called bool
	// AckAfter is how long an acknowledgement waits for data to go with.
	AckAfter time.Duration
	// RepeatAfter is for how long a segment may stay without an acknowledgement before it is put again: somebody else may
	// have overwritten it.
	RepeatAfter time.Duration
	// Linger is how long a stream that is closed waits for its last data to be read; 0 throws away what was not put.
	Linger time.Duration
}

// Line is what two sides with a mailbox between them can say to each other: streams, of which one is attended to at a time.
// It is a net.Listener for the side that is called. The words of one stream cannot be taken for those of another; who else
// can write the texts can hinder, so the streams have to prove themselves by TLS.
type Line struct {
	box  Box
	name string
	o    Options
	stop context.CancelFunc
	done <-chan struct{}
	work sync.WaitGroup
	came chan *Conn
	shut chan struct{} // closed by Close: no more streams
	kick chan struct{} // wakes the writer

	mu      sync.Mutex
	streams map[string]*Conn
	current *Conn
	put     string // the stream of our text
	held    bool
	closed  bool
	dropped int
}

// Open begins to read and write the box, until Close and whatever becomes of ctx. The name begins the names of all its
// streams; texts of others are ignored.
func Open(ctx context.Context, box Box, name string, o Options) *Line {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Line{
		box: box, name: name, o: o, stop: stop, done: ctx.Done(), came: make(chan *Conn, maxStreams), shut: make(chan struct{}),
		kick: make(chan struct{}, 1), streams: map[string]*Conn{},
	}
	l.work.Go(func() { l.read(ctx) })
	l.work.Go(func() { l.write(ctx) })
	return l
}

// Dial opens a stream, which takes the place of any other. It does not block, and tells nothing of the other side.
func (l *Line) Dial() (net.Conn, error) {
	var id [8]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if l.current != nil {
		l.current.fail(net.ErrClosed)
	}
	l.current = l.add(l.name + "-" + hex.EncodeToString(id[:]))
	return l.current, nil
}

// add makes a stream; the caller holds mu.
func (l *Line) add(stream string) *Conn {
	c := &Conn{line: l, stream: stream, wake: make(chan struct{})}
	l.streams[stream] = c
	return c
}

// Accept gives the next stream that the other side opens.
func (l *Line) Accept() (net.Conn, error) {
	select {
	case <-l.shut:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.came:
		return c, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}

// Addr is no address.
func (l *Line) Addr() net.Addr { return address(l.name) }

// Hold keeps everything from being put while it is on; a text that is under way is not called back.
func (l *Line) Hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	if c := l.current; c != nil && c.owed && !on {
		c.oweAt = time.Now().Add(l.o.AckAfter) // for the word that is about to be said
	}
	l.poke()
}

// Dropped counts the texts that were no segments, or none of a stream that is open.
func (l *Line) Dropped() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Close lets no more streams be opened. Those that are open stay, and the line ends with the last of them.
func (l *Line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.shut)
	}
	for len(l.came) > 0 {
		(<-l.came).fail(net.ErrClosed)
	}
	l.over()
	return nil
}

// over ends the line when it is closed and has no stream; the caller holds mu.
func (l *Line) over() {
	if l.closed && len(l.streams) == 0 {
		l.stop()
	}
}

// Wait waits for the end of the line, after Close; with the end of ctx it ends it.
func (l *Line) Wait(ctx context.Context) {
	select {
	case <-l.done:
	case <-ctx.Done():
		l.stop()
	}
	l.work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.streams {
		c.fail(net.ErrClosed)
	}
}

// poke wakes the writer.
func (l *Line) poke() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// read is the only reader of the other side's text.
func (l *Line) read(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		text, err := l.box.Next(ctx, last)
		if err != nil {
			l.broken(ctx, err)
			continue
		}
		last = text
		l.take(text)
	}
}

// broken ends the streams when the box fails, and waits a little.
func (l *Line) broken(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	for _, c := range l.streams {
		c.fail(err)
	}
	l.mu.Unlock()
	sleep(ctx, brokenPause)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// take looks at a text of the other side.
func (l *Line) take(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.poke()
	if strings.TrimSpace(text) == "" {
		if c := l.current; c != nil && c.heard > 0 {
			c.fail(io.EOF)
		}
		return
	}
	s, err := parse(text)
	c := l.streams[s.stream]
	if err == nil && c == nil {
		c = l.opened(s)
	}
	if c == nil {
		l.dropped++
		return
	}
	if l.o.Called {
		if former := l.current; former != nil && former != c && former.closing {
			former.fail(net.ErrClosed) // nobody will read its last words
		}
		l.current = c // the other side attends to it
		if l.put != c.stream {
			c.owe(0)
		}
	}
	if !c.take(s) {
		l.dropped++
	}
}

// opened is a stream that the other side opens with s, nil when it may not.
func (l *Line) opened(s segment) *Conn {
	if !l.o.Called || l.closed || !strings.HasPrefix(s.stream, l.name+"-") || s.seq != 1 || s.ack != 0 || len(s.data) == 0 || len(l.streams) >= maxStreams {
		return nil
	}
	c := l.add(s.stream)
	select {
	case l.came <- c:
		return c
	default: // nobody accepts
		delete(l.streams, s.stream)
		return nil
	}
}

// write is the only writer of our text.
func (l *Line) write(ctx context.Context) {
	for ctx.Err() == nil {
		text, put, wait := l.due(time.Now())
		if !put {
			l.await(ctx, wait)
			continue
		}
		err := l.box.Put(ctx, text)
		if err != nil {
			l.broken(ctx, err)
		}
		if text == "" {
			l.emptied()
		}
	}
}

// emptied ends the streams that are closed: their last text was put.
func (l *Line) emptied() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.closing {
		c.fail(net.ErrClosed)
	}
}

func (l *Line) await(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.kick:
	case <-ctx.Done():
	}
}

// due gives the text to put now, or how long there is none.
func (l *Line) due(now time.Time) (text string, put bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.current
	if c == nil || l.held {
		return "", false, time.Hour // whoever changes that wakes us
	}
	text, put, wait = c.due(now)
	if put {
		l.put = c.stream
	}
	return text, put, wait
}

type address string

func (address) Network() string  { return "mailbox" }
func (a address) String() string { return string(a) }
