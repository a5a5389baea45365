package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// MovedError says that a VM has left the host on which it was to be worked on directly.
type MovedError struct {
	VM, From string
	// To is the host that runs it now; empty when that is not known.
	To string
}

// Error names both hosts.
func (e *MovedError) Error() string {
	if e.To == "" {
		return fmt.Sprintf("%s does not run on host %s any more", e.VM, e.From)
	}
	return fmt.Sprintf("%s was moved from host %s to host %s", e.VM, e.From, e.To)
}

// Code is SF2702.
func (*MovedError) Code() string { return "SF2702" }

// IsHost says whether the endpoint is a single ESXi host rather than a vCenter.
func (e *Endpoint) IsHost() bool { return e.vim.ServiceContent.About.ApiType == hostAgent }

// HostOf tells which host runs a VM, with two calls.
func (e *Endpoint) HostOf(ctx context.Context, vm inventory.VM) (inventory.Host, error) {
	op := "look for the host of"
	p, err := e.properties(ctx, vmRef(vm.Moref), "runtime.host")
	if err != nil {
		return inventory.Host{}, failure(op, vm.Name, err)
	}
	ref, ok := p["runtime.host"].(types.ManagedObjectReference)
	if !ok {
		return inventory.Host{}, &Error{Op: op, Subject: vm.Name, SF: "SF3612", Err: errNoHost}
	}
	p, err = e.properties(ctx, ref, "name", "summary.config.name", "summary.config.sslThumbprint", "runtime.connectionState")
	if err != nil {
		return inventory.Host{}, failure(op, vm.Name, err)
	}
	h := inventory.Host{
		Name: display(text(p, "name")), Moref: ref.Value, Address: text(p, "summary.config.name"),
		Thumbprint: text(p, "summary.config.sslThumbprint"), ConnectionState: text(p, "runtime.connectionState"),
	}
	if _, _, err := net.SplitHostPort(h.Address); err != nil {
		h.Address = net.JoinHostPort(h.Address, "443") // summary.config.port is another one, 902
	}
	return h, nil
}

// OpenHost logs in to an ESXi host itself, as Open does. Its certificate must be the one whose thumbprint vCenter tells, or
// one that the endpoint's own rule accepts. Whoever opens it closes it.
func (e *Endpoint) OpenHost(ctx context.Context, host inventory.Host, login func(context.Context) (*url.Userinfo, error)) (*Endpoint, error) {
	trust, err := e.trust.forHost(host.Thumbprint)
	if err != nil {
		return nil, failure("read the thumbprint of", host.Name, err)
	}
	o := Options{
		URL: &url.URL{Scheme: "https", Host: host.Address, Path: vim25.Path}, Insecure: trust.insecure, Login: login,
		Agent: e.vim.Client.UserAgent,
	}
	direct := newEndpoint(&o, trust)
	if err := direct.connect(ctx, &o); err != nil {
		direct.transport.CloseIdleConnections()
		return nil, err
	}
	direct.keepAlive(ctx)
	return direct, nil
}

// HostRoad is the way to one VM past vCenter, over the host that runs it. Its snapshots have morefs that are good on this
// road only.
type HostRoad struct {
	vcenter, direct *Endpoint
	host            inventory.Host
	seen            inventory.VM // as vCenter knows it
	vm              inventory.VM // as the host knows it
	snapshots       *Snapshotter
}

// errNotOnHost says that a host does not know a VM that vCenter says it runs.
var errNotOnHost = errors.New("the host knows no VM of this instance UUID")

// NewHostRoad finds the VM on its host by its instance UUID: the morefs of both differ. Both endpoints stay the caller's. A
// host that does not have the VM is a *MovedError when vCenter names another one, SF2701 otherwise.
func NewHostRoad(ctx context.Context, vcenter, direct *Endpoint, host inventory.Host, vm inventory.VM) (*HostRoad, error) {
	r := &HostRoad{vcenter: vcenter, direct: direct, host: host, seen: vm, snapshots: NewSnapshotter(direct)}
	op := "find " + vm.Name + " on host"
	if direct.vim.ServiceContent.SearchIndex == nil {
		return nil, &Error{Op: op, Subject: host.Name, SF: "SF2701", Err: errors.New("it has no search index")}
	}
	instance := true
	res, err := methods.FindByUuid(ctx, direct.vim, &types.FindByUuid{
		This: *direct.vim.ServiceContent.SearchIndex, Uuid: strings.ToLower(vm.InstanceUUID), VmSearch: true, InstanceUuid: &instance,
	})
	if err != nil {
		return nil, failure(op, host.Name, err)
	}
	if res.Returnval == nil {
		if err := r.moved(ctx); err != nil {
			return nil, err
		}
		return nil, &Error{Op: op, Subject: host.Name, SF: "SF2701", Err: errNotOnHost}
	}
	r.vm, err = direct.describe(ctx, *res.Returnval)
	return r, failure(op, host.Name, err)
}

// Host is the host that the road leads to.
func (r *HostRoad) Host() inventory.Host { return r.host }

// moved asks vCenter; its error is a *MovedError when another host runs the VM. That vCenter does not answer is no error:
// the host's own answer counts then.
func (r *HostRoad) moved(ctx context.Context) error {
	now, err := r.vcenter.HostOf(ctx, r.seen)
	if err == nil && now.Moref != r.host.Moref {
		return &MovedError{VM: r.seen.Path, From: r.host.Name, To: now.Name}
	}
	return nil
}

// Here makes sure that the VM still runs on the host, by the host's own word and by vCenter's. A VM that has left is a
// *MovedError. Call it right before a window: inside one nobody asks.
func (r *HostRoad) Here(ctx context.Context) error {
	if err := r.moved(ctx); err != nil {
		return err
	}
	_, err := r.direct.properties(ctx, vmRef(r.vm.Moref), "runtime.powerState")
	if isFault[*types.ManagedObjectNotFound](err) {
		return &MovedError{VM: r.seen.Path, From: r.host.Name}
	}
	return failure("look for "+r.seen.Name+" on host", r.host.Name, err)
}

// Ready is that of the host's endpoint.
func (r *HostRoad) Ready(ctx context.Context) error { return r.direct.Ready(ctx) }

// Prepare, Remove, FindSnapshots and Unfinished are those of a Snapshotter on the host.
func (r *HostRoad) Prepare(ctx context.Context, name, description string) (*Prepared, error) {
	return r.snapshots.Prepare(ctx, r.vm, name, description)
}

// Remove removes a snapshot that this road has made. A VM that has left in between is a *MovedError, because a host that
// does not know the snapshot any more must not be taken for one that has removed it.
func (r *HostRoad) Remove(ctx context.Context, s inventory.Snapshot) (RemoveResult, error) {
	if err := r.Here(ctx); err != nil {
		return RemoveResult{}, err
	}
	return r.snapshots.Remove(ctx, s)
}

// FindSnapshots lists the VM's snapshots whose names begin with prefix.
func (r *HostRoad) FindSnapshots(ctx context.Context, prefix string) ([]inventory.Snapshot, error) {
	return r.snapshots.FindSnapshots(ctx, r.vm, prefix)
}

// Unfinished lists the tasks of the host that work on the VM.
func (r *HostRoad) Unfinished(ctx context.Context) ([]inventory.Task, error) {
	return r.snapshots.Unfinished(ctx, r.vm)
}
