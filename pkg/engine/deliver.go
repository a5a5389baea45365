package engine

import (
	"context"
	"database/sql"
	"errors"

	"github.com/riverqueue/river"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

// worker is what River calls.
type worker struct {
	river.WorkerDefaults[delivery]
	engine *Engine
}

// Work does one delivery. What it returns concerns the delivery alone, never the run.
func (w *worker) Work(ctx context.Context, job *river.Job[delivery]) error {
	return w.engine.deliver(ctx, job.Args)
}

// deliver calls work if the delivery is still the run's, and sees to it that the run is not left between states.
func (e *Engine) deliver(ctx context.Context, d delivery) error {
	r, err := e.read(ctx, d)
	switch {
	case err != nil:
		e.log.Warn("a run could not be read, it is delivered again", zap.String("run", d.RunID), zap.Error(err))
		return river.JobSnooze(again)
	case r.state != "queued":
		e.log.Debug("a stale delivery was dropped", zap.String("run", d.RunID), zap.Int64("epoch", d.Epoch))
		return nil
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	lease := e.begin(r.Delivery, end)
	if lease == nil {
		return river.JobSnooze(again) // its new owner has deleted this delivery by then
	}
	stop := context.AfterFunc(lease.work, func() { end(context.Cause(lease.work)) }) //nolint:contextcheck // the lease ends the work, too
	defer stop()
	failpoint.Before("engine", "work")
	err = guarded(func() error { return e.work(ctx, r.Delivery) })
	failpoint.After("engine", "work")
	e.mu.Lock()
	delete(e.running, d.RunID)
	lease.working--
	e.mu.Unlock()
	if err != nil {
		e.log.Warn("a run ended with an error", zap.String("run", d.RunID), zap.Error(err))
	}
	return e.left(context.WithoutCancel(ctx), lease, d)
}

// left looks in what state work has left a run: one that was begun and not ended is undone, one that was not begun is
// delivered again.
func (e *Engine) left(ctx context.Context, lease *held, d delivery) error {
	if lease.work.Err() != nil {
		return nil // all of it is the new owner's
	}
	limit, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	r, err := e.read(limit, d)
	switch {
	case err != nil || r.state == "queued":
		return river.JobSnooze(again)
	case r.state == "running" || r.state == "compensating":
		if e.draining.Load() {
			return nil // the next owner goes on, or undoes it
		}
		err := e.store.Update(limit, "give up a run", func(tx store.Tx) error {
			_, err := tx.Exec(limit, "UPDATE runs SET state = 'compensating' WHERE id = $1 AND epoch = $2 AND state = 'running'", d.RunID, d.Epoch)
			return err
		})
		if err != nil {
			e.log.Warn("a run that ended without a word was not marked", zap.String("run", d.RunID), zap.Error(err))
		}
		e.background.Go(func() { e.undo(lease.work, lease, r.Delivery) })
	}
	return nil
}

// read gives the run of a delivery with its state, which is empty when the delivery is not the run's any more.
func (e *Engine) read(ctx context.Context, d delivery) (r struct {
	catalog.Delivery
	state string
}, err error,
) {
	err = e.view(ctx, "read a run", func(ctx context.Context, tx store.Tx) error {
		err := tx.One(ctx, []any{&r.VCenter, &r.Priority, &r.state}, "SELECT vcenter_id, priority, state FROM runs WHERE id = $1 AND epoch = $2", d.RunID, d.Epoch)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	r.RunID, r.Epoch = d.RunID, d.Epoch
	return r, err
}

// begin puts a run among those at work and gives its vCenter's lease, nil when that is not ours or was renewed too long ago for
// new work.
func (e *Engine) begin(d catalog.Delivery, end context.CancelCauseFunc) *held {
	if e.Fresh(d.VCenter) > e.timing.stale {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.held[d.VCenter]
	if h != nil {
		h.working++
		e.running[d.RunID] = end
	}
	return h
}
