package main

import (
	"context"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// hypervisor brings pkg/vsphere to what a run asks for.
type hypervisor struct {
	*vsphere.Endpoint
	snapshots *vsphere.Snapshotter
}

var _ backup.Hypervisor = hypervisor{}

func (h hypervisor) Prepare(ctx context.Context, vm inventory.VM, name, description string) (backup.Snapshot, error) {
	return h.snapshots.Prepare(ctx, vm, name, description)
}

func (h hypervisor) Remove(ctx context.Context, s inventory.Snapshot) (string, error) {
	r, err := h.snapshots.Remove(ctx, s)
	return unsettled(r), err
}

func unsettled(r vsphere.RemoveResult) string {
	if r.ConsolidationNeeded {
		return "vCenter still says that the disks need consolidation"
	}
	return ""
}

func (h hypervisor) FindSnapshots(ctx context.Context, vm inventory.VM, prefix string) ([]inventory.Snapshot, error) {
	return h.snapshots.FindSnapshots(ctx, vm, prefix)
}

// origins tells a mover where the data of a snapshot lies.
type origins struct {
	endpoint *vsphere.Endpoint
	options  vsphere.Options
}

var _ backup.Origins = origins{}

func (o origins) Origin(ctx context.Context, s inventory.Snapshot) (datamover.Origin, error) {
	disks, err := o.endpoint.SnapshotDisks(ctx, s)
	if err != nil {
		return datamover.Origin{}, err
	}
	seen, err := o.endpoint.Probe(ctx)
	if err != nil {
		return datamover.Origin{}, err
	}
	return datamover.Origin{URL: o.options.URL, Thumbprint: seen.Thumbprint, Login: o.options.Login, Disks: disks}, nil
}
