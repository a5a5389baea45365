package main

import (
	"context"
	"net/url"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
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
	if r.ConsolidationNeeded {
		return "vCenter still says that the disks need consolidation", err
	}
	return "", err
}

func (h hypervisor) FindSnapshots(ctx context.Context, vm inventory.VM, prefix string) ([]inventory.Snapshot, error) {
	return h.snapshots.FindSnapshots(ctx, vm, prefix)
}

// guests is the road by guest operations of one endpoint.
type guests struct {
	endpoint *vsphere.Endpoint
	account  *url.Userinfo
	payload  guest.Payload
	port     uint16
	address  string
}

var _ backup.Guests = guests{}

func (g guests) Open(ctx context.Context, vm inventory.VM, run string, epoch uint64) (*guest.Deployment, error) {
	ops := vsphere.NewGuestOps(g.endpoint, vm, func(context.Context) (*url.Userinfo, error) { return g.account, nil })
	d := guest.Deployer{Access: guestops.New(ops), Payload: g.payload, Port: g.port}
	t := guest.Target{Addresses: vm.Addresses, VMUUID: vm.UUID, Run: run, Epoch: epoch}
	if g.address != "" {
		t.Addresses = []string{g.address}
	}
	return d.Open(ctx, t)
}
