//go:build lab && linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// scriptedLimit bounds one answer of the lab.
const scriptedLimit = 10 * time.Second

// scriptedPoint is the only volume of a scripted guest.
const scriptedPoint = "/scripted"

// scripted is a freezer that the lab plays over a unix socket, for guests without file systems of their own: freeze ->
// frozen, thaw -> thawed or notheld, a line each. The lab releases when the socket closes, so its second net is the
// death of this process.
type scripted struct {
	path string
	// prepare is how long Prepare takes, slow how long Freeze waits before it freezes, release how long Thaw waits before it
	// releases.
	prepare, slow, release time.Duration

	mu       sync.Mutex
	conn     net.Conn
	lines    *bufio.Reader
	freezing bool // Freeze is waiting for its answer
	held     bool
	stopped  bool
	stop     chan struct{} // ends the wait of Freeze
}

var _ agent.Freezer = (*scripted)(nil)

func scriptedVolume() protocol.Volume {
	return protocol.Volume{ID: "scripted", Mounts: []string{scriptedPoint}, FS: "scripted", Disks: []protocol.Disk{}, Supported: true}
}

// Volumes implements agent.Freezer.
func (s *scripted) Volumes(context.Context) ([]protocol.Volume, error) {
	return []protocol.Volume{scriptedVolume()}, nil
}

// Prepare implements agent.Freezer: it connects.
func (s *scripted) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	for _, v := range r.Volumes {
		if v != "scripted" && v != scriptedPoint {
			return agent.Prepared{}, &agent.CodedError{Code: "SF4705", Err: fmt.Errorf("choose file system %q: nothing is mounted there", v)}
		}
	}
	timer := time.NewTimer(s.prepare)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return agent.Prepared{}, context.Cause(ctx)
	}
	dialer := net.Dialer{Timeout: scriptedLimit}
	conn, err := dialer.DialContext(ctx, "unix", s.path)
	if err != nil {
		return agent.Prepared{}, &agent.CodedError{Code: "SF4707", Err: fmt.Errorf("reach the scripted freezer: %w", err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return agent.Prepared{}, errors.Join(errors.New("prepare: the session before was not closed"), conn.Close())
	}
	s.conn, s.lines, s.held, s.stopped = conn, bufio.NewReader(io.LimitReader(conn, 1<<20)), false, false
	return agent.Prepared{Volumes: []protocol.Volume{scriptedVolume()}}, nil
}

// Freeze implements agent.Freezer.
func (s *scripted) Freeze(ctx context.Context, started func()) (agent.Held, error) {
	return agent.Held{}, s.freeze(ctx, started)
}

func (s *scripted) freeze(ctx context.Context, started func()) error {
	s.mu.Lock()
	if s.conn == nil || s.stopped || s.held {
		s.mu.Unlock()
		return &agent.CodedError{Code: "SF4707", Err: errors.New("freeze: not prepared")}
	}
	conn, stop := s.conn, make(chan struct{})
	s.freezing, s.stop = true, stop
	s.mu.Unlock()
	started()
	if s.slow > 0 {
		select {
		case <-time.After(s.slow):
		case <-stop:
		case <-ctx.Done():
		}
	}
	end := context.AfterFunc(ctx, func() { s.cut(conn) })
	answer, err := s.ask(conn, "freeze")
	end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freezing = false
	if err == nil && answer != "frozen" {
		err = fmt.Errorf("the scripted freezer answered %q", answer)
	}
	if err == nil && s.stopped {
		err = errors.New("thawed meanwhile")
	}
	if err != nil {
		s.stopped = true
		return &agent.CodedError{Code: "SF4001", Err: errors.Join(fmt.Errorf("freeze: %w", err), closed(conn.Close()))}
	}
	s.held = true
	return nil
}

// ask sends one line and reads one.
func (s *scripted) ask(conn net.Conn, word string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(scriptedLimit)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, word+"\n"); err != nil {
		return "", err
	}
	line, err := s.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	return line[:len(line)-1], nil
}

// cut closes the connection, which releases whatever the lab holds, and ends a Freeze that waits.
func (s *scripted) cut(conn net.Conn) {
	if err := conn.SetDeadline(time.Now()); err != nil {
		return // closed already
	}
}

// closed drops the error of a second close.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Thaw implements agent.Freezer.
func (s *scripted) Thaw(context.Context) agent.Release { return agent.Release{Results: s.thaw()} }

func (s *scripted) thaw() []protocol.ThawResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	s.stopped = true
	if s.freezing {
		if s.stop != nil {
			close(s.stop)
			s.stop = nil
		}
		s.cut(s.conn) // Freeze sees it and closes the connection
		return nil
	}
	if !s.held {
		return nil
	}
	s.held = false
	<-time.After(s.release)
	row := protocol.ThawResult{Mount: scriptedPoint}
	answer, err := s.ask(s.conn, "thaw")
	switch {
	case err != nil:
		row.Error = errors.Join(err, closed(s.conn.Close())).Error()
	case answer == "thawed":
		row.OK = true
	case answer == "notheld":
		row.Error = "EINVAL: it was not held any more"
	default:
		row.Error = fmt.Sprintf("the scripted freezer answered %q", answer)
	}
	return []protocol.ThawResult{row}
}

// Close implements agent.Freezer.
func (s *scripted) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := closed(s.conn.Close())
	s.conn, s.held = nil, false
	return err
}
