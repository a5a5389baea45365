package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

// Memory is what lasts from run to run, as one run of the daemon sees it: a backup.Memory in the database. Every write is
// fenced by the run's epoch. Nothing of it is called between GO and THAWED.
type Memory struct {
	catalog *Catalog
	fence   journal.Fence
}

// Memory gives the memory to whoever works on a run, or undoes it.
func (c *Catalog) Memory(f journal.Fence) Memory { return Memory{c, f} }

// Intend writes intents down, all or none. One that is open already stays as it is.
func (m Memory) Intend(ctx context.Context, intents ...statefile.Intent) error {
	for _, i := range intents {
		failpoint.Before("journal.intend", i.Kind)
	}
	err := m.intend(ctx, intents)
	for _, i := range intents {
		failpoint.After("journal.intend", i.Kind)
	}
	return err
}

func (m Memory) intend(ctx context.Context, intents []statefile.Intent) error {
	return m.catalog.store.Update(ctx, "write down what is about to be made", func(tx store.Tx) error {
		for _, i := range intents {
			var open int
			err := tx.One(ctx, []any{&open}, "SELECT count(*) FROM steps WHERE run_id = $1 AND name = $2 AND subject = $3 AND state = 'intent'", m.fence.RunID, string(i.Kind), i.Subject)
			if err != nil {
				return err
			}
			if open > 0 {
				continue
			}
			if i.At.IsZero() {
				i.At = m.catalog.now().UTC()
			}
			_, err = m.catalog.journal.IntendIn(ctx, tx, journal.Intent{
				RunID: m.fence.RunID, Epoch: m.fence.Epoch, Step: journal.Step(i.Kind), Subject: i.Subject, Detail: i,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Settle strikes out intents whose things are gone, also those of an older epoch of the run, or of another run that this
// one cleans up after. Those that are not open are ignored.
func (m Memory) Settle(ctx context.Context, intents ...statefile.Intent) error {
	for _, i := range intents {
		failpoint.Before("journal.settle", i.Kind)
	}
	err := m.settle(ctx, intents)
	for _, i := range intents {
		failpoint.After("journal.settle", i.Kind)
	}
	return err
}

func (m Memory) settle(ctx context.Context, intents []statefile.Intent) error {
	return m.catalog.store.Update(ctx, "write down what is gone", func(tx store.Tx) error {
		if err := m.fence.Held(ctx, tx); err != nil {
			return err
		}
		now := m.catalog.millis()
		for _, i := range intents {
			of := "IN (SELECT r.id FROM runs r JOIN vms v ON v.id = r.vm_id WHERE v.instance_uuid = $3)"
			_, err := tx.Exec(ctx, "UPDATE steps SET state = 'compensated', finished_at = $4 WHERE name = $1 AND subject = $2 AND state = 'intent' AND run_id "+of,
				string(i.Kind), i.Subject, i.VM, now)
			if err == nil && i.Kind == statefile.Snapshot {
				_, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'removed', proof = 'gone', removed_at = $3 WHERE name = $1 AND state NOT IN ('removed', 'lost') AND vm_id IN (SELECT id FROM vms WHERE instance_uuid = $2)",
					i.Subject, i.VM, now)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Intents lists what is open for a VM, by its instance UUID, the oldest first; for all VMs when vm is empty.
func (m Memory) Intents(ctx context.Context, vm string) ([]statefile.Intent, error) {
	pending, err := m.catalog.journal.Open(ctx, "")
	if vm != "" {
		pending, err = m.catalog.journal.OpenOfVM(ctx, vm)
	}
	if err != nil {
		return nil, err
	}
	var all []statefile.Intent
	for _, p := range pending {
		switch p.Step {
		case journal.Snapshot, journal.Folder, journal.Process:
		default:
			continue // nothing of it can be taken away by its name
		}
		var i statefile.Intent
		detail, _ := p.Detail.(json.RawMessage)
		if err := json.Unmarshal(detail, &i); err != nil {
			return nil, fmt.Errorf("read intent %s %s of run %s: %w", p.Step, p.Subject, p.RunID, err)
		}
		all = append(all, i)
	}
	return all, nil
}

// Acquire says whether this run is the one that works on the VM with this instance UUID: it is since it was queued. The
// error is a *BusyError when another one does, a *journal.FencedError when this one was taken over.
func (m Memory) Acquire(ctx context.Context, instanceUUID, _ string) error {
	return m.catalog.store.View(ctx, "begin to work on a VM", func(tx store.Tx) error {
		r, err := run(ctx, tx, m.fence.RunID)
		if err != nil {
			return err
		}
		v, err := vm(ctx, tx, r.VMID)
		switch {
		case err != nil:
			return err
		case r.Epoch != m.fence.Epoch:
			return &journal.FencedError{Fence: m.fence}
		case v.InstanceUUID != instanceUUID:
			return fmt.Errorf("run %s is of VM %s, not of %s", r.ID, v.InstanceUUID, instanceUUID)
		}
		other, err := active(ctx, tx, r.VMID)
		if errors.Is(err, ErrNotFound) || err == nil && other == r.ID {
			return nil // a restore, and a recovery after the run's end, have the VM beside no backup
		}
		if err != nil {
			return err
		}
		return &BusyError{r.VMID, other}
	})
}

// Release does nothing: a run has its VM until it has ended.
func (m Memory) Release(context.Context, string, string) error { return nil }

// Windows gives what is remembered of the windows of the run's VM, the oldest first. None lies in the future: the clock may
// have been set back since.
func (m Memory) Windows(ctx context.Context, vm string) ([]admission.Sample, error) {
	return m.catalog.windows(ctx, "(SELECT vm_id FROM runs WHERE id = $1) AND EXISTS (SELECT 1 FROM vms v WHERE v.id = window_history.vm_id AND v.instance_uuid = $2)", m.fence.RunID, vm)
}

// Record adds a window of the run's VM, and forgets those beyond the last admission.Keep.
func (m Memory) Record(ctx context.Context, vm string, w admission.Sample) error {
	if w.At.IsZero() {
		w.At = m.catalog.now()
	}
	return m.catalog.store.Update(ctx, "remember a window", func(tx store.Tx) error {
		if err := m.fence.Held(ctx, tx); err != nil {
			return err
		}
		var id string
		var last int64
		err := tx.One(ctx, []any{&id, &last}, `SELECT v.id, (SELECT COALESCE(MAX(seq), 0) FROM window_history h WHERE h.vm_id = v.id)
			FROM vms v JOIN runs r ON r.vm_id = v.id WHERE r.id = $1 AND v.instance_uuid = $2`, m.fence.RunID, vm)
		if err != nil {
			return missing("VM", vm, err)
		}
		_, err = tx.Exec(ctx, `INSERT INTO window_history (vm_id, seq, at, freeze_us, snapshot_us, thaw_us, late, hold_timeout, mode, road, channel)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, id, last+1, store.Millis(w.At), w.Freeze.Microseconds(), w.Snapshot.Microseconds(),
			w.Thaw.Microseconds(), store.Flag(w.Late), store.Flag(w.HoldTimeout), string(w.Mode), w.Road, w.Channel)
		if err == nil {
			_, err = tx.Exec(ctx, "DELETE FROM window_history WHERE vm_id = $1 AND seq <= $2", id, last+1-admission.Keep)
		}
		return err
	})
}

// History gives what is remembered of the windows of a VM, by its ID, the oldest first.
func (c *Catalog) History(ctx context.Context, vmID string) ([]admission.Sample, error) {
	return c.windows(ctx, "$1", vmID)
}

func (c *Catalog) windows(ctx context.Context, of string, args ...any) (all []admission.Sample, err error) {
	now := c.now().UTC()
	err = c.store.View(ctx, "read the windows of a VM", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (admission.Sample, error) {
			var s admission.Sample
			var at, freeze, snapshot, thaw int64
			var mode string
			err := scan(&at, &freeze, &snapshot, &thaw, &s.Late, &s.HoldTimeout, &mode, &s.Road, &s.Channel)
			if s.At = store.Time(at); s.At.After(now) {
				s.At = now
			}
			s.Freeze, s.Snapshot, s.Thaw = micros(freeze), micros(snapshot), micros(thaw)
			s.Mode = freezewindow.Mode(mode)
			return s, err
		}, "SELECT at, freeze_us, snapshot_us, thaw_us, late, hold_timeout, mode, road, channel FROM window_history WHERE vm_id = "+of+" ORDER BY seq", args...)
		return err
	})
	return all, err
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
