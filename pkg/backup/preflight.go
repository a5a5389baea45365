package backup

import (
	"errors"
	"fmt"
	"strings"

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

// preflight refuses, before anything is touched, what cannot end in a consistent snapshot.
func preflight(vm inventory.VM) error {
	refuse := func(code, format string, a ...any) error {
		return &Refusal{code, fmt.Errorf("%s: "+format, append([]any{vm.Path}, a...)...)}
	}
	switch {
	case vm.Template:
		return refuse("SF2111", "it is a template")
	case vm.ConnectionState != "" && vm.ConnectionState != "connected":
		return refuse("SF2111", "its connection state is %s", vm.ConnectionState)
	case vm.PowerState != "poweredOn":
		return refuse("SF2112", "it is %s, there is no guest to hold", vm.PowerState)
	case vm.ConsolidationNeeded:
		return refuse("SF2119", "its disks need consolidation")
	case strings.Contains(strings.ToLower(vm.GuestFamily), "windows"):
		return &Refusal{"SF3609", errors.New(vm.Path + ": there is no agent for Windows guests yet")}
	}
	return nil
}
