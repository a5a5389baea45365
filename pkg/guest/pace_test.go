package guest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// Where each word is dear there are few: heartbeats every 20 s and none in the window, THAW once on a connection.
func TestSlowSessionSaysLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		a.answers[protocol.WordThaw] = func(*wire, protocol.Message) {} // it takes its time
		peer := a.target()
		peer.Slow = true
		s, err := guest.Connect(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(41 * time.Second)
		thaw := freezewindow.Word{Go: 7, Thaw: freezewindow.Deadline}
		for _, w := range []freezewindow.Word{{Go: 7, Hold: time.Second}, {}, {}, thaw, {}, thaw, thaw} {
			if err := s.Send(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		a.cut(t)
		if n := losses(events(s)); n != 1 {
			t.Fatalf("the loss was told %d times, want once", n)
		}
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Send(t.Context(), thaw); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		synctest.Wait()
		want := []protocol.Word{"HELLO", "HEARTBEAT", "HEARTBEAT", "GO", "THAW", "HELLO", "THAW"}
		if diff := cmp.Diff(want, a.heard); diff != "" {
			t.Errorf("words (-want +got):\n%s", diff)
		}
	})
}

// A connection that stands is not given up for an answer that is on its way.
func TestSlowSessionWaitsBeforeItResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		a.answers[protocol.WordThaw] = func(w *wire, m protocol.Message) {
			time.Sleep(9 * time.Second)
			w.say(protocol.WordThawed, m.Head().Q, &protocol.Thawed{Go: 7, Final: true})
		}
		peer := a.target()
		peer.Slow = true
		s, err := guest.Connect(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []freezewindow.Word{{Go: 7, Hold: time.Second}, {Go: 7, Thaw: freezewindow.Deadline}} {
			if err := s.Send(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := s.Resume(t.Context()); err != nil || time.Since(begin) > 10*time.Second {
			t.Errorf("Resume = %v after %v, want nil when the answer came", err, time.Since(begin))
		}
		if got := events(s); len(got) != 1 {
			t.Errorf("events are %v, want THAWED and no loss", got)
		}
		begin = time.Now()
		if err := s.Resume(t.Context()); err != nil || time.Since(begin) < 25*time.Second {
			t.Errorf("Resume = %v after %v, want another connection when nothing came for 25s", err, time.Since(begin))
		}
		s.Close()
	})
}
