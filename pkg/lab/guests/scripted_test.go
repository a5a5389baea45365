package guests_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

func scripted(t *testing.T) *guests.Scripted {
	t.Helper()
	g, err := guests.StartScripted(t.Context(), guests.ScriptedOptions{Name: "vm", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := g.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := g.Err(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// freezer is an agent's end of the line protocol.
type freezer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialFreezer(t *testing.T, g *guests.Scripted) freezer {
	t.Helper()
	path := strings.TrimPrefix(g.Env()[0], "STILLFRAME_LAB_FREEZER=unix:")
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return freezer{t, conn, bufio.NewReader(conn)}
}

func (f freezer) say(word, want string) {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.conn, word); err != nil {
		f.t.Fatal(err)
	}
	got, err := f.in.ReadString('\n')
	if err != nil || got != want+"\n" {
		f.t.Fatalf("answer to %s = %q, %v, want %q", word, got, err, want)
	}
}

func TestScriptedHold(t *testing.T) {
	g := scripted(t)
	until(t, "20 records", func() bool { return g.Acknowledged() >= 20 })
	f := dialFreezer(t, g)
	f.say("thaw", "notheld")
	f.say("freeze", "frozen")
	f.say("freeze", "busy")
	held := g.Acknowledged()
	tally, err := g.Count(t.Context(), g.Disk())
	if err != nil || tally.Contiguous != held || tally.Torn != 0 {
		t.Errorf("records while held = %+v, %v, want exactly the %d acknowledged", tally, err, held)
	}
	if h := g.Holds(); len(h) != 1 || !h[0].To.IsZero() {
		t.Errorf("holds = %+v, want one that lasts", h)
	}
	until(t, "a stall of 100 ms", func() bool { return g.LongestStall() > 100*time.Millisecond })
	if got := g.Acknowledged(); got != held {
		t.Errorf("the writer went on while held: %d records, had %d", got, held)
	}
	f.say("thaw", "thawed")
	f.say("thaw", "notheld")
	until(t, "the writer goes on", func() bool { return g.Acknowledged() > held })
	if h := g.Holds()[0]; h.Length(time.Now()) < 100*time.Millisecond || h.To.IsZero() {
		t.Errorf("hold = %+v, want an ended one of 100 ms or more", h)
	}
}

// TestScriptedOnEnd: the hook hears of the end of a hold before the freezer does, once for each.
func TestScriptedOnEnd(t *testing.T) {
	g := scripted(t)
	until(t, "a record", func() bool { return g.Acknowledged() > 0 })
	ended := make(chan struct{}, 8)
	g.OnEnd(func() { ended <- struct{}{} })
	f := dialFreezer(t, g)
	f.say("thaw", "notheld")
	for n := range 2 {
		f.say("freeze", "frozen")
		f.say("thaw", "thawed")
		if len(ended) != n+1 {
			t.Errorf("after %d holds the hook was told %d times", n+1, len(ended))
		}
	}
}

func TestScriptedHoldEndsWithItsSocket(t *testing.T) {
	g := scripted(t)
	f := dialFreezer(t, g)
	f.say("freeze", "frozen")
	held := g.Acknowledged()
	if err := f.conn.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the writer goes on", func() bool { return g.Acknowledged() > held })
}

func TestScriptedCloseWhileHeld(t *testing.T) {
	g := scripted(t)
	f := dialFreezer(t, g)
	f.say("freeze", "frozen")
}
