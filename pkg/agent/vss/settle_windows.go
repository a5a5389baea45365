package vss

import (
	"context"
	"errors"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// settle waits for the set's end, and asks the writers in our own session: what others read of them proves nothing.
func (s *session) settle(ctx context.Context) agent.Settled {
	out := agent.Settled{Result: vsscode.VSS_S_ASYNC_PENDING.Hex(), Writers: []protocol.Writer{}, Witness: map[string]string{}}
	if !s.hasEnded(ctx, s.f.limits.settle) {
		s.cancel.Store(true)
		return out
	}
	set := s.set.Load()
	out.Result = s.result.Hex()
	out.Finished = finished(s.result, set.Phase(), set.Facts(), s.ids)
	err := s.thread.do(func() error { return s.readStatus(ctx) })
	if err != nil { // no writer has answered
		s.statuses = nil
	}
	out.Writers = table(s.writers, s.statuses, s.policy)
	return out
}

// hasEnded waits for the end of DoSnapshotSet.
func (s *session) hasEnded(ctx context.Context, limit time.Duration) bool {
	if !s.freezing.Load() {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.ended:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// complete ends the session in the writers.
func (s *session) complete(ctx context.Context, c agent.Completion) agent.Completed {
	out := agent.Completed{Writers: []protocol.Writer{}}
	if !s.hasEnded(ctx, s.f.limits.settle) {
		out.Err = coded(codeRequestorBug, "complete a backup whose shadow copy set has not ended")
		return out
	}
	set := s.set.Load()
	well := finished(s.result, set.Phase(), set.Facts(), s.ids)
	err := s.thread.do(func() error {
		if s.backup == nil {
			return coded(codeRequestorBug, "the session has been ended already")
		}
		if !well { // never BackupComplete after a set that failed
			return errors.Join(coded(codeRequestorBug, "the shadow copy set did not end well: %w", s.result), s.abort())
		}
		return s.completeBackup(ctx, c)
	})
	out.Closed = s.backup == nil
	out.Result = resultOf(err).Hex()
	out.Err = withCode(err, codeNotReached)
	if err == nil {
		out.Writers = table(s.writers, s.statuses, s.policy)
	}
	return out
}

// completeBackup tells each component's writer, then all, and reads how they are, which ends their sessions. When
// BackupComplete itself fails the backup is aborted.
func (s *session) completeBackup(ctx context.Context, c agent.Completion) error {
	for _, w := range s.writers {
		for _, k := range w.components {
			if !k.added {
				continue
			}
			if err := s.backup.succeed(w, k, succeeded(c, s.kind, k.key(), statusOf(w, s.statuses))); err != nil {
				return errors.Join(err, s.abort())
			}
		}
	}
	a, err := s.backup.start("complete the backup", slotBackupComplete)
	if err == nil {
		err = s.f.wait(ctx, a, s.f.limits.complete)
	}
	if err != nil {
		return errors.Join(err, s.abort())
	}
	s.open = false
	err = s.readStatus(ctx)
	return errors.Join(err, s.abort()) // nothing is left to abort: this lets go
}

func resultOf(err error) vsscode.HRESULT {
	var hr vsscode.HRESULT
	switch {
	case err == nil:
		return vsscode.VSS_S_ASYNC_FINISHED
	case errors.As(err, &hr):
		return hr
	}
	return vsscode.E_UNEXPECTED
}
