package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Bare takes a snapshot of the VM without freezing anything, and removes it again: it shows what the snapshot takes by
// itself. Nothing goes into the guest, and the level is crash at most.
func (r Runner) Bare(ctx context.Context, p Plan) (Result, error) { return r.do(ctx, p, (*run).bare) }

func (x *run) bare(ctx context.Context) error {
	begin := time.Now()
	if err := x.find(ctx); err != nil {
		return err
	}
	if err := x.intend(ctx); err != nil {
		return err
	}
	snapshot, err := x.Hypervisor.Prepare(ctx, x.vm, x.plan.SnapshotName(), x.plan.Description)
	if err != nil {
		return fmt.Errorf("prepare the snapshot: %w", err)
	}
	x.undo.push("end the watch of the snapshot task", limited(closeLimit, snapshot.Close))
	if err := x.Hypervisor.Ready(ctx); err != nil {
		return err
	}
	waiting, cancel := x.waiting(ctx)
	defer cancel()
	prepared, called, task := time.Since(begin), time.Now(), ""
	made, timing, err := snapshot.Create(waiting, func(moref string) { task = moref })
	took := time.Since(called)
	x.result.Window.Phases = []Phase{{"prepare", -prepared.Seconds(), prepared.Seconds()}, {"snapshot_create", 0, took.Seconds()}}
	x.result.Snapshot.TaskSeconds = timing.Task().Seconds()
	made, there, left := x.resolve(ctx, waiting, task, made, err)
	if !there {
		if left == nil {
			left = fmt.Errorf("take the snapshot alone: %w", err)
		}
		return left
	}
	x.result.Snapshot.Moref = made.Moref
	x.result.Verdict.Level, x.result.Verdict.Reasons = freezewindow.Crash, []string{"nothing was held"}
	if err := x.remove(ctx); err != nil {
		return err
	}
	x.result.Outcome = OK
	return nil
}
