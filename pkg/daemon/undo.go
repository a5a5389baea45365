package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// Undo takes away what a run of a dead process, or one that ended with something left, has outside: the guest is freed
// first, then the snapshot is removed. Then the run begins anew, or has failed. An error says that something is still there;
// the queue then calls it again, less and less often.
func (d *Daemon) Undo(ctx context.Context, delivery catalog.Delivery) error {
	fence := journal.Fence{RunID: delivery.RunID, Epoch: delivery.Epoch}
	a, err := d.read(ctx, delivery.RunID)
	if err != nil {
		return err
	}
	begun := a.run.State != catalog.Queued
	if _, err := d.Catalog.Compensate(ctx, fence); err != nil {
		return err
	}
	kept := newMemory(d.Catalog.Memory(fence))
	intents, err := kept.Intents(ctx, a.vm.InstanceUUID)
	if err != nil {
		return err
	}
	vanished := false
	if open := backup.Unfinished(intents); len(open) > 0 {
		if vanished, err = d.undoOpen(ctx, a, fence, kept, open); err != nil {
			return err
		}
	}
	switch {
	case a.run.Outcome != "": // it had come to its end, but for what is gone now
		err = d.finish(ctx, fence, written(a.run))
	case vanished:
		err = d.finish(ctx, fence, catalog.End{State: catalog.Failed, Outcome: string(backup.Failed), Cause: "vm_gone", Code: "SF2009"})
	case a.gone:
		err = d.finish(ctx, fence, jobRemoved())
	case a.run.CancelRequested:
		err = d.finish(ctx, fence, catalog.End{State: catalog.Cancelled, Outcome: string(backup.Aborted), Cause: "cancelled"})
	case a.run.Attempt > max(a.job.Retry.Attempts, 1):
		err = d.finish(ctx, fence, catalog.End{State: catalog.Failed, Outcome: string(backup.Failed), Cause: "died", Code: "SF1911"})
	default:
		_, err = d.Catalog.Again(ctx, fence, catalog.Retry{NotBefore: time.Time{}, SameAttempt: !begun, Priority: retryPriority, Cause: "died", Code: "SF1911"})
	}
	return err
}

// undoOpen takes away what is open. vanished is true when that is nothing any more, because its VM is gone.
func (d *Daemon) undoOpen(ctx context.Context, a attempt, f journal.Fence, kept memory, open []statefile.Intent) (vanished bool, err error) {
	c := d.Config()
	v, err := d.VCenters.VCenter(ctx, c, a.run.VCenter)
	if err != nil {
		return false, err
	}
	o := Order{Plan: plan(c, a), Job: a.job.Name, Memory: kept, Owned: d.owned(ctx, a.run.VCenter)}
	if o.Guest, o.Address, err = d.guest(ctx, c, a.vm); err != nil {
		return false, err
	}
	recovery, err := v.Undo(ctx, o, open)
	if err != nil {
		return false, err
	}
	if vanished = recovery.Vanished(); vanished {
		if err := d.Catalog.Vanished(ctx, f); err != nil {
			return false, err
		}
		o.Forget = true
		if recovery, err = v.Undo(ctx, o, open); err != nil {
			return false, err
		}
	}
	left := recovery.Leftovers
	for _, t := range recovery.Things {
		if t.State == backup.Elsewhere || t.State == backup.Active {
			left = append(left, fmt.Sprintf("%s %s: %s", t.Kind, t.Subject, t.Text))
		}
	}
	if len(left) > 0 {
		return false, fmt.Errorf("undo run %s: %s", a.run.ID, strings.Join(left, "; "))
	}
	d.Log.Warn("what a dead run left is gone", zap.String("run", a.run.ID), zap.String("vm", a.vm.Path), zap.Int("things", len(recovery.Things)), zap.Bool("vm_gone", vanished))
	return vanished, nil
}

// written is the end of a run as it was written down before what it left was taken away.
func written(r catalog.Run) catalog.End {
	e := catalog.End{
		State: catalog.Done, Outcome: r.Outcome, Level: r.Level, Mode: r.Mode, Cause: r.Cause, Code: r.ErrorCode, Report: r.Report,
		BytesRead: r.BytesRead, BytesStored: r.BytesStored, Point: r.Started, NoPoint: noPoint(r),
	}
	switch backup.Outcome(r.Outcome) {
	case backup.Failed:
		e.State = catalog.Failed
	case backup.Aborted:
		e.State = catalog.Cancelled
	case backup.OK, backup.Degraded:
	}
	return e
}

// jobRemoved is the end of a run whose job is not configured any more: nobody knows what it is to do.
func jobRemoved() catalog.End {
	return catalog.End{State: catalog.Cancelled, Outcome: string(backup.Aborted), Cause: "job_removed"}
}
