package catalog

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// DeploymentState is what is known of an agent in a guest.
type DeploymentState string

// The states.
const (
	DeployIntent DeploymentState = "intent"
	DeployThere  DeploymentState = "there"
	DeployStart  DeploymentState = "started"
	DeployGone   DeploymentState = "removed"
)

// Deployment is one agent that lies in a guest, or may.
type Deployment struct {
	VMID, Path, RunID, Road, Service, SHA256 string
	State                                    DeploymentState
	Created                                  time.Time
	// CleanupDue is when the janitor takes it away; never when it is zero.
	CleanupDue time.Time
}

// PutDeployment writes down what a run did with an agent in its guest.
func (c *Catalog) PutDeployment(ctx context.Context, f journal.Fence, d Deployment) error {
	return c.store.Update(ctx, "write down an agent", func(tx store.Tx) error {
		if err := f.Held(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO agent_deployments (vm_id, path, run_id, road, service_name, sha256, state, created_at, cleanup_due)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (vm_id, path) DO UPDATE SET run_id = EXCLUDED.run_id, road = EXCLUDED.road,
			service_name = EXCLUDED.service_name, sha256 = EXCLUDED.sha256, state = EXCLUDED.state, cleanup_due = EXCLUDED.cleanup_due`,
			d.VMID, d.Path, f.RunID, d.Road, d.Service, d.SHA256, string(d.State), c.millis(), store.Millis(d.CleanupDue))
		return err
	})
}

// Deployments lists the agents that may lie in the guest of a VM, in all guests when vmID is empty; due leaves only those
// whose time has come.
func (c *Catalog) Deployments(ctx context.Context, vmID string, due bool) (all []Deployment, err error) {
	err = c.store.View(ctx, "list agents", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, func(scan func(...any) error) (Deployment, error) {
			var d Deployment
			var state string
			var created, cleanup int64
			err := scan(&d.VMID, &d.Path, &d.RunID, &d.Road, &d.Service, &d.SHA256, &state, &created, &cleanup)
			d.State, d.Created, d.CleanupDue = DeploymentState(state), store.Time(created), store.Time(cleanup)
			return d, err
		}, `SELECT vm_id, path, run_id, road, service_name, sha256, state, created_at, cleanup_due FROM agent_deployments WHERE state <> 'removed'
			AND ($1 = '' OR vm_id = $1) AND ($2 = 0 OR (cleanup_due > 0 AND cleanup_due <= $3)) ORDER BY created_at, vm_id, path`, vmID, store.Flag(due), c.millis())
		return err
	})
	return all, err
}

// DeploymentGone writes down that an agent is gone from its guest, which the janitor has seen.
func (c *Catalog) DeploymentGone(ctx context.Context, vmID, path string) error {
	return c.store.Update(ctx, "write down that an agent is gone", func(tx store.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE agent_deployments SET state = 'removed' WHERE vm_id = $1 AND path = $2", vmID, path)
		return err
	})
}
