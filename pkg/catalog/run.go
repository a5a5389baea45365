package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// Kind is what a run does. Of the backups of one VM only one is unfinished at any time.
type Kind string

// The kinds.
const (
	Backup  Kind = "backup"
	Restore Kind = "restore"
	Verify  Kind = "verify"
)

// State is where a run is.
type State string

// The states. The first three are unfinished.
const (
	Queued       State = "queued"
	Running      State = "running"
	Compensating State = "compensating" // what it left outside is being undone
	Done         State = "done"
	Failed       State = "failed"
	Cancelled    State = "cancelled"
	Skipped      State = "skipped" // it never began; Cause says why
)

const unfinished = "('queued', 'running', 'compensating')"

// Run is one execution, as it is written down. Every change of it asks for the epoch that it has.
type Run struct {
	ID                     string
	Kind                   Kind
	JobID, VMID, VCenter   string
	ScheduledFor           time.Time // zero for a manual run
	Trigger                Trigger
	RequestedBy            string
	Spec                   json.RawMessage // what was asked for beside the job; empty when nothing was
	State                  State
	Phase                  string // the last step that it has begun
	Epoch                  int64
	Attempt                int
	NextAttempt            time.Time
	CancelRequested        bool
	Priority               int
	Outcome                string
	Level                  freezewindow.Level
	Mode                   freezewindow.Mode
	Cause, ErrorCode       string
	Report                 json.RawMessage
	BytesRead, BytesStored int64
	Created                time.Time
	Started, Finished      time.Time
}

// Fence is what whoever works on the run as it is here writes by.
func (r Run) Fence() journal.Fence { return journal.Fence{RunID: r.ID, Epoch: r.Epoch} }

const runColumns = `id, kind, COALESCE(job_id, ''), vm_id, vcenter_id, COALESCE(scheduled_for, 0), trigger, requested_by, spec, state, phase, epoch, attempt,
	next_attempt_at, cancel_requested, priority, outcome, level, mode, cause, error_code, report, bytes_read, bytes_stored, created_at, started_at, finished_at`

func readRun(scan func(...any) error) (Run, error) {
	var r Run
	var kind, trigger, spec, state, level, mode, report string
	var scheduled, next, created, started, finished int64
	err := scan(&r.ID, &kind, &r.JobID, &r.VMID, &r.VCenter, &scheduled, &trigger, &r.RequestedBy, &spec, &state, &r.Phase, &r.Epoch, &r.Attempt,
		&next, &r.CancelRequested, &r.Priority, &r.Outcome, &level, &mode, &r.Cause, &r.ErrorCode, &report, &r.BytesRead, &r.BytesStored, &created, &started, &finished)
	r.Kind, r.Trigger, r.State, r.Level, r.Mode = Kind(kind), Trigger(trigger), State(state), freezewindow.Level(level), freezewindow.Mode(mode)
	r.ScheduledFor, r.NextAttempt, r.Created, r.Started, r.Finished = store.Time(scheduled), store.Time(next), store.Time(created), store.Time(started), store.Time(finished)
	if spec != "" {
		r.Spec = json.RawMessage(spec)
	}
	if report != "" {
		r.Report = json.RawMessage(report)
	}
	return r, err
}

// Order asks for a run by hand.
type Order struct {
	// RunID is the id that the run gets; empty draws one. An order by the id of a run that is there makes no second.
	RunID       string
	Kind        Kind
	JobID, VMID string
	RequestedBy string
	Spec        json.RawMessage
	Priority    int
	NotBefore   time.Time
}

// BusyError says that another run works on the VM.
type BusyError struct{ VMID, Run string }

func (e *BusyError) Error() string { return fmt.Sprintf("run %s works on this VM", e.Run) }

// Code is the code of the error catalogue.
func (e *BusyError) Code() string { return "SF1103" }

// Order makes a run and its delivery, once. A *BusyError names the backup that its VM already has.
func (c *Catalog) Order(ctx context.Context, o Order) (Run, error) {
	var made Run
	if o.RunID == "" {
		o.RunID = uuid.Must(uuid.NewV7()).String()
	}
	err := c.store.Update(ctx, "order a run", func(tx store.Tx) error {
		known, err := run(ctx, tx, o.RunID)
		if err == nil || !errors.Is(err, ErrNotFound) {
			made = known
			return err
		}
		v, err := vm(ctx, tx, o.VMID)
		if err != nil {
			return err
		}
		epoch, err := tx.Epoch(ctx)
		if err != nil {
			return err
		}
		rows, err := store.All(ctx, tx, readRun, `INSERT INTO runs (id, kind, job_id, vm_id, vcenter_id, trigger, requested_by, spec, state, epoch, next_attempt_at, priority, created_at)
			VALUES ($1, $2, NULLIF($3, ''), $4, $5, 'manual', $6, $7, 'queued', $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING `+runColumns,
			o.RunID, string(o.Kind), o.JobID, v.ID, v.VCenter, o.RequestedBy, string(o.Spec), epoch, store.Millis(o.NotBefore), o.Priority, c.millis())
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			other, err := active(ctx, tx, v.ID)
			if err != nil {
				return err
			}
			return &BusyError{v.ID, other}
		}
		made = rows[0]
		return c.redeliver(ctx, tx, made)
	})
	return made, err
}

func (c *Catalog) redeliver(ctx context.Context, tx store.Tx, r Run) error {
	return c.deliver.Enqueue(ctx, tx, Delivery{r.ID, r.Epoch, r.VCenter, r.Priority, r.NextAttempt})
}

// active is the unfinished backup of a VM.
func active(ctx context.Context, tx store.Tx, vm string) (id string, err error) {
	err = tx.One(ctx, []any{&id}, "SELECT id FROM runs WHERE vm_id = $1 AND kind = 'backup' AND state IN "+unfinished, vm)
	return id, missing("a run of VM", vm, err)
}

// Run gives one by its ID, ErrNotFound if there is none.
func (c *Catalog) Run(ctx context.Context, id string) (r Run, err error) {
	err = c.store.View(ctx, "read a run", func(tx store.Tx) error {
		r, err = run(ctx, tx, id)
		return err
	})
	return r, err
}

func run(ctx context.Context, tx store.Tx, id string) (Run, error) {
	r, err := readRun(func(into ...any) error { return tx.One(ctx, into, "SELECT "+runColumns+" FROM runs WHERE id = $1", id) })
	return r, missing("run", id, err)
}

// RunFilter chooses runs; its zero value all of them. Before is the last run of the page before.
type RunFilter struct {
	JobID, VMID, VCenter string
	State                State
	// Unfinished leaves out those that have ended.
	Unfinished bool
	Before     Run
	Limit      int
}

// Runs lists runs, the newest first.
func (c *Catalog) Runs(ctx context.Context, f RunFilter) (all []Run, err error) {
	where, args := "true", []any{}
	add := func(condition string, arg any) {
		args = append(args, arg)
		where += fmt.Sprintf(" AND "+condition, len(args))
	}
	for _, e := range []struct{ column, value string }{{"job_id", f.JobID}, {"vm_id", f.VMID}, {"vcenter_id", f.VCenter}, {"state", string(f.State)}} {
		if e.value != "" {
			add(e.column+" = $%d", e.value)
		}
	}
	if f.Unfinished {
		where += " AND state IN " + unfinished
	}
	if f.Before.ID != "" {
		add("created_at <= $%d", store.Millis(f.Before.Created))
		args = append(args, f.Before.ID)
		where += fmt.Sprintf(" AND (created_at < $%d OR id < $%d)", len(args)-1, len(args))
	}
	add("true ORDER BY created_at DESC, id DESC LIMIT $%d", limit(f.Limit))
	err = c.store.View(ctx, "list runs", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readRun, "SELECT "+runColumns+" FROM runs WHERE "+where, args...)
		return err
	})
	return all, err
}

// Unfinished counts the unfinished runs of each vCenter.
func (c *Catalog) Unfinished(ctx context.Context) (of map[string]int, err error) {
	err = c.store.View(ctx, "count unfinished runs", func(tx store.Tx) error {
		of = map[string]int{}
		_, err := store.All(ctx, tx, func(scan func(...any) error) (v string, err error) {
			var n int
			err = scan(&v, &n)
			of[v] = n
			return v, err
		}, "SELECT vcenter_id, count(*) FROM runs WHERE state IN "+unfinished+" GROUP BY vcenter_id")
		return err
	})
	return of, err
}

// move changes a run that is still the fence's and in one of the states, by the assignments in set; its parameters begin
// with $3.
func (c *Catalog) move(ctx context.Context, tx store.Tx, f journal.Fence, from, set string, args ...any) (Run, error) {
	rows, err := store.All(ctx, tx, readRun, "UPDATE runs SET "+set+" WHERE id = $1 AND epoch = $2 AND state IN "+from+" RETURNING "+runColumns,
		append([]any{f.RunID, f.Epoch}, args...)...)
	if err != nil {
		return Run{}, err
	}
	if len(rows) == 0 {
		if err := f.Held(ctx, tx); err != nil {
			return Run{}, err
		}
		return Run{}, state("run", f.RunID)
	}
	return rows[0], nil
}

func (c *Catalog) change(ctx context.Context, op string, f journal.Fence, from, set string, args ...any) (r Run, err error) {
	err = c.store.Update(ctx, op, func(tx store.Tx) error {
		r, err = c.move(ctx, tx, f, from, set, args...)
		return err
	})
	return r, err
}

// Start makes a queued run a running one.
func (c *Catalog) Start(ctx context.Context, f journal.Fence) (Run, error) {
	return c.change(ctx, "start a run", f, "('queued')", "state = 'running', started_at = CASE WHEN started_at = 0 THEN $3 ELSE started_at END", c.millis())
}

// Epoch draws another epoch for a run that is still the fence's. The run keeps its own.
func (c *Catalog) Epoch(ctx context.Context, f journal.Fence) (uint64, error) {
	var epoch int64
	err := c.store.Update(ctx, "draw an epoch", func(tx store.Tx) (err error) {
		if err = f.Held(ctx, tx); err == nil {
			epoch, err = tx.Epoch(ctx)
		}
		return err
	})
	return uint64(epoch), err
}

// Advance says which phase a running or compensating run has begun.
func (c *Catalog) Advance(ctx context.Context, f journal.Fence, phase string) error {
	_, err := c.change(ctx, "write down the phase of a run", f, "('running', 'compensating')", "phase = $3", phase)
	return err
}

// Compensate says that what a run left outside is being undone now. Nobody else begins on its VM until that has ended.
func (c *Catalog) Compensate(ctx context.Context, f journal.Fence) (Run, error) {
	return c.change(ctx, "begin to undo a run", f, unfinished, "state = 'compensating'")
}

// Vanished writes down that the VM of a run is gone: its snapshots went with it, or come back when it is registered again, so they
// are lost and not removed. The sessions with its writers have ended, as by a new start.
func (c *Catalog) Vanished(ctx context.Context, f journal.Fence) error {
	return c.store.Update(ctx, "write down that a VM is gone", func(tx store.Tx) error {
		if err := f.Held(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE snapshot_ledger SET state = 'lost' WHERE state NOT IN ('removed', 'foreign') AND run_id = $1
			AND vm_id = (SELECT vm_id FROM runs WHERE id = $1)`, f.RunID)
		if err == nil {
			_, err = tx.Exec(ctx, "UPDATE writer_sessions SET state = 'rebooted', closed_at = $2 WHERE closed_at = 0 AND vm_id = (SELECT vm_id FROM runs WHERE id = $1)", f.RunID, c.millis())
		}
		return err
	})
}

// Retry is how a run begins anew.
type Retry struct {
	NotBefore time.Time
	// SameAttempt is for a run that was only put back, because there was no room for its window.
	SameAttempt bool
	Priority    int
	Cause, Code string
	// Heard is what the attempt that ended heard of sessions with writers.
	Heard Heard
}

// Again puts a run back into the queue, with a new epoch and a new delivery.
func (c *Catalog) Again(ctx context.Context, f journal.Fence, a Retry) (r Run, err error) {
	err = c.store.Update(ctx, "put a run back into the queue", func(tx store.Tx) error {
		epoch, err := tx.Epoch(ctx)
		if err != nil {
			return err
		}
		r, err = c.move(ctx, tx, f, unfinished, `state = 'queued', phase = '', outcome = '', epoch = $3, attempt = attempt + $4, next_attempt_at = $5,
			priority = CASE WHEN $6 > 0 THEN $6 ELSE priority END, cause = $7, error_code = $8`,
			epoch, store.Flag(!a.SameAttempt), store.Millis(a.NotBefore), int64(a.Priority), a.Cause, a.Code)
		if err != nil {
			return err
		}
		if err := heard(ctx, tx, r, a.Heard, c.millis()); err != nil {
			return err
		}
		return c.redeliver(ctx, tx, r)
	})
	return r, err
}

// End is how a run ended.
type End struct {
	State                  State // Done, Failed or Cancelled
	Outcome                string
	Level                  freezewindow.Level
	Mode                   freezewindow.Mode
	Cause, Code            string
	Report                 json.RawMessage
	BytesRead, BytesStored int64
	Events                 []Event
	// Road is how the guest was reached, empty when it was not.
	Road string
	// Point is when the snapshot was taken; the end of the run when it is zero.
	Point time.Time
	// NoPoint is true for a run that was to make no restore point: its VM's history learns nothing from it.
	NoPoint bool
	// Heard is what it heard of sessions with writers.
	Heard Heard
}

// Event is one thing that was seen of a window.
type Event struct {
	// Mono is since the window began, by the monotonic clock; At by the wall clock, for people.
	Mono               time.Duration
	At                 time.Time
	Side, Kind, Detail string
}

// Finish ends a run, with the events of its last window and what its VM's history learns from it.
func (c *Catalog) Finish(ctx context.Context, f journal.Fence, e End) (r Run, err error) {
	if e.State != Done && e.State != Failed && e.State != Cancelled {
		return Run{}, fmt.Errorf("end a run as %q: %w", e.State, ErrState)
	}
	err = c.store.Update(ctx, "end a run", func(tx store.Tx) error {
		now := c.millis()
		r, err = c.move(ctx, tx, f, unfinished, `state = $3, outcome = $4, level = $5, mode = $6, cause = $7, error_code = $8, report = $9, bytes_read = $10,
			bytes_stored = $11, finished_at = $12`,
			string(e.State), e.Outcome, string(e.Level), string(e.Mode), e.Cause, e.Code, string(e.Report), e.BytesRead, e.BytesStored, now)
		if err != nil {
			return err
		}
		if err := errors.Join(events(ctx, tx, f.RunID, e.Events), heard(ctx, tx, r, e.Heard, now)); err != nil {
			return err
		}
		return learn(ctx, tx, r, e, now)
	})
	return r, err
}

// Reported writes down how a run went whose end has to wait until what it left outside is gone.
func (c *Catalog) Reported(ctx context.Context, f journal.Fence, e End) error {
	_, err := c.change(ctx, "write down how a run went", f, "('running')", `outcome = $3, level = $4, mode = $5, cause = $6, error_code = $7, report = $8, bytes_read = $9,
		bytes_stored = $10`, e.Outcome, string(e.Level), string(e.Mode), e.Cause, e.Code, string(e.Report), e.BytesRead, e.BytesStored)
	return err
}

// learn keeps what a finished backup says of its VM.
func learn(ctx context.Context, tx store.Tx, r Run, e End, now int64) error {
	if r.Kind != Backup || r.State == Cancelled || e.NoPoint {
		return nil
	}
	if r.State != Done {
		_, err := tx.Exec(ctx, "UPDATE vms SET consecutive_failures = consecutive_failures + 1, road = CASE WHEN $2 = '' THEN road ELSE $2 END WHERE id = $1", r.VMID, e.Road)
		return err
	}
	point := int64(0) // the last application-consistent point stays the last
	if r.Level == freezewindow.Application || r.Level == freezewindow.ApplicationWriter {
		if point = store.Millis(e.Point); point == 0 {
			point = now
		}
	}
	_, err := tx.Exec(ctx, `UPDATE vms SET consecutive_failures = 0, road = CASE WHEN $2 = '' THEN road ELSE $2 END, last_ok_run = $3, last_ok_at = $4,
		last_application_at = CASE WHEN last_application_at < CAST($5 AS BIGINT) THEN CAST($5 AS BIGINT) ELSE last_application_at END WHERE id = $1`,
		r.VMID, e.Road, r.ID, now, point)
	return err
}

// AddEvents writes down the events of a window that is not the run's last.
func (c *Catalog) AddEvents(ctx context.Context, f journal.Fence, all []Event) error {
	return c.store.Update(ctx, "write down the events of a window", func(tx store.Tx) error {
		if err := f.Held(ctx, tx); err != nil {
			return err
		}
		return events(ctx, tx, f.RunID, all)
	})
}

func events(ctx context.Context, tx store.Tx, run string, all []Event) error {
	if len(all) == 0 {
		return nil
	}
	var last int64
	if err := tx.One(ctx, []any{&last}, "SELECT COALESCE(MAX(seq), 0) FROM window_events WHERE run_id = $1", run); err != nil {
		return err
	}
	for n, e := range all {
		_, err := tx.Exec(ctx, "INSERT INTO window_events (run_id, seq, t_mono_us, t_wall, side, kind, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			run, last+int64(n)+1, e.Mono.Microseconds(), store.Millis(e.At), e.Side, e.Kind, e.Detail)
		if err != nil {
			return err
		}
	}
	return nil
}

// Events lists what was seen of a run's windows, in the order in which it was written down.
func (c *Catalog) Events(ctx context.Context, run string) (all []Event, err error) {
	err = c.store.View(ctx, "read the events of a run", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Event, error) {
			var e Event
			var us, at int64
			err := scan(&us, &at, &e.Side, &e.Kind, &e.Detail)
			e.Mono, e.At = time.Duration(us)*time.Microsecond, store.Time(at)
			return e, err
		}, "SELECT t_mono_us, t_wall, side, kind, detail FROM window_events WHERE run_id = $1 ORDER BY seq", run)
		return err
	})
	return all, err
}

// Cancel asks for the end of a run, on whatever node it is. One that has ended gives ErrState.
func (c *Catalog) Cancel(ctx context.Context, id string) error {
	return c.store.Update(ctx, "cancel a run", func(tx store.Tx) error {
		n, err := tx.Exec(ctx, "UPDATE runs SET cancel_requested = 1 WHERE id = $1 AND state IN "+unfinished, id)
		if err != nil || n > 0 {
			return err
		}
		if _, err := run(ctx, tx, id); err != nil {
			return err
		}
		return state("run", id)
	})
}
