package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
)

// Snapshots lists the ledger, the oldest first. The cursor is the id of the last one. Those that are proved to be gone are listed only when
// they are asked for by their state.
func (b backends) Snapshots(ctx context.Context, f api.SnapshotFilter, p api.Page) (all []api.Snapshot, next string, err error) {
	filter := catalog.SnapshotFilter{VCenter: f.VCenter, VMID: f.VM, States: f.States, Unneeded: f.Orphans, Limit: p.Limit + 1}
	if p.Cursor != "" {
		last, err := b.catalog.Snapshots(ctx, catalog.SnapshotFilter{ID: p.Cursor})
		if err != nil || len(last) == 0 {
			return nil, "", api.ErrCursor
		}
		filter.After = last[0]
	}
	found, err := b.catalog.Snapshots(ctx, filter)
	if err != nil {
		return nil, "", err
	}
	if len(found) > p.Limit {
		found = found[:p.Limit]
		next = found[p.Limit-1].ID
	}
	all, err = b.named(ctx, found)
	return all, next, err
}

// named tells snapshots with the names of their VMs.
func (b backends) named(ctx context.Context, found []catalog.Snapshot) ([]api.Snapshot, error) {
	ids := make([]string, len(found))
	for n, s := range found {
		ids[n] = s.VMID
	}
	names, err := b.catalog.VMNames(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]api.Snapshot, len(found))
	for n, s := range found {
		all[n] = api.Snapshot{
			ID: s.ID, RunID: s.RunID, Epoch: s.Epoch, VCenterID: s.VCenter, VMID: s.VMID, VM: names[s.VMID], VMMoref: s.VMMoref, Road: s.Road, Name: s.Name,
			SnapshotMoref: s.Moref, State: string(s.State), Proof: s.Proof, CreatedAt: s.Created, KeepUntil: when(s.KeepUntil), RemovedAt: when(s.Removed),
			Attempts: s.Attempts, NextAttemptAt: when(s.NextAttempt), LastError: s.LastError,
		}
	}
	return all, nil
}

// Snapshot gives one row of the ledger.
func (b backends) Snapshot(ctx context.Context, id string) (api.Snapshot, error) {
	found, err := b.catalog.Snapshots(ctx, catalog.SnapshotFilter{ID: id})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("snapshot %q: %w", id, api.ErrUnknown)
	}
	if err != nil {
		return api.Snapshot{}, err
	}
	all, err := b.named(ctx, found)
	if err != nil {
		return api.Snapshot{}, err
	}
	return all[0], nil
}

// RemoveSnapshot has the sweeper remove a snapshot that its run does not need any more.
func (b backends) RemoveSnapshot(ctx context.Context, id, run string) error {
	s, err := b.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	if s.RunID != run {
		return fmt.Errorf("snapshot %s is not of run %s: %w", id, run, api.ErrConflict)
	}
	r, err := b.catalog.Run(ctx, run)
	if err != nil && !errors.Is(err, catalog.ErrNotFound) { // a run that was forgotten needs nothing
		return err
	}
	if err == nil && !settled(r.State) {
		return fmt.Errorf("run %s is at work: %w", run, api.ErrConflict)
	}
	if err := b.catalog.RequestRemoval(ctx, id); err != nil {
		return translated(err)
	}
	b.daemon.Sweep() // when another node owns the vCenter, its next turn does it
	return nil
}
