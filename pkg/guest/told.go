package guest

import (
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// route brings a word to who waits for it.
func (s *Session) route(m protocol.Message, received time.Time) {
	s.lock <- struct{}{}
	inWindow := s.inWindow
	<-s.lock
	var e freezewindow.Event
	switch m := m.(type) {
	case *protocol.Frozen:
		e = frozenEvent(m)
	case *protocol.Thawed:
		e = thawedEvent(m)
	case *protocol.Error:
		e = freezewindow.GuestError{Code: AgentCode(m.Code, codeProtocol), Text: m.Text, Fatal: m.Fatal}
	case *protocol.Heartbeat:
		e = freezewindow.GuestBeat{State: m.State, Hold: us(m.HoldUS), Left: us(m.LeftUS)}
	}
	if inWindow && e != nil {
		s.tellAt(e, received)
		return
	}
	select {
	case s.answers <- m:
	default: // nobody asked for so many words
	}
}

func us(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func frozenEvent(m *protocol.Frozen) freezewindow.Event {
	return freezewindow.GuestFrozen{
		Go: m.Go, Mode: freezewindow.Mode(m.Mode), Hold: us(m.HoldUS), SinceGo: us(m.SinceGoUS), IO: us(m.IOUS), Left: us(m.LeftUS),
	}
}

func thawedEvent(m *protocol.Thawed) freezewindow.Event {
	r := freezewindow.Release{
		WasHeld: m.WasHeld, ThawArrived: us(m.ThawArrivedUS), Held: us(m.HeldUS), IO: us(m.IOUS), Expired: m.Expired, ExpiredBy: m.ExpiredBy,
		Finished: m.Finished, MaxGap: us(m.MaxGapUS), SetResult: m.SetResult, Witness: witness(m.Witness),
	}
	for _, t := range m.ThawResults {
		if t.OK {
			r.Thawed = append(r.Thawed, t.Mount)
			continue
		}
		if r.Failed == nil {
			r.Failed = map[string]string{}
		}
		r.Failed[t.Mount] = t.Error
	}
	for _, h := range m.Hooks {
		r.Hooks = append(r.Hooks, freezewindow.Hook{
			Name: h.Name, Point: h.Point, OK: h.OK, Held: us(h.HeldUS), Required: h.Required, Holds: h.Holds, Error: h.Error,
		})
	}
	r.Writers = writers(m.Writers)
	for _, e := range m.Events {
		r.Events = append(r.Events, freezewindow.LogEvent{Provider: e.Provider, ID: e.ID, Channel: e.Channel, HR: e.HR, Age: us(e.AgeUS), Text: e.Text})
	}
	return freezewindow.GuestThawed{Go: m.Go, Final: m.Final, Release: r}
}

func writers(list []protocol.Writer) []freezewindow.Writer {
	var out []freezewindow.Writer
	for _, w := range list[:min(len(list), maxWriters)] {
		out = append(out, freezewindow.Writer{
			Name: w.Name, ClassID: w.ClassID, InstanceID: w.InstanceID, State: w.State, Failure: w.FailureHR,
			AppFailure: w.AppHR, AppMessage: w.AppMsg, Required: w.Required,
		})
	}
	return out
}

// maxWriters bounds what a guest can have us print; VSS itself has at most 64 sessions a writer, and servers a few dozen
// writers.
const maxWriters = 256

// witness reads what independent parts of the guest said; what cannot be read was not said.
func witness(said map[string]string) freezewindow.Witness {
	w := freezewindow.Witness{HoldRanOut: said[protocol.WitnessHoldRanOut] != "", FlushRanOut: said[protocol.WitnessFlushRanOut] != ""}
	for key, text := range said {
		held, err := strconv.ParseInt(text, 10, 64)
		if !strings.HasPrefix(key, protocol.WitnessSQLHeld) || err != nil || held <= 0 {
			continue
		}
		if w.SQLHeld == 0 || us(held) < w.SQLHeld {
			w.SQLHeld = us(held)
		}
	}
	return w
}

func (s *Session) tell(e freezewindow.Event) { s.tellAt(e, time.Now()) }

func (s *Session) tellAt(e freezewindow.Event, received time.Time) {
	select {
	case s.events <- freezewindow.GuestEvent{Received: received, Event: e}:
	case <-s.closed:
	}
}
