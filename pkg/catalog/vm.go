package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/store"
)

// VM is a machine that was seen in a vCenter. Its instance UUID lasts there; ID is ours.
type VM struct {
	ID, VCenter, InstanceUUID, Moref, Name, Path, GuestFamily string
	// Road is how its agent was reached last.
	Road string
	// BootID is the guest's, as last heard.
	BootID              string
	ConsecutiveFailures int
	LastOKRun           string
	// LastOK is the end of the last run that did all it should, LastApplication the last application-consistent point.
	LastOK, LastApplication time.Time
	FirstSeen, Seen         time.Time
	// ExcludedBy is the job that would take it but for its exclusions; empty when there is none, or another job takes it.
	ExcludedBy string
}

// DaysSinceApplication is how long ago the last application-consistent point was made; false when there is none.
func (v VM) DaysSinceApplication(now time.Time) (float64, bool) {
	if v.LastApplication.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(v.LastApplication).Hours()/24), true
}

const vmColumns = `id, vcenter_id, instance_uuid, moref, name, path, guest_family, road, boot_id, consecutive_failures, last_ok_run,
	last_ok_at, last_application_at, first_seen_at, seen_at, excluded_by`

func readVM(scan func(...any) error) (VM, error) {
	var v VM
	var ok, application, first, seen int64
	err := scan(&v.ID, &v.VCenter, &v.InstanceUUID, &v.Moref, &v.Name, &v.Path, &v.GuestFamily, &v.Road, &v.BootID, &v.ConsecutiveFailures, &v.LastOKRun,
		&ok, &application, &first, &seen, &v.ExcludedBy)
	v.LastOK, v.LastApplication, v.FirstSeen, v.Seen = store.Time(ok), store.Time(application), store.Time(first), store.Time(seen)
	return v, err
}

// SawVMs takes what an inventory of a vCenter found, by instance UUID, and gives the VMs as they are known from now on.
// New ones have FirstSeen equal to Seen.
func (c *Catalog) SawVMs(ctx context.Context, vcenter string, found []VM) ([]VM, error) {
	var all []VM
	err := c.store.Update(ctx, "remember the VMs of "+vcenter, func(tx store.Tx) error {
		now := c.millis()
		all = make([]VM, 0, len(found))
		for _, f := range found {
			if f.InstanceUUID == "" {
				return fmt.Errorf("VM %s has no instance UUID", f.Path)
			}
			one, err := store.All(ctx, tx, readVM, `INSERT INTO vms (id, vcenter_id, instance_uuid, moref, name, path, guest_family, first_seen_at, seen_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (vcenter_id, instance_uuid) DO UPDATE SET moref = EXCLUDED.moref, name = EXCLUDED.name,
				path = EXCLUDED.path, guest_family = EXCLUDED.guest_family, seen_at = EXCLUDED.seen_at RETURNING `+vmColumns,
				uuid.NewString(), vcenter, f.InstanceUUID, f.Moref, f.Name, f.Path, f.GuestFamily, now)
			if err != nil {
				return err
			}
			all = append(all, one...)
		}
		return nil
	})
	return all, err
}

// Exclude writes down which VMs of a vCenter only the exclusions of a job keep out of it, by VM; all others are not excluded.
func (c *Catalog) Exclude(ctx context.Context, o Owner, by map[string]string) error {
	return c.store.Update(ctx, "remember which VMs are excluded", func(tx store.Tx) error {
		if err := o.held(ctx, tx); err != nil {
			return err
		}
		had, err := store.All(ctx, tx, readVM, "SELECT "+vmColumns+" FROM vms WHERE vcenter_id = $1 AND excluded_by <> ''", o.VCenter)
		if err != nil {
			return err
		}
		change := maps.Clone(by)
		for _, v := range had {
			if job, still := by[v.ID]; !still {
				change[v.ID] = ""
			} else if job == v.ExcludedBy {
				delete(change, v.ID)
			}
		}
		for id, job := range change {
			if _, err := tx.Exec(ctx, "UPDATE vms SET excluded_by = $1 WHERE id = $2 AND vcenter_id = $3", job, id, o.VCenter); err != nil {
				return err
			}
		}
		return nil
	})
}

// VMFilter chooses VMs; its zero value all of them. After is the last VM of the page before.
type VMFilter struct {
	VCenter, InstanceUUID string
	After                 VM
	Limit                 int
}

// VMs lists VMs by name.
func (c *Catalog) VMs(ctx context.Context, f VMFilter) (all []VM, err error) {
	err = c.store.View(ctx, "list VMs", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readVM, `SELECT `+vmColumns+` FROM vms WHERE ($1 = '' OR vcenter_id = $1) AND ($2 = '' OR instance_uuid = $2)
			AND ($3 = '' OR name > $4 OR (name = $4 AND id > $3)) ORDER BY name, id LIMIT $5`,
			f.VCenter, f.InstanceUUID, f.After.ID, f.After.Name, limit(f.Limit))
		return err
	})
	return all, err
}

// VM gives one by its ID, ErrNotFound if there is none.
func (c *Catalog) VM(ctx context.Context, id string) (v VM, err error) {
	err = c.store.View(ctx, "read a VM", func(tx store.Tx) error {
		v, err = vm(ctx, tx, id)
		return err
	})
	return v, err
}

func vm(ctx context.Context, tx store.Tx, id string) (VM, error) {
	v, err := readVM(func(into ...any) error { return tx.One(ctx, into, "SELECT "+vmColumns+" FROM vms WHERE id = $1", id) })
	return v, missing("VM", id, err)
}

// missing makes ErrNotFound of a row that is not there.
func missing(what, id string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %q: %w", what, id, ErrNotFound)
	}
	return err
}
