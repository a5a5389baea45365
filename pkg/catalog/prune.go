package catalog

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

// pruneAtOnce is how many rows one transaction removes, so that nobody waits long for it.
const pruneAtOnce = 500

// Prune forgets runs that ended before a time, with their steps and events, and whatever else nobody asks for any more. Never forgotten
// are runs with an open intent, the last good run of a VM, and snapshots that are not proved to be gone.
func (c *Catalog) Prune(ctx context.Context, before time.Time) (runs int64, err error) {
	old := store.Millis(before)
	statements := []struct {
		of   string
		arg  int64
		runs bool
	}{
		{`DELETE FROM runs WHERE id IN (SELECT r.id FROM runs r WHERE r.state NOT IN ` + unfinished + ` AND r.finished_at > 0 AND r.finished_at < $1
			AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.run_id = r.id AND s.state = 'intent')
			AND NOT EXISTS (SELECT 1 FROM vms v WHERE v.last_ok_run = r.id) LIMIT $2)`, old, true},
		{"DELETE FROM snapshot_ledger WHERE id IN (SELECT id FROM snapshot_ledger WHERE state = 'removed' AND removed_at < $1 LIMIT $2)", old, false},
		{"DELETE FROM writer_sessions WHERE id IN (SELECT id FROM writer_sessions WHERE closed_at > 0 AND closed_at < $1 LIMIT $2)", old, false},
		{"DELETE FROM refusals WHERE credential IN (SELECT credential FROM refusals WHERE at < $1 LIMIT $2)", store.Millis(c.now().Add(-breakerFor)), false},
		{
			"DELETE FROM idempotency_keys WHERE created_at < $1 AND key IN (SELECT key FROM idempotency_keys WHERE created_at < $1 LIMIT $2)",
			store.Millis(c.now().Add(-keyLife)), false,
		},
	}
	for _, s := range statements {
		for n := int64(pruneAtOnce); n == pruneAtOnce; {
			err := c.store.Update(ctx, "forget what is old", func(tx store.Tx) (err error) {
				n, err = tx.Exec(ctx, s.of, s.arg, pruneAtOnce)
				return err
			})
			if err != nil {
				return runs, err
			}
			if s.runs {
				runs += n
			}
		}
	}
	return runs, nil
}
