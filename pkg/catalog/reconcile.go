package catalog

import (
	"context"
	"slices"

	"github.com/stillframe/stillframe/pkg/store"
)

// Reconciliation is what is to be done before schedules may fire, because the database was lost or is older than what is
// outside (SF1906). Its zero value is nothing.
type Reconciliation struct {
	// Why is empty when there is nothing to be done.
	Why string
	// Settled are the vCenters whose inventories were taken in since.
	Settled []string
}

// Open are those of some vCenters that are not taken in yet.
func (r Reconciliation) Open(vcenters ...string) []string {
	if r.Why == "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(vcenters), func(v string) bool { return slices.Contains(r.Settled, v) })
}

// Reconciliation says what is to be done before schedules may fire.
func (c *Catalog) Reconciliation(ctx context.Context) (r Reconciliation, err error) {
	err = c.store.View(ctx, "read what has to be reconciled", func(tx store.Tx) error {
		r.Why, r.Settled, err = tx.Reconciling(ctx)
		return err
	})
	return r, err
}

// Compared says that the inventory of a vCenter was taken in. When that is so of all of some vCenters, the reconciliation is
// over; done is true for whoever ended it.
func (c *Catalog) Compared(ctx context.Context, o Owner, all []string) (done bool, err error) {
	err = c.store.Update(ctx, "write down that a vCenter is reconciled", func(tx store.Tx) error {
		done = false
		if err := o.held(ctx, tx); err != nil {
			return err
		}
		if err := tx.ReconciledOf(ctx, o.VCenter); err != nil {
			return err
		}
		why, settled, err := tx.Reconciling(ctx)
		if err != nil || len(Reconciliation{why, settled}.Open(all...)) > 0 {
			return err
		}
		done = why != ""
		return tx.Reconciled(ctx)
	})
	return done, err
}
