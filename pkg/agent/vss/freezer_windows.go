package vss

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// Freezer freezes this machine by VSS, one session at a time.
type Freezer struct {
	o      Options
	limits limits

	mu      sync.Mutex
	session *session // nil while there is none
}

var _ agent.Settler = (*Freezer)(nil)

// New makes a Freezer; it uses nothing before Prepare.
func New(o Options) *Freezer { return &Freezer{o: o, limits: defaultLimits()} }

// Prepare opens a session: it asks all writers what they have, tells them what is backed up, and has VSS take the volumes
// into a set with our provider. With an error the session has been ended in the writers.
//
// While somebody else's set is in progress it waits and tries anew, with a new session each time (waitForOthers).
func (f *Freezer) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	var p agent.Prepared
	err := waitForOthers(ctx, cmp.Or(f.o.Seams.Pause, busyPause), func() (err error) {
		p, err = f.prepare(ctx, r)
		return err
	})
	return p, err
}

// prepare is one try of Prepare.
func (f *Freezer) prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	s, err := f.open(ctx, r)
	if err != nil {
		return agent.Prepared{}, withCode(err, codeNotReached)
	}
	p, err := s.prepare(ctx)
	if err != nil {
		return agent.Prepared{}, withCode(errors.Join(err, f.Close()), codeNotReached)
	}
	return p, nil
}

// open makes the session of a request, in which nothing has been done yet.
func (f *Freezer) open(ctx context.Context, r agent.PrepareRequest) (*session, error) {
	mode, err := modeOf(r.Mode)
	if err != nil {
		return nil, err
	}
	kind, err := typeOf(r.BackupType)
	if err != nil {
		return nil, err
	}
	all, err := f.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := chooseVolumes(all, r.Volumes)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != nil {
		return nil, coded(codeRequestorBug, "a session is open already")
	}
	f.session, err = newSession(f, r, mode, kind, volumes)
	return f.session, err
}

func (f *Freezer) current() *session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session
}

// Freeze has VSS make the set and returns when our provider holds it.
func (f *Freezer) Freeze(ctx context.Context, started func()) (agent.Held, error) {
	s := f.current()
	if s == nil {
		return agent.Held{}, coded(codeRequestorBug, "nothing is prepared")
	}
	return s.freeze(ctx, started)
}

// Veto makes the set fail. It does not block.
func (f *Freezer) Veto() {
	if s := f.current(); s != nil {
		s.giveUp()
	}
}

// Thaw ends the hold and returns when its function has returned; before the hold was entered it makes the set fail.
func (f *Freezer) Thaw(context.Context) agent.Release {
	if s := f.current(); s != nil {
		return s.thaw()
	}
	return agent.Release{}
}

// Settle waits for the set's end and reads how the writers are.
func (f *Freezer) Settle(ctx context.Context) agent.Settled {
	if s := f.current(); s != nil {
		return s.settle(ctx)
	}
	return agent.Settled{Writers: []protocol.Writer{}, Witness: map[string]string{}}
}

// Complete tells the writers how the backup went, reads how they are, and ends the session. A set that did not end well
// is aborted in its place.
func (f *Freezer) Complete(ctx context.Context, c agent.Completion) agent.Completed {
	s := f.current()
	if s == nil {
		return agent.Completed{Writers: []protocol.Writer{}, Err: coded(codeRequestorBug, "no session is open")}
	}
	return s.complete(ctx, c)
}

// Close ends the session, if any, as one without a backup. It waits for VSS, at most a minute and a half.
func (f *Freezer) Close() error {
	f.mu.Lock()
	s := f.session
	f.session = nil
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.close()
}

// Trace gives what VSS asked our provider, for a person who looks for a fault.
func (f *Freezer) Trace() []provider.Line { return f.o.Provider.Trace() }

// wait waits for an asynchronous call of VSS, and cancels it when ctx ends or the limit comes. It runs on the session's
// thread and releases the call.
func (f *Freezer) wait(ctx context.Context, a *async, limit time.Duration) error {
	defer a.end()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v", limit))
	defer cancel()
	var late <-chan time.Time
	done := ctx.Done()
	for {
		switch state := a.look(); {
		case state == vsscode.VSS_S_ASYNC_PENDING:
		case state == vsscode.VSS_S_ASYNC_FINISHED:
			return nil
		case state == vsscode.VSS_S_ASYNC_CANCELLED && ctx.Err() != nil:
			return fmt.Errorf("%s: %w", a.operation, context.Cause(ctx))
		default:
			return fmt.Errorf("%s: %w", a.operation, state)
		}
		select {
		case <-done:
			if err := a.cancel(); err != nil {
				return errors.Join(context.Cause(ctx), err)
			}
			done, late = nil, time.After(f.limits.cancel)
		case <-late:
			return fmt.Errorf("%s: %w", a.operation, errStuck)
		default:
		}
	}
}
