package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// roadFlags choose whom a snapshot is asked of.
type roadFlags struct{ road, accountFile string }

func (f *roadFlags) flags(cmd *cobra.Command) {
	f.road = string(admission.RoadVCenter)
	cmd.Flags().Var(&choice{&f.road, []string{string(admission.RoadVCenter), string(admission.RoadHost), string(admission.RoadAuto)}}, "snapshot-road",
		"ask vCenter for the snapshot, the ESXi host that runs the VM, or whichever this VM's windows found faster (auto)")
	cmd.Flags().StringVar(&f.accountFile, "host-account", "", "file with user:password of the ESXi hosts (default GOVC_HOST_USERNAME and GOVC_HOST_PASSWORD)")
}

// hostAccount reads the account of the ESXi hosts; nil when none is given. The road through vCenter needs none.
func (c *cli) hostAccount(f roadFlags) (*url.Userinfo, error) {
	if f.road == string(admission.RoadVCenter) {
		return nil, nil
	}
	if f.accountFile != "" {
		text, err := os.ReadFile(f.accountFile)
		if err != nil {
			return nil, invalid("read --host-account: %v", err)
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(text), "\r\n"), ":")
		if !ok || user == "" || strings.Contains(password, "\n") {
			return nil, invalid("--host-account %s is not one line user:password", f.accountFile)
		}
		return url.UserPassword(user, password), nil
	}
	if user := c.getenv("GOVC_HOST_USERNAME"); user != "" {
		return url.UserPassword(user, c.getenv("GOVC_HOST_PASSWORD")), nil
	}
	return nil, nil
}

// esxHosts opens roads to the hosts of VMs with one account.
type esxHosts struct {
	endpoint *vsphere.Endpoint
	store    breaker
	account  *url.Userinfo
}

var _ backup.Hosts = esxHosts{}

// newHosts is nil without an account, and where the one endpoint is the host itself.
func newHosts(e *vsphere.Endpoint, store breaker, account *url.Userinfo) backup.Hosts {
	if account == nil || e.IsHost() {
		return nil
	}
	return esxHosts{e, store, account}
}

// Open logs in to the VM's host. A password that a host has refused is not tried again there for a while.
func (h esxHosts) Open(ctx context.Context, vm inventory.VM) (backup.HostRoad, error) {
	host, err := h.endpoint.HostOf(ctx, vm)
	if err != nil {
		return nil, err
	}
	var direct *vsphere.Endpoint
	err = once(ctx, h.store, "host account "+h.account.Username()+" on "+host.Address, h.account, []string{"SF2001"}, func() (err error) {
		direct, err = h.endpoint.OpenHost(ctx, host, func(context.Context) (*url.Userinfo, error) { return h.account, nil })
		return err
	})
	if err != nil {
		return nil, err
	}
	road, err := vsphere.NewHostRoad(ctx, h.endpoint, direct, host, vm)
	if err != nil {
		return nil, errors.Join(err, direct.Close(context.WithoutCancel(ctx)))
	}
	return hostRoad{road, direct}, nil
}

// hostRoad brings pkg/vsphere to what a run asks for.
type hostRoad struct {
	*vsphere.HostRoad
	direct *vsphere.Endpoint
}

func (r hostRoad) Name() string { return r.Host().Name }

func (r hostRoad) Prepare(ctx context.Context, name, description string) (backup.Snapshot, error) {
	return r.HostRoad.Prepare(ctx, name, description)
}

func (r hostRoad) Remove(ctx context.Context, s inventory.Snapshot) (string, error) {
	removed, err := r.HostRoad.Remove(ctx, s)
	return unsettled(removed), err
}

func (r hostRoad) Close(ctx context.Context) error { return r.direct.Close(ctx) }
