package catalog

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

// Owed is a fired tick that has no runs yet for the VMs of one vCenter.
type Owed struct {
	VCenter string
	// Tick is what was fired, with the job as it is now, without targets.
	Tick Tick
}

// owe writes down the vCenters of a tick that still have to be asked, and gives how many of them owed an older tick, which it
// replaces.
func owe(ctx context.Context, tx store.Tx, t Tick) (replaced int, err error) {
	for _, vcenter := range t.Owed {
		n, err := tx.Exec(ctx, "DELETE FROM ticks_owed WHERE job_id = $1 AND vcenter_id = $2", t.Job.ID, vcenter)
		if err != nil {
			return 0, err
		}
		replaced += int(n)
		_, err = tx.Exec(ctx, "INSERT INTO ticks_owed (job_id, vcenter_id, scheduled_for, trigger, requested_by, skip) VALUES ($1, $2, $3, $4, $5, $6)",
			t.Job.ID, vcenter, store.Millis(t.For), string(t.Trigger), t.RequestedBy, t.Skip)
		if err != nil {
			return 0, err
		}
	}
	return replaced, nil
}

// Owed lists what is owed, the oldest ticks first, and gives the time by the database's clock.
func (c *Catalog) Owed(ctx context.Context) (all []Owed, now time.Time, err error) {
	err = c.store.View(ctx, "look for ticks without runs", func(tx store.Tx) error {
		if now, err = tx.Now(ctx); err != nil {
			return err
		}
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Owed, error) {
			var o Owed
			var tick int64
			var trigger string
			var err error
			o.Tick.Job, err = readJob(func(into ...any) error {
				return scan(append(into, &o.VCenter, &tick, &trigger, &o.Tick.RequestedBy, &o.Tick.Skip)...)
			})
			o.Tick.For, o.Tick.Trigger = store.Time(tick), Trigger(trigger)
			return o, err
		}, "SELECT "+jobColumns+`, vcenter_id, scheduled_for, trigger, requested_by, skip FROM jobs JOIN ticks_owed ON job_id = id
			ORDER BY scheduled_for, name, vcenter_id`)
		return err
	})
	return all, now, err
}

// Paid makes the runs of what is owed, for the VMs that the vCenter turned out to have, all or none of them, once.
func (c *Catalog) Paid(ctx context.Context, o Owed, targets []Target) (done Ticked, err error) {
	err = c.store.Update(ctx, "make the runs of job "+o.Tick.Job.Name, func(tx store.Tx) error {
		done = Ticked{}
		n, err := tx.Exec(ctx, "DELETE FROM ticks_owed WHERE job_id = $1 AND vcenter_id = $2 AND scheduled_for = $3", o.Tick.Job.ID, o.VCenter, store.Millis(o.Tick.For))
		if err != nil || n == 0 {
			done.Repeated = err == nil
			return err
		}
		t := o.Tick
		t.Targets = targets
		if done, err = c.makeRuns(ctx, tx, t); err != nil {
			return err
		}
		err = tx.One(ctx, []any{&done.Rest}, "SELECT count(*) FROM ticks_owed WHERE job_id = $1 AND scheduled_for = $2", t.Job.ID, store.Millis(t.For))
		if err == nil {
			err = tx.One(ctx, []any{&done.Runs}, "SELECT count(*) FROM runs WHERE job_id = $1 AND scheduled_for = $2", t.Job.ID, store.Millis(t.For))
		}
		return err
	})
	return done, err
}
