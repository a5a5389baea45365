package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/audit"
)

// pipes is a listener in memory: each dial gives a net.Pipe, so that time is the bubble's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// owner lets every connection of a pipe be an administrator's.
type owner struct{ net.Conn }

// bubble serves the API on pipes; dial gives a raw connection, stop ends the server and waits for it.
func bubble(t *testing.T) (s *Server, dial func() net.Conn, stop func()) {
	t.Helper()
	s, err := New(newMemory().backends(audit.New(filepath.Join(t.TempDir(), "a"), audit.Options{})), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.http.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey, Caller{Name: "uid 0", Scopes: []Scope{Admin}})
	}
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	s.open = []net.Listener{p}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	dial = func() net.Conn {
		near, far := net.Pipe()
		p.conns <- owner{far}
		return near
	}
	return s, dial, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve ended with %v", err)
		}
	}
}

// follow opens the stream and reads its first line.
func follow(t *testing.T, c net.Conn, query, last string) *bufio.Reader {
	t.Helper()
	request := "GET " + Prefix + "/events" + query + " HTTP/1.1\r\nHost: x\r\n"
	if last != "" {
		request += "Last-Event-ID: " + last + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	got, err := http.ReadResponse(in, nil) //nolint:bodyclose // the test reads on and closes the connection
	if err != nil || got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream answers %v %v", got, err)
	}
	return bufio.NewReader(got.Body)
}

// next reads until a line with the prefix.
func next(t *testing.T, in *bufio.Reader, prefix string) string {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended with %v, want a line %q", err, prefix)
		}
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, stop := bubble(t)
		c := dial()
		in := follow(t, c, "?topics=runs,windows", "")
		next(t, in, ": stillframe")
		begun := time.Now()
		for range 3 {
			next(t, in, ": alive")
		}
		if d := time.Since(begun); d != 3*heartbeat {
			t.Errorf("three heartbeats took %v, want %v: neither the limit of a request nor that of an answer may end a stream", d, 3*heartbeat)
		}
		s.b.Feed.Publish(Event{Topic: "jobs", Kind: "job.paused"})
		s.b.Feed.Publish(Event{Topic: "runs", Kind: "run.started", Run: runOne, Data: map[string]any{"text": "two\nlines"}})
		first := next(t, in, "id: ")
		if next(t, in, "event: ") != "event: runs" || !strings.Contains(next(t, in, "data: "), `"run":"`+runOne+`"`) {
			t.Error("the event is not the one of the topic")
		}
		c.Close()
		// What came meanwhile is told to who names the last event.
		s.b.Feed.Publish(Event{Topic: "runs", Kind: "run.finished"})
		c = dial()
		in = follow(t, c, "", strings.TrimPrefix(first, "id: "))
		if line := next(t, in, "data: "); !strings.Contains(line, "run.finished") {
			t.Errorf("after Last-Event-ID comes %s", line)
		}
		c.Close()
		for _, last := range []string{"other-1", "nonsense", s.b.Feed.boot + "-9999"} {
			c = dial()
			if in = follow(t, c, "", last); next(t, in, "event: ") != "event: resync" {
				t.Errorf("Last-Event-ID %q is not answered with resync", last)
			}
			c.Close()
		}
		stop()
	})
}

func TestRing(t *testing.T) {
	f := NewFeed()
	for i := range ringSize + 10 {
		f.Publish(Event{Topic: "runs", Kind: fmt.Sprint(i + 1)})
	}
	for last, want := range map[int]struct {
		missed int
		resync bool
	}{9: {0, true}, 10: {1000, false}, 11: {999, false}, ringSize + 10: {0, false}, ringSize + 11: {0, true}} {
		c, missed, resync := f.follow(nil, fmt.Sprintf("%s-%d", f.boot, last))
		if len(missed) != want.missed || resync != want.resync || len(missed) > 0 && (missed[0].Kind != fmt.Sprint(last+1) || missed[len(missed)-1].Kind != fmt.Sprint(ringSize+10)) {
			t.Errorf("after %d: %d missed, resync %v; want %+v", last, len(missed), resync, want)
		}
		f.leave(c)
		f.leave(c)
	}
}

// TestSlowClient stops reading: publishing never waits, the stream ends with resync, or with the connection when nothing can
// be written for 5 s.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, stop := bubble(t)
		slow, silent := dial(), dial()
		in := follow(t, slow, "", "")
		follow(t, silent, "", "")
		synctest.Wait()
		begun := time.Now()
		for i := range 3 * clientSize {
			s.b.Feed.Publish(Event{Topic: "windows", Kind: "window.phase", Data: map[string]any{"n": i}})
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("publishing to a slow client took %v", d)
		}
		time.Sleep(eventLimit / 2)
		events := 0
		for {
			line := next(t, in, "event: ")
			if line == "event: resync" {
				break
			}
			events++
		}
		if events < clientSize || events > clientSize+2 {
			t.Errorf("%d events came before resync, want the %d that waited", events, clientSize)
		}
		rest, err := io.ReadAll(in)
		if err != nil || strings.Contains(string(rest), "event:") {
			t.Errorf("after resync comes %q %v", rest, err)
		}
		time.Sleep(eventLimit)
		synctest.Wait()
		// The server gave the other one up.
		if _, err := io.Copy(io.Discard, silent); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the silent client hears %v", err)
		}
		s.b.Feed.mu.Lock()
		if len(s.b.Feed.clients) != 0 {
			t.Errorf("%d clients are left", len(s.b.Feed.clients))
		}
		s.b.Feed.mu.Unlock()
		slow.Close()
		silent.Close()
		stop()
	})
}

// TestStreamsEnd wants a shutdown to take no time although streams are open, and no stream after it.
func TestStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, stop := bubble(t)
		c := dial()
		in := follow(t, c, "", "")
		ended := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(in)
			ended <- err
		}()
		begun := time.Now()
		stop()
		if err := <-ended; err != nil || time.Since(begun) > time.Second {
			t.Errorf("the stream ended with %v after %v", err, time.Since(begun))
		}
		c.Close()
		if c, _, _ := s.b.Feed.follow(nil, ""); c != nil {
			t.Error("a closed feed is followed")
		}
		s.b.Feed.Publish(Event{Topic: "runs"})
		s.b.Feed.Close()
	})
}

func TestStreamCap(t *testing.T) {
	w := serve(t)
	for range maxClients {
		if c, _, _ := w.b.Feed.follow(nil, ""); c == nil {
			t.Fatal("a stream below the cap is refused")
		}
	}
	got := w.here(t, "GET", Prefix+"/events", "")
	if p := got.problem(t); got.status != http.StatusServiceUnavailable || p.SF != "SF1721" || got.header.Get("Retry-After") == "" {
		t.Errorf("one stream more answers %d %s %v", got.status, got.text, got.header)
	}
}

// TestSlowLoris sends a header, and a body, byte by byte.
func TestSlowLoris(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial, stop := bubble(t)
		for request, limit := range map[string]time.Duration{
			"GET / HTTP/1.1\r\nHost: x\r\n": headerLimit,
			"POST " + Prefix + "/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{":                                      headerLimit,
			"POST " + Prefix + "/config:reload HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 100\r\n\r\n{": requestLimit,
		} {
			c := dial()
			begun := time.Now()
			var writer sync.WaitGroup
			writer.Go(func() {
				if _, err := io.WriteString(c, request); err != nil {
					return
				}
				for {
					time.Sleep(time.Second)
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
				}
			})
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("%q: %v", request, err)
			}
			if d := time.Since(begun); d > limit+2*time.Second {
				t.Errorf("%q was listened to for %v, want %v at most", request, d, limit)
			}
			c.Close()
			writer.Wait()
		}
		stop()
	})
}
