package catalog

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

const (
	// consolidateAfter is when disks that a removal of ours left unmerged are consolidated first.
	consolidateAfter = time.Minute
	// oursFor is how long after a removal of ours a VM that needs consolidation counts as left so by it.
	oursFor = time.Hour
)

// Consolidation is a VM whose disks vCenter wants consolidated.
type Consolidation struct {
	VMID, VCenter string
	// Ours is true where a removal of ours left that; only those are consolidated by us.
	Ours               bool
	Since, NextAttempt time.Time
	Attempts           int
	LastError          string
}

// Consolidations lists the VMs of a vCenter that need consolidation, the oldest need first; due leaves only those that we
// have to see to now.
func (c *Catalog) Consolidations(ctx context.Context, vcenter string, due bool) (all []Consolidation, err error) {
	err = c.store.View(ctx, "list VMs that need consolidation", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Consolidation, error) {
			var n Consolidation
			var ours, since, next int64
			err := scan(&n.VMID, &n.VCenter, &ours, &since, &n.Attempts, &next, &n.LastError)
			n.Ours, n.Since, n.NextAttempt = ours != 0, store.Time(since), store.Time(next)
			return n, err
		}, `SELECT vm_id, vcenter_id, ours, since, attempts, next_attempt_at, last_error FROM consolidations WHERE vcenter_id = $1
			AND ($2 = 0 OR (ours = 1 AND next_attempt_at <= $3)) ORDER BY since, vm_id`, vcenter, store.Flag(due), c.millis())
		return err
	})
	return all, err
}

// Consolidated writes down how an attempt ended; why is empty when the disks are merged, else it comes again at next.
func (c *Catalog) Consolidated(ctx context.Context, o Owner, vmID, why string, next time.Time) error {
	return c.store.Update(ctx, "write down a consolidation", func(tx store.Tx) error {
		err := o.held(ctx, tx)
		switch {
		case err != nil:
		case why == "":
			_, err = tx.Exec(ctx, "DELETE FROM consolidations WHERE vm_id = $1 AND vcenter_id = $2", vmID, o.VCenter)
		default:
			_, err = tx.Exec(ctx, "UPDATE consolidations SET attempts = attempts + 1, last_error = $1, next_attempt_at = $2 WHERE vm_id = $3 AND vcenter_id = $4",
				why, store.Millis(next), vmID, o.VCenter)
		}
		return err
	})
}

// consolidations takes in which VMs of a vCenter need consolidation.
func (c *Catalog) consolidations(ctx context.Context, tx store.Tx, o Owner, vms []SeenVM) error {
	needs := map[string]bool{}
	now := c.now()
	for _, v := range vms {
		if !v.ConsolidationNeeded {
			continue
		}
		needs[v.ID] = true
		_, err := tx.Exec(ctx, `INSERT INTO consolidations (vm_id, vcenter_id, ours, since, next_attempt_at)
			SELECT $1, $2, CASE WHEN EXISTS (SELECT 1 FROM snapshot_ledger s WHERE s.vm_id = $1 AND s.vcenter_id = $2 AND s.removed_at > $3 AND s.proof <> 'not in the inventory') THEN 1 ELSE 0 END, $4, $5
			ON CONFLICT DO NOTHING`, v.ID, o.VCenter, store.Millis(now.Add(-oursFor)), store.Millis(now), store.Millis(now.Add(consolidateAfter)))
		if err != nil {
			return err
		}
	}
	had, err := store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
		"SELECT vm_id FROM consolidations WHERE vcenter_id = $1", o.VCenter)
	for _, id := range had {
		if err == nil && !needs[id] {
			_, err = tx.Exec(ctx, "DELETE FROM consolidations WHERE vm_id = $1", id)
		}
	}
	return err
}
