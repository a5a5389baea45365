package guest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

func TestRotate(t *testing.T) {
	next, theirs := protocol.Fingerprint{1}, protocol.Fingerprint{2}
	no := func(code, text string) func(*wire, protocol.Message) {
		return func(w *wire, m protocol.Message) {
			w.say(protocol.WordError, m.Head().Q, &protocol.Error{Code: code, Text: text})
		}
	}
	says := func(fingerprint, next string) func(*wire, protocol.Message) {
		return func(w *wire, m protocol.Message) {
			w.say(protocol.WordPin, m.Head().Q, &protocol.PinAnswer{Fingerprint: fingerprint, Next: next})
		}
	}
	pin := newScripted(t).pin
	cases := map[string]struct {
		answer func(a *scripted) func(*wire, protocol.Message)
		want   guest.Pins
		code   string
		took   time.Duration
	}{
		"well":                {answer: func(a *scripted) func(*wire, protocol.Message) { return says(a.pin.String(), theirs.String()) }, want: guest.Pins{Next: theirs}},
		"no next one":         {answer: func(a *scripted) func(*wire, protocol.Message) { return says(a.pin.String(), "") }},
		"another certificate": {answer: func(*scripted) func(*wire, protocol.Message) { return says(pin.String(), "") }, code: "SF3901"},
		"no certificate":      {answer: func(*scripted) func(*wire, protocol.Message) { return says("", theirs.String()) }, code: "SF3901"},
		"rubbish":             {answer: func(a *scripted) func(*wire, protocol.Message) { return says(a.pin.String(), "next") }, code: "SF3901"},
		"too old":             {answer: func(*scripted) func(*wire, protocol.Message) { return no("SF3704", `word "PIN" is not known here`) }, code: "SF3721"},
		"not persistent":      {answer: func(*scripted) func(*wire, protocol.Message) { return no("SF3722", "it leaves") }, code: "SF3722"},
		"a full disk":         {answer: func(*scripted) func(*wire, protocol.Message) { return no("SF3723", "disk full") }, code: "SF3723"},
		"silence":             {answer: func(*scripted) func(*wire, protocol.Message) { return func(*wire, protocol.Message) {} }, code: "SF3701", took: 25 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				var asked protocol.Pin
				answer := c.answer(a)
				a.answers[protocol.WordPin] = func(w *wire, m protocol.Message) {
					asked = *m.(*protocol.Pin)
					answer(w, m)
				}
				s := connect(t, a)
				defer s.Close()
				begin := time.Now()
				pins, err := s.Rotate(t.Context(), next)
				if guest.CodeOf(err) != c.code || (err == nil) != (c.code == "") || time.Since(begin) != c.took {
					t.Fatalf("Rotate = %v after %v, want code %q after %v", err, time.Since(begin), c.code, c.took)
				}
				if c.want.Agent = a.pin; err == nil && pins != c.want {
					t.Errorf("Rotate = %v, want %v", pins, c.want)
				}
				if asked.Next != next.String() || asked.Confirmed != "" {
					t.Errorf("asked %+v, want the next certificate only", asked)
				}
				if c.code == "SF3721" && !strings.Contains(err.Error(), "too old") {
					t.Errorf("Rotate = %v, want that the agent is too old", err)
				}
				if _, err := s.RTT(t.Context()); err != nil {
					t.Errorf("after Rotate the session has ended: %v", err)
				}
			})
		})
	}
}

// TestConfirmWhoseAnswerIsLost has the agent serve its next certificate while the orchestrator does not know it for certain.
func TestConfirmWhoseAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newScripted(t)
		renewed, pin, err := protocol.NewIdentity(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a.answers[protocol.WordPin] = func(w *wire, m protocol.Message) {
			if m.(*protocol.Pin).Confirmed == pin.String() {
				a.mu.Lock()
				a.own = renewed
				a.mu.Unlock()
				w.NetConn().Close() // the answer is lost
				return
			}
			w.say(protocol.WordPin, m.Head().Q, &protocol.PinAnswer{Fingerprint: a.pin.String(), Next: pin.String()})
		}
		s := connect(t, a)
		defer s.Close()
		pins, err := s.Rotate(t.Context(), protocol.Fingerprint{})
		if want := (guest.Pins{Agent: a.pin, Next: pin}); err != nil || pins != want {
			t.Fatalf("Rotate = %v, %v, want %v", pins, err, want)
		}
		if _, err := s.Confirm(t.Context(), pin); guest.CodeOf(err) != "SF3701" {
			t.Fatalf("Confirm = %v, want SF3701: the answer was lost", err)
		}
		if err := s.Resume(t.Context()); err != nil || s.Proved != pin {
			t.Errorf("Resume = %v, proved by %v, want the agent's new certificate", err, s.Proved)
		}
		later := a.target()
		later.Next = pin
		again, err := guest.Connect(t.Context(), later)
		if err != nil || again.Proved != pin {
			t.Fatalf("a later session = %v, want one proved by the new certificate", err)
		}
		again.Close()
		if _, err := guest.Connect(t.Context(), a.target()); err == nil || !strings.Contains(err.Error(), "prove the agent's identity") {
			t.Errorf("with the old pin alone = %v, want that the agent does not prove itself", err)
		}
	})
}

// TestAnyProgram lets in a persistent agent of another version, but not one of another VM or language.
func TestAnyProgram(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*protocol.HelloAnswer)
		code   string
	}{
		"another program": {change: func(m *protocol.HelloAnswer) { m.ExeSHA256 = strings.Repeat("0", 64) }},
		"another VM":      {change: func(m *protocol.HelloAnswer) { m.VMUUID = "" }, code: "SF3704"},
		"another version": {change: func(m *protocol.HelloAnswer) { m.V = protocol.MaxVersion + 1 }, code: "SF3704"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newScripted(t)
				a.answers[protocol.WordHello] = func(w *wire, m protocol.Message) {
					answer := goodHello(m.(*protocol.Hello))
					c.change(answer)
					w.say(protocol.WordHello, m.Head().Q, answer)
				}
				peer := a.target()
				peer.AnyProgram = true
				s, err := guest.Connect(t.Context(), peer)
				if guest.CodeOf(err) != c.code || (err == nil) != (c.code == "") {
					t.Errorf("Connect = %v, want code %q", err, c.code)
				}
				if err == nil {
					s.Close()
				}
			})
		})
	}
}
