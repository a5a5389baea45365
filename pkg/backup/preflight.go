package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// Refusal says that a run stops for a reason of its own, with the reason's code.
type Refusal struct {
	SF  string
	Err error
}

func (r *Refusal) Error() string { return r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Code is the code of the error catalogue.
func (r *Refusal) Code() string { return r.SF }

// Checks answers the table of checks for one VM, satisfied by *vsphere.Endpoint. It changes nothing.
type Checks interface {
	Preflight(ctx context.Context, vm inventory.VM) ([]inventory.Check, error)
}

// checkWait bounds the wait for a task on the VM to end (SF2120); checkPause lies between two
// looks.
const (
	checkWait  = 60 * time.Second
	checkPause = 3 * time.Second
)

// preflight refuses by the table, before anything is touched, what cannot end in a consistent snapshot. A task on the VM is waited for. What only warns becomes a finding of the run.
func (x *run) preflight(ctx context.Context) error {
	if x.Checks == nil {
		return nil
	}
	begun := time.Now()
	for {
		checks, err := x.Checks.Preflight(ctx, x.vm)
		if err != nil {
			return fmt.Errorf("check %s before the run: %w", x.vm.Path, err)
		}
		failed := slices.DeleteFunc(slices.Clone(checks), func(c inventory.Check) bool { return c.Status != inventory.CheckFail })
		busy := len(failed) == 1 && failed[0].ID == inventory.CheckRunningTask
		if !busy || time.Since(begun) >= checkWait {
			if i := slices.IndexFunc(checks, x.waitsFor); i >= 0 && len(failed) == 0 {
				x.warnings(slices.Concat(checks[:i], checks[i+1:])) // the refusal itself becomes the finding
				return x.postponed(checks[i])
			}
			x.warnings(checks)
			return x.refused(failed)
		}
		x.Log.Info("waiting for a task on the VM", zap.Strings("tasks", failed[0].Evidence), zap.Duration("limit", checkWait))
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// warnings turns checks that do not stop the run into findings.
func (x *run) warnings(checks []inventory.Check) {
	for _, c := range checks {
		switch c.Status {
		case inventory.CheckWarn:
			x.result.find(c.Code, c.Evidence...)
		case inventory.CheckUnknown:
			x.Log.Info("not checked", zap.String("check", c.ID), zap.Strings("why", c.Evidence))
		case inventory.CheckOK, inventory.CheckFail:
		}
	}
}

// refused is the refusal by the first failed check; the others become findings beside it.
func (x *run) refused(failed []inventory.Check) error {
	if len(failed) == 0 {
		return nil
	}
	for _, c := range failed[1:] {
		x.result.find(c.Code, c.Evidence...)
	}
	c := failed[0]
	return &Refusal{c.Code, fmt.Errorf("%s: %s", x.vm.Path, strings.Join(c.Evidence, "\n"))}
}

// waitsFor says whether a check is a gate that the plan waits for, and warns.
func (x *run) waitsFor(c inventory.Check) bool {
	return c.Gate && c.Status == inventory.CheckWarn && slices.Contains(x.plan.Postpone, c.ID)
}

// postponed is the refusal by a gate. A one-shot run does not wait: its caller tries again later.
func (x *run) postponed(c inventory.Check) error {
	return &Refusal{c.Code, fmt.Errorf("%s: postponed by its gate %s: %s", x.vm.Path, c.ID, strings.Join(c.Evidence, "; "))}
}

// preflight refuses by what was told when the VM was found.
func preflight(vm inventory.VM) error {
	refuse := func(code, format string, a ...any) error {
		return &Refusal{code, fmt.Errorf("%s: "+format, append([]any{vm.Path}, a...)...)}
	}
	switch {
	case vm.Template:
		return refuse("SF2111", "it is a template")
	case vm.InstanceUUID == "": // everything that lasts from run to run is kept under it
		return refuse("SF2111", "it has no instance UUID")
	case vm.ConnectionState != "" && vm.ConnectionState != "connected":
		return refuse("SF2111", "its connection state is %s", vm.ConnectionState)
	case vm.PowerState != "poweredOn":
		return refuse("SF2112", "it is %s, there is no guest to hold", vm.PowerState)
	case vm.ConsolidationNeeded:
		return refuse("SF2119", "its disks need consolidation")
	}
	if err := guest.Refuse(vm); err != nil {
		return refuse(guest.CodeOf(err), "%v", err)
	}
	return nil
}
