package backup

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/inventory"
)

func goodVM() inventory.VM {
	return inventory.VM{
		Name: "db1", Path: "/DC0/vm/db1", Moref: "vm-42", InstanceUUID: "5013-i", UUID: vmUUID, PowerState: "poweredOn",
		ConnectionState: "connected", GuestFamily: "linuxGuest", ToolsRunning: true, Addresses: []string{"192.0.2.7"},
	}
}

func TestPreflight(t *testing.T) {
	cases := map[string]struct {
		change func(*inventory.VM)
		code   string
	}{
		"well":                     {func(*inventory.VM) {}, ""},
		"state not told":           {func(vm *inventory.VM) { vm.ConnectionState = "" }, ""},
		"family not told":          {func(vm *inventory.VM) { vm.GuestFamily = "" }, ""},
		"a template":               {func(vm *inventory.VM) { vm.Template = true }, "SF2111"},
		"no instance UUID":         {func(vm *inventory.VM) { vm.InstanceUUID = "" }, "SF2111"},
		"orphaned":                 {func(vm *inventory.VM) { vm.ConnectionState = "orphaned" }, "SF2111"},
		"inaccessible":             {func(vm *inventory.VM) { vm.ConnectionState = "inaccessible" }, "SF2111"},
		"switched off":             {func(vm *inventory.VM) { vm.PowerState = "poweredOff" }, "SF2112"},
		"suspended":                {func(vm *inventory.VM) { vm.PowerState = "suspended" }, "SF2112"},
		"power state not told":     {func(vm *inventory.VM) { vm.PowerState = "" }, "SF2112"},
		"disks to be consolidated": {func(vm *inventory.VM) { vm.ConsolidationNeeded = true }, "SF2119"},
		"a Windows guest":          {func(vm *inventory.VM) { vm.GuestFamily = "windowsGuest" }, ""},
		"an old Windows guest": {func(vm *inventory.VM) {
			vm.GuestFamily, vm.GuestID = "windowsGuest", "windows8Server64Guest"
		}, "SF4910"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			vm := goodVM()
			c.change(&vm)
			err := preflight(vm)
			if c.code == "" {
				if err != nil {
					t.Errorf("preflight = %v, want nil", err)
				}
				return
			}
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Code() != c.code || !strings.Contains(err.Error(), vm.Path) {
				t.Errorf("preflight = %v, want %s that names %s", err, c.code, vm.Path)
			}
		})
	}
}

// table is the preflight table of a VM on which a task runs for a while.
type table struct {
	checks []inventory.Check
	busy   time.Duration // the task is gone after that
	begun  time.Time
	looks  int
}

func (c *table) Preflight(context.Context, inventory.VM) ([]inventory.Check, error) {
	if c.looks++; c.looks == 1 {
		c.begun = time.Now()
	}
	checks := slices.Clone(c.checks)
	if time.Since(c.begun) < c.busy {
		checks = append(checks, inventory.Check{ID: inventory.CheckRunningTask, Status: inventory.CheckFail, Code: "SF2120", Evidence: []string{"relocate"}})
	}
	return checks, nil
}

func TestPreflightTable(t *testing.T) {
	check := func(status inventory.CheckStatus, code string) inventory.Check {
		return inventory.Check{ID: code, Status: status, Code: code, Evidence: []string{"seen " + code}}
	}
	const good, bad, warn, unknown = inventory.CheckOK, inventory.CheckFail, inventory.CheckWarn, inventory.CheckUnknown
	cases := map[string]struct {
		table    table
		code     string
		findings []string
		waited   time.Duration
	}{
		"well":              {table{checks: []inventory.Check{check(good, "SF2111"), check(unknown, "SF4013")}}, "", []string{}, 0},
		"warnings":          {table{checks: []inventory.Check{check(warn, "SF2117"), check(warn, "SF2304")}}, "", []string{"SF2117", "SF2304"}, 0},
		"one fails":         {table{checks: []inventory.Check{check(warn, "SF2117"), check(bad, "SF2115")}}, "SF2115", []string{"SF2117"}, 0},
		"the first counts":  {table{checks: []inventory.Check{check(bad, "SF2113"), check(bad, "SF2115")}}, "SF2113", []string{"SF2115"}, 0},
		"a task that ends":  {table{checks: []inventory.Check{check(good, "SF2111")}, busy: 10 * time.Second}, "", []string{}, 12 * time.Second},
		"a task that stays": {table{busy: time.Hour}, "SF2120", []string{}, 60 * time.Second},
		"no use in waiting": {table{checks: []inventory.Check{check(bad, "SF2113")}, busy: time.Hour}, "SF2113", []string{"SF2120"}, 0},
	}
	for name, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			x := &run{Runner: Runner{Checks: &c.table, Log: zap.NewNop()}, vm: goodVM(), result: newResult(Plan{})}
			begun := time.Now()
			err := x.preflight(t.Context())
			var refusal *Refusal
			if got := errors.As(err, &refusal); got != (c.code != "") || got && refusal.Code() != c.code {
				t.Errorf("%s: preflight = %v, want %q", name, err, c.code)
			}
			if got := codes(x.result); !slices.Equal(got, c.findings) {
				t.Errorf("%s: findings %v, want %v", name, got, c.findings)
			}
			if got := time.Since(begun); got != c.waited {
				t.Errorf("%s: took %v, want %v", name, got, c.waited)
			}
		})
	}
}

// TestPostponed has gates warn: only those that the plan names stop the run.
func TestPostponed(t *testing.T) {
	ready := inventory.Check{ID: "cpu_ready", Status: inventory.CheckWarn, Code: "SF2131", Evidence: []string{"it waits"}, Gate: true}
	tools := inventory.Check{ID: "tools", Status: inventory.CheckWarn, Code: "SF2125", Evidence: []string{"old"}}
	calm := inventory.Check{ID: "host_load", Status: inventory.CheckOK, Code: "SF2132", Gate: true}
	template := inventory.Check{ID: "template", Status: inventory.CheckFail, Code: "SF2111", Evidence: []string{"template"}}
	for name, c := range map[string]struct {
		postpone []string
		checks   []inventory.Check
		code     string
	}{
		"only warned":      {nil, []inventory.Check{ready, tools}, ""},
		"postponed":        {[]string{"host_load", "cpu_ready"}, []inventory.Check{tools, ready}, "SF2131"},
		"another gate":     {[]string{"host_load"}, []inventory.Check{ready, calm}, ""},
		"no gate":          {[]string{"tools"}, []inventory.Check{tools}, ""},
		"a failure counts": {[]string{"cpu_ready"}, []inventory.Check{ready, template}, "SF2111"},
	} {
		t.Run(name, func(t *testing.T) {
			x := &run{Runner: Runner{Checks: &table{checks: c.checks}, Log: zap.NewNop()}, plan: Plan{Postpone: c.postpone}, vm: goodVM(), result: newResult(Plan{})}
			err := x.preflight(t.Context())
			var refusal *Refusal
			if got := errors.As(err, &refusal); got != (c.code != "") || got && refusal.Code() != c.code {
				t.Errorf("preflight = %v, want %q", err, c.code)
			}
		})
	}
}
