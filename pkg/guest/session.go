package guest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Limits of one session, no two equal.
const (
	dialLimit  = 5 * time.Second
	helloLimit = 8 * time.Second
	sendLimit  = time.Second
	armLimit   = 10*time.Minute + 5*time.Second
	endLimit   = 20 * time.Second
	// hooksLimit is added where the guest's post-thaw hooks, 30 s of them, come before the answer.
	hooksLimit = 16 * time.Second
	beatEvery  = 5 * time.Second
	// silenceLimit is how long an answer is waited for while the agent does not answer heartbeats either: a little longer
	// than the agent's own 30 s.
	silenceLimit = 32 * time.Second
	// refusals in a row that make sure that nobody listens any more, and not only a restart of something between.
	refusalsGone = 3
	rttProbes    = 5
	rttLimit     = 2 * time.Second
	// standsEvery is the time between two looks at whether a word has come.
	standsEvery = 100 * time.Millisecond
)

// Peer is where the agent is and how both sides know each other.
type Peer struct {
	// Dial opens a plain connection to the agent, which is the server of TLS on it.
	Dial func(ctx context.Context) (net.Conn, error)
	// Await is there in place of Dial when it is the agent that dials: it gives the next connection that the agent made, on
	// which we are the server of TLS and the agent has proved itself (Caller.Await).
	Await func(ctx context.Context) (*tls.Conn, error)
	// Slow says that words take seconds on their way, as through a mailbox: limits are longer then, heartbeats rare and none
	// in the window, THAW is said once on a connection, and no guest is held in the mode io.
	Slow bool
	// Own is our certificate, Fingerprint the agent's, Next the one that a persistent agent has announced; zero for none.
	Own               tls.Certificate
	Fingerprint, Next protocol.Fingerprint
	// Deployment is the TLS server name; VMUUID and SHA256 are what the agent must say of itself.
	Deployment, VMUUID string
	SHA256             [32]byte
	// AnyProgram lets in a persistent agent whose program is not the one of SHA256: it was not pushed by us, so its
	// certificate alone proves it.
	AnyProgram bool
	Run        string
	Epoch      uint64
}

// Session is one session with one agent. It satisfies freezewindow.Guest. One goroutine at a time calls Arm, Complete,
// Abort and Close; Send, Events and Resume belong to the window that runs between Arm and Complete.
type Session struct {
	peer Peer
	pace pace
	id   string
	// Hello is how the agent introduced itself.
	Hello *protocol.HelloAnswer
	// Proved is the certificate that the agent has shown on the last connection: Peer.Fingerprint or Peer.Next.
	Proved protocol.Fingerprint

	// lock guards the connection and the sequences. It is a channel because it is held while a word is written.
	lock     chan struct{}
	conn     net.Conn
	q        uint64
	heard    uint64
	start    time.Time
	inWindow bool
	moving   bool     // of data, after the window
	thawing  net.Conn // on which THAW was said
	dropped  int
	refused  int

	hooked bool // the guest has hooks
	// Ready is the agent's answer to ARM, nil before it.
	Ready *protocol.Ready
	// Closed is true once the agent has said that its session with the guest's applications is over. Read it between calls.
	Closed bool

	answers chan protocol.Message
	events  chan freezewindow.GuestEvent
	down    chan struct{} // closed when the present connection is lost
	closed  chan struct{}
	group   sync.WaitGroup
}

// Connect dials the agent, proves both sides and says HELLO. The caller closes the session.
func Connect(ctx context.Context, peer Peer) (*Session, error) {
	s := &Session{
		peer: peer, pace: quick(), id: newID(), lock: make(chan struct{}, 1), start: time.Now(),
		answers: make(chan protocol.Message, 16), events: make(chan freezewindow.GuestEvent, 256), closed: make(chan struct{}),
	}
	if peer.Slow {
		s.pace = slow()
	}
	if err := s.connect(ctx, false); err != nil {
		return nil, err
	}
	s.group.Go(s.beat)
	return s, nil
}

// Send writes one word of the window; see freezewindow.Guest.
func (s *Session) Send(_ context.Context, w freezewindow.Word) error {
	var err error
	switch {
	case w.Hold > 0:
		s.lock <- struct{}{}
		s.inWindow = true
		lost := s.conn == nil
		<-s.lock
		if lost { // lost before the window: its reader is gone, so nobody else tells
			s.tell(freezewindow.LinkLost{Err: net.ErrClosed})
		}
		err = s.say(&protocol.Go{Go: w.Go, HoldMS: w.Hold.Milliseconds()}, protocol.WordGo)
	case w.Thaw != "":
		if s.said() {
			return nil
		}
		err = s.say(&protocol.Thaw{Go: w.Go, Reason: string(w.Thaw)}, protocol.WordThaw)
	case !s.peer.Slow:
		err = s.say(&protocol.Heartbeat{}, protocol.WordHeartbeat)
	}
	if err != nil {
		return fmt.Errorf("write to the agent: %w", err)
	}
	return nil
}

// said says whether THAW is on its way already, where it is said once only, and that it is from now on.
func (s *Session) said() bool {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	before := s.thawing
	s.thawing = s.conn
	return s.peer.Slow && s.conn != nil && before == s.conn
}

// Events gives what the agent says in the window, and LinkLost.
func (s *Session) Events() <-chan freezewindow.GuestEvent { return s.events }

// beat keeps the agent's limit on silence away outside the window.
func (s *Session) beat() {
	ticker := time.NewTicker(s.pace.beat)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.closed:
			return
		case <-ticker.C:
			s.lock <- struct{}{}
			due := !s.moving || s.pace.openBeat == s.pace.beat || time.Since(last) >= s.pace.openBeat
			quiet := !s.inWindow && s.conn != nil && due
			<-s.lock
			if !quiet {
				continue
			}
			last = time.Now()
			if s.say(&protocol.Heartbeat{}, protocol.WordHeartbeat) != nil {
				continue // the reader tells
			}
		}
	}
}

// ask says m and waits for the answer with the word want.
func (s *Session) ask(ctx context.Context, m protocol.Message, t, want protocol.Word, limit time.Duration) (protocol.Message, error) {
	op := fmt.Sprintf("wait for the agent's answer to %s", t)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	s.lock <- struct{}{}
	down := s.down
	<-s.lock
	for len(s.answers) > 0 { // to heartbeats that nobody waited for; they would leave no room for the answer
		<-s.answers
	}
	if err := s.say(m, t); err != nil {
		return nil, &Error{SF: "SF3701", Op: fmt.Sprintf("send %s to the agent", t), Err: err}
	}
	silence := time.NewTimer(s.pace.silence)
	defer silence.Stop()
	for {
		select {
		case a := <-s.answers:
			silence.Reset(s.pace.silence)
			if no, ok := a.(*protocol.Error); ok {
				return nil, &Error{SF: AgentCode(no.Code, codeProtocol), Op: op, Err: errors.New("the agent answered: " + no.Text)}
			}
			if a.Head().T == want && (a.Head().Re == 0 || a.Head().Re == m.Head().Q) {
				failpoint.After("agent.answer", t)
				return a, nil
			}
		case <-silence.C:
			return nil, &Error{SF: "SF3701", Op: op, Err: fmt.Errorf("the agent was silent for %v", s.pace.silence)}
		case <-down:
			if len(s.answers) > 0 { // an agent that was asked to end says so last
				continue
			}
			return nil, &Error{SF: "SF3701", Op: op, Err: errors.New("the connection to the agent was lost")}
		case <-ctx.Done():
			return nil, &Error{SF: "SF3701", Op: op, Err: context.Cause(ctx)}
		}
	}
}

// RTT measures the longest of a few round trips to the agent.
func (s *Session) RTT(ctx context.Context) (time.Duration, error) {
	var longest time.Duration
	for range s.pace.probes {
		sent := time.Now()
		if _, err := s.ask(ctx, &protocol.Heartbeat{}, protocol.WordHeartbeat, protocol.WordHeartbeat, s.pace.rtt); err != nil {
			return 0, &Error{SF: "SF4011", Op: "measure the round trip to the agent", Err: err}
		}
		longest = max(longest, time.Since(sent))
	}
	return longest, nil
}

// End closes the agent's session without a backup. An agent that has nothing open is told to stop. The agent leaves
// afterwards by itself.
func (s *Session) End(ctx context.Context) error {
	s.lock <- struct{}{}
	s.inWindow = false
	<-s.lock
	limit := endLimit
	if s.hooked {
		limit += hooksLimit
	}
	answer, err := s.ask(ctx, &protocol.Abort{Reason: "the run ends without a restore point"}, protocol.WordAbort, protocol.WordAbort, limit)
	if a, ok := answer.(*protocol.Abort); ok && err == nil {
		s.Closed = s.Closed || a.Closed
	}
	return err
}

// ID names the session, as the agent knows it.
func (s *Session) ID() string { return s.id }

// Dropped counts words that were replayed or of another session.
func (s *Session) Dropped() int {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	return s.dropped
}

// Close ends the connection and waits for the session's goroutines. It is idempotent.
func (s *Session) Close() {
	s.lock <- struct{}{}
	conn := s.conn
	s.conn = nil
	if !isClosed(s.closed) {
		close(s.closed)
	}
	<-s.lock
	if conn != nil {
		closeQuietly(conn)
	}
	s.group.Wait()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// newID makes 128 random bits in hex.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
