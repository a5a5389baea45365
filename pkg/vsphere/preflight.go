package vsphere

import (
	"context"
	"errors"
	"slices"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// row is one line of the preflight table: one question with one function that answers it.
type row struct {
	id, title, code string
	judge           func(v *view) finding
}

// finding is the answer of a row.
type finding struct {
	status   inventory.CheckStatus
	evidence []string
}

func fine(evidence ...string) finding { return finding{inventory.CheckOK, evidence} }

func warn(evidence ...string) finding { return finding{inventory.CheckWarn, evidence} }

func fail(evidence ...string) finding { return finding{inventory.CheckFail, evidence} }

func unknown(evidence ...string) finding { return finding{inventory.CheckUnknown, evidence} }

// table is the whole preflight (docs/preflight.md). What fails first here is the reason that a run gives.
func table() []row {
	return []row{
		{"template", "the VM is no template", "SF2111", judgeTemplate},
		{"connection", "vCenter can reach the VM", "SF2111", judgeConnection},
		{"power", "the VM is powered on", "SF2112", judgePower},
		{"question", "the VM does not wait for an answer", "SF2208", judgeQuestion},
		{"tools", "VMware Tools run and are not too old", "SF2125", judgeTools},
		{inventory.CheckGuestOperations, "guest operations are ready", "SF3601", judgeGuestOperations},
		{"guest_uptime", "the guest is up for at least 10 min", "SF4013", judgeUptime},
		{"fault_tolerance", "fault tolerance is off", "SF2113", judgeFaultTolerance},
		{"shared_bus", "no bus or disk is shared with another VM", "SF2115", judgeSharedBus},
		{"disks", "a snapshot holds every disk", "SF2114", judgeDisks},
		{"passthrough", "no device is passed through", "SF2116", judgePassthrough},
		{"encryption", "the account may access an encrypted VM", "SF2122", judgeEncryption},
		{"consolidation", "no disk needs consolidation", "SF2119", judgeConsolidation},
		{"snapshots_own", "no snapshot of ours is left over", "SF2304", judgeOwnSnapshots},
		{"snapshots_foreign", "there is no foreign snapshot", "SF2117", judgeForeignSnapshots},
		{"snapshot_depth", "the snapshot chain is shorter than 30", "SF2118", judgeDepth},
		{"snapshot_disabled", "snapshots are not disabled", "SF2124", judgeDisabled},
		{"datastore_state", "every datastore is accessible and not in maintenance", "SF2121", judgeDatastoreState},
		{"datastore_space", "every datastore has 10 GiB and 10 % of the VM's disks free", "SF2121", judgeDatastoreSpace},
		{"cpu_ready", "the VM's CPUs wait for less than 10 % of the time", "SF2131", judgeReady},
		{"host_load", "the host has CPU and memory to spare", "SF2132", judgeHost},
		{"datastore_latency", "the VM's disks answer within 30 ms", "SF2133", judgeLatency},
		{"stun", "creating a snapshot stuns the VM for less than 2 s", "SF2135", judgeStun},
		{"vcenter_host", "vCenter reaches the VM's host and comes back within 100 ms", "SF2134", judgeReach},
		{"privileges", "the account has every privilege that a run needs", "SF2101", judgePrivileges},
		{inventory.CheckGuestPrivileges, "the account may use guest operations", "SF2101", judgeGuestPrivileges},
		{inventory.CheckRunningTask, "no task runs on the VM", "SF2120", judgeTask},
	}
}

// Checks lists the rows of the preflight table in order, unanswered.
func Checks() []inventory.Check {
	var all []inventory.Check
	for _, r := range table() {
		all = append(all, inventory.Check{ID: r.id, Title: r.title, Code: r.code, Gate: slices.Contains(inventory.Gates(), r.id)})
	}
	return all
}

// Preflight answers every row of the table for one VM with five calls: one read of the VM with its host, datastores and
// recent tasks, one question for privileges, one for performance counters, whose ids cost one more call the first time, and two
// for the time of vCenter and of the host; and with one GET of the end of the VM's log. It changes nothing. Never call it inside
// a freeze window. A row whose properties may not be read is unknown; the error is for calls that had no answer at all.
func (e *Endpoint) Preflight(ctx context.Context, vm inventory.VM) ([]inventory.Check, error) {
	v, err := e.read(ctx, vmRef(vm.Moref))
	if err != nil {
		return nil, failure("check VM", vm.Name, err)
	}
	if err := v.ask(ctx, e, vm); err != nil {
		return nil, failure("ask for privileges on VM", vm.Name, err)
	}
	v.measure(ctx, e, vm)
	v.reachHost(ctx, e)
	v.recall(ctx, e)
	checks := Checks()
	for i, r := range table() {
		f := r.judge(v)
		checks[i].Status, checks[i].Evidence = f.status, f.evidence
	}
	return checks, nil
}

// view is what one look at a VM found. Properties that are unset, or may not be read, are missing.
type view struct {
	vm         map[string]any
	refused    []string // the VM's properties that are missing because they may not be read
	datastores map[types.ManagedObjectReference]map[string]any
	host       map[string]any
	tasks      []types.TaskInfo
	load       load
	reach      reach
	stuns      stuns
	datacenter string // its inventory path; empty when that is not known
	session    string
	// missing are privileges that the session lacks; asked is false when vCenter did not say, for the reason why.
	missing []Lack
	asked   bool
	why     string
}

// preflightPaths are the properties of the VM that the table judges.
func preflightPaths() []string {
	return []string{
		"config.extraConfig", logFolder, "config.ftInfo", "config.hardware.device", "config.keyId", "config.template", "disabledMethod",
		"guest.guestOperationsReady", "guest.toolsRunningStatus", "guest.toolsVersionStatus2", "runtime.connectionState",
		"runtime.consolidationNeeded", "runtime.faultToleranceState", "runtime.powerState", "runtime.question", "snapshot",
		"summary.config.numCpu", "summary.quickStats.balloonedMemory", "summary.quickStats.swappedMemory",
		"summary.quickStats.uptimeSeconds",
	}
}

// read makes the view of a VM with one call; it lacks the privileges.
func (e *Endpoint) read(ctx context.Context, vm types.ManagedObjectReference) (*view, error) {
	up := &types.SelectionSpec{Name: "up"}
	objects, err := e.retrieve(ctx, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{
			{Obj: vm, SelectSet: []types.BaseSelectionSpec{
				&types.TraversalSpec{SelectionSpec: *up, Type: "ManagedEntity", Path: "parent", SelectSet: []types.BaseSelectionSpec{up}},
				&types.TraversalSpec{Type: "VirtualMachine", Path: "parentVApp", SelectSet: []types.BaseSelectionSpec{up}},
				&types.TraversalSpec{Type: "VirtualMachine", Path: "datastore"},
				&types.TraversalSpec{Type: "VirtualMachine", Path: "recentTask"},
				&types.TraversalSpec{Type: "VirtualMachine", Path: "runtime.host"},
			}},
			{Obj: *e.vim.ServiceContent.SessionManager},
		},
		PropSet: []types.PropertySpec{
			{Type: "VirtualMachine", PathSet: preflightPaths()},
			{Type: "Datastore", PathSet: []string{"name", "summary"}},
			{Type: "Datacenter", PathSet: []string{"name", "parent"}},
			{Type: "Folder", PathSet: []string{"name", "parent"}},
			{Type: "HostSystem", PathSet: []string{"configManager.dateTimeSystem", "summary.hardware", "summary.quickStats"}},
			{Type: "Task", PathSet: []string{"info"}},
			{Type: "SessionManager", PathSet: []string{"currentSession"}},
		},
	})
	if err != nil {
		return nil, err
	}
	v := &view{datastores: map[types.ManagedObjectReference]map[string]any{}}
	above := map[types.ManagedObjectReference]map[string]any{}
	for _, o := range objects {
		p := propertyMap(o)
		switch o.Obj.Type {
		case "VirtualMachine":
			v.vm = p
			for _, m := range o.MissingSet {
				v.refused = append(v.refused, m.Path)
			}
		case "Datastore":
			v.datastores[key(o.Obj)] = p
		case "Datacenter", "Folder":
			above[key(o.Obj)] = p
		case "HostSystem":
			v.host = p
		case "Task":
			v.tasks = append(v.tasks, value[types.TaskInfo](p, "info"))
		case "SessionManager":
			v.session = value[types.UserSession](p, "currentSession").Key
		}
	}
	if v.vm == nil {
		return nil, soap.WrapVimFault(&types.ManagedObjectNotFound{Obj: vm})
	}
	v.datacenter = datacenterPath(above)
	return v, nil
}

// ask completes a view with the privileges that the session lacks, with one call. That vCenter refuses to say is no error.
func (v *view) ask(ctx context.Context, e *Endpoint, vm inventory.VM) error {
	s := scope{ref: vmRef(vm.Moref), name: vm.Path}
	for _, f := range Features() {
		if f.Needed || f.Name == featureEncrypted && v.encrypted() {
			s.ids = append(s.ids, f.onVM...)
		}
	}
	missing, err := e.lacking(ctx, v.session, []scope{s})
	switch {
	case err == nil:
		v.missing, v.asked = missing, true
	case errors.Is(err, errNoAuthorization):
		v.why = err.Error()
	case read(err).fault == "":
		return err
	default:
		v.why = "asked for the privileges, vCenter answered " + read(err).fault
	}
	return nil
}

// has says whether a property could be read.
func (v *view) has(path string) bool {
	_, ok := v.vm[path]
	return ok
}

// unread is the finding of a row whose property is missing.
func unread(path string) finding { return unknown(path + " could not be read") }
