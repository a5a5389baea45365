package vsphere

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// wellView is a VM of which nothing is to be said.
func wellView() *view {
	store := types.ManagedObjectReference{Type: "Datastore", Value: "datastore-1"}
	return &view{
		vm: map[string]any{
			"config.hardware.device": types.ArrayOfVirtualDevice{VirtualDevice: []types.BaseVirtualDevice{
				&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingNoSharing}},
				&types.VirtualDisk{
					VirtualDevice: types.VirtualDevice{
						DeviceInfo: &types.Description{Label: "Hard disk 1"},
						Backing: &types.VirtualDiskFlatVer2BackingInfo{
							VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{Datastore: &store},
							DiskMode:                     "persistent", Sharing: "sharingNone",
						},
					},
					CapacityInKB: 200 << 20, // 200 GiB
				},
			}},
			"config.template":                  false,
			"disabledMethod":                   types.ArrayOfString{String: []string{"PowerOnVM_Task"}},
			"guest.guestOperationsReady":       true,
			"guest.toolsRunningStatus":         "guestToolsRunning",
			"guest.toolsVersionStatus2":        "guestToolsSupportedOld",
			"runtime.connectionState":          types.VirtualMachineConnectionStateConnected,
			"runtime.consolidationNeeded":      false,
			"runtime.faultToleranceState":      types.VirtualMachineFaultToleranceStateNotConfigured,
			"runtime.powerState":               types.VirtualMachinePowerStatePoweredOn,
			"summary.quickStats.uptimeSeconds": int32(600),
		},
		datastores: map[types.ManagedObjectReference]map[string]any{store: {
			"name": "fast", "summary": types.DatastoreSummary{Accessible: true, FreeSpace: 20 << 30, MaintenanceMode: "normal"},
		}},
		asked: true, load: load{ready: []int64{100, 300}, latency: []int64{2, 4}},
		stuns: stuns{known: true},
		host: map[string]any{
			"summary.hardware":   types.HostHardwareSummary{CpuMhz: 2000, NumCpuCores: 10, MemorySize: 100 << 30},
			"summary.quickStats": types.HostListSummaryQuickStats{OverallCpuUsage: 17999, OverallMemoryUsage: 94 << 10},
		},
	}
}

// disk and backing are what the healthy VM has one of.
func (v *view) disk() *types.VirtualDisk { return v.disks()[0] }

func (v *view) backing() *types.VirtualDiskFlatVer2BackingInfo {
	return v.disk().Backing.(*types.VirtualDiskFlatVer2BackingInfo)
}

func (v *view) add(d types.BaseVirtualDevice) {
	v.vm[devicePath] = types.ArrayOfVirtualDevice{VirtualDevice: append(v.devices(), d)}
}

// store changes the summary of the one datastore.
func (v *view) store(change func(*types.DatastoreSummary)) {
	for _, p := range v.datastores {
		s := p["summary"].(types.DatastoreSummary)
		change(&s)
		p["summary"] = s
	}
}

// chain gives the view a chain of snapshots of these names, the last one current.
func (v *view) chain(names ...string) {
	var tree []types.VirtualMachineSnapshotTree
	for i := len(names) - 1; i >= 0; i-- {
		tree = []types.VirtualMachineSnapshotTree{{
			Name: names[i], Snapshot: types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: names[i]}, ChildSnapshotList: tree,
			CreateTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		}}
	}
	last := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: names[len(names)-1]}
	v.vm["snapshot"] = types.VirtualMachineSnapshotInfo{CurrentSnapshot: &last, RootSnapshotList: tree}
}

// refuse has a property missing because it may not be read.
func refuse(path string) func(*view) {
	return func(v *view) {
		delete(v.vm, path)
		v.refused = append(v.refused, path)
	}
}

// put sets a property; value nil removes it.
func put(path string, value any) func(*view) {
	return func(v *view) {
		if v.vm[path] = value; value == nil {
			delete(v.vm, path)
		}
	}
}

const (
	ok      = inventory.CheckOK
	warned  = inventory.CheckWarn
	failed  = inventory.CheckFail
	unclear = inventory.CheckUnknown
)

func TestRows(t *testing.T) {
	gone := put(devicePath, nil)
	cases := map[string]struct {
		row    string
		change func(*view)
		want   inventory.CheckStatus
		says   string
	}{
		"template":                      {"template", put("config.template", true), failed, "template"},
		"template not told":             {"template", put("config.template", nil), unclear, "config.template"},
		"orphaned":                      {"connection", put("runtime.connectionState", types.VirtualMachineConnectionStateOrphaned), failed, "orphaned"},
		"connection not told":           {"connection", put("runtime.connectionState", nil), unclear, "connectionState"},
		"off":                           {"power", put("runtime.powerState", types.VirtualMachinePowerStatePoweredOff), failed, "poweredOff"},
		"suspended":                     {"power", put("runtime.powerState", types.VirtualMachinePowerStateSuspended), failed, "suspended"},
		"power not told":                {"power", put("runtime.powerState", nil), unclear, "powerState"},
		"question":                      {"question", put("runtime.question", types.VirtualMachineQuestionInfo{Text: "no more space"}), failed, "no more space"},
		"question not told":             {"question", refuse("runtime.question"), unclear, "runtime.question"},
		"tools stopped":                 {"tools", put("guest.toolsRunningStatus", "guestToolsNotRunning"), warned, "guestToolsNotRunning"},
		"tools too old":                 {"tools", put("guest.toolsVersionStatus2", "guestToolsTooOld"), warned, "guestToolsTooOld"},
		"tools of an off VM":            {"tools", put("runtime.powerState", types.VirtualMachinePowerStatePoweredOff), unclear, "not powered on"},
		"no tools, no operations":       {"guest_operations", put("guest.toolsRunningStatus", "guestToolsNotRunning"), failed, "Tools do not run"},
		"operations not ready":          {"guest_operations", put("guest.guestOperationsReady", false), warned, "not ready"},
		"readiness not told":            {"guest_operations", put("guest.guestOperationsReady", nil), ok, ""},
		"operations of an off VM":       {"guest_operations", put("runtime.powerState", types.VirtualMachinePowerStatePoweredOff), unclear, "not powered on"},
		"just booted":                   {"guest_uptime", put("summary.quickStats.uptimeSeconds", int32(599)), warned, "9m59s"},
		"uptime not told":               {"guest_uptime", put("summary.quickStats.uptimeSeconds", int32(0)), unclear, "uptimeSeconds"},
		"a host far away":               {"vcenter_host", func(v *view) { v.reach = reach{own: 20 * time.Millisecond, host: 120 * time.Millisecond} }, warned, "it takes 100 ms, from here to vCenter and back 20 ms"},
		"a host near":                   {"vcenter_host", func(v *view) { v.reach = reach{own: 200 * time.Millisecond, host: 299 * time.Millisecond} }, ok, ""},
		"a host that answers us sooner": {"vcenter_host", func(v *view) { v.reach = reach{own: 200 * time.Millisecond, host: time.Millisecond} }, ok, ""},
		"a host that tells no time":     {"vcenter_host", func(v *view) { v.reach = reach{why: "no clock"} }, unclear, "no clock"},
		"CPUs wait":                     {"cpu_ready", func(v *view) { v.load.ready = []int64{1000, 3000} }, warned, "10.0 %"},
		"each of 4 CPUs waits": {"cpu_ready", func(v *view) {
			v.load.ready = []int64{8000}
			v.vm["summary.config.numCpu"] = int32(4)
		}, warned, "each of its 4 virtual CPUs waited for a real one for 10.0 %"},
		"4 CPUs share the wait":      {"cpu_ready", func(v *view) { v.load.ready, v.vm["summary.config.numCpu"] = []int64{7999}, int32(4) }, ok, ""},
		"no counters":                {"cpu_ready", func(v *view) { v.load = load{why: "may not"} }, unclear, "may not"},
		"no values yet":              {"datastore_latency", func(v *view) { v.load = load{} }, unclear, "no values"},
		"disks slow":                 {"datastore_latency", func(v *view) { v.load.latency = []int64{10, 50} }, warned, "30 ms"},
		"stunned for long":           {"stun", stunned(100, 3500, 300), warned, "stuns (3) took 3.5 s at 2026-01-02T03:04:05Z"},
		"stunned at an unknown time": {"stun", func(v *view) { v.stuns.list = []stun{{length: maxStun}} }, warned, "took 2.0 s, 2 s or more"},
		"stunned for a moment":       {"stun", stunned(300, 1999), ok, ""},
		"stunned long ago":           {"stun", stunned(9000, 1, 2, 3, 4, 5), ok, ""},
		"log not readable":           {"stun", func(v *view) { v.stuns = stuns{why: "answer 404"} }, unclear, "answer 404"},
		"log not read":               {"stun", func(v *view) { v.stuns = stuns{} }, unclear, "not read"},
		"CPUs of the host busy":      {"host_load", func(v *view) { v.host["summary.quickStats"] = types.HostListSummaryQuickStats{OverallCpuUsage: 18000} }, warned, "90 %"},
		"memory of the host used": {"host_load", func(v *view) {
			v.host["summary.quickStats"] = types.HostListSummaryQuickStats{OverallMemoryUsage: 95 << 10}
		}, warned, "95 %"},
		"ballooned":             {"host_load", put("summary.quickStats.balloonedMemory", int32(64)), warned, "64 MiB"},
		"host not told":         {"host_load", func(v *view) { v.host = nil }, unclear, "quickStats of the host"},
		"FT primary":            {"fault_tolerance", put("runtime.faultToleranceState", types.VirtualMachineFaultToleranceStateRunning), failed, "running"},
		"FT by configuration":   {"fault_tolerance", put("config.ftInfo", types.FaultToleranceConfigInfo{Role: 2}), failed, "group"},
		"FT not told":           {"fault_tolerance", refuse("runtime.faultToleranceState"), unclear, "faultToleranceState"},
		"bus shared":            {"shared_bus", func(v *view) { v.add(sharedBus()) }, failed, "physicalSharing"},
		"NVMe bus shared":       {"shared_bus", func(v *view) { v.add(&types.VirtualNVMEController{SharedBus: "physicalSharing"}) }, failed, "physicalSharing"},
		"multi-writer":          {"shared_bus", func(v *view) { v.backing().Sharing = "sharingMultiWriter" }, failed, "Hard disk 1 has sharingMultiWriter"},
		"buses not told":        {"shared_bus", gone, unclear, devicePath},
		"only disk independent": {"disks", func(v *view) { v.backing().DiskMode = "independent_persistent" }, failed, "Hard disk 1"},
		"another disk independent": {"disks", func(v *view) {
			v.add(diskOf(&types.VirtualDiskSeSparseBackingInfo{DiskMode: "independent_nonpersistent"}))
		}, warned, "nonpersistent"},
		"physical raw device":      {"disks", func(v *view) { v.add(diskOf(rdm("physicalMode"))) }, warned, "physical mode"},
		"virtual raw device":       {"disks", func(v *view) { v.add(diskOf(rdm("virtualMode"))) }, ok, ""},
		"no disk":                  {"disks", put(devicePath, types.ArrayOfVirtualDevice{}), failed, "no disk"},
		"disks not told":           {"disks", gone, unclear, devicePath},
		"passthrough":              {"passthrough", func(v *view) { v.add(&types.VirtualPCIPassthrough{}) }, warned, "passed through"},
		"network card passed":      {"passthrough", func(v *view) { v.add(&types.VirtualSriovEthernetCard{}) }, warned, "passed through"},
		"encrypted, may":           {"encryption", put("config.keyId", types.CryptoKeyId{KeyId: "k"}), ok, "encrypted"},
		"encrypted, may not":       {"encryption", func(v *view) { encryptDisk(v); v.missing = []Lack{{cryptographerAccess, "db1", "vm-1"}} }, failed, "Cryptographer.Access"},
		"encrypted, not asked":     {"encryption", func(v *view) { encryptDisk(v); v.asked, v.why = false, "NotSupported" }, unclear, "encrypted"},
		"consolidation":            {"consolidation", put("runtime.consolidationNeeded", true), failed, "consolidation"},
		"consolidation not told":   {"consolidation", put("runtime.consolidationNeeded", nil), unclear, "consolidationNeeded"},
		"ours left":                {"snapshots_own", func(v *view) { v.chain("before", "stillframe-1-2") }, warned, "stillframe-1-2"},
		"foreign beside ours":      {"snapshots_foreign", func(v *view) { v.chain("before", "stillframe-1-2") }, warned, `"before"`},
		"many":                     {"snapshots_foreign", func(v *view) { v.chain(slices.Repeat([]string{"n"}, 9)...) }, warned, "and 4 more"},
		"29 levels":                {"snapshot_depth", func(v *view) { v.chain(levels(29)...) }, ok, ""},
		"30 levels":                {"snapshot_depth", func(v *view) { v.chain(levels(30)...) }, failed, "30 levels"},
		"files without snapshots":  {"snapshot_depth", func(v *view) { v.backing().Parent = files(31) }, failed, "files of Hard disk 1"},
		"method disabled":          {"snapshot_disabled", put("disabledMethod", types.ArrayOfString{String: []string{"CreateSnapshot_Task"}}), failed, "CreateSnapshot_Task"},
		"methods not told":         {"snapshot_disabled", put("disabledMethod", nil), unclear, "disabledMethod"},
		"settings not told":        {"snapshot_disabled", refuse("config.extraConfig"), unclear, "extraConfig"},
		"no snapshots allowed":     {"snapshot_disabled", put("config.extraConfig", maxSnapshots("0")), failed, "maxSnapshots is 0"},
		"one allowed, one there":   {"snapshot_disabled", func(v *view) { v.chain("a"); v.vm["config.extraConfig"] = maxSnapshots("1") }, failed, "there are 1"},
		"two allowed, one there":   {"snapshot_disabled", func(v *view) { v.chain("a"); v.vm["config.extraConfig"] = maxSnapshots("2") }, ok, ""},
		"not a number":             {"snapshot_disabled", put("config.extraConfig", maxSnapshots("none")), ok, ""},
		"datastore away":           {"datastore_state", func(v *view) { v.store(func(d *types.DatastoreSummary) { d.Accessible = false }) }, failed, "fast is not accessible"},
		"datastore in maintenance": {"datastore_state", func(v *view) { v.store(func(d *types.DatastoreSummary) { d.MaintenanceMode = "enteringMaintenance" }) }, failed, "entering"},
		"datastore below 10 GiB": {"datastore_space", func(v *view) {
			v.disk().CapacityInKB = 1
			v.store(func(d *types.DatastoreSummary) { d.FreeSpace = 10<<30 - 1 })
		}, failed, "10.0 GiB are needed"},
		"datastore at 10 GiB": {"datastore_space", func(v *view) {
			v.disk().CapacityInKB = 1
			v.store(func(d *types.DatastoreSummary) { d.FreeSpace = 10 << 30 })
		}, ok, ""},
		"datastore below 10 percent":       {"datastore_space", func(v *view) { v.store(func(d *types.DatastoreSummary) { d.FreeSpace = 19 << 30 }) }, failed, "20.0 GiB are needed"},
		"datastore not told":               {"datastore_space", func(v *view) { v.datastores = nil }, unclear, "datastore-1"},
		"no datastore":                     {"datastore_space", gone, unclear, "no datastore"},
		"privilege missing":                {"privileges", func(v *view) { v.missing = []Lack{{"VirtualMachine.State.CreateSnapshot", "db1", "vm-1"}} }, failed, "CreateSnapshot is missing on db1"},
		"guest operations are another row": {"privileges", func(v *view) { v.missing = []Lack{{"VirtualMachine.GuestOperations.Modify", "db1", "vm-1"}} }, ok, ""},
		"no guest operations":              {"guest_privileges", func(v *view) { v.missing = []Lack{{"VirtualMachine.GuestOperations.Modify", "db1", "vm-1"}} }, failed, "GuestOperations.Modify is missing on db1"},
		"guest operations are there":       {"guest_privileges", func(v *view) { v.missing = []Lack{{"VirtualMachine.State.CreateSnapshot", "db1", "vm-1"}} }, ok, ""},
		"privileges not told":              {"privileges", func(v *view) { v.asked, v.why = false, "NotSupported" }, unclear, "NotSupported"},
		"key access is another row":        {"privileges", func(v *view) { v.missing = []Lack{{cryptographerAccess, "db1", "vm-1"}} }, ok, ""},
		"task queued":                      {"running_task", func(v *view) { v.tasks = []types.TaskInfo{userTask(types.TaskInfoStateQueued)} }, failed, "by somebody"},
		"task running":                     {"running_task", func(v *view) { v.tasks = []types.TaskInfo{userTask(types.TaskInfoStateRunning)} }, failed, "relocate"},
		"task over":                        {"running_task", func(v *view) { v.tasks = []types.TaskInfo{userTask(types.TaskInfoStateError)} }, ok, ""},
	}
	covered := map[string]bool{}
	for name, c := range cases {
		v := wellView()
		c.change(v)
		for _, r := range table() {
			if r.id != c.row {
				continue
			}
			covered[r.id] = true
			got := r.judge(v)
			if got.status != c.want || !strings.Contains(strings.Join(got.evidence, "; "), c.says) {
				t.Errorf("%s: %s = %v %q, want %v with %q", name, r.id, got.status, got.evidence, c.want, c.says)
			}
			if got.status != ok && len(got.evidence) == 0 {
				t.Errorf("%s: %s = %v without evidence", name, r.id, got.status)
			}
		}
	}
	for _, r := range table() {
		if got := r.judge(wellView()); got.status != ok {
			t.Errorf("%s of the healthy VM = %v %q, want ok", r.id, got.status, got.evidence)
		}
		if !covered[r.id] {
			t.Errorf("no case for %s", r.id)
		}
	}
}

// stunned has the VM's log tell of stuns of so many milliseconds.
func stunned(ms ...int) func(*view) {
	return func(v *view) {
		for _, n := range ms {
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			v.stuns.list = append(v.stuns.list, stun{at, time.Duration(n) * time.Millisecond})
		}
	}
}

func sharedBus() types.BaseVirtualDevice {
	return &types.VirtualLsiLogicSASController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingPhysicalSharing}}
}

func diskOf(b types.BaseVirtualDeviceBackingInfo) *types.VirtualDisk {
	return &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: 2001, Backing: b}}
}

func rdm(mode string) *types.VirtualDiskRawDiskMappingVer1BackingInfo {
	return &types.VirtualDiskRawDiskMappingVer1BackingInfo{CompatibilityMode: mode}
}

func encryptDisk(v *view) { v.backing().KeyId = &types.CryptoKeyId{KeyId: "k"} }

func levels(n int) []string {
	var names []string
	for i := range n {
		names = append(names, strings.Repeat("n", i+1))
	}
	return names
}

func files(n int) *types.VirtualDiskFlatVer2BackingInfo {
	var below *types.VirtualDiskFlatVer2BackingInfo
	for range n {
		below = &types.VirtualDiskFlatVer2BackingInfo{Parent: below}
	}
	return below
}

func maxSnapshots(n string) types.ArrayOfOptionValue {
	return types.ArrayOfOptionValue{OptionValue: []types.BaseOptionValue{
		&types.OptionValue{Key: "other", Value: "0"}, &types.OptionValue{Key: "snapshot.maxSnapshots", Value: n},
	}}
}

func userTask(state types.TaskInfoState) types.TaskInfo {
	return types.TaskInfo{DescriptionId: "VirtualMachine.relocate", State: state, Reason: &types.TaskReasonUser{UserName: "somebody"}}
}

// TestTable holds the rows' names: they are what other people's scripts look for.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Checks() {
		if c.ID == "" || c.Title == "" || seen[c.ID] || c.Status != inventory.CheckUnknown {
			t.Errorf("row %+v is nameless, there twice, or answered", c)
		}
		seen[c.ID] = true
		if entry, known := advice.Lookup(advice.Code(c.Code)); !known || len(entry.Steps()) == 0 {
			t.Errorf("%s has the code %q without advice", c.ID, c.Code)
		}
	}
}

// TestPreflight asks the stock simulator, with as few calls as were promised.
func TestPreflight(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	vm, err := e.Find(t.Context(), "/DC0/vm/DC0_H0_VM0")
	if err != nil {
		t.Fatal(err)
	}
	w.take()
	checks, err := e.Preflight(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	if calls := w.take(); !slices.Equal(calls, []string{"RetrievePropertiesEx", "HasPrivilegeOnEntities", "CurrentTime", "QueryDateTime"}) {
		t.Errorf("preflight made the calls %v, want one read, one question, and two for the time", calls)
	}
	for _, c := range checks {
		want := ok
		switch c.ID {
		case "power":
			want = failed
		case "tools", "guest_operations", "guest_uptime", "cpu_ready", "datastore_latency", "stun", "vcenter_host":
			want = unclear
		}
		if c.Status != want {
			t.Errorf("%s = %v %q, want %v", c.ID, c.Status, c.Evidence, want)
		}
	}
	w.refuse("HasPrivilegeOnEntities", &types.NotSupported{})
	if checks, err = e.Preflight(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if (c.ID == "privileges" || c.ID == "guest_privileges") && c.Status != unclear {
			t.Errorf("privileges that vCenter does not tell = %v, want unknown", c.Status)
		}
	}
	vm.Moref = "vm-999999"
	_, err = e.Preflight(t.Context(), vm)
	wantCode(t, err, "SF2006")
}

// TestLoad asks the lab for the load of VMs that run, with one call more than for others, two at the first time.
func TestLoad(t *testing.T) {
	s := startLab(t, vcenter.Options{Hosts: 3, VMs: []vcenter.VM{
		{Name: "calm"},
		{Name: "starved", Conditions: []string{"cpu_starved"}},
		{Name: "slow", Conditions: []string{"datastore_slow"}},
		{Name: "busy", Host: "DC0_C0_H1", Conditions: []string{"host_busy", "swapped"}},
		{Name: "far", Host: "DC0_C0_H2", Conditions: []string{"far_host"}},
		{Name: "stunned", Conditions: []string{"long_stun"}},
	}})
	e := labEndpoint(t, s.URL(), s.Thumbprint())
	for i, c := range []struct{ vm, warned string }{
		{"calm", ""},
		{"starved", "cpu_ready"},
		{"slow", "datastore_latency"},
		{"busy", "host_load"},
		{"stunned", "stun"},
		{"far", "vcenter_host"},
	} {
		vm, err := e.Find(t.Context(), c.vm)
		if err != nil {
			t.Fatal(err)
		}
		s.TakeCalls()
		checks, err := e.Preflight(t.Context(), vm)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"RetrievePropertiesEx": 1, "HasPrivilegeOnEntities": 1, "QueryPerf": 1, "CurrentTime": 1, "QueryDateTime": 1, "GET": 1}
		if i == 0 {
			want["RetrievePropertiesEx"] = 2 // the ids of the counters
		}
		if c.warned == "vcenter_host" {
			want["CurrentTime"], want["QueryDateTime"] = reachTries, reachTries
		}
		if diff := cmp.Diff(want, calls(s)); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", c.vm, diff)
		}
		for _, check := range checks {
			if bad := check.Status != ok; bad != (check.ID == c.warned) || bad && check.Status != warned {
				t.Errorf("%s: %s = %v %q, want a warning of %q only", c.vm, check.ID, check.Status, check.Evidence, c.warned)
			}
		}
	}
}

// TestGates holds the list of gates to the table.
func TestGates(t *testing.T) {
	var found []string
	for _, c := range Checks() {
		if c.Gate {
			found = append(found, c.ID)
		}
	}
	if !slices.Equal(found, inventory.Gates()) {
		t.Errorf("gates of the table are %q, want %q", found, inventory.Gates())
	}
}
