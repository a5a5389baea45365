package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// SnapshotState is what the ledger knows of a snapshot.
type SnapshotState string

// The states. All but Removed may be there.
const (
	SnapshotIntent  SnapshotState = "intent"
	SnapshotCreated SnapshotState = "created"
	SnapshotInUse   SnapshotState = "in_use"
	RemoveRequested SnapshotState = "remove_requested"
	SnapshotRemoved SnapshotState = "removed"
	Orphan          SnapshotState = "orphan"  // ours, and no run wants it
	Foreign         SnapshotState = "foreign" // shown, never touched
	Lost            SnapshotState = "lost"    // its VM is gone
)

// Snapshot is a row of the ledger, which stays until the snapshot is proved to be gone.
type Snapshot struct {
	ID, RunID                    string
	Epoch                        int64
	VCenter, VMID, VMMoref, Road string
	Name, Moref, Task            string
	State                        SnapshotState
	Proof                        string
	Created, Removed             time.Time
	Attempts                     int
	NextAttempt                  time.Time
	LastError                    string
	KeepUntil                    time.Time
}

const snapshotColumns = `id, run_id, epoch, vcenter_id, vm_id, vm_moref, road, name, snapshot_moref, task_moref, state, proof, created_at, removed_at, attempts,
	next_attempt_at, last_error, keep_until`

func readSnapshot(scan func(...any) error) (Snapshot, error) {
	var s Snapshot
	var state string
	var created, removed, next, keep int64
	err := scan(&s.ID, &s.RunID, &s.Epoch, &s.VCenter, &s.VMID, &s.VMMoref, &s.Road, &s.Name, &s.Moref, &s.Task, &state, &s.Proof, &created, &removed,
		&s.Attempts, &next, &s.LastError, &keep)
	s.State = SnapshotState(state)
	s.Created, s.Removed, s.NextAttempt, s.KeepUntil = store.Time(created), store.Time(removed), store.Time(next), store.Time(keep)
	return s, err
}

// SnapshotFilter chooses rows of the ledger; its zero value all that are not Removed.
type SnapshotFilter struct {
	ID, VCenter, VMID, RunID string
	// States leaves only those in one of them, which may be Removed.
	States []string
	// Due leaves only those that the sweeper has to remove by now: requested, orphaned, or kept for long enough, whose
	// next attempt has come.
	Due bool
	// Unneeded leaves only those that may be there and that no run of ours needs, Foreign ones too. One that is in use after its
	// run is kept on purpose.
	Unneeded bool
	// After is the last one of the page before; Limit 0 is no limit.
	After Snapshot
	Limit int
}

// unneeded is true of rows of the ledger s that are ours, may be there, and that no run needs.
const unneeded = `(s.state = 'orphan' OR (s.state IN ('intent', 'created', 'remove_requested')
	AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = s.run_id AND r.state IN ` + unfinished + `)))`

// where writes the conditions, and gives their parameters.
func (f SnapshotFilter) where(now int64) (string, []any) {
	var all []string
	var args []any
	add := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		all = append(all, condition)
	}
	for _, e := range []struct{ column, value string }{{"id", f.ID}, {"vcenter_id", f.VCenter}, {"vm_id", f.VMID}, {"run_id", f.RunID}} {
		if e.value != "" {
			add("s."+e.column+" = ?", e.value)
		}
	}
	switch {
	case len(f.States) > 0:
		list, values := among(f.States, len(args)+1)
		args = append(args, values...)
		add("s.state IN " + list)
	case f.ID == "":
		add("s.state <> 'removed'")
	}
	if f.Due {
		add("s.next_attempt_at <= ? AND (s.state IN ('remove_requested', 'orphan') OR (s.keep_until > 0 AND s.keep_until <= ?)) AND s.state NOT IN ('foreign', 'lost')", now, now)
	}
	if f.Unneeded {
		add("(s.state = 'foreign' OR " + unneeded + ")")
	}
	if f.After.ID != "" {
		created := store.Millis(f.After.Created)
		add("(s.created_at > ? OR (s.created_at = ? AND s.id > ?))", created, created, f.After.ID)
	}
	return strings.Join(append(all, "true"), " AND "), args
}

// Snapshots lists rows of the ledger, the oldest first.
func (c *Catalog) Snapshots(ctx context.Context, f SnapshotFilter) (all []Snapshot, err error) {
	where, args := f.where(c.millis())
	query := "SELECT " + snapshotColumns + " FROM snapshot_ledger s WHERE " + where + " ORDER BY s.created_at, s.id"
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	err = c.store.View(ctx, "list snapshots", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readSnapshot, query, args...)
		return err
	})
	return all, err
}

// Owner is by what right something is written that belongs to no run: the lease of a vCenter.
type Owner struct {
	VCenter string
	Epoch   int64
}

// NotOwnerError says that the vCenter is another node's by now.
type NotOwnerError struct{ Owner }

func (e *NotOwnerError) Error() string {
	return fmt.Sprintf("vCenter %s is not owned with epoch %d any more", e.VCenter, e.Epoch)
}

// Code is the code of the error catalogue.
func (e *NotOwnerError) Code() string { return "SF1903" }

func (o Owner) held(ctx context.Context, tx store.Tx) error {
	var epoch int64
	err := missing("vCenter", o.VCenter, tx.One(ctx, []any{&epoch}, "SELECT epoch FROM vcenter_leases WHERE vcenter_id = $1"+tx.Lock(), o.VCenter))
	if errors.Is(err, ErrNotFound) || err == nil && epoch != o.Epoch {
		return &NotOwnerError{o}
	}
	return err
}

// KeepSnapshot ends a run's care for the snapshot that it made: it stays, the journal has nothing to undo any more, and the
// sweeper removes it after until; never when until is zero.
func (c *Catalog) KeepSnapshot(ctx context.Context, f journal.Fence, name, moref string, until time.Time) error {
	return c.store.Update(ctx, "keep a snapshot", func(tx store.Tx) error {
		if err := f.Held(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE steps SET state = 'done', finished_at = $1 WHERE run_id = $2 AND name = 'snapshot' AND subject = $3 AND state = 'intent'", c.millis(), f.RunID, name)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'in_use', snapshot_moref = $1, keep_until = $2 WHERE run_id = $3 AND name = $4 AND state IN ('intent', 'created', 'in_use')",
			moref, store.Millis(until), f.RunID, name)
		if err == nil && n == 0 {
			err = state("snapshot", name)
		}
		return err
	})
}

// markOfOther begins the proof of a Foreign snapshot whose description bears the mark of another installation.
const markOfOther = "inst="

// RequestRemoval has the sweeper remove a snapshot, because a person said so. One that bears the mark of another installation
// is that one's to remove: ErrState.
func (c *Catalog) RequestRemoval(ctx context.Context, id string) error {
	return c.store.Update(ctx, "ask for the removal of a snapshot", func(tx store.Tx) error {
		n, err := tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'remove_requested', next_attempt_at = 0 WHERE id = $1 AND state NOT IN ('removed', 'intent') AND NOT (state = 'foreign' AND proof LIKE $2)", id, markOfOther+"%")
		if err == nil && n == 0 {
			err = state("snapshot", id)
		}
		return err
	})
}

// Removal is how an attempt of the sweeper ended.
type Removal struct {
	// Gone is the proof that the snapshot is not there any more; empty when it is there, or nobody knows.
	Gone string
	// Lost is true when its VM is not there any more.
	Lost bool
	// Task is the task that still removes it; Err why it could not be removed; Next when to try again.
	Task, Err string
	Next      time.Time
	// Unmerged is true when its disks need consolidation after it.
	Unmerged bool
}

// Removed writes down how an attempt to remove a snapshot ended.
func (c *Catalog) Removed(ctx context.Context, o Owner, id string, r Removal) error {
	return c.store.Update(ctx, "write down the removal of a snapshot", func(tx store.Tx) error {
		if err := o.held(ctx, tx); err != nil {
			return err
		}
		now := c.millis()
		var n int64
		var err error
		switch {
		case r.Gone != "":
			n, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'removed', proof = $1, removed_at = $2 WHERE id = $3 AND vcenter_id = $4", r.Gone, now, id, o.VCenter)
		case r.Lost:
			n, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'lost', last_error = $1 WHERE id = $2 AND vcenter_id = $3", r.Err, id, o.VCenter)
		default:
			n, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET attempts = attempts + 1, task_moref = $1, last_error = $2, next_attempt_at = $3 WHERE id = $4 AND vcenter_id = $5",
				r.Task, r.Err, store.Millis(r.Next), id, o.VCenter)
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("snapshot %s: %w", id, ErrNotFound)
		}
		if err == nil && r.Unmerged {
			_, err = tx.Exec(ctx, `INSERT INTO consolidations (vm_id, vcenter_id, ours, since, next_attempt_at) SELECT vm_id, vcenter_id, 1, $1, $2 FROM snapshot_ledger WHERE id = $3
				ON CONFLICT (vm_id) DO UPDATE SET ours = 1`, now, now+consolidateAfter.Milliseconds(), id)
		}
		return err
	})
}
