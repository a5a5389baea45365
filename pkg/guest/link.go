package guest

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// connect makes a connection and says HELLO on it.
func (s *Session) connect(ctx context.Context, resume bool) error {
	conn, err := s.open(ctx)
	if err != nil {
		return err
	}
	answer, err := s.hello(ctx, conn, resume)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	if !resume {
		s.Hello = answer
	}
	s.Proved = protocol.ProvedBy(conn.ConnectionState())
	return nil
}

// open makes a connection on which both sides are proved, in the role of TLS that the peer leaves to us.
func (s *Session) open(ctx context.Context) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.pace.dial)
	defer cancel()
	if s.peer.Await != nil {
		return s.await(ctx)
	}
	plain, err := s.peer.Dial(ctx)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			s.refused++
		}
		return nil, &Error{SF: "SF3701", Op: "connect to the agent", Err: err, gone: s.refused >= refusalsGone}
	}
	s.refused = 0
	conn := tls.Client(plain, protocol.ClientTLS(s.peer.Own, s.peer.Fingerprint, s.peer.Deployment, s.peer.Next))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, unproved(errors.Join(err, plain.Close()))
	}
	return conn, nil
}

// await waits for a connection that the agent makes.
func (s *Session) await(ctx context.Context) (*tls.Conn, error) {
	conn, err := s.peer.Await(ctx)
	switch {
	case errors.Is(err, protocol.ErrFingerprint):
		return nil, unproved(err)
	case err != nil:
		return nil, &Error{SF: "SF3701", Op: "wait for the agent to dial", Err: err, gone: errors.Is(err, net.ErrClosed)}
	}
	if err := proved(conn, s.peer.Fingerprint); err != nil {
		return nil, unproved(errors.Join(err, conn.NetConn().Close()))
	}
	return conn, nil
}

// unproved is the error of a peer that is not the agent, or that was not heard out.
func unproved(err error) error {
	sf := "SF3701"
	if errors.Is(err, protocol.ErrFingerprint) {
		sf = "SF3702"
	}
	return &Error{SF: sf, Op: "prove the agent's identity", Err: err}
}

// hello exchanges HELLO on a new connection, and makes it the present one.
func (s *Session) hello(ctx context.Context, conn net.Conn, resume bool) (*protocol.HelloAnswer, error) {
	limit, cancel := context.WithTimeout(ctx, s.pace.hello)
	defer cancel()
	stop := context.AfterFunc(limit, func() { closeQuietly(conn) })
	defer stop()
	nonce := newID()
	h := &protocol.Hello{
		MinV: protocol.MinVersion, MaxV: protocol.MaxVersion, Nonce: nonce, VMUUID: s.peer.VMUUID,
		Run: s.peer.Run, Epoch: s.peer.Epoch, Resume: resume,
	}
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.seal(h, protocol.WordHello)
	failpoint.Before("agent", protocol.WordHello)
	if err := write(conn, h); err != nil {
		return nil, &Error{SF: "SF3701", Op: "say HELLO", Err: errors.Join(err, context.Cause(limit))}
	}
	body, err := protocol.ReadFrame(conn)
	failpoint.After("agent", protocol.WordHello)
	if err != nil {
		return nil, &Error{SF: unheard(err), Op: "wait for the agent's HELLO", Err: errors.Join(err, context.Cause(limit))}
	}
	m, err := protocol.DecodeForOrchestrator(body)
	if err != nil {
		return nil, &Error{SF: "SF3901", Op: "read the agent's HELLO", Err: err}
	}
	switch m := m.(type) {
	case *protocol.HelloAnswer:
		if err := s.check(m, nonce, resume); err != nil {
			return nil, &Error{SF: "SF3704", Op: "check the agent's HELLO", Err: err}
		}
		if !stop() {
			return nil, &Error{SF: "SF3701", Op: "wait for the agent's HELLO", Err: context.Cause(limit)}
		}
		if !resume {
			s.heard = 0
		}
		s.heard = max(s.heard, m.Q)
		s.conn, s.down = conn, make(chan struct{})
		down := s.down
		s.group.Go(func() { s.read(conn, down) })
		return m, nil
	case *protocol.Error:
		return nil, &Error{SF: AgentCode(m.Code, codeProtocol), Op: "say HELLO", Err: errors.New("the agent answered: " + m.Text), gone: true}
	}
	return nil, &Error{SF: "SF3901", Op: "read the agent's HELLO", Err: fmt.Errorf("the agent answered %s", m.Head().T)}
}

// unheard is the code of a HELLO that is not answered. In TLS 1.3 a server that does not take our certificate says so, by an
// alert, only after its own handshake is over.
func unheard(err error) string {
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" { // crypto/tls names alerts so
		return "SF3706"
	}
	return "SF3701"
}

// check compares what the agent says of itself with what we pushed and where.
func (s *Session) check(m *protocol.HelloAnswer, nonce string, resume bool) error {
	switch {
	case m.V < protocol.MinVersion || m.V > protocol.MaxVersion:
		return fmt.Errorf("it speaks protocol version %d, we %d..%d", m.V, protocol.MinVersion, protocol.MaxVersion)
	case m.NonceEcho != nonce:
		return errors.New("it did not echo our nonce: a replay")
	case m.S != s.id:
		return fmt.Errorf("it answered for session %q", m.S)
	case !protocol.SameUUID(m.VMUUID, s.peer.VMUUID):
		return fmt.Errorf("it runs in a VM with uuid %q, not in %q", m.VMUUID, s.peer.VMUUID)
	case !s.peer.AnyProgram && m.ExeSHA256 != hex.EncodeToString(s.peer.SHA256[:]):
		return fmt.Errorf("its program has the SHA-256 %s, not that of the one we pushed", m.ExeSHA256)
	case resume && s.Hello != nil && m.BootID != s.Hello.BootID:
		return errors.New("the guest was rebooted")
	}
	return nil
}

// seal fills in the envelope; the caller holds the lock.
func (s *Session) seal(m protocol.Message, t protocol.Word) {
	s.q++
	h := m.Head()
	h.V, h.T, h.S, h.Q, h.AtUS = protocol.MaxVersion, t, s.id, s.q, time.Since(s.start).Microseconds()
}

func write(conn net.Conn, m protocol.Message) error {
	body, err := protocol.Encode(m)
	if err != nil {
		return err
	}
	frame, err := protocol.AppendFrame(nil, body)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err = conn.Write(frame)
	return err
}

// say writes one word on the present connection. After an error the connection is closed, which its reader tells.
func (s *Session) say(m protocol.Message, t protocol.Word) error {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.seal(m, t)
	if s.conn == nil {
		return net.ErrClosed
	}
	failpoint.Before("agent", t)
	err := write(s.conn, m)
	failpoint.After("agent", t)
	if err != nil {
		conn := s.conn
		s.conn = nil
		return errors.Join(err, conn.Close())
	}
	return nil
}

// Resume makes a new connection and resumes the session, within dialLimit and helloLimit. Where words take seconds, one that
// stands is given time to answer first.
func (s *Session) Resume(ctx context.Context) error {
	if s.pace.answer > 0 {
		if s.stands(ctx) {
			return nil
		}
		if ctx.Err() != nil { // the connection may still be good for who comes next
			return &Error{SF: "SF3701", Op: "wait for the agent", Err: context.Cause(ctx)}
		}
	}
	s.lock <- struct{}{}
	old, down := s.conn, s.down
	s.conn = nil
	<-s.lock
	if old != nil {
		closeQuietly(old)
	}
	<-down // the old reader has told its loss, so that it cannot be taken for one of the new connection
	return s.connect(ctx, true)
}

// stands waits for a word on the present connection, and says whether one came.
func (s *Session) stands(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.pace.answer)
	defer cancel()
	s.lock <- struct{}{}
	before, down, lost := s.heard, s.down, s.conn == nil
	<-s.lock
	ticker := time.NewTicker(standsEvery)
	defer ticker.Stop()
	for !lost {
		select {
		case <-down:
			return false
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		s.lock <- struct{}{}
		heard := s.heard > before
		lost = s.conn == nil
		<-s.lock
		if heard && !lost {
			return true
		}
	}
	return false
}

// read is the only reader of a connection.
func (s *Session) read(conn net.Conn, down chan struct{}) {
	err := s.readAll(conn)
	closeQuietly(conn)
	s.lock <- struct{}{}
	present := s.conn == conn || s.down == down
	if s.conn == conn {
		s.conn = nil
	}
	<-s.lock
	if present {
		s.tell(freezewindow.LinkLost{Err: err})
	}
	close(down)
}

func (s *Session) readAll(conn net.Conn) error {
	for {
		body, err := protocol.ReadFrame(conn)
		if err != nil {
			return err
		}
		received := time.Now()
		m, err := protocol.DecodeForOrchestrator(body)
		if errors.Is(err, protocol.ErrUnknownWord) {
			continue
		}
		if err != nil {
			return err
		}
		if s.stale(m.Head()) {
			continue
		}
		s.route(m, received)
	}
}

// stale drops and counts what is replayed or of another session.
func (s *Session) stale(h *protocol.Envelope) bool {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	if h.S != s.id || h.Q <= s.heard {
		s.dropped++
		return true
	}
	s.heard = h.Q
	return false
}

// closeQuietly closes a connection that is of no use any more: what Close says of it helps nobody.
func closeQuietly(conn net.Conn) {
	if conn.Close() != nil {
		return
	}
}
