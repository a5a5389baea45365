package guest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// TestStayOpen keeps a session over a long move, and says when it cannot.
func TestStayOpen(t *testing.T) {
	state := func(s string) func(*wire, protocol.Message) {
		return func(w *wire, m protocol.Message) {
			w.say(protocol.WordHeartbeat, m.Head().Q, &protocol.Heartbeat{State: s})
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *scripted) // of the agent after the window
		code   string
		took   time.Duration // until it ended, the whole hour without an error
	}{
		"nothing happens": {change: func(_ *testing.T, a *scripted) { a.answer(protocol.WordHeartbeat, state("OPEN")) }},
		"the link is cut": {change: func(t *testing.T, a *scripted) { t.Helper(); a.cut(t) }},
		"nobody listens for a while": {
			change: func(t *testing.T, a *scripted) {
				t.Helper()
				a.listen(false)
				a.cut(t)
				time.AfterFunc(14*time.Minute, func() { a.listen(true) })
			},
		},
		"the link falls silent for a while": {
			change: func(_ *testing.T, a *scripted) {
				a.answer(protocol.WordHeartbeat, func(*wire, protocol.Message) {})
				time.AfterFunc(14*time.Minute, func() { a.answer(protocol.WordHeartbeat, (*wire).well) })
			},
		},
		"nobody listens any more": {
			change: func(t *testing.T, a *scripted) { t.Helper(); a.listen(false); a.cut(t) }, code: "SF4020", took: 16 * time.Minute,
		},
		"the guest reboots": {
			change: func(t *testing.T, a *scripted) {
				t.Helper()
				a.answer(protocol.WordHello, func(w *wire, m protocol.Message) {
					h := goodHello(m.(*protocol.Hello))
					h.BootID = "boot-2"
					w.say(protocol.WordHello, m.Head().Q, h)
				})
				a.cut(t)
			}, code: "SF4020", took: 5 * time.Second,
		},
		"the agent does not know the session": {
			change: func(t *testing.T, a *scripted) {
				t.Helper()
				a.answer(protocol.WordHello, func(w *wire, m protocol.Message) {
					w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: "SF4022"})
				})
				a.cut(t)
			}, code: "SF4020", took: 5 * time.Second,
		},
		"the agent ended the session": {
			change: func(_ *testing.T, a *scripted) { a.answer(protocol.WordHeartbeat, state("COMPLETING")) }, code: "SF4020", took: 5 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				s := connect(t, a)
				defer s.Close()
				if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: time.Second}); err != nil {
					t.Fatal(err)
				}
				c.change(t, a)
				const move = time.Hour
				ctx, cancel := context.WithTimeout(t.Context(), move)
				defer cancel()
				begin := time.Now()
				err := s.StayOpen(ctx)
				took := time.Since(begin).Truncate(5 * time.Second)
				if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
					t.Errorf("StayOpen = %v with code %q, want %q", err, got, c.code)
				}
				want := move
				if c.code != "" {
					want = c.took
				}
				if took != want {
					t.Errorf("it ended after %v, want %v", took, want)
				}
				if err == nil {
					if err := s.Complete(t.Context(), guest.Completion{}); err != nil {
						t.Errorf("Complete afterwards = %v, want nil", err)
					}
				}
			})
		})
	}
}

// TestCompleteWords are what the agent hears.
func TestCompleteWords(t *testing.T) {
	for name, c := range map[string]struct {
		c        guest.Completion
		ok       string
		truncate bool
	}{
		"stored":         {guest.Completion{Stored: true}, "all", false},
		"stored in full": {guest.Completion{Stored: true, Truncate: true}, "all", true},
		"not stored":     {guest.Completion{Truncate: true}, "none", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				var got []protocol.Complete
				a.answers[protocol.WordComplete] = func(w *wire, m protocol.Message) {
					heard := *m.(*protocol.Complete)
					heard.Envelope = protocol.Envelope{}
					if got = append(got, heard); len(got) == 1 {
						w.NetConn().Close() // the first answer is lost
						return
					}
					w.well(m)
				}
				s := connect(t, a)
				defer s.Close()
				if err := s.Complete(t.Context(), c.c); err != nil {
					t.Errorf("Complete = %v, want nil", err)
				}
				one := protocol.Complete{OK: c.ok, Components: []string{}, Truncate: c.truncate}
				if diff := cmp.Diff([]protocol.Complete{one, one}, got); diff != "" {
					t.Errorf("heard (-want +got):\n%s", diff)
				}
			})
		})
	}
}
