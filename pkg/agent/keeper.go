package agent

import (
	"errors"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Keeper keeps what a persistent agent and its orchestrator know each other by. Its calls come one at a time and never
// while anything is held, and block for as long as a small file takes to be written.
type Keeper interface {
	// Renew keeps the certificates of r durably and gives the agent's own ones.
	Renew(r Renewal) (Own, error)
	// Proved says that a session has begun whose peer has shown the certificate by; one that was announced takes the place
	// of the older one.
	Proved(by protocol.Fingerprint) error
}

// Renewal is what PIN asks to be kept; zero for what it does not name.
type Renewal struct {
	// Next is the orchestrator's next certificate, Confirmed the agent's own next one.
	Next, Confirmed protocol.Fingerprint
}

// Own are the agent's own certificates: the one that it serves, and the one that it will serve when it is confirmed, zero for
// none.
type Own struct{ Present, Next protocol.Fingerprint }

// pin is accepted where nothing is held, and nothing is about to be: it writes a file.
func pin(s State, m *protocol.Pin) (State, []Command) {
	next, nextErr := protocol.ParseFingerprint(m.Next)
	confirmed, confirmedErr := protocol.ParseFingerprint(m.Confirmed)
	err := errors.Join(nextErr, confirmedErr)
	switch {
	case !s.Self.Persistent:
		return s, []Command{s.refusal(m.Head(), "SF3722", false, "this agent leaves with its session, and keeps no certificates")}
	case s.Name != Idle && s.Name != Open || s.Stopping || s.Renewing:
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4008", false, "PIN in state %s, or while another is kept", s.Name)}
	case err != nil:
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF3723", false, "%v", err)}
	}
	s.Renewing = true
	return s, []Command{KeepPin{m.Q, Renewal{next, confirmed}}}
}

// pinKept answers PIN.
func pinKept(s State, e PinKept) (State, []Command) {
	s.Renewing = false
	if e.Err != nil {
		no := s.refusal(&protocol.Envelope{T: protocol.WordPin, Q: e.Re}, code(e.Err, "SF3723"), false, "keep the certificates: %v", e.Err)
		return s, []Command{no}
	}
	a := &protocol.PinAnswer{Fingerprint: e.Own.Present.String(), Next: e.Own.Next.String()}
	a.T, a.Re = protocol.WordPin, e.Re
	return s, []Command{Send{a}}
}
