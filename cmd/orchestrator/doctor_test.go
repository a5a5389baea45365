package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

var updatePreflight = flag.Bool("update-preflight", false, "write the table of docs/preflight.md anew") //nolint:gochecknoglobals // a test's flag

// examine runs the doctor on one VM of a world.
func examine(t *testing.T, w *world, vm string, env map[string]string) (examination, outcome) {
	t.Helper()
	o := operate(t, env, nil, "doctor", "--vm", vm, "--agent", binaries.agent, "-o", "json")
	var x examination
	if err := json.Unmarshal([]byte(o.stdout), &x); err != nil {
		t.Fatalf("the doctor did not print one object: %v\n%s", err, o.stdout)
	}
	return x, o
}

// wrong lists the rows that did not go well, as id:status:code.
func wrong(x examination) []string {
	all := []string{}
	for _, r := range x.Checks {
		if r.Status == inventory.CheckWarn || r.Status == inventory.CheckFail {
			all = append(all, r.ID+":"+r.Status.String()+":"+r.Code)
		}
	}
	return all
}

// TestDoctor examines the VMs of testing/scenarios/doctor.yaml: each has one thing wrong, which has to be named, and nothing
// else may be.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := start(t, "doctor")
	env := w.environment("")
	delete(env, "GOVC_GUEST_LOGIN")
	for _, sick := range []struct {
		vm    string
		exit  int
		wrong []string
		says  string
	}{
		{"template", exitPreflight, []string{"template:fail:SF2111"}, "template"},
		{"orphaned", exitPreflight, []string{"connection:fail:SF2111"}, "orphaned"},
		{"powered-off", exitPreflight, []string{"power:fail:SF2112"}, "poweredOff"},
		{"suspended", exitPreflight, []string{"power:fail:SF2112"}, "suspended"},
		{"question", exitPreflight, []string{"question:fail:SF2208"}, "no more space"},
		{"tools-absent", exitPreflight, []string{"tools:warn:SF2125", "guest_operations:fail:SF3601"}, "guestToolsNotRunning"},
		{"tools-old", exitOK, []string{"tools:warn:SF2125"}, "guestToolsTooOld"},
		{"not-ready", exitOK, []string{"guest_operations:warn:SF3601"}, "not ready"},
		{"just-booted", exitOK, []string{"guest_uptime:warn:SF4013"}, "2m5s"},
		{"starved", exitOK, []string{"cpu_ready:warn:SF2131"}, "15.0 %"},
		{"slow-disks", exitOK, []string{"datastore_latency:warn:SF2133"}, "80 ms"},
		{"stunned", exitOK, []string{"stun:warn:SF2135"}, "3.5 s"},
		{"swapped", exitOK, []string{"host_load:warn:SF2132"}, "512 MiB"},
		{"busy-host", exitOK, []string{"host_load:warn:SF2132"}, "CPUs are busy for 9"},
		{"far-host", exitOK, []string{"vcenter_host:warn:SF2134"}, "from vCenter to the VM's host and back"},
		{"fault-tolerant", exitPreflight, []string{"fault_tolerance:fail:SF2113"}, "running"},
		{"encrypted", exitOK, []string{}, "it is encrypted"},
		{"encrypted-no-access", exitPreflight, []string{"encryption:fail:SF2122"}, "Cryptographer.Access"},
		{"task-running", exitPreflight, []string{"running_task:fail:SF2120"}, "VirtualMachine.relocate"},
		{"independent", exitPreflight, []string{"disks:fail:SF2114"}, "independent_persistent"},
		{"second-disk", exitOK, []string{"disks:warn:SF2114"}, "Hard disk 2"},
		{"physical-rdm", exitOK, []string{"disks:warn:SF2114"}, "physical mode"},
		{"bus-sharing", exitPreflight, []string{"shared_bus:fail:SF2115"}, "physicalSharing"},
		{"multi-writer", exitPreflight, []string{"shared_bus:fail:SF2115"}, "sharingMultiWriter"},
		{"passthrough", exitOK, []string{"passthrough:warn:SF2116"}, "PCI device 0"},
		{"consolidation", exitPreflight, []string{"consolidation:fail:SF2119"}, "consolidation"},
		{"disabled", exitPreflight, []string{"snapshot_disabled:fail:SF2124"}, "CreateSnapshotEx_Task"},
		{"max-snapshots", exitPreflight, []string{"snapshot_disabled:fail:SF2124"}, "maxSnapshots is 0"},
		{"foreign", exitOK, []string{"snapshots_foreign:warn:SF2117"}, "before the upgrade"},
		{"own", exitOK, []string{"snapshots_own:warn:SF2304"}, "stillframe-"},
		{"deep", exitPreflight, []string{"snapshots_foreign:warn:SF2117", "snapshot_depth:fail:SF2118"}, "30 levels"},
		{"datastore-full", exitPreflight, []string{"datastore_space:fail:SF2121"}, "LabFull has 3.0 GiB"},
		{"datastore-maintenance", exitPreflight, []string{"datastore_state:fail:SF2121"}, "inMaintenance"},
		{"no-privilege", exitPreflight, []string{"privileges:fail:SF2101"}, "VirtualMachine.State.CreateSnapshot"},
	} {
		x, o := examine(t, w, sick.vm, env)
		if o.exit != sick.exit || !slices.Equal(wrong(x), sick.wrong) || !strings.Contains(o.stdout, sick.says) {
			t.Errorf("%s: exit status %d, %v, want %d, %v with %q", sick.vm, o.exit, wrong(x), sick.exit, sick.wrong, sick.says)
		}
		for _, r := range x.Checks {
			bad := r.Code != ""
			if bad && (len(r.Evidence) == 0 || len(r.Remedy) == 0) {
				t.Errorf("%s: %s has no evidence or no remedy: %+v", sick.vm, r.ID, r)
			}
		}
	}
	o := operate(t, env, nil, "doctor", "--vm", "deep")
	for _, part := range []string{"vm /DC0/vm/deep (vm-", "FAIL     snapshot_depth", "SF2118\n", "seen: the chain of snapshots has 30 levels", "try:  ", "and 25 more", " fail, "} {
		if !strings.Contains(o.stdout, part) {
			t.Errorf("the table has no %q:\n%s", part, o.stdout)
		}
	}
	if o := operate(t, env, nil, "doctor", "--vm", "nobody", "-o", "json"); o.exit != exitNoMatch || o.stdout != "" {
		t.Errorf("on no VM: exit status %d with %q, want %d", o.exit, o.stdout, exitNoMatch)
	}
	for _, method := range []string{"CreateSnapshotEx_Task", "StartProgramInGuest", "MakeDirectoryInGuest", "ValidateCredentialsInGuest"} {
		if n := w.count(t, method); n != 0 {
			t.Errorf("the doctor called %s %d times, want never", method, n)
		}
	}
}

// TestDoctorOnTheHealthy finds nothing, also with the guest's account, tries a wrong one once, and asks the rest without vCenter.
func TestDoctorOnTheHealthy(t *testing.T) {
	t.Parallel()
	w := start(t, "doctor")
	env := w.environment("healthy")
	x, o := examine(t, w, "healthy", env)
	if o.exit != exitOK || x.VM.Name != "healthy" || x.APIVersion != "stillframe/v1" {
		t.Errorf("exit status %d of VM %q, want 0 of healthy", o.exit, x.VM.Name)
	}
	for _, r := range x.Checks {
		if r.Status != inventory.CheckOK {
			t.Errorf("%s = %v %v, want ok", r.ID, r.Status, r.Evidence)
		}
	}
	if got, want := len(x.Checks), len(entrance())+len(vsphere.Checks())+len(remembered())+len(inside()); got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	env["GOVC_GUEST_LOGIN"] = "root:not this one"
	x, o = examine(t, w, "healthy", env)
	if got := wrong(x); o.exit != exitPreflight || !slices.Equal(got, []string{"guest_login:fail:SF3001"}) {
		t.Errorf("with a wrong guest password: exit status %d, %v", o.exit, got)
	}
	before := w.count(t, "ValidateCredentialsInGuest")
	if x, _ = examine(t, w, "healthy", env); !slices.Equal(wrong(x), []string{"guest_login:fail:SF1104"}) || w.count(t, "ValidateCredentialsInGuest") != before {
		t.Errorf("the wrong guest password again: %v, want it not even tried", wrong(x))
	}
	env["GOVC_PASSWORD"] = "not this one"
	x, o = examine(t, w, "healthy", env)
	if got := wrong(x); o.exit != exitPreflight || !slices.Equal(got, []string{"vcenter_login:fail:SF2001"}) || strings.Contains(o.stdout+o.stderr, "not this one") {
		t.Errorf("with a wrong password: exit status %d, %v", o.exit, got)
	}
	env = w.environment("healthy")
	env["GOVC_TLS_CA_CERTS"] = ""
	x, o = examine(t, w, "healthy", env)
	if got := wrong(x); o.exit != exitPreflight || !slices.Equal(got, []string{"vcenter_certificate:fail:SF2003"}) {
		t.Errorf("with an untrusted certificate: exit status %d, %v", o.exit, got)
	}
	env["GOVC_INSECURE"] = "1"
	x, _ = examine(t, w, "healthy", env)
	if got := wrong(x); !slices.Equal(got, []string{"vcenter_certificate:fail:SF2003"}) {
		t.Errorf("with any certificate: %v, want it told as a failure", got)
	}
	env["GOVC_URL"], env["GOVC_INSECURE"] = "https://nobody.invalid", ""
	x, o = examine(t, w, "healthy", env)
	if got := wrong(x); o.exit != exitPreflight || !slices.Equal(got, []string{"vcenter_answer:fail:SF2004"}) {
		t.Errorf("without a vCenter: exit status %d, %v", o.exit, got)
	}
}

// TestDoctorRemembers tells what the state folder has against a run: what another run left open, who works on the VM now,
// windows that were too long.
func TestDoctorRemembers(t *testing.T) {
	store, err := statefile.Open(filepath.Join(t.TempDir(), "state"), statefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := patient{store: store, vm: inventory.VM{InstanceUUID: "1"}}
	ask := func(want ...string) {
		t.Helper()
		past := remembered()
		p.runs(t.Context(), &past[0], &past[1])
		p.room(t.Context(), &past[2])
		p.history(t.Context(), &past[3])
		var x examination
		for _, c := range past {
			x.Checks = append(x.Checks, newResult(c))
			if c.Status != inventory.CheckOK && len(c.Evidence) == 0 {
				t.Errorf("%s = %v without evidence", c.ID, c.Status)
			}
		}
		if got := wrong(x); !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("the doctor remembers %v, want %v", got, want)
		}
	}
	ask()
	own := statefile.Intent{Kind: statefile.Snapshot, Subject: "stillframe-1-2", Run: "now", VM: "1"}
	old := statefile.Intent{Kind: statefile.Folder, Subject: "/var/lib/stillframe/agent/x", Run: "before", VM: "1"}
	long := admission.Sample{At: time.Now(), Freeze: time.Second, Snapshot: 30 * time.Second, Thaw: time.Second}
	err = errors.Join(store.Acquire(t.Context(), "1", "now"), store.Intend(t.Context(), own))
	if err != nil {
		t.Fatal(err)
	}
	ask("run_active:warn:SF1103")
	if err := errors.Join(store.Release(t.Context(), "1", "now"), store.Settle(t.Context(), own), store.Intend(t.Context(), old)); err != nil {
		t.Fatal(err)
	}
	ask("run_unfinished:fail:SF2304")
	if err := errors.Join(store.Settle(t.Context(), old), store.Record(t.Context(), "1", long)); err != nil {
		t.Fatal(err)
	}
	ask("history:fail:SF4010")
	p.vm.InstanceUUID = "2"
	ask()
}

// TestAgentPort tells a closed port, which is fine, from an address that is not known.
func TestAgentPort(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := patient{flags: doctorFlags{agentFlags: agentFlags{reachFlags: reachFlags{port: uint16(listener.Addr().(*net.TCPAddr).Port)}}}, vm: inventory.VM{Addresses: []string{"127.0.0.1"}}}
	ask := func(want inventory.CheckStatus, says string) {
		var c inventory.Check
		if p.port(t.Context(), &c); c.Status != want || !strings.Contains(strings.Join(c.Evidence, ""), says) {
			t.Errorf("agent_port = %v %q, want %v with %q", c.Status, c.Evidence, want, says)
		}
	}
	ask(inventory.CheckOK, "accepts connections")
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	ask(inventory.CheckOK, "is closed, as it should be")
	p.flags.address = "nobody.invalid"
	ask(inventory.CheckWarn, "nobody.invalid")
	p.flags.address, p.vm.Addresses = "", nil
	ask(inventory.CheckUnknown, "no address")
}

// TestRunIsRefusedByPreflight runs on VMs that the table refuses, before anything is touched.
func TestRunIsRefusedByPreflight(t *testing.T) {
	t.Parallel()
	w := start(t, "doctor")
	for _, day := range []struct {
		vm   string
		exit int
		code string
	}{
		{"template", exitPreflight, "SF2111"},
		{"orphaned", exitPreflight, "SF2111"},
		{"powered-off", exitPreflight, "SF2112"},
		{"suspended", exitPreflight, "SF2112"},
		{"tools-absent", exitPreflight, "SF3601"},
		{"fault-tolerant", exitPreflight, "SF2113"},
		{"multi-writer", exitPreflight, "SF2115"},
		{"deep", exitPreflight, "SF2118"},
		{"datastore-full", exitPreflight, "SF2121"},
		{"disabled", exitPreflight, "SF2124"},
		{"no-privilege", exitAuth, "SF2101"},
	} {
		o := operate(t, w.environment(day.vm), nil, window(day.vm)...)
		if o.exit != day.exit || !strings.Contains(o.stderr, "("+day.code+")") || !slices.Contains(o.codes(), day.code) {
			t.Errorf("%s: exit status %d with %v, want %d with %s", day.vm, o.exit, o.codes(), day.exit, day.code)
		}
		if len(o.result.Leftovers) > 0 {
			t.Errorf("%s: something is left: %v", day.vm, o.result.Leftovers)
		}
	}
	for _, method := range []string{"CreateSnapshotEx_Task", "StartProgramInGuest", "MakeDirectoryInGuest", "ValidateCredentialsInGuest"} {
		if n := w.count(t, method); n != 0 {
			t.Errorf("%s was called %d times, want never", method, n)
		}
	}
}

// TestGates runs a VM whose host has too little for it: the run warns, or is postponed where it was told to.
func TestGates(t *testing.T) {
	t.Parallel()
	schema, err := os.ReadFile("../../pkg/config/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if all := `["` + strings.Join(inventory.Gates(), `", "`) + `"]`; !strings.Contains(string(schema), all) {
		t.Errorf("the configuration's schema lacks the gates %s", all)
	}
	w := start(t, "doctor")
	o := operate(t, w.environment("starved"), nil, append(window("starved"), "--postpone", "cpu_ready,host_load")...)
	if o.exit != exitPreflight || !slices.Contains(o.codes(), "SF2131") || len(o.result.Window.Phases) > 0 {
		t.Errorf("postponed: exit status %d with %v", o.exit, o.codes())
	}
	free(t, w, "starved", 0)
	o = operate(t, w.environment("starved"), nil, append(window("starved"), "--postpone", "datastore_latency")...)
	if o.exit != exitOK || !slices.Contains(o.codes(), "SF2131") {
		t.Errorf("warned: exit status %d with %v", o.exit, o.codes())
	}
	o = operate(t, w.environment("starved"), nil, append(window("starved"), "--postpone", "weather")...)
	if o.exit != exitUsage || !strings.Contains(o.stderr, "guest_uptime, cpu_ready") {
		t.Errorf("no gate: exit status %d, %s", o.exit, o.stderr)
	}
}

// TestVsphereCheck asks for privileges, with and without a VM.
func TestVsphereCheck(t *testing.T) {
	t.Parallel()
	w := start(t, "role")
	for _, c := range []struct {
		args    []string
		exit    int
		missing []string
	}{
		{[]string{}, exitOK, []string{"Global.LogEvent", "Datastore.Browse"}},
		{[]string{"--vm", "free"}, exitOK, []string{"Global.LogEvent", "Datastore.Browse"}},
		{[]string{"--vm", "tight"}, exitAuth, []string{"VirtualMachine.State.RemoveSnapshot", "Global.LogEvent", "Datastore.Browse"}},
		{[]string{"--vm", "sealed"}, exitAuth, []string{"Cryptographer.Access", "Global.LogEvent", "Datastore.Browse"}},
	} {
		o := operate(t, w.environment(""), nil, append([]string{"vsphere", "check", "-o", "json"}, c.args...)...)
		var g grants
		if err := json.Unmarshal([]byte(o.stdout), &g); err != nil {
			t.Fatal(err)
		}
		var missing []string
		for _, f := range g.Features {
			for _, m := range f.Missing {
				missing = append(missing, m.Privilege)
			}
		}
		slices.Sort(missing)
		slices.Sort(c.missing)
		if o.exit != c.exit || !slices.Equal(missing, c.missing) {
			t.Errorf("vsphere check %v: exit status %d, missing %v, want %d, %v", c.args, o.exit, missing, c.exit, c.missing)
		}
		if !strings.HasPrefix(g.RoleCreate, "govc role.create stillframe-backup ") || !strings.Contains(g.RoleCreate, "VirtualMachine.State.CreateSnapshot") {
			t.Errorf("the line that makes the role is %q", g.RoleCreate)
		}
	}
	o := operate(t, w.environment(""), nil, "vsphere", "check", "--vm", "tight")
	if !strings.Contains(o.stdout, "VirtualMachine.State.RemoveSnapshot on /DC0/vm/tight") {
		t.Errorf("the table does not name the privilege with its object:\n%s", o.stdout)
	}
	for _, args := range [][]string{{"vsphere", "chek"}, {"vsphere", "check", "more"}, {"doctor", "more"}} {
		if o := operate(t, w.environment(""), nil, args...); o.exit != exitUsage {
			t.Errorf("%v: exit status %d, want %d", args, o.exit, exitUsage)
		}
	}
}

// TestPreflightPage holds docs/preflight.md to the rows.
func TestPreflightPage(t *testing.T) {
	const path, begin, end = "../../docs/preflight.md", "<!-- table -->\n", "<!-- end -->\n"
	var b strings.Builder
	b.WriteString("\n| id | ok means | else | what to do |\n|---|---|---|---|\n")
	for _, c := range slices.Concat(entrance(), vsphere.Checks(), remembered(), inside(), shareRows(), persistentRow()) {
		steps := strings.Join(advice.Explain(advice.Code(c.Code)).Next, "; ")
		fmt.Fprintf(&b, "| `%s` | %s | [%s](errors.md#%s) | %s |\n", c.ID, c.Title, c.Code, strings.ToLower(c.Code), strings.ReplaceAll(steps, "|", "\\|"))
	}
	b.WriteString("\n")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(page), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has lost the marks around its table", path)
	}
	want := head + begin + b.String() + end + tail
	if *updatePreflight {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(page) != want {
		t.Errorf("%s is not what the code says; run: go test ./cmd/orchestrator -run TestPreflightPage -update-preflight", path)
	}
}
