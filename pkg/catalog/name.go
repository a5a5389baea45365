package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

// among writes the list of an SQL IN with its parameters, the first of which has the number first. IDs are never none.
func among(ids []string, first int) (list string, args []any) {
	marks := make([]string, len(ids))
	for n, id := range ids {
		marks[n] = fmt.Sprintf("$%d", first+n)
		args = append(args, id)
	}
	return "(" + strings.Join(marks, ", ") + ")", args
}

// pairs reads what a statement gives of some IDs: each ID with one value, which tell takes.
func pairs[T any](ctx context.Context, c *Catalog, op, query string, ids []string, tell func(id string, value T)) error {
	if len(ids) == 0 {
		return nil
	}
	list, args := among(ids, 1)
	return c.store.View(ctx, op, func(tx store.Tx) error {
		_, err := store.All(ctx, tx, func(scan func(...any) error) (struct{}, error) {
			var id string
			var value T
			if err := scan(&id, &value); err != nil {
				return struct{}{}, err
			}
			tell(id, value)
			return struct{}{}, nil
		}, strings.Replace(query, "IDS", list, 1), args...)
		return err
	})
}

// texts are pairs of an ID and a text.
func (c *Catalog) texts(ctx context.Context, op, query string, ids []string) (map[string]string, error) {
	all := map[string]string{}
	err := pairs(ctx, c, op, query, ids, func(id, text string) { all[id] = text })
	return all, err
}

// JobNames gives the names of jobs by their IDs; those of jobs that are gone are missing.
func (c *Catalog) JobNames(ctx context.Context, ids []string) (map[string]string, error) {
	return c.texts(ctx, "read names of jobs", "SELECT id, name FROM jobs WHERE id IN IDS", ids)
}

// VMNames gives the names of VMs by their IDs.
func (c *Catalog) VMNames(ctx context.Context, ids []string) (map[string]string, error) {
	return c.texts(ctx, "read names of VMs", "SELECT id, name FROM vms WHERE id IN IDS", ids)
}

// Levels gives what some runs proved, by their IDs.
func (c *Catalog) Levels(ctx context.Context, runs []string) (map[string]string, error) {
	return c.texts(ctx, "read levels of runs", "SELECT id, level FROM runs WHERE id IN IDS", runs)
}

// JobsOf gives the names of the jobs that took some VMs when they fired last, by the VMs' IDs.
func (c *Catalog) JobsOf(ctx context.Context, vms []string) (map[string][]string, error) {
	all := map[string][]string{}
	err := pairs(ctx, c, "read the jobs of VMs", `SELECT r.vm_id, j.name FROM jobs j JOIN runs r ON r.job_id = j.id AND r.scheduled_for = j.last_fired_for
		WHERE j.last_fired_for > 0 AND r.vm_id IN IDS ORDER BY j.name`, vms, func(vm, job string) { all[vm] = append(all[vm], job) })
	return all, err
}

// Holds gives how long the remembered windows of some VMs took, by the VMs' IDs, in no order.
func (c *Catalog) Holds(ctx context.Context, vms []string) (map[string][]time.Duration, error) {
	all := map[string][]time.Duration{}
	err := pairs(ctx, c, "read the windows of VMs", "SELECT vm_id, freeze_us + snapshot_us + thaw_us FROM window_history WHERE vm_id IN IDS", vms,
		func(vm string, us int64) { all[vm] = append(all[vm], time.Duration(us)*time.Microsecond) })
	return all, err
}

// RunsOfTick gives the IDs of the runs that a job made for a tick.
func (c *Catalog) RunsOfTick(ctx context.Context, jobID string, tick time.Time) (ids []string, err error) {
	err = c.store.View(ctx, "list the runs of a tick", func(tx store.Tx) error {
		ids, err = store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
			"SELECT id FROM runs WHERE job_id = $1 AND scheduled_for = $2 ORDER BY id", jobID, store.Millis(tick))
		return err
	})
	return ids, err
}

// FindVM gives the one VM that has this ID, inventory path, moref, instance UUID or name. ErrNotFound when none has, or
// several have.
func (c *Catalog) FindVM(ctx context.Context, ref string) (VM, error) {
	var all []VM
	err := c.store.View(ctx, "look for a VM", func(tx store.Tx) (err error) {
		all, err = store.All(ctx, tx, readVM, "SELECT "+vmColumns+" FROM vms WHERE id = $1 OR path = $1 OR moref = $1 OR instance_uuid = $1 OR name = $1 LIMIT 2", ref)
		return err
	})
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("VM %q: %w", ref, ErrNotFound)
	}
	if err != nil {
		return VM{}, err
	}
	return all[0], nil
}
