package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// rotateLimit bounds the answer to PIN: two small files that are written durably, behind whatever the agent does.
const rotateLimit = 25 * time.Second

const (
	// codeTooOld is the code of an agent that does not know a word.
	codeTooOld = "SF3721"
	// codeUnknownWord is what an agent answers to a word that it does not know.
	codeUnknownWord = "SF3704"
)

// Pins are what a persistent agent is known by.
type Pins struct {
	// Agent is the certificate that the agent serves, Next the one that it will serve once Confirm has named it; zero for none.
	Agent, Next protocol.Fingerprint
}

// Rotate has a persistent agent let in our certificate next beside the present one, durably before it answers; a session
// that is begun with it makes the agent forget the older one. The zero fingerprint changes nothing. The answer says what the
// agent is known by: keep it, durably, before Confirm is called for its Next. It is for a session that is not armed, and
// blocks for at most 25 s. SF3721 says that the agent is too old for it, SF3722 that it is not persistent; the session goes on.
func (s *Session) Rotate(ctx context.Context, next protocol.Fingerprint) (Pins, error) {
	return s.renew(ctx, &protocol.Pin{Next: next.String()})
}

// Confirm has the agent serve its certificate next, which Rotate announced, from its answer on. When the answer is lost, either
// may be served: this session resumes with both, and a later one is begun with both (Peer.Next).
func (s *Session) Confirm(ctx context.Context, next protocol.Fingerprint) (Pins, error) {
	s.peer.Next = next
	return s.renew(ctx, &protocol.Pin{Confirmed: next.String()})
}

func (s *Session) renew(ctx context.Context, m *protocol.Pin) (Pins, error) {
	const op = "renew the certificates of the agent"
	s.lock <- struct{}{}
	s.inWindow = false
	<-s.lock
	answer, err := s.ask(ctx, m, protocol.WordPin, protocol.WordPin, rotateLimit)
	if CodeOf(err) == codeUnknownWord {
		return Pins{}, &Error{SF: codeTooOld, Op: op, Err: fmt.Errorf("version %q of the agent is too old for it: %w", s.Hello.AgentVersion, err)}
	}
	if err != nil {
		return Pins{}, err
	}
	a, ok := answer.(*protocol.PinAnswer)
	if !ok {
		return Pins{}, &Error{SF: codeProtocol, Op: op, Err: fmt.Errorf("the agent answered %s", answer.Head().T)}
	}
	present, presentErr := protocol.ParseFingerprint(a.Fingerprint)
	next, nextErr := protocol.ParseFingerprint(a.Next)
	if err := errors.Join(presentErr, nextErr); err != nil {
		return Pins{}, &Error{SF: codeProtocol, Op: op, Err: err}
	}
	if present == (protocol.Fingerprint{}) || present != s.peer.Fingerprint && present != s.peer.Next {
		return Pins{}, &Error{SF: codeProtocol, Op: op, Err: fmt.Errorf("the agent says that it serves the certificate %v, which it never announced", present)}
	}
	s.peer.Fingerprint, s.peer.Next = present, next
	return Pins{Agent: present, Next: next}, nil
}
