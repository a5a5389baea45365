package api

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/audit"
)

// changeLimit is how long a change may take. It is not cut short when the caller goes away, so that its end is known.
const changeLimit = 30 * time.Second

// Trail is the audit log, satisfied by *audit.Log.
type Trail interface {
	Append(e audit.Event) error
	Entries(before int64, limit int) ([]audit.Entry, int64, error)
	Ready() error
}

var _ Trail = (*audit.Log)(nil)

// change records what is about to be done, does it and records how it ended. If the first cannot be written, nothing is
// done. The object is a name or id that the daemon knows, never what was sent.
func (s *Server) change(ctx context.Context, what, object, reason string, do func(context.Context) error) error {
	who := callerOf(ctx)
	e := audit.Event{Who: who.Name, Where: who.Where, What: what, Object: object, Result: audit.Intended, Reason: reason}
	if err := s.b.Audit.Append(e); err != nil {
		return err
	}
	return s.carryOut(ctx, e, do)
}

// release is change for what lets a guest go: it is done even if it cannot be recorded.
func (s *Server) release(ctx context.Context, what, object string, do func(context.Context) error) error {
	who := callerOf(ctx)
	e := audit.Event{Who: who.Name, Where: who.Where, What: what, Object: object, Result: audit.Intended}
	if err := s.b.Audit.Append(e); err != nil {
		s.log.Error("release of a guest not recorded, but done", zap.String("what", what), zap.String("object", object), zap.String("who", who.Name), zap.Error(err))
	}
	return s.carryOut(ctx, e, do)
}

func (s *Server) carryOut(ctx context.Context, e audit.Event, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeLimit)
	defer cancel()
	err := do(limited)
	e.Result = audit.Done
	if err != nil {
		p := s.problem(ctx, err)
		e.Result, e.Reason, err = audit.Failed, p.SF+" "+p.Title, p
	}
	if unrecorded := s.b.Audit.Append(e); unrecorded != nil {
		s.log.Error("end of a change not recorded", zap.String("what", e.What), zap.String("object", e.Object), zap.Error(unrecorded))
	}
	return err
}
