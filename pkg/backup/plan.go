// Package backup does one run in one straight line.
package backup

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// OnDegrade is what happens when a window proved less than a consistent snapshot.
type OnDegrade string

// The policies. A one-shot run does not know retry, because it never waits ten minutes for the next window.
const (
	Fail OnDegrade = "fail"
	Keep OnDegrade = "keep"
)

// Plan is what one run will do.
type Plan struct {
	// RunID names the run, Epoch its installation at this moment; both are part of the snapshot's name.
	RunID string
	Epoch uint64
	// VCenter is the host of the vCenter or ESXi host, for what is written down about the run.
	VCenter string
	// VM is what the operator wrote: inventory path, moref, instance UUID or name.
	VM string
	// Volumes are the mount points to freeze; empty means all that are supported.
	Volumes []string
	// Mode, BackupType (copy or full) and Writers are for Windows guests.
	Mode       admission.Policy
	BackupType string
	Writers    Writers
	OnDegrade  OnDegrade
	// Level is the lowest that counts as done; empty is any consistent one. Below it OnDegrade decides.
	Level freezewindow.Level
	// SnapshotRoad is whom the snapshot may be asked of; empty is vCenter.
	SnapshotRoad admission.RoadPolicy
	// Admission is what happens when the window will probably not fit.
	Admission Admission
	// Postpone are the IDs of gates (inventory.Gates) whose warning stops the run before anything is touched.
	Postpone []string
	Budget   freezewindow.Budget
	// LateLimit bounds the wait for a snapshot task that had not ended with the window; GiveUp, when closed, ends it at
	// once. What is left is named in the result.
	LateLimit time.Duration
	GiveUp    <-chan struct{}
	// Description goes into the snapshot's description.
	Description string
	// Mover stores what the snapshot holds; nil moves nothing. It does not run when the window is below the policy.
	Mover datamover.Mover
	// KeepSnapshot leaves the snapshot of a window that is not below the policy, whatever the mover did.
	KeepSnapshot bool
	// DryRun ends before anything goes into the guest or is made at vCenter.
	DryRun bool
}

// Writers says whose failure counts, by class id. Excluded writers are not asked at all.
type Writers struct{ Required, Tolerated, Excluded []string }

// SnapshotName is the name that makes the snapshot ours, known before the snapshot is asked for.
func (p Plan) SnapshotName() string { return fmt.Sprintf("%s%s-%d", SnapshotPrefix, p.RunID, p.Epoch) }

// snapshotForm is what SnapshotName writes: a run's id is a UUID.
var snapshotForm = regexp.MustCompile(`^` + SnapshotPrefix + `([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-([1-9][0-9]{0,18})$`)

// ParseSnapshotName reads what Plan.SnapshotName writes; ok is false for every other name.
func ParseSnapshotName(name string) (run string, epoch int64, ok bool) {
	parts := snapshotForm.FindStringSubmatch(name)
	if parts == nil {
		return "", 0, false
	}
	epoch, err := strconv.ParseInt(parts[2], 10, 64)
	return parts[1], epoch, err == nil
}

// SnapshotPrefix begins the name of every snapshot of ours.
const SnapshotPrefix = "stillframe-"

// Hypervisor is what a run needs of vCenter or of an ESXi host.
type Hypervisor interface {
	Find(ctx context.Context, query string) (inventory.VM, error)
	// Prepare makes everything ready for the one call of the window.
	Prepare(ctx context.Context, vm inventory.VM, name, description string) (Snapshot, error)
	// Ready makes sure that the session is alive and its connections warm; it is called right before GO.
	Ready(ctx context.Context) error
	// Remove removes a snapshot; one that is gone is removed. unsettled is not empty when disks still need consolidation.
	Remove(ctx context.Context, s inventory.Snapshot) (unsettled string, err error)
	// FindSnapshots lists the VM's snapshots whose name begins with prefix.
	FindSnapshots(ctx context.Context, vm inventory.VM, prefix string) ([]inventory.Snapshot, error)
}

// Origins tells where the data of a snapshot lies.
type Origins interface {
	Origin(ctx context.Context, s inventory.Snapshot) (datamover.Origin, error)
}

// Snapshot is a prepared snapshot.
type Snapshot interface {
	freezewindow.Snapshotter
	Close(ctx context.Context) error
}

// Guests opens the way into a guest. The Deployment is never nil: it tells every attempt.
type Guests interface {
	Open(ctx context.Context, vm inventory.VM, run string, epoch uint64) (*guest.Deployment, error)
}
