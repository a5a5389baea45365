package vcenter_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// TestConditions brings every condition about, on a VM of its own, beside one without any.
func TestConditions(t *testing.T) {
	o := vcenter.Options{VMs: []vcenter.VM{{Name: "well"}}}
	for _, name := range vcenter.Conditions() {
		o.VMs = append(o.VMs, vcenter.VM{Name: name, Conditions: []string{name}})
	}
	s := start(t, o)
	c := connect(t, s)
	read := func(name string) (vm mo.VirtualMachine) {
		if err := machine(t, c, name).Properties(t.Context(), types.ManagedObjectReference{Type: "VirtualMachine", Value: s.Moref(name)}, nil, &vm); err != nil {
			t.Fatal(err)
		}
		return vm
	}
	if well := read("well"); well.Config.Template || well.Snapshot != nil || well.Summary.QuickStats.UptimeSeconds < 86400 {
		t.Errorf("the VM without conditions has some: %+v", well.Summary)
	}
	seen := map[string]bool{
		"template":               read("template").Config.Template,
		"powered_off":            read("powered_off").Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff,
		"tools_absent":           read("tools_absent").Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning),
		"consolidation_needed":   read("consolidation_needed").Runtime.ConsolidationNeeded,
		"foreign_snapshot":       slices.Equal(s.SnapshotNames("foreign_snapshot"), []string{"before the upgrade"}),
		"own_snapshot":           strings.HasPrefix(strings.Join(s.SnapshotNames("own_snapshot"), ""), "stillframe-"),
		"deep_chain":             len(s.SnapshotNames("deep_chain")) == 30,
		"task_running":           len(read("task_running").RecentTask) == len(read("well").RecentTask)+1,
		"passthrough":            len(read("passthrough").Config.Hardware.Device) == len(read("well").Config.Hardware.Device)+1,
		"datastore_full":         read("datastore_full").Datastore[0].Value != read("well").Datastore[0].Value,
		"a datastore of its own": read("datastore_full").Datastore[0] != read("datastore_maintenance").Datastore[0],
	}
	for name, is := range seen {
		if !is {
			t.Errorf("condition %s did not come about", name)
		}
	}
	_, err := vcenter.Start(t.Context(), vcenter.Options{User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a", Conditions: []string{"tired"}}}})
	if err == nil || !strings.Contains(err.Error(), "tired") {
		t.Errorf("Start with an unknown condition = %v, want it refused by name", err)
	}
}

// TestRole asks about privileges, and uses one that is missing.
func TestRole(t *testing.T) {
	const create, remove, query = "VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot", "VirtualMachine.GuestOperations.Query"
	s := start(t, vcenter.Options{
		Missing: []string{query}, VMs: []vcenter.VM{{Name: "free"}, {Name: "tight", Missing: []string{create}}},
	})
	c := connect(t, s)
	free, tight := machine(t, c, "free"), machine(t, c, "tight")
	entities := []types.ManagedObjectReference{free.Reference(), tight.Reference()}
	session, err := c.SessionManager.UserSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	manager := object.NewAuthorizationManager(c.Client)
	has, err := methods.HasPrivilegeOnEntities(t.Context(), c.Client, &types.HasPrivilegeOnEntities{
		This: manager.Reference(), Entity: entities, SessionId: session.Key, PrivId: []string{create, remove, query},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, e := range has.Returnval {
		for _, p := range e.PrivAvailability {
			got = append(got, p.IsGranted)
		}
	}
	if want := []bool{true, true, false, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("HasPrivilegeOnEntities = %v, want %v", got, want)
	}
	all, err := manager.FetchUserPrivilegeOnEntities(t.Context(), entities, user)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(all[0].Privileges, query) || !slices.Contains(all[0].Privileges, create) || slices.Contains(all[1].Privileges, create) {
		t.Errorf("FetchUserPrivilegeOnEntities does not say the same: %v", all)
	}
	_, err = tight.CreateSnapshot(t.Context(), "one", "", false, false)
	var refused *types.NoPermission
	if _, ok := fault.As(err, &refused); !ok || refused.PrivilegeId != create || refused.Object == nil || refused.Object.Value != tight.Reference().Value {
		t.Errorf("a snapshot without the privilege = %v, want NoPermission that names it with the VM", err)
	}
	task, err := free.CreateSnapshot(t.Context(), "one", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestConditionsAreDocumented wants every name in docs/vcsim.md.
func TestConditionsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/vcsim.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range vcenter.Conditions() {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/vcsim.md does not name the condition %s", name)
		}
	}
}
