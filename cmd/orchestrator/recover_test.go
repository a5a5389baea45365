package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// recovery runs "stillframe recover" and reads what it printed.
func recovery(t *testing.T, env map[string]string, args ...string) (backup.Recovery, int) {
	t.Helper()
	o := operate(t, env, nil, append([]string{"recover", "-o=json"}, args...)...)
	var r backup.Recovery
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("standard output is not one object: %v", err)
	}
	return r, o.exit
}

func kinds(r backup.Recovery, state backup.State) []statefile.Kind {
	out := []statefile.Kind{}
	for _, thing := range r.Things {
		if thing.State == state {
			out = append(out, thing.Kind)
		}
	}
	slices.Sort(out)
	return out
}

// TestRecoverKilled kills the program with SIGKILL in each phase; then recover leaves nothing behind.
func TestRecoverKilled(t *testing.T) {
	folder, process, snapshot := statefile.Folder, statefile.Process, statefile.Snapshot
	for _, phase := range []struct {
		vm    string
		needs []lab.Requirement
		plan  string // what holds the program up
		seen  func(t *testing.T, w *world) bool
		open  []statefile.Kind
	}{
		{
			vm: "pushing", plan: `{"method":"PUT","do":"stall","delay":"5s"}`, open: []statefile.Kind{folder, snapshot},
			seen: func(t *testing.T, w *world) bool { t.Helper(); return w.count(t, "PUT") > 0 },
		},
		{vm: "armed", open: []statefile.Kind{folder, process, snapshot}, seen: func(t *testing.T, w *world) bool {
			t.Helper()
			var s lab.State
			w.get(t, "/state", &s)
			return s.Links["armed"].FromGuest > 0
		}},
		{
			vm: "frozen", needs: []lab.Requirement{lab.Root, lab.Loop}, open: []statefile.Kind{folder, process, snapshot},
			seen: func(t *testing.T, w *world) bool {
				t.Helper()
				return w.heldNow(t, "frozen") && w.count(t, "CreateSnapshotEx_Task") > 0
			},
		},
		{
			vm: "removing", open: []statefile.Kind{folder, process, snapshot},
			seen: func(t *testing.T, w *world) bool { t.Helper(); return w.count(t, "RemoveSnapshot_Task") > 0 },
		},
	} {
		t.Run(phase.vm, func(t *testing.T) {
			lab.Need(t, phase.needs...)
			t.Parallel()
			w := start(t, "recover-killed")
			if phase.plan != "" {
				w.post(t, "/plan", phase.plan)
			}
			env := w.environment(phase.vm)
			o := operate(t, env, func(p *os.Process) {
				await(t, phase.vm, func() bool { return phase.seen(t, w) })
				if err := p.Kill(); err != nil {
					t.Error(err)
				}
			}, window(phase.vm)...)
			if o.exit != -1 {
				t.Fatalf("exit status %d, want a death by SIGKILL", o.exit)
			}
			if r, exit := recovery(t, env, "--dry-run"); exit != exitRecovery || !slices.Equal(kinds(r, backup.Open), phase.open) {
				t.Errorf("dry run: exit status %d, open %v, want %d and %v", exit, kinds(r, backup.Open), exitRecovery, phase.open)
			}
			calls := w.count(t, "StartProgramInGuest")
			if o := operate(t, env, nil, window(phase.vm)...); o.exit != exitRecovery || !strings.Contains(o.stderr, "(SF2304)") || !strings.Contains(o.stderr, "stillframe recover") {
				t.Errorf("a run before the recovery: exit status %d, want %d with SF2304 and the command", o.exit, exitRecovery)
			}
			if now := w.count(t, "StartProgramInGuest"); now != calls {
				t.Errorf("the refused run started %d programs in the guest", now-calls)
			}
			if r, exit := recovery(t, env, "--vm", phase.vm); exit != exitOK || !slices.Equal(kinds(r, backup.Gone), phase.open) || len(r.Leftovers) > 0 {
				t.Errorf("recover: exit status %d, gone %v, left %v, want %d, %v and nothing", exit, kinds(r, backup.Gone), r.Leftovers, exitOK, phase.open)
			}
			free(t, w, phase.vm, 3*time.Second)
			clean(t, w, phase.vm)
			logins := w.count(t, "Login")
			if r, exit := recovery(t, env); exit != exitOK || len(r.Things) > 0 || w.count(t, "Login") != logins {
				t.Errorf("recover again: exit status %d, things %v, want 0, nothing and no login", exit, r.Things)
			}
		})
	}
}

// TestRecoverLeavesForeign proves that recover removes the one snapshot that was written down, and no other.
func TestRecoverLeavesForeign(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	env := w.environment("vm")
	first := operate(t, env, nil, window("vm")...)
	if first.exit != exitOK {
		t.Fatalf("exit status %d, want 0", first.exit)
	}
	store, err := statefile.Open(env["STILLFRAME_STATE_DIR"], statefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vm := first.result.VM
	forged := statefile.Intent{Kind: statefile.Folder, Subject: "/etc", VM: vm.InstanceUUID, Path: vm.Path, Moref: vm.Moref, At: time.Now()}
	gone := statefile.Intent{Kind: statefile.Snapshot, Subject: backup.SnapshotPrefix + "x-1", VM: "50000000-0000-0000-0000-000000000000", Path: "/DC0/vm/deleted", At: time.Now()}
	if err := store.Intend(t.Context(), forged, gone); err != nil {
		t.Fatal(err)
	}
	r, exit := recovery(t, env)
	if exit != exitRecovery || !slices.Equal(kinds(r, backup.Open), []statefile.Kind{statefile.Folder, statefile.Snapshot}) {
		t.Errorf("exit status %d, open %v, want %d, the folder that is none of ours and the snapshot of a VM that is not there", exit, kinds(r, backup.Open), exitRecovery)
	}
	for vm, want := range map[string]int{"mistyped": exitNoMatch, vm.Moref: exitRecovery} {
		o := operate(t, env, nil, "recover", "--vm", vm, "--dry-run")
		if o.exit != want || strings.Contains(o.stderr, "but 2 of other VMs") != (want == exitNoMatch) || strings.Contains(o.stdout, "nothing to recover") {
			t.Errorf("recover --vm %s: exit status %d, want %d", vm, o.exit, want)
		}
	}
	other := statefile.Intent{Kind: statefile.Snapshot, Subject: backup.SnapshotPrefix + "x-2", VCenter: "vc.example", VM: "50000000-0000-0000-0000-000000000001", Path: "/DC0/vm/far", At: time.Now()}
	if err := store.Intend(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if r, exit := recovery(t, env, "--vm", "far", "--forget"); exit != exitRecovery || len(kinds(r, backup.Elsewhere)) != 1 || len(r.Leftovers) > 0 {
		t.Errorf("recover of another vCenter's: exit status %d, things %v, want %d and it named", exit, r.Things, exitRecovery)
	}
	if err := store.Settle(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if r, exit := recovery(t, env, "--vm", "deleted", "--forget"); exit != exitOK || !slices.Equal(kinds(r, backup.Forgotten), []statefile.Kind{statefile.Snapshot}) {
		t.Errorf("recover --forget: exit status %d, forgotten %v, want 0 and the snapshot", exit, kinds(r, backup.Forgotten))
	}
}

// TestSecondRunIsRefused starts a second run while the first one holds the guest.
func TestSecondRunIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-locked")
	env := w.environment("vm")
	o := operate(t, env, func(*os.Process) {
		await(t, "the window", func() bool { return w.count(t, "CreateSnapshotEx_Task") > 0 })
		second := operate(t, env, nil, window("vm")...)
		if second.exit != exitLocked || !strings.Contains(second.stderr, "(SF1103)") {
			t.Errorf("the second run: exit status %d, want %d with SF1103", second.exit, exitLocked)
		}
		if _, exit := recovery(t, env, "--vm", "vm"); exit != exitLocked {
			t.Errorf("recover of this VM meanwhile: exit status %d, want %d", exit, exitLocked)
		}
		if r, exit := recovery(t, env); exit != exitOK || len(kinds(r, backup.Active)) != 3 {
			t.Errorf("recover of all meanwhile: exit status %d, active %v, want 0 and three things", exit, kinds(r, backup.Active))
		}
		elsewhere := w.environment("other")
		if other := operate(t, elsewhere, nil, window("other")...); other.exit != exitOK {
			t.Errorf("a run of another VM: exit status %d, want 0", other.exit)
		}
	}, window("vm")...)
	if o.exit != exitOK {
		t.Errorf("the first run: exit status %d, want 0", o.exit)
	}
	clean(t, w, "vm")
	clean(t, w, "other")
}

// TestWrongPasswordOnce counts logons over several runs: one for each secret.
func TestWrongPasswordOnce(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	right := w.environment("vm")
	wrong := w.environment("vm")
	wrong["GOVC_GUEST_LOGIN"] = "root:wrong"
	for n, code := range []string{"SF3001", "SF1104", "SF1104"} {
		o := operate(t, wrong, nil, window("vm")...)
		if o.exit != exitAuth || !strings.Contains(o.stderr, "("+code+")") {
			t.Errorf("run %d: exit status %d, want %d with %s", n+1, o.exit, exitAuth, code)
		}
	}
	if n := w.count(t, "ValidateCredentialsInGuest"); n != 1 {
		t.Errorf("the guest was asked %d times, want once", n)
	}
	if o := operate(t, right, nil, window("vm")...); o.exit != exitOK {
		t.Errorf("with the right password: exit status %d, want 0 at once", o.exit)
	}
	wrong = w.environment("vm")
	wrong["GOVC_PASSWORD"] = "wrong"
	logins := w.count(t, "Login")
	for n, code := range []string{"SF2001", "SF1104"} {
		o := operate(t, wrong, nil, window("vm")...)
		if o.exit != exitAuth || !strings.Contains(o.stderr, "("+code+")") {
			t.Errorf("vCenter, run %d: exit status %d, want %d with %s", n+1, o.exit, exitAuth, code)
		}
	}
	if n := w.count(t, "Login") - logins; n != 1 {
		t.Errorf("vCenter was asked %d times, want once", n)
	}
	content, err := os.ReadFile(filepath.Join(right["STILLFRAME_STATE_DIR"], "state.json"))
	if err != nil || strings.Contains(string(content), w.Password) || strings.Contains(string(content), "wrong\"") {
		t.Errorf("the state file has a password in it, %v", err)
	}
	clean(t, w, "vm")
}

// TestStateFolderFull runs with a state folder on a full disk: nobody is asked anything.
func TestStateFolderFull(t *testing.T) {
	lab.Need(t, lab.Root)
	t.Parallel()
	w := start(t, "recover-quick")
	env := w.environment("vm")
	dir := filepath.Join(t.TempDir(), "full")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v, want ENOSPC", err)
	}
	env["STILLFRAME_STATE_DIR"] = dir
	o := operate(t, env, nil, window("vm")...)
	if o.exit != exitPreflight || !strings.Contains(o.stderr, "(SF1101)") || !strings.Contains(o.stderr, "no space left") {
		t.Errorf("exit status %d, want %d with SF1101 and the reason", o.exit, exitPreflight)
	}
	if n := w.count(t, "Login"); n != 0 {
		t.Errorf("vCenter was asked for %d logins, want none", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if o := operate(t, env, nil, window("vm")...); o.exit != exitOK {
		t.Errorf("with space: exit status %d, want 0", o.exit)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := operate(t, env, nil, window("vm")...); o.exit != exitPreflight || !strings.Contains(o.stderr, "(SF1102)") {
		t.Errorf("with a damaged file: exit status %d, want %d with SF1102", o.exit, exitPreflight)
	}
	clean(t, w, "vm")
}

// TestRecoverTaskThatNeverEnds has a task outlive the run and the first recovery.
func TestRecoverTaskThatNeverEnds(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-never-ends")
	env := w.environment("vm")
	o := operate(t, env, nil, append(window("vm"), "--late-limit", "2s")...)
	if o.exit != exitRecovery || len(o.result.Leftovers) != 1 || !strings.Contains(o.result.Leftovers[0], "may still appear") {
		t.Fatalf("exit status %d, leftovers %q, want %d and the snapshot", o.exit, o.result.Leftovers, exitRecovery)
	}
	free(t, w, "vm", 18*time.Second)
	r, exit := recovery(t, env, "--task-limit", "1s")
	if exit != exitRecovery || !slices.Equal(kinds(r, backup.Open), []statefile.Kind{statefile.Snapshot}) || !strings.Contains(r.Leftovers[0], "task-") {
		t.Errorf("while the task runs: exit status %d, left %q, want %d and the task", exit, r.Leftovers, exitRecovery)
	}
	w.post(t, "/vm/vm/do", `{"do":"end_tasks"}`)
	if r, exit := recovery(t, env); exit != exitOK || !slices.Equal(kinds(r, backup.Gone), []statefile.Kind{statefile.Snapshot}) {
		t.Errorf("after its end: exit status %d, gone %v, want 0 and the snapshot", exit, kinds(r, backup.Gone))
	}
	clean(t, w, "vm")
	refused := operate(t, env, nil, window("vm")...)
	if a := refused.result.Admission; refused.exit != exitPreflight || a == nil || a.Code != "SF4010" || a.Predicted.SnapshotP99Seconds < 17 {
		t.Errorf("the next run: exit status %d, admission %+v, want a refusal: the task counts with its full time", refused.exit, a)
	}
}

// TestNothingTouchesTheStateInTheWindow keeps the state locked from the call of the snapshot to the thaw.
func TestNothingTouchesTheStateInTheWindow(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-locked")
	env := w.environment("vm")
	var lock *os.File
	o := operate(t, env, func(*os.Process) {
		await(t, "the window", func() bool { return w.count(t, "CreateSnapshotEx_Task") > 0 })
		var err error
		if lock, err = os.OpenFile(filepath.Join(env["STILLFRAME_STATE_DIR"], "lock"), os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if !w.heldNow(t, "vm") {
			t.Error("the guest is not held any more: the lock came too late to prove anything")
		}
		await(t, "the thaw", func() bool { return !w.heldNow(t, "vm") })
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	}, window("vm")...)
	if o.exit != exitOK || o.result.Window.HeldAtMostSeconds == nil || *o.result.Window.HeldAtMostSeconds > 13 {
		t.Errorf("exit status %d, window %+v, want 0 and a hold as long as the task", o.exit, o.result.Window)
	}
}

// TestAdmission lets a VM's history speak.
func TestAdmission(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	env := w.environment("vm")
	good := operate(t, env, nil, window("vm")...)
	if a := good.result.Admission; good.exit != exitOK || a == nil || a.Decision != admission.Admit || a.Predicted.Windows != 0 || a.Predicted.SumSeconds != 14 {
		t.Fatalf("exit status %d, admission %+v, want an admission by defaults", good.exit, a)
	}
	again := operate(t, env, nil, window("vm")...)
	if a := again.result.Admission; again.exit != exitOK || a.Predicted.Windows != 1 || a.Predicted.SumSeconds > 5 || a.Predicted.SnapshotP50Seconds < 0.1 {
		t.Errorf("exit status %d, admission %+v, want one by the window before", again.exit, a)
	}
	store, err := statefile.Open(env["STILLFRAME_STATE_DIR"], statefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	slow := admission.Sample{At: time.Now(), Freeze: time.Second, Snapshot: 20 * time.Second, Late: true}
	if err := store.Record(t.Context(), good.result.VM.InstanceUUID, slow); err != nil {
		t.Fatal(err)
	}
	programs := w.count(t, "StartProgramInGuest")
	refused := operate(t, env, nil, window("vm")...)
	if a := refused.result.Admission; refused.exit != exitPreflight || a == nil || a.Decision != admission.Refuse || a.Code != "SF4010" || !slices.Contains(refused.codes(), "SF4010") {
		t.Errorf("exit status %d, admission %+v, want %d and a refusal", refused.exit, a, exitPreflight)
	}
	if n := w.count(t, "StartProgramInGuest") - programs; n != 0 {
		t.Errorf("the refused run started %d programs in the guest", n)
	}
	warned := operate(t, env, nil, append(window("vm"), "--admission", "warn")...)
	if a := warned.result.Admission; warned.exit != exitOK || a == nil || !a.Overridden || !slices.Contains(warned.codes(), "SF4010") {
		t.Errorf("with --admission warn: exit status %d, admission %+v, want 0 and the finding", warned.exit, a)
	}
	clean(t, w, "vm")
}

// isOver says whether a process that nobody has waited for yet has come to its end.
func isOver(t *testing.T, p *os.Process) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		t.Error(err)
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}

// TestRecoverKilledAnywhere kills the program after ever more calls to vCenter, each time on what the time before left
// behind after its recovery.
func TestRecoverKilledAnywhere(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	w.post(t, "/rtt", `{"rtt":"15ms"}`)
	env := w.environment("vm")
	for calls, died := 4, true; died; calls += 5 {
		var s lab.State
		w.get(t, "/state", &s)
		until := s.Calls + calls
		o := operate(t, env, func(p *os.Process) {
			for s.Calls < until && !isOver(t, p) {
				w.get(t, "/state", &s) // each look is a request to the lab: it paces itself
			}
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		}, window("vm")...)
		died = o.exit == -1
		if !died && o.exit != exitOK {
			t.Errorf("exit status %d, want a death by SIGKILL, or 0", o.exit)
		}
		if r, exit := recovery(t, env); exit != exitOK {
			t.Errorf("killed after %d calls: recover ended with %d and left %q", calls, exit, r.Leftovers)
		}
		free(t, w, "vm", 3*time.Second)
		clean(t, w, "vm")
		if t.Failed() {
			return
		}
	}
	if o := operate(t, env, nil, window("vm")...); o.exit != exitOK {
		t.Errorf("a run after all: exit status %d, want 0", o.exit)
	}
}
