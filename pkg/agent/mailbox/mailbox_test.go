package mailbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// texts are a pair of texts in memory.
type texts struct {
	mu     sync.Mutex
	text   [2]string
	puts   [2]int
	err    [2]error // of Put
	change chan struct{}
}

func newTexts() *texts { return &texts{change: make(chan struct{})} }

func (t *texts) set(side int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text[side] = text
	close(t.change)
	t.change = make(chan struct{})
}

func (t *texts) get(side int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text[side]
}

func (t *texts) count(side int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.puts[side]
}

func (t *texts) fail(side int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err[side] = err
}

// box is one side of the texts. Put takes its time; the other side's text is looked at every so often, or pushed for 0.
type box struct {
	*texts
	side       int
	slow, poll time.Duration
}

func (b box) Put(ctx context.Context, text string) error {
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.mu.Lock()
	err := b.err[b.side]
	b.puts[b.side]++
	b.mu.Unlock()
	if err == nil {
		b.set(b.side, text)
	}
	return err
}

func (b box) Next(ctx context.Context, last string) (string, error) {
	for {
		b.mu.Lock()
		text, change := b.text[1-b.side], b.change
		b.mu.Unlock()
		if text != last {
			return text, nil
		}
		if b.poll > 0 {
			timer := make(chan struct{})
			stop := time.AfterFunc(b.poll, func() { close(timer) })
			defer stop.Stop()
			change = timer
		}
		select {
		case <-change:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// ends are a line between an orchestrator, whose texts take 701 ms, and a guest that looks every 53 ms.
type ends struct {
	*texts
	ours, theirs *Line
}

func span(t *testing.T) *ends {
	t.Helper()
	e := &ends{texts: newTexts()}
	e.ours = Open(t.Context(), box{texts: e.texts, slow: 701 * time.Millisecond}, "d", Options{AckAfter: 251 * time.Millisecond, RepeatAfter: 10 * time.Second})
	e.theirs = Open(t.Context(), box{texts: e.texts, side: 1, slow: time.Millisecond, poll: 53 * time.Millisecond}, "d", Options{Called: true, AckAfter: 23 * time.Millisecond, RepeatAfter: 5 * time.Second, Linger: 2 * time.Second})
	return e
}

// dial opens a stream and says something on it, which is what the other side sees first.
func (e *ends) dial(t *testing.T, first string) (ours, theirs net.Conn) {
	t.Helper()
	ours, err := e.ours.Dial()
	if err != nil {
		t.Fatal(err)
	}
	write(t, ours, first)
	theirs, err = e.theirs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, theirs, first)
	return ours, theirs
}

func (e *ends) end(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
	for _, l := range []*Line{e.ours, e.theirs} {
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		l.Wait(t.Context())
	}
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := io.WriteString(c, text); n != len(text) || err != nil {
		t.Fatalf("Write = %d, %v, want %d", n, err, len(text))
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %.80q, %v, want %.80q", got, err, want)
	}
}

func TestExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		begin := time.Now()
		for range 5 {
			write(t, theirs, "answer")
			expect(t, ours, "answer")
			write(t, ours, "ask")
			expect(t, theirs, "ask")
		}
		if took := time.Since(begin) / 5; took > 800*time.Millisecond {
			t.Errorf("an exchange took %v, want less than 0.8s: one text and one look", took)
		}
		if n := e.count(0); n != 6 {
			t.Errorf("6 words took %d texts, want one each", n)
		}
		if err := ours.Close(); err != nil {
			t.Error(err)
		}
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read of a stream that the other side closed = %v, want io.EOF", err)
		}
		e.end(t, ours, theirs)
		if down := e.get(0); down != "" {
			t.Errorf("the orchestrator left the text %q", down)
		}
	})
}

// The side that is called closes first: its last words are read, then its text is empty.
func TestCloseByTheCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		write(t, theirs, "goodbye")
		if err := theirs.Close(); err != nil {
			t.Error(err)
		}
		expect(t, ours, "goodbye")
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read = %v, want io.EOF", err)
		}
		if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write = %v, want io.ErrClosedPipe", err)
		}
		e.end(t, ours, theirs)
		if up := e.get(1); up != "" {
			t.Errorf("the guest left the text %q", up)
		}
	})
}

// Any number of bytes crosses whole and in order, both ways at once.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		random := rand.NewChaCha8([32]byte{7})
		data := make([]byte, 3<<20)
		random.Read(data) //nolint:errcheck // never fails
		var group sync.WaitGroup
		for _, c := range []struct{ from, to net.Conn }{{ours, theirs}, {theirs, ours}} {
			group.Go(func() {
				if n, err := io.Copy(c.from, bytes.NewReader(data)); n != int64(len(data)) || err != nil {
					t.Errorf("wrote %d bytes, %v", n, err)
				}
			})
			group.Go(func() {
				sum := sha256.New()
				n, err := io.CopyN(sum, c.to, int64(len(data)))
				if want := sha256.Sum256(data); err != nil || !bytes.Equal(sum.Sum(nil), want[:]) {
					t.Errorf("read %d bytes, %v, and not what was written", n, err)
				}
			})
		}
		group.Wait()
		if n := e.count(0); n > 200 {
			t.Errorf("3 MiB took %d texts, want at most 97 and as many acknowledgements", n)
		}
		e.end(t, ours, theirs)
	})
}

// Whoever overwrites a text delays the stream, and changes nothing of what it says.
func TestStrangersTexts(t *testing.T) {
	cases := map[string]func(e *ends, stream string) (down, up string){
		"garbage":        func(*ends, string) (string, string) { return "rm -rf /", "\x00\xff" },
		"another stream": func(*ends, string) (string, string) { return "e-0.1.0.aGVsbG8=", "e-0.1.0.aGVsbG8=" },
		"a stream of that name that was not opened": func(*ends, string) (string, string) { return "d-0.7.0.aGVsbG8=", "d-0.1.0.aGVsbG8=" },
		"of the future":       func(_ *ends, s string) (string, string) { return s + ".9.0.aGVsbG8=", s + ".9.0.aGVsbG8=" },
		"more than was asked": func(_ *ends, s string) (string, string) { return s + ".1.9.", s + ".1.9." },
		"a replay":            func(_ *ends, s string) (string, string) { return s + ".1.0.aGVsbG8=", s + ".1.1.YW5zd2Vy" },
		"nothing new":         func(_ *ends, s string) (string, string) { return s + ".3.2.", s + ".3.2." },
	}
	cases["huge"] = func(*ends, string) (string, string) {
		return strings.Repeat("9", 1<<20), "d-0.1.0." + strings.Repeat("AAAA", 1<<18)
	}
	for name, texts := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := span(t)
				ours, theirs := e.dial(t, "hello")
				write(t, theirs, "answer")
				expect(t, ours, "answer")
				write(t, ours, "again")
				expect(t, theirs, "again")
				write(t, theirs, "once more")
				expect(t, ours, "once more")
				time.Sleep(time.Minute)
				down, up := texts(e, ours.(*Conn).stream)
				e.set(0, down)
				e.set(1, up)
				time.Sleep(time.Second)
				begin := time.Now()
				write(t, ours, "a word")
				write(t, theirs, "another word")
				expect(t, theirs, "a word")
				expect(t, ours, "another word")
				if took := time.Since(begin); took > 12*time.Second {
					t.Errorf("the words took %v, want at most what it takes to repeat them", took)
				}
				e.end(t, ours, theirs)
			})
		})
	}
}

// The orchestrator takes the session up on a new stream; the former one gives way, and its end empties nothing.
func TestNewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		first, theirFirst := e.dial(t, "hello")
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second, theirSecond := e.dial(t, "it is me")
		if err := theirFirst.Close(); err != nil {
			t.Error(err)
		}
		write(t, theirSecond, "I see")
		expect(t, second, "I see")
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read of the former stream = %v, want net.ErrClosed", err)
		}
		third, theirThird := e.dial(t, "and again")
		if _, err := second.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write on the former stream = %v, want net.ErrClosed", err)
		}
		e.end(t, second, theirSecond, third, theirThird)
	})
}

// Streams that nobody proves take up room for as long as they are open only.
func TestManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		var all []net.Conn
		for range maxStreams {
			ours, theirs := e.dial(t, "hello")
			all = append(all, ours, theirs)
		}
		fifth, err := e.ours.Dial()
		if err != nil {
			t.Fatal(err)
		}
		write(t, fifth, "hello")
		time.Sleep(5 * time.Second)
		if n := e.theirs.Dropped(); n != 1 {
			t.Errorf("%d texts were dropped, want that of the fifth stream", n)
		}
		if err := all[1].Close(); err != nil {
			t.Error(err)
		}
		sixth, theirSixth := e.dial(t, "hello")
		e.end(t, append(all, fifth, sixth, theirSixth)...)
	})
}

// While the line is held nothing is put, whatever is written or closed; then all of it is, at once and in order.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		e.ours.Hold(true)
		write(t, theirs, "frozen")
		expect(t, ours, "frozen")
		before := e.count(0)
		write(t, ours, "thaw")
		time.Sleep(time.Minute)
		if n := e.count(0) - before; n != 0 {
			t.Errorf("%d texts were put while the line was held", n)
		}
		begin := time.Now()
		e.ours.Hold(false)
		expect(t, theirs, "thaw")
		if took := time.Since(begin); took > 760*time.Millisecond {
			t.Errorf("the word came %v later, want one text and one look", took)
		}
		e.end(t, ours, theirs)
	})
}

func TestBoxFails(t *testing.T) {
	why := errors.New("no permission")
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		write(t, theirs, "answer")
		expect(t, ours, "answer")
		e.fail(0, why)
		write(t, ours, "ask")
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, why) {
			t.Errorf("Read = %v, want %v", err, why)
		}
		if _, err := ours.Write([]byte("x")); !errors.Is(err, why) {
			t.Errorf("Write = %v, want %v", err, why)
		}
		e.fail(0, nil)
		time.Sleep(2 * time.Second)
		again, theirAgain := e.dial(t, "it is me")
		e.end(t, ours, theirs, again, theirAgain)
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		begin := time.Now()
		if err := ours.SetReadDeadline(begin.Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("Read = %v after %v, want the deadline after 3s", err, time.Since(begin))
		}
		if err := ours.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		write(t, theirs, "answer")
		expect(t, ours, "answer")
		e.ours.Hold(true)
		write(t, ours, strings.Repeat("x", 1<<20))
		begin = time.Now()
		if err := ours.SetWriteDeadline(begin.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("Write = %v after %v, want the deadline after 1s", err, time.Since(begin))
		}
		if err := ours.SetDeadline(begin); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v, want the deadline", err)
		}
		e.ours.Hold(false)
		if err := theirs.SetDeadline(begin.Add(time.Hour)); err != nil { // its alarm must not outlive it
			t.Fatal(err)
		}
		e.end(t, ours, theirs)
	})
}

// Nobody is there who reads: closing is bounded.
func TestCloseAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := span(t)
		ours, theirs := e.dial(t, "hello")
		e.ours.stop() // the orchestrator is gone
		e.ours.work.Wait()
		write(t, theirs, "is anybody there?")
		begin := time.Now()
		if err := theirs.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("Close took %v, want 2s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		write(t, ours, "x")
		if err := errors.Join(ours.Close(), e.ours.Close(), e.theirs.Close()); err != nil {
			t.Error(err)
		}
		e.ours.Wait(ctx)
		e.theirs.Wait(ctx)
		if _, err := e.ours.Dial(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Dial on a line that is closed = %v, want net.ErrClosed", err)
		}
		if _, err := e.theirs.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept on a line that is closed = %v, want net.ErrClosed", err)
		}
	})
}

func TestParse(t *testing.T) {
	for text, want := range map[string]bool{
		"d-1.1.0.aGVsbG8=":                true,
		"d-1.0.1.":                        true,
		" d-1.1.0.aGVsbG8=\n ":            true, // padded for the hypervisor
		"d-1.18446744073709551615.0.":     true,
		"":                                false,
		"d-1.1.0":                         false,
		"d-1.1.0.aGVsbG8=.":               false,
		"d-1.1.0.aGVsbG8":                 false,
		"d-1.1.0.aGVsbG9=":                false, // not the one way to write it
		"d-1.01.0.aGVsbG8=":               false,
		"d-1.+1.0.aGVsbG8=":               false,
		"d-1.-1.0.aGVsbG8=":               false,
		"d-1.18446744073709551616.0.":     false,
		"d-1.0.0.aGVsbG8=":                false, // data without a number
		"d_1.1.0.aGVsbG8=":                false,
		".1.0.aGVsbG8=":                   false,
		strings.Repeat("d", 97) + ".1.0.": false,
		"d-1.1.0." + strings.Repeat("AAAA", MaxData/3):     true,
		"d-1.1.0." + strings.Repeat("AAAA", MaxData/3+1):   false,
		"d-1.1.0." + strings.Repeat("A", 1<<20):            false,
		"d-1.1.0." + strings.Repeat(" ", maxText) + "AAAA": false,
		"d-1.1.0.\xff\xfe":   false,
		"d-1.1.0.aGVs\nbG8=": false,
	} {
		s, err := parse(text)
		if (err == nil) != want {
			t.Errorf("parse(%.60q) = %v, want good %t", text, err, want)
		}
		if err == nil && s.text() != strings.TrimSpace(text) {
			t.Errorf("parse(%.60q) is written %.60q", text, s.text())
		}
	}
}

// What cannot be is no part of a stream, whatever it says.
func TestTake(t *testing.T) {
	for text, want := range map[string]bool{
		"d-1.2.3.":     true,  // as before
		"d-1.2.2.eA==": true,  // the same data again, and an older acknowledgement
		"d-1.3.3.eA==": true,  // the next
		"d-1.3.3.":     false, // the next without data
		"d-1.4.3.eA==": false, // one too many
		"d-1.1.3.eA==": false, // old
		"d-1.2.4.":     false, // of what was never sent
		"d-1.3.9.eA==": false,
		"d-1.0.0.":     false,
	} {
		l := &Line{name: "d", streams: map[string]*Conn{}, kick: make(chan struct{}, 1), stop: func() {}}
		c := l.add("d-1")
		l.current, c.heard, c.seq, c.acked = c, 2, 3, 2
		l.take(text)
		if (l.dropped == 0) != want {
			t.Errorf("%s is taken %t, want %t", text, !want, want)
		}
		if next := uint64(2); c.heard != next && !(want && c.heard == next+1 && string(c.in) == "x") || c.acked > c.seq {
			t.Errorf("%s: %d heard, %d of %d acknowledged, %q read", text, c.heard, c.acked, c.seq, c.in)
		}
	}
}

// FuzzTake gives a line any texts. None may bring it down, make it keep more than its bounds, or change what an honest
// stream beside them carries.
func FuzzTake(f *testing.F) {
	for _, seed := range []string{
		"", "d-1.1.0.aGVsbG8=", "d-1.1.0.aGVsbG8=\nd-1.2.0.aGVsbG8=\n\nd-1.3.0.eA==", "d-2.1.0.eA==\nd-3.1.0.eA==\nd-4.1.0.eA==\nd-5.1.0.eA==\nd-6.1.0.eA==",
		"d-1.1.0.eA==\nd-1.1.9.\nd-1.0.0.\nd-1.18446744073709551615.0.eA==", "d-0.2.0.eA==\nd-0.1.0.eA==\nd-0.1.1.", "x\n\xff\x00\n....", "d-1.1.0.eA==\n\n\nd-1.2.0.eA==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, all string) {
		for _, called := range []bool{true, false} {
			l := &Line{name: "d", o: Options{Called: called}, came: make(chan *Conn, maxStreams), kick: make(chan struct{}, 1), streams: map[string]*Conn{}, stop: func() {}}
			honest := l.add("honest-1")
			l.current = honest
			honest.out = []byte("ours")
			if _, put, _ := honest.due(time.Now().Add(time.Hour)); !put {
				t.Fatal("nothing is due")
			}
			for text := range strings.Lines(all) {
				text = strings.TrimSuffix(text, "\n")
				if strings.HasPrefix(text, "honest-1.") || text == "" && l.current == honest {
					continue // who can write that is the other side, for all that the line can know
				}
				l.take(text)
				l.due(time.Now())
				if len(l.streams) > maxStreams || len(l.came) > maxStreams {
					t.Fatalf("%d streams, %d to be accepted", len(l.streams), len(l.came))
				}
			}
			l.take(segment{"honest-1", 1, 1, []byte("theirs")}.text())
			if string(honest.in) != "theirs" || honest.acked != 1 || honest.heard != 1 {
				t.Errorf("the honest stream has %q, %d acknowledged, %d heard", honest.in, honest.acked, honest.heard)
			}
		}
	})
}
