package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/store"
)

// Step is what is about to be done.
type Step string

// The steps. What their subject is stands beside them.
const (
	Snapshot Step = "snapshot"      // the snapshot's name; it goes into the ledger too
	Folder   Step = "agent_folder"  // the agent's folder in the guest
	Process  Step = "agent_process" // the same, when the agent may run
	Window   Step = "window"        // the session with the agent
	Transfer Step = "transfer"      // the disk
	Commit   Step = "commit"        // the restore point
	Complete Step = "complete"      // the session with the agent
	Remove   Step = "remove"        // the snapshot's name
)

// Outcome is how a step ended.
type Outcome string

// The outcomes. Failed and Compensated mean that nothing of it is there any more.
const (
	Done        Outcome = "done"
	Failed      Outcome = "failed"
	Compensated Outcome = "compensated"
)

// Intent is one effect that a run is about to make outside.
type Intent struct {
	RunID string
	Epoch int64
	Step  Step
	// Subject names what is made, so that it is found when the answer to the call is lost.
	Subject string
	// Detail is what else an undo needs to know. It is stored as JSON; Open gives it as json.RawMessage.
	Detail any
	// At is when it was written down; Intend fills it in.
	At time.Time
}

// Pending is an intent whose end is not known yet.
type Pending struct {
	Intent
	journal *Journal
	seq     int64
	fence   Fence
}

// Journal keeps the intents of all runs. It is safe for concurrent use.
type Journal struct{ store *store.Store }

// New gives the journal in a database, which stays its opener's.
func New(s *store.Store) *Journal { return &Journal{s} }

// Intend is durable when it returns. With an error nothing must be made: a *FencedError when the run is another's, SF1901
// when it could not be written.
func (j *Journal) Intend(ctx context.Context, i Intent) (Pending, error) {
	failpoint.Before("journal.intend", i.Step)
	var p Pending
	err := j.store.Update(ctx, "write down what is about to be made", func(tx store.Tx) (err error) {
		p, err = j.IntendIn(ctx, tx, i)
		return err
	})
	failpoint.After("journal.intend", i.Step)
	return p, err
}

// IntendIn is Intend inside a transaction of the caller, durable with it.
func (j *Journal) IntendIn(ctx context.Context, tx store.Tx, i Intent) (Pending, error) {
	p := Pending{Intent: i, journal: j, fence: Fence{i.RunID, i.Epoch}}
	if i.Step == "" || i.Subject == "" {
		return p, errors.New("an intent needs a step and a subject")
	}
	detail, err := encode(i.Detail)
	if err != nil {
		return p, err
	}
	if err := p.fence.Held(ctx, tx); err != nil {
		return p, err
	}
	p.At = time.Now().UTC()
	err = tx.One(ctx, []any{&p.seq}, `INSERT INTO steps (run_id, seq, name, state, epoch, subject, detail, started_at)
		SELECT $1, COALESCE(MAX(seq), 0) + 1, $2, 'intent', $3, $4, $5, $6 FROM steps WHERE run_id = $1 RETURNING seq`,
		i.RunID, string(i.Step), i.Epoch, i.Subject, detail, store.Millis(p.At))
	if err == nil && i.Step == Snapshot {
		_, err = tx.Exec(ctx, `INSERT INTO snapshot_ledger (id, run_id, epoch, vcenter_id, vm_id, vm_moref, name, state, created_at)
			SELECT $1, r.id, r.epoch, r.vcenter_id, r.vm_id, v.moref, $2, 'intent', $3 FROM runs r JOIN vms v ON v.id = r.vm_id WHERE r.id = $4`,
			uuid.NewString(), i.Subject, store.Millis(p.At), i.RunID)
	}
	return p, err
}

func encode(detail any) (string, error) {
	if detail == nil {
		return "", nil
	}
	text, err := json.Marshal(detail)
	if err != nil {
		return "", fmt.Errorf("write down the detail of an intent: %w", err)
	}
	return string(text), nil
}

// Made is the detail with which a Snapshot is settled as Done.
type Made struct {
	Moref string `json:"snapshot_moref"`
	Task  string `json:"task_moref"`
	// KeepUntil is when the sweeper may remove it; never when it is zero.
	KeepUntil time.Time `json:"keep_until"`
}

// Settled closes the intent. One that is closed stays as it is. A snapshot that is Done stays in the ledger until it is
// gone; one that Failed or is Compensated is gone.
func (p Pending) Settled(ctx context.Context, o Outcome, detail any) error {
	failpoint.Before("journal.settle", p.Step)
	err := p.journal.store.Update(ctx, "write down what became of it", func(tx store.Tx) error { return p.SettledIn(ctx, tx, o, detail) })
	failpoint.After("journal.settle", p.Step)
	return err
}

// SettledIn is Settled inside a transaction of the caller.
func (p Pending) SettledIn(ctx context.Context, tx store.Tx, o Outcome, detail any) error {
	text, err := encode(detail)
	if err != nil {
		return err
	}
	if err := p.fence.Held(ctx, tx); err != nil {
		return err
	}
	now := store.Millis(time.Now())
	changed, err := tx.Exec(ctx, "UPDATE steps SET state = $1, outcome = $2, finished_at = $3 WHERE run_id = $4 AND seq = $5 AND state = 'intent'",
		string(o), text, now, p.RunID, p.seq)
	if err != nil || changed == 0 || p.Step != Snapshot {
		return err
	}
	if o != Done {
		_, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'removed', proof = $1, removed_at = $2 WHERE run_id = $3 AND name = $4 AND state <> 'removed'",
			"journal: "+string(o), now, p.RunID, p.Subject)
		return err
	}
	made, _ := detail.(Made)
	_, err = tx.Exec(ctx, "UPDATE snapshot_ledger SET state = 'created', snapshot_moref = $1, task_moref = $2, keep_until = $3 WHERE run_id = $4 AND name = $5 AND state = 'intent'",
		made.Moref, made.Task, store.Millis(made.KeepUntil), p.RunID, p.Subject)
	return err
}

// Open lists what is unsettled in a vCenter, in all of them when it is empty, the oldest first. What it lists can be
// settled by whoever owns the runs at this moment.
func (j *Journal) Open(ctx context.Context, vcenter string) ([]Pending, error) {
	return j.open(ctx, "($1 = '' OR r.vcenter_id = $1)", vcenter)
}

// OpenOfVM lists what is unsettled of the VM with this instance UUID.
func (j *Journal) OpenOfVM(ctx context.Context, instanceUUID string) ([]Pending, error) {
	return j.open(ctx, "r.vm_id IN (SELECT id FROM vms WHERE instance_uuid = $1)", instanceUUID)
}

func (j *Journal) open(ctx context.Context, where, arg string) (all []Pending, err error) {
	err = j.store.View(ctx, "read what is open", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Pending, error) {
			p := Pending{journal: j}
			var step, detail string
			var at int64
			err := scan(&p.RunID, &p.seq, &step, &p.Epoch, &p.Subject, &detail, &at, &p.fence.Epoch)
			p.Step, p.At, p.fence.RunID = Step(step), store.Time(at), p.RunID
			if detail != "" {
				p.Detail = json.RawMessage(detail)
			}
			return p, err
		}, `SELECT s.run_id, s.seq, s.name, s.epoch, s.subject, s.detail, s.started_at, r.epoch FROM steps s JOIN runs r ON r.id = s.run_id
			WHERE s.state = 'intent' AND `+where+` ORDER BY s.started_at, s.run_id, s.seq`, arg)
		return err
	})
	return all, err
}
