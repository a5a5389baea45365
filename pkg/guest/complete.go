package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const (
	// completeLimit is what VSS and its writers may take to end a backup, 5 min and 60 s for their states, and a little more.
	completeLimit = 6*time.Minute + 20*time.Second
	// completeTries are for an answer that was lost with its connection: an agent repeats what it answered.
	completeTries = 2
	// reachLimit is how long a lost agent is looked for when it is to be told.
	reachLimit = time.Minute
	// expiredAfter is longer than an agent keeps a session open of which it hears nothing (15 min).
	expiredAfter = 16 * time.Minute
)

// codeExpired is the code of a session that has ended in the guest before it was told how its data fared.
const codeExpired = "SF4020"

// StayOpen keeps the session open after a window, for as long as the data of its snapshot is moved: the agent gives up a
// session of which it hears nothing for 15 min, and any after 24 h. A lost connection is made again. StayOpen gives nil when
// ctx ends, and an error with the code SF4020 as soon as the session is lost for good: the agent has then told the guest's
// applications that there is no backup.
func (s *Session) StayOpen(ctx context.Context) error {
	s.lock <- struct{}{}
	s.inWindow, s.moving = false, true
	<-s.lock
	heard := time.Now()
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.answers:
			heard = time.Now()
			if b, ok := m.(*protocol.Heartbeat); ok && (b.State == "COMPLETING" || b.State == "CLOSED") {
				return expired(fmt.Errorf("the agent is in state %s", b.State))
			}
		case <-s.events: // a loss; the next tick sees it
		case <-ticker.C:
			if s.connected() && time.Since(heard) < s.pace.openSilence {
				continue
			}
			err := s.Resume(ctx)
			switch {
			case err == nil:
				heard = time.Now()
			case ctx.Err() != nil:
				return nil
			case CodeOf(err) != "SF3701": // an agent is there, and does not have the session any more
				return expired(err)
			case time.Since(heard) >= expiredAfter:
				return expired(fmt.Errorf("the agent was not reached for %v: %w", expiredAfter, err))
			}
		}
	}
}

func expired(err error) error {
	return &Error{SF: codeExpired, Op: "keep the guest's session open", Err: err}
}

func (s *Session) connected() bool {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	return s.conn != nil
}

// Completion is how the data of a snapshot fared.
type Completion struct {
	// Stored says that all of it is stored; Truncate lets applications then cut their logs, in a full backup.
	Stored, Truncate bool
}

// Complete tells the guest's applications how their data fared, which ends the session; the agent leaves afterwards by
// itself. It blocks for at most 14 min. An error with the code SF4020 says that the session had ended before, SF4412 that
// the applications could not be told all of it, SF3701 that it is not known what they were told.
func (s *Session) Complete(ctx context.Context, c Completion) error {
	s.lock <- struct{}{}
	s.inWindow = false
	<-s.lock
	if !s.connected() { // nothing was said yet, so that an agent that has gone cannot have heard it
		if err := s.reach(ctx); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		m := &protocol.Complete{OK: "none", Components: []string{}}
		if c.Stored {
			m.OK, m.Truncate = "all", c.Truncate
		}
		answer, err := s.ask(ctx, m, protocol.WordComplete, protocol.WordComplete, completeLimit)
		if err == nil {
			if a, ok := answer.(*protocol.CompleteAnswer); ok {
				s.Closed = s.Closed || a.Closed
			}
			return completed(answer)
		}
		if CodeOf(err) != "SF3701" || try == completeTries || ctx.Err() != nil {
			return err
		}
		if again := s.Resume(ctx); again != nil {
			return errors.Join(err, again)
		}
	}
}

// reach makes a lost connection again, for the reachLimit.
func (s *Session) reach(ctx context.Context) error {
	for begin := time.Now(); ; {
		err := s.Resume(ctx)
		var gone *Error
		switch {
		case err == nil:
			return nil
		case CodeOf(err) != "SF3701", errors.As(err, &gone) && gone.gone:
			return expired(err)
		case time.Since(begin) >= reachLimit:
			return err
		}
		select {
		case <-time.After(beatEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// completed reads the agent's answer.
func completed(m protocol.Message) error {
	a, ok := m.(*protocol.CompleteAnswer)
	if ok && a.Closed && len(a.Events) == 0 {
		return nil
	}
	why := "it did not say why"
	if ok && len(a.Events) > 0 {
		why = strings.Join(a.Events[:min(len(a.Events), maxEvents)], "; ")
	}
	return &Error{SF: "SF4412", Op: "tell the guest's applications how their data fared", Err: errors.New("the agent answered: " + why)}
}

// maxEvents bounds what a guest can have us print.
const maxEvents = 8
