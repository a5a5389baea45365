package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/inventory"
)

var _ operator = (*service)(nil)

// Fire implements operator.
func (s *service) Fire(ctx context.Context, job string, tick time.Time, by string) error {
	_, err := s.daemon.Fire(ctx, job, tick, by)
	return noJob(err)
}

// Order implements operator. What looks at a guest without a backup is done by the one-shot commands.
func (s *service) Order(ctx context.Context, o api.Start) error {
	switch o.Kind {
	case "", "backup", daemon.WindowOnly, daemon.DryRun:
	default:
		return fmt.Errorf("%w: the daemon does no %s; stillframe run and stillframe doctor do", api.ErrConflict, o.Kind)
	}
	return noJob(s.daemon.Start(ctx, o.RunID, o.VMID, o.Job, o.By, daemon.Wish{Kind: o.Kind, IgnoreWindows: o.IgnoreWindows}))
}

// Enable implements operator.
func (s *service) Enable(ctx context.Context, job string, enabled bool) error {
	return noJob(s.daemon.Enable(ctx, job, enabled))
}

func noJob(err error) error {
	if errors.Is(err, daemon.ErrNoJob) {
		return fmt.Errorf("%w: %w", api.ErrUnknown, err)
	}
	return err
}

// Reload implements operator.
func (s *service) Reload(ctx context.Context) (api.Reloaded, []api.Fault, error) {
	done := api.Reloaded{Changed: []string{}, NeedsRestart: []string{}}
	changes, err := s.reload(ctx)
	var bad *problemsError
	if errors.As(err, &bad) {
		var faults []api.Fault
		for _, p := range bad.all {
			faults = append(faults, api.Fault{Location: fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column), Message: p.Path + ": " + p.Message})
		}
		return done, faults, nil
	}
	if err != nil {
		return done, nil, err
	}
	for _, change := range changes {
		if change.Restart {
			done.NeedsRestart = append(done.NeedsRestart, change.Path)
		} else {
			done.Changed = append(done.Changed, change.Path)
		}
	}
	return done, nil, nil
}

// Unready implements operator.
func (s *service) Unready(ctx context.Context) []string { return s.daemon.Unready(ctx) }

// Preflight implements operator.
func (s *service) Preflight(ctx context.Context, vm catalog.VM) ([]inventory.Check, error) {
	return s.daemon.Preflight(ctx, vm)
}

// Sweep implements operator.
func (s *service) Sweep() { s.daemon.Sweep() }

// Windows implements operator.
func (s *service) Windows(context.Context) ([]api.Window, error) {
	open := []api.Window{}
	for _, w := range s.daemon.Windows() {
		open = append(open, api.Window{
			RunID: w.Run.ID, VMID: w.VM.ID, VM: w.VM.Name, VCenterID: w.VM.VCenter, Node: s.store.Installation().Node, Phase: "window", GoAt: w.Since.UTC(),
			HeldSeconds: time.Since(w.Since).Seconds(), BudgetSeconds: w.Budget.Seconds(),
		})
	}
	return open, nil
}

// Config implements operator.
func (s *service) Config() *config.Config { return s.daemon.Config() }
