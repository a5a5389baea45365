package catalog

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// SessionState is how far a session with a guest's writers has come.
type SessionState string

// The states. The last four are closed: by the agent's own word, by a new start of the guest, or because it was another
// requestor's and is gone.
const (
	SessionOpen     SessionState = "open"
	SessionFrozen   SessionState = "frozen"
	SessionThawed   SessionState = "thawed"
	CompletePending SessionState = "complete_pending"
	CompleteSent    SessionState = "complete_sent"
	SessionAborted  SessionState = "aborted"
	SessionExpired  SessionState = "expired"
	SessionForeign  SessionState = "foreign"  // another requestor's
	SessionClosed   SessionState = "closed"   // the agent says that it is closed
	SessionRebooted SessionState = "rebooted" // the guest has started anew since
)

// Session is one session between VSS and a guest's writers. RunID is empty for one of another requestor.
type Session struct {
	ID, RunID, VMID        string
	Session, SetID, BootID string
	State                  SessionState
	Opened, Closed         time.Time
	Attempts               int
}

const sessionColumns = "id, run_id, vm_id, session, set_id, boot_id, state, opened_at, closed_at, attempts"

func readSession(scan func(...any) error) (Session, error) {
	var s Session
	var state string
	var opened, closed int64
	err := scan(&s.ID, &s.RunID, &s.VMID, &s.Session, &s.SetID, &s.BootID, &state, &opened, &closed, &s.Attempts)
	s.State, s.Opened, s.Closed = SessionState(state), store.Time(opened), store.Time(closed)
	return s, err
}

// Heard is what a run heard of the sessions with its guest's writers. Its zero value is nothing.
type Heard struct {
	// BootID is the guest's; sessions of other boots have ended with them. Empty when the guest was not heard of.
	BootID string
	// Session is the one that the run opened, empty when it opened none; SetID its snapshot set, as far as it came.
	Session, SetID string
	// State is how far it came: SessionClosed only by the agent's own word.
	State  SessionState
	Opened time.Time
	// LostSets are the snapshot sets whose sessions were never ended, by the guest's own log.
	LostSets []string
}

// Hear writes down what a run heard whose end has to wait until what it left outside is gone.
func (c *Catalog) Hear(ctx context.Context, f journal.Fence, h Heard) error {
	return c.store.Update(ctx, "write down a session with writers", func(tx store.Tx) error {
		if err := f.Held(ctx, tx); err != nil {
			return err
		}
		r, err := run(ctx, tx, f.RunID)
		if err != nil {
			return err
		}
		return heard(ctx, tx, r, h, c.millis())
	})
}

// heard takes in what a run heard, in the transaction that ends it or puts it back.
func heard(ctx context.Context, tx store.Tx, r Run, h Heard, now int64) error {
	if h.BootID == "" {
		return nil
	}
	if err := booted(ctx, tx, r.VMID, h.BootID, now); err != nil {
		return err
	}
	if h.Session != "" {
		closed := int64(0)
		if h.State == SessionClosed {
			closed = now
		}
		_, err := tx.Exec(ctx, `INSERT INTO writer_sessions (id, run_id, vm_id, session, set_id, boot_id, state, opened_at, closed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (vm_id, session) DO UPDATE SET state = EXCLUDED.state, closed_at = EXCLUDED.closed_at, set_id = EXCLUDED.set_id`,
			uuid.NewString(), r.ID, r.VMID, h.Session, h.SetID, h.BootID, string(h.State), store.Millis(h.Opened), closed)
		if err != nil {
			return err
		}
	}
	for _, set := range h.LostSets { // one of ours is in the ledger by its own name
		_, err := tx.Exec(ctx, `INSERT INTO writer_sessions (id, vm_id, session, set_id, boot_id, state, opened_at) SELECT $1, $2, $3, $4, $5, 'foreign', $6
			WHERE NOT EXISTS (SELECT 1 FROM writer_sessions w WHERE w.vm_id = $2 AND w.set_id = $4) ON CONFLICT DO NOTHING`,
			uuid.NewString(), r.VMID, "set "+set, set, h.BootID, now)
		if err != nil {
			return err
		}
	}
	return nil
}

// booted closes the sessions of a VM that an earlier boot had: they ended with it.
func booted(ctx context.Context, tx store.Tx, vm, boot string, now int64) error {
	if _, err := tx.Exec(ctx, "UPDATE vms SET boot_id = $1 WHERE id = $2", boot, vm); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "UPDATE writer_sessions SET state = 'rebooted', closed_at = $1 WHERE vm_id = $2 AND boot_id <> $3 AND closed_at = 0", now, vm, boot)
	return err
}

// OpenSessions lists the sessions of a VM that are not proved to be closed, the oldest first; of all VMs when vmID is empty.
func (c *Catalog) OpenSessions(ctx context.Context, vmID string) (all []Session, err error) {
	err = c.store.View(ctx, "list sessions with writers", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readSession, "SELECT "+sessionColumns+" FROM writer_sessions WHERE closed_at = 0 AND ($1 = '' OR vm_id = $1) ORDER BY opened_at, id", vmID)
		return err
	})
	return all, err
}

// MaxSessions is how many sessions a writer has at most; from then on each run logs event 12289 with 0x80042409.
const MaxSessions = 64

// Leak is how many sessions of a VM are left open, and where that leads.
type Leak struct {
	VMID, VCenter string
	// Ours and Foreign are open; Runs is how many runs have opened one since the oldest of them.
	Ours, Foreign, Runs int
	// ForeignSets names those of others by their snapshot-set id.
	ForeignSets []string
}

// RunsLeft is how many more runs fit until MaxSessions, as it went on so far; false when nothing is left open, or nobody
// knows how fast it grows.
func (l Leak) RunsLeft() (int, bool) {
	open := l.Ours + l.Foreign
	if open == 0 || l.Runs == 0 {
		return 0, false
	}
	return max(0, MaxSessions-open) * l.Runs / open, true
}

// leakAfter is how long a session may be open whose run has ended before it counts as left.
const leakAfter = 10 * time.Minute

// Leaks lists the VMs with sessions that were left open, the most first. Those of runs that are still at work do not count.
func (c *Catalog) Leaks(ctx context.Context) (all []Leak, err error) {
	err = c.store.View(ctx, "count sessions with writers", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Leak, error) {
			var l Leak
			err := scan(&l.VMID, &l.VCenter, &l.Ours, &l.Foreign, &l.Runs)
			return l, err
		}, `SELECT o.vm_id, COALESCE((SELECT v.vcenter_id FROM vms v WHERE v.id = o.vm_id), ''), o.ours, o.others, (SELECT count(*) FROM writer_sessions a WHERE a.vm_id = o.vm_id AND a.run_id <> '' AND a.opened_at >= o.since) FROM (
			SELECT w.vm_id, SUM(CASE WHEN w.run_id <> '' THEN 1 ELSE 0 END) AS ours, SUM(CASE WHEN w.run_id = '' THEN 1 ELSE 0 END) AS others, MIN(w.opened_at) AS since
			FROM writer_sessions w LEFT JOIN runs r ON r.id = w.run_id
			WHERE w.closed_at = 0 AND (w.run_id = '' OR ((r.id IS NULL OR r.state NOT IN `+unfinished+`) AND w.opened_at < $1)) GROUP BY w.vm_id) o
			ORDER BY o.ours + o.others DESC, o.vm_id`, store.Millis(c.now().Add(-leakAfter)))
		if err != nil {
			return err
		}
		for n := range all {
			all[n].ForeignSets, err = store.All(ctx, tx, func(scan func(...any) error) (s string, err error) { return s, scan(&s) },
				"SELECT set_id FROM writer_sessions WHERE vm_id = $1 AND run_id = '' AND closed_at = 0 ORDER BY opened_at, id", all[n].VMID)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}
