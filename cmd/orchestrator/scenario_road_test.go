package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// asHost is the environment with the account of the hosts.
func (w *world) asHost(vm string) map[string]string {
	env := w.environment(vm)
	maps.Copy(env, map[string]string{"GOVC_HOST_USERNAME": "root", "GOVC_HOST_PASSWORD": "esx-secret"})
	return env
}

// TestHostRoad asks vCenter and the host for the same VM's snapshot, and goes on without an account that is refused.
func TestHostRoad(t *testing.T) {
	t.Parallel()
	w := start(t, "host-road")
	slow := operate(t, w.environment("vm"), nil, append(window("vm"), "--snapshot-road", "vcenter")...)
	fast := operate(t, w.asHost("vm"), nil, append(window("vm"), "--snapshot-road", "host")...)
	if slow.exit != exitOK || fast.exit != exitOK || fast.result.Verdict.Level != freezewindow.Filesystem {
		t.Fatalf("exit statuses %d and %d", slow.exit, fast.exit)
	}
	s := fast.result.Snapshot
	if s.Road != admission.ThroughHost || s.Host != "DC0_C0_H0" || !s.Removed || s.TaskSeconds > 1 || slow.result.Snapshot.TaskSeconds < 1.4 {
		t.Errorf("over the host: %+v, through vCenter: %+v", s, slow.result.Snapshot)
	}
	if r := s.Roads; len(r) != 2 || r[0].Made != 1 || r[1].Made != 0 {
		t.Errorf("the roads that were known are %+v", r)
	}
	if held := fast.result.Window.HeldAtMostSeconds; held == nil || *held > 1.4 {
		t.Errorf("held at most %v s, want less than vCenter's task alone takes", held)
	}

	file := filepath.Join(t.TempDir(), "account")
	if err := os.WriteFile(file, []byte("root:wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Each road has one of five windows: vCenter is measured, then the host, whose password is wrong.
	auto := append(window("vm"), "--snapshot-road", "auto", "--host-account", file)
	if o := operate(t, w.environment("vm"), nil, auto...); o.exit != exitOK || o.result.Snapshot.Road != admission.ThroughVCenter || len(o.result.Findings) > 0 {
		t.Errorf("auto at first: exit status %d over %s, findings %q", o.exit, o.result.Snapshot.Road, o.codes())
	}
	o := operate(t, w.environment("vm"), nil, auto...)
	if o.exit != exitOK || o.result.Snapshot.Road != admission.ThroughVCenter || !slices.Contains(o.codes(), "SF2701") {
		t.Errorf("auto with a wrong password: exit status %d over %s, findings %q", o.exit, o.result.Snapshot.Road, o.codes())
	}
	o = operate(t, w.environment("vm"), nil, append(window("vm"), "--snapshot-road", "host", "--host-account", file)...)
	if !slices.Contains(o.codes(), "SF1104") || len(o.result.Window.Phases) > 0 {
		t.Errorf("a password that was refused a moment ago: findings %q, phases %v", o.codes(), o.result.Window.Phases)
	}
	o = operate(t, w.environment("vm"), nil, append(window("vm"), "--snapshot-road", "host")...)
	if !slices.Contains(o.codes(), "SF1002") {
		t.Errorf("no account: findings %q", o.codes())
	}
	clean(t, w, "vm")
}

// TestVMotion has the VM leave its host when the agent is there and nothing is frozen.
func TestVMotion(t *testing.T) {
	t.Parallel()
	w := start(t, "host-vmotion")
	o := operate(t, w.asHost("vm"), nil, append(window("vm"), "--snapshot-road", "host")...)
	if o.exit == exitOK || !slices.Contains(o.codes(), "SF2702") || !strings.Contains(o.stderr, "DC0_C0_H1") {
		t.Errorf("only the host: exit status %d, findings %q", o.exit, o.codes())
	}
	free(t, w, "vm", 0)
	clean(t, w, "vm")
	for range 2 { // vCenter is measured, then the host
		o = operate(t, w.asHost("other"), nil, append(window("other"), "--snapshot-road", "auto")...)
	}
	if o.exit != exitOK || o.result.Snapshot.Road != admission.ThroughHost || o.result.Snapshot.Host != "DC0_C0_H1" {
		t.Errorf("auto where it runs now: exit status %d over %s %s", o.exit, o.result.Snapshot.Road, o.result.Snapshot.Host)
	}
	clean(t, w, "other")
}
