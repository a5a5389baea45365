package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/store"
)

// Trigger is why a run was made.
type Trigger string

// The triggers.
const (
	Scheduled Trigger = "schedule"
	CatchUp   Trigger = "catch_up"
	Manual    Trigger = "manual"
)

// Tick is one firing of a job.
type Tick struct {
	Job Job
	// For is the civil tick that it fires for, Next the one after.
	For, Next time.Time
	Trigger   Trigger
	// RequestedBy is who asked for it; empty when nobody did.
	RequestedBy string
	Targets     []Target
	// Owed are the vCenters that were not asked yet for theirs; Paid makes the runs there.
	Owed []string
	// Skip is why no run is made, as for a tick that was missed: each target then has a skipped run that says so. It is empty
	// for a tick that is fired.
	Skip string
}

// Target is one VM of a tick. NotBefore spreads the starts.
type Target struct {
	VMID, VCenter string
	NotBefore     time.Time
}

// Ticked is what became of a tick. Skipped are the VMs that another run still works on: each has a skipped run with the
// cause "busy".
type Ticked struct {
	Queued, Skipped int
	// Replaced is how many vCenters still owed an older tick, which has no runs there.
	Replaced int
	// Rest is how many vCenters still owe this tick, Runs how many runs it has by now; Paid alone gives them.
	Rest, Runs int
	// Repeated is true when the tick had been fired before, or the job was changed since it was read: nothing was done.
	Repeated bool
}

// atOnce is how many rows one statement inserts. SQLite's driver looks for each parameter among all of them, so more are slower.
const atOnce = 50

// Tick makes the runs of a tick and their deliveries, all or none of them, once.
func (c *Catalog) Tick(ctx context.Context, t Tick) (Ticked, error) {
	var done Ticked
	err := c.store.Update(ctx, "fire job "+t.Job.Name, func(tx store.Tx) error {
		done = Ticked{}
		fired, err := tx.Exec(ctx, "UPDATE jobs SET last_fired_for = $1, next_run_at = $2 WHERE id = $3 AND revision = $4 AND enabled = 1 AND last_fired_for < $1",
			store.Millis(t.For), store.Millis(t.Next), t.Job.ID, t.Job.Revision)
		if err != nil || fired == 0 {
			done.Repeated = err == nil
			return err
		}
		if done, err = c.makeRuns(ctx, tx, t); err != nil {
			return err
		}
		done.Replaced, err = owe(ctx, tx, t)
		return err
	})
	return done, err
}

// makeRuns makes the runs of a tick's targets, and their deliveries.
func (c *Catalog) makeRuns(ctx context.Context, tx store.Tx, t Tick) (Ticked, error) {
	epoch, err := tx.Epoch(ctx)
	if err != nil {
		return Ticked{}, err
	}
	var deliveries []Delivery
	for rest := t.Targets; len(rest) > 0; {
		n := min(atOnce, len(rest))
		queued, err := c.queue(ctx, tx, t, epoch, rest[:n])
		if err != nil {
			return Ticked{}, err
		}
		deliveries = append(deliveries, queued...)
		rest = rest[n:]
	}
	return Ticked{Queued: len(deliveries), Skipped: len(t.Targets) - len(deliveries)}, c.deliver.Enqueue(ctx, tx, deliveries...)
}

// queue makes the runs of some targets, and gives the deliveries of those that are not busy.
func (c *Catalog) queue(ctx context.Context, tx store.Tx, t Tick, epoch int64, targets []Target) ([]Delivery, error) {
	if t.Skip != "" {
		_, err := tx.Exec(ctx, insertRuns(targets), c.args(t, "skipped", t.Skip, epoch, targets, map[string]int{})...)
		return nil, err
	}
	ids := map[string]int{}
	queued, err := store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) }, insertRuns(targets), c.args(t, "queued", "", epoch, targets, ids)...)
	if err != nil {
		return nil, err
	}
	deliveries := make([]Delivery, 0, len(queued))
	for _, id := range queued {
		target := targets[ids[id]]
		deliveries = append(deliveries, Delivery{id, epoch, target.VCenter, t.Job.Priority, target.NotBefore})
		delete(ids, id)
	}
	var busy []Target
	for _, n := range ids {
		busy = append(busy, targets[n])
	}
	if len(busy) > 0 {
		_, err = tx.Exec(ctx, insertRuns(busy), c.args(t, "skipped", "busy", epoch, busy, map[string]int{})...)
	}
	return deliveries, err
}

// insertRuns is the statement for some targets. Columns of VALUES are named column1 and so on by both databases.
func insertRuns(targets []Target) string {
	var rows strings.Builder
	for n := range targets {
		first := commonArgs + n*argsOfTarget
		if n > 0 {
			rows.WriteString(", ")
		}
		fmt.Fprintf(&rows, "($%d, $%d, $%d, CAST($%d AS BIGINT))", first+1, first+2, first+3, first+4)
	}
	return `INSERT INTO runs (id, kind, job_id, vm_id, vcenter_id, scheduled_for, trigger, state, cause, epoch, next_attempt_at, priority, created_at, finished_at,
		requested_by) SELECT v.column1, 'backup', $1, v.column2, v.column3, $2, $3, $4, $5, $6, v.column4, $7, $8, $9, $10 FROM (VALUES ` + rows.String() + `) AS v
		WHERE true ON CONFLICT DO NOTHING RETURNING id`
}

// The parameters of insertRuns: those of all rows, then those of each.
const (
	commonArgs   = 10
	argsOfTarget = 4
)

// args are the parameters of insertRuns; ids gets the index of each run's target.
func (c *Catalog) args(t Tick, state, cause string, epoch int64, targets []Target, ids map[string]int) []any {
	now, ended := c.millis(), int64(0)
	if state == "skipped" {
		ended = now
	}
	args := []any{t.Job.ID, store.Millis(t.For), string(t.Trigger), state, cause, epoch, t.Job.Priority, now, ended, t.RequestedBy}
	for n, target := range targets {
		id := uuid.Must(uuid.NewV7()).String() // it fails only without a source of random numbers, and that never does (crypto/rand)
		ids[id] = n
		args = append(args, id, target.VMID, target.VCenter, store.Millis(target.NotBefore))
	}
	return args
}
