package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/store"
)

// Inventory is what a vCenter was seen to have at one moment.
type Inventory struct {
	// At is when it began to be read. What changed since is not judged by it.
	At time.Time
	// Installation is our own mark, Before the highest epoch that the database knew when it was opened, Epoch the one that was
	// drawn then.
	Installation  string
	Before, Epoch int64
	VMs           []SeenVM
}

// SeenVM is one of its VMs.
type SeenVM struct {
	ID, Moref           string
	ConsolidationNeeded bool
	// Snapshots are those whose names have our form.
	Snapshots []SeenSnapshot
}

// SeenSnapshot is a snapshot whose name has our form: made by us, by another installation, or by anybody who writes such
// names.
type SeenSnapshot struct {
	Name, Moref string
	// RunID and Epoch are those of the name.
	RunID string
	Epoch int64
	// Installation is whose mark its description bears, empty when it bears none that agrees with the name; Keep is for how
	// long its run was to keep it.
	Installation string
	Keep         time.Duration
	Created      time.Time
}

// Taken is what TakeIn found.
type Taken struct {
	// New are the rows that it made or changed: Orphan ones will be removed, Foreign ones are only shown, those InUse are kept
	// until their time has come.
	New []Snapshot
	// Gone is how many rows were struck out because vCenter does not have their snapshots any more.
	Gone int
	// Behind names a snapshot that proves the database to be older than what is outside: ours, of a later epoch than it had when
	// it was opened, made before that, and of a run that it does not know. Then a reconciliation has begun (SF1906). Empty when there is none.
	Behind string
}

// TakeIn compares the ledger with an inventory. A snapshot without a live run becomes an Orphan only with proof that it is
// ours: the ledger says so, or its description bears our mark and its run has ended or is not known. All others of that form
// become Foreign. What VMs need consolidation is taken in too.
func (c *Catalog) TakeIn(ctx context.Context, o Owner, in Inventory) (t Taken, err error) {
	err = c.store.Update(ctx, "compare the ledger with the inventory", func(tx store.Tx) error {
		t = Taken{}
		if err := o.held(ctx, tx); err != nil {
			return err
		}
		j := judge{c, tx, o, in}
		for _, v := range in.VMs {
			for _, s := range v.Snapshots {
				if err := j.one(ctx, v, s, &t); err != nil {
					return err
				}
			}
		}
		if t.Gone, err = j.gone(ctx); err != nil {
			return err
		}
		if err := behind(ctx, tx, t.Behind); err != nil {
			return err
		}
		return c.consolidations(ctx, tx, o, in.VMs)
	})
	return t, err
}

// behind begins a reconciliation, if none is under way, because of a snapshot that proves one to be needed.
func behind(ctx context.Context, tx store.Tx, snapshot string) error {
	if snapshot == "" {
		return nil
	}
	why, _, err := tx.Reconciling(ctx)
	if err != nil || why != "" {
		return err
	}
	return tx.Reconcile(ctx, "vCenter has the snapshot "+snapshot+" of ours, of which the database knows nothing: it was put back from a copy")
}

// judge compares one inventory in one transaction.
type judge struct {
	*Catalog
	tx    store.Tx
	owner Owner
	in    Inventory
}

// one judges one snapshot.
func (j judge) one(ctx context.Context, v SeenVM, s SeenSnapshot, t *Taken) error {
	r, err := run(ctx, j.tx, s.RunID)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if known && (r.State == Queued || r.State == Running || r.State == Compensating) {
		return nil // its run sees to it
	}
	rows, err := store.All(ctx, j.tx, readSnapshot, "SELECT "+snapshotColumns+" FROM snapshot_ledger WHERE vcenter_id = $1 AND name = $2 AND vm_id = $3", j.owner.VCenter, s.Name, v.ID)
	if err != nil {
		return err
	}
	verdict := j.unwritten(s, known)
	verdict.VCenter, verdict.VMID, verdict.VMMoref, verdict.Name, verdict.Moref = j.owner.VCenter, v.ID, v.Moref, s.Name, s.Moref
	if len(rows) > 0 {
		switch row := rows[0]; {
		case row.State == SnapshotIntent, row.State == SnapshotCreated:
			verdict.State, verdict.Proof, verdict.KeepUntil = Orphan, "ledger", time.Time{}
		case row.State == SnapshotRemoved && row.Removed.Before(j.in.At), row.State == Lost: // it is there again
		default:
			return nil
		}
		_, err = j.tx.Exec(ctx, `UPDATE snapshot_ledger SET state = $1, proof = $2, keep_until = $3, snapshot_moref = $4, vm_moref = $5, removed_at = 0, next_attempt_at = 0 WHERE id = $6`,
			string(verdict.State), verdict.Proof, store.Millis(verdict.KeepUntil), s.Moref, v.Moref, rows[0].ID)
	} else {
		if s.Installation == j.in.Installation && !known && s.Epoch > j.in.Before && s.Epoch <= j.in.Epoch && t.Behind == "" {
			t.Behind = s.Name
		}
		_, err = j.tx.Exec(ctx, `INSERT INTO snapshot_ledger (id, run_id, epoch, vcenter_id, vm_id, vm_moref, name, snapshot_moref, state, proof, keep_until, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, uuid.NewString(), s.RunID, s.Epoch, j.owner.VCenter, v.ID, v.Moref, s.Name, s.Moref,
			string(verdict.State), verdict.Proof, store.Millis(verdict.KeepUntil), store.Millis(s.Created))
	}
	t.New = append(t.New, verdict)
	return err
}

// unwritten judges a snapshot by its description alone, whose run is not live.
func (j judge) unwritten(s SeenSnapshot, known bool) Snapshot {
	v := Snapshot{RunID: s.RunID, Epoch: s.Epoch, State: Foreign, Created: s.Created}
	switch {
	case s.Installation == "":
		v.Proof = "its description bears nobody's mark"
	case s.Installation != j.in.Installation:
		v.Proof = markOfOther + s.Installation
	case !known && s.Epoch > j.in.Epoch: // made since by somebody who does not share this database
		v.Proof = "it bears our mark, but was made by nobody here: does another daemon work with a copy of this database or folder?"
	case s.Keep > 0:
		v.State, v.Proof, v.KeepUntil = SnapshotInUse, "description", s.Created.Add(s.Keep)
	default:
		v.State, v.Proof = Orphan, "description"
	}
	return v
}

// gone strikes out what vCenter does not have any more of snapshots that no run works on. Foreign ones are forgotten, so that one
// that comes back is judged anew.
func (j judge) gone(ctx context.Context) (n int, err error) {
	there, seen := map[[2]string]bool{}, map[string]bool{}
	for _, v := range j.in.VMs {
		seen[v.ID] = true
		for _, s := range v.Snapshots {
			there[[2]string{v.ID, s.Name}] = true
		}
	}
	rows, err := store.All(ctx, j.tx, readSnapshot, "SELECT "+snapshotColumns+` FROM snapshot_ledger s WHERE vcenter_id = $1 AND (state IN ('orphan', 'foreign') OR (state = 'in_use'
		AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = s.run_id AND (r.state IN `+unfinished+` OR r.finished_at >= $2))))`, j.owner.VCenter, store.Millis(j.in.At))
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		switch {
		case there[[2]string{row.VMID, row.Name}]:
			continue
		case row.State == Foreign:
			_, err = j.tx.Exec(ctx, "DELETE FROM snapshot_ledger WHERE id = $1", row.ID)
		case !seen[row.VMID]: // its removal will say what became of the VM
			continue
		default:
			_, err = j.tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'removed', proof = 'not in the inventory', removed_at = $1 WHERE id = $2", j.millis(), row.ID)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
