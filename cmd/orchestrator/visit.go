package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// visitFlags are the flags of the commands that put the agent into one VM's guest without a snapshot.
type visitFlags struct {
	target
	agentFlags
	state, output string
}

func (f *visitFlags) flags(cmd *cobra.Command) {
	f.target.flags(cmd)
	f.agentFlags.flags(cmd)
	stateFlag(cmd, &f.state)
	outputFlag(cmd, &f.output)
}

// oneVM is for a command that takes one VM, or GOVC_VM.
func oneVM(cmd *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
		return &usageError{err}
	}
	return nil
}

// visit is what it takes to go to one VM's guest.
type visit struct {
	endpoint *vsphere.Endpoint
	store    *statefile.Store
	guests   guests
	account  *url.Userinfo
	query    string // the VM, as the operator wrote it
	vm       inventory.VM
	payload  guest.Payload
	run      string
	epoch    uint64
	vcenter  string
	// anySystem is true for what is not VSS's.
	anySystem bool
	// installation is what the last Begin gave.
	installation statefile.Installation
}

// again begins another run of the same visit.
func (v *visit) again(ctx context.Context) error {
	begun, err := v.store.Begin(ctx)
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	v.run, v.epoch, v.installation = id.String(), begun.Epoch, begun
	return nil
}

// about is what the ledger tells of the visit.
func (v visit) about() statefile.Intent {
	return statefile.Intent{Run: v.run, Epoch: v.epoch, VCenter: v.vcenter, VM: v.vm.InstanceUUID, Path: v.vm.Path, Moref: v.vm.Moref}
}

// arrive reads what the command needs and logs in to vCenter. The caller leaves.
func (c *cli) arrive(ctx context.Context, f visitFlags, args []string) (v visit, err error) {
	if v.query = first(append(args, c.getenv("GOVC_VM"))...); v.query == "" {
		return v, missing("no VM: name it, or set GOVC_VM")
	}
	options, err := c.options(f.target)
	if err != nil {
		return v, err
	}
	if v.account, err = c.account(f.reachFlags); err != nil {
		return v, err
	}
	payloads, err := f.payloads()
	if err != nil {
		return v, err
	}
	reach, err := f.reach(ctx)
	if err != nil {
		return v, err
	}
	if v.store, err = c.store(f.state); err != nil {
		return v, err
	}
	book, err := c.book(f.state)
	if err != nil {
		return v, err
	}
	if err := v.again(ctx); err != nil {
		return v, err
	}
	v.vcenter = options.URL.Host
	if v.endpoint, err = connect(ctx, options, v.store); err != nil {
		return v, interrupted(ctx, err)
	}
	v.guests = guests{v.endpoint, v.store, v.vcenter, v.account, payloads, book, reach, c.now, drawn(v.store)}
	return v, nil
}

// leave logs out of vCenter.
func (c *cli) leave(ctx context.Context, v visit) {
	c.deafen(v.guests.reach)
	if left := v.endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
}

// visit goes to the guest of a VM, which must be a Windows one unless anySystem is true, and has do work there.
func (c *cli) visit(ctx context.Context, f visitFlags, args []string, anySystem bool, do func(context.Context, visit) error) error {
	v, err := c.arrive(ctx, f, args)
	if err != nil {
		return err
	}
	v.anySystem = anySystem
	err = v.stay(ctx, do)
	c.leave(ctx, v)
	if err != nil {
		return interrupted(ctx, err)
	}
	return nil
}

// stay finds the VM and keeps runs away from it while do works.
func (v visit) stay(ctx context.Context, do func(context.Context, visit) error) (err error) {
	if v.vm, err = v.endpoint.Find(ctx, v.query); err != nil {
		return err
	}
	if !v.anySystem && v.vm.System() != inventory.Windows {
		return invalid("%s: only Windows guests have VSS, and vCenter takes this one for %q", v.vm.Path, first(v.vm.GuestFamily, "unknown"))
	}
	if v.vm.PowerState != "poweredOn" {
		return &backup.Refusal{SF: "SF2112", Err: fmt.Errorf("%s: it is %s, there is no guest to go to", v.vm.Path, v.vm.PowerState)}
	}
	if err := guest.Refuse(v.vm); err != nil {
		return err
	}
	if v.payload, err = v.guests.payloads.of(v.vm); err != nil {
		return err
	}
	if err := v.store.Acquire(ctx, v.vm.InstanceUUID, v.run); err != nil {
		return err
	}
	err = do(ctx, v)
	return errors.Join(err, v.store.Release(context.WithoutCancel(ctx), v.vm.InstanceUUID, v.run))
}

// named is the VM as -o json prints it.
func named(vm inventory.VM) backup.VM {
	return backup.VM{Name: vm.Name, Path: vm.Path, Moref: vm.Moref, InstanceUUID: vm.InstanceUUID}
}
