package main

import (
	"context"
	"net/url"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
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

// guests is the road by guest operations of one endpoint.
type guests struct {
	endpoint *vsphere.Endpoint
	store    notebook
	vcenter  string
	account  *url.Userinfo
	payloads payloads
	port     uint16
	address  string
}

var _ backup.Guests = guests{}

func (g guests) Open(ctx context.Context, vm inventory.VM, run string, epoch uint64) (*guest.Deployment, error) {
	about := statefile.Intent{Run: run, Epoch: epoch, VCenter: g.vcenter, VM: vm.InstanceUUID, Path: vm.Path, Moref: vm.Moref}
	payload, err := g.payloads.of(vm)
	if err != nil {
		return &guest.Deployment{}, err
	}
	ops, _ := newLogon(g.endpoint, g.store, vm, g.account)
	way := guest.Candidate{Choice: guest.Choice{Way: guest.WayGuestOps}, Access: guestops.NewRecorded(ops, vm.System(), ledger{g.store, about})}
	d := guest.Deployer{Ways: []guest.Candidate{way}, Payload: payload, Port: g.port}
	t := guest.Target{Addresses: vm.Addresses, VMUUID: vm.UUID, Run: run, Epoch: epoch}
	if g.address != "" {
		t.Addresses = []string{g.address}
	}
	return d.Open(ctx, t)
}

// logon tries the guest's account at most once while its password is refused. Only vCenter's answer to the logon itself
// counts, never what a guest says.
type logon struct {
	guestops.Operations
	store      breaker
	credential string
	account    *url.Userinfo
}

func (l logon) Validate(ctx context.Context) error {
	return once(ctx, l.store, l.credential, l.account, "SF3001", func() error { return l.Operations.Validate(ctx) })
}

// newLogon makes the guest operations of one VM.
func newLogon(e *vsphere.Endpoint, store breaker, vm inventory.VM, account *url.Userinfo) (logon, *vsphere.GuestOps) {
	ops := vsphere.NewGuestOps(e, vm, func(context.Context) (*url.Userinfo, error) { return account, nil })
	return logon{ops, store, guestCredential(vm, account), account}, ops
}

// guestCredential names the account in the guest, for what is remembered of refused passwords. root is each guest's own;
// any other name may be one account of a directory, whose failed logons all count together.
func guestCredential(vm inventory.VM, account *url.Userinfo) string {
	if name := account.Username(); name != "root" {
		return "guest account " + name
	}
	return "root of VM " + vm.InstanceUUID
}

// ledger writes down what is put into one guest by one run.
type ledger struct {
	store backup.Journal
	about statefile.Intent
}

var _ guest.Ledger = ledger{}

func (l ledger) intent(kind statefile.Kind, r guest.Remote) statefile.Intent {
	i := l.about
	i.Kind, i.Subject = kind, r.Dir
	return i
}

func (l ledger) Intend(ctx context.Context, stage guest.Stage, r guest.Remote) error {
	kind := statefile.Folder
	if stage == guest.StageStart {
		kind = statefile.Process
	}
	return l.store.Intend(ctx, l.intent(kind, r))
}

func (l ledger) Settle(ctx context.Context, r guest.Remote) error {
	return l.store.Settle(ctx, l.intent(statefile.Process, r), l.intent(statefile.Folder, r))
}
