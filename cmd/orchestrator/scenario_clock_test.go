package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// year is long enough to leave every certificate and limit behind.
const year = 365 * 24 * time.Hour

// clock is the wall clock of the program under test, a build tagged lab; nobody else's is touched.
type clock struct{ path string }

// clocked gives an environment of this world whose programs go by a clock that the test steps.
func (w *world) clocked(t *testing.T, vm string) (map[string]string, clock) {
	t.Helper()
	env, c := w.environment(vm), clock{filepath.Join(w.dir, "clock")}
	env["STILLFRAME_LAB_CLOCK"] = c.path
	c.set(t, 0)
	return env, c
}

// set makes the clock differ from the machine's by off, from now on.
func (c clock) set(t *testing.T, off time.Duration) {
	t.Helper()
	if err := os.WriteFile(c.path+".new", []byte(off.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.path+".new", c.path); err != nil {
		t.Fatal(err)
	}
}

// inWindow waits until the guest is held and its snapshot was asked for, after calls of that kind.
func (w *world) inWindow(t *testing.T, vm string, calls int) {
	t.Helper()
	await(t, vm+" to be frozen", func() bool { return w.count(t, "CreateSnapshotEx_Task") > calls && w.heldNow(t, vm) })
}

// TestClockSteps steps the program's wall clock between two windows and inside of each: no level, status or limit hangs
// on it, and no name of a snapshot is lower than one before.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	w := start(t, "clock")
	env, clock := w.clocked(t, "vm")
	env["GOVC_TLS_CA_CERTS"] = ""
	last := uint64(0)
	for _, step := range []struct{ before, inside time.Duration }{
		{0, 0},
		{0, -time.Hour},
		{-time.Hour, time.Hour},
		{time.Hour, -time.Hour},
		{-10 * year, 10 * year},
		{10 * year, -60 * year}, // before 1970
		{-60 * year, 0},
	} {
		clock.set(t, step.before)
		calls := w.count(t, "CreateSnapshotEx_Task")
		o := operate(t, env, func(*os.Process) {
			w.inWindow(t, "vm", calls)
			clock.set(t, step.inside)
		}, append(window("vm"), "--thumbprint", w.Thumbprint)...)
		if o.exit != exitOK || o.result.Verdict.Level != freezewindow.Filesystem || len(o.codes()) > 0 {
			t.Errorf("%v, then %v: exit status %d, level %s, findings %v", step.before, step.inside, o.exit, o.result.Verdict.Level, o.codes())
		}
		name := o.result.Snapshot.Name
		epoch, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
		if err != nil || epoch <= last {
			t.Errorf("%v: epoch %d of %q (%v), the last was %d", step.before, epoch, name, err, last)
		}
		last = epoch
		free(t, w, "vm", 4*time.Second)
		clean(t, w, "vm")
	}
}

// TestClockStepsBeforeRecovery kills the program while it holds the guest; recover cleans up whatever its clock says.
func TestClockStepsBeforeRecovery(t *testing.T) {
	t.Parallel()
	for vm, step := range map[string]time.Duration{"killed-back": -time.Hour, "killed-forward": time.Hour} {
		t.Run(vm, func(t *testing.T) {
			t.Parallel()
			w := start(t, "clock")
			env, clock := w.clocked(t, vm)
			env["GOVC_TLS_CA_CERTS"] = ""
			o := operate(t, env, func(p *os.Process) {
				w.inWindow(t, vm, 0)
				if err := p.Kill(); err != nil {
					t.Error(err)
				}
			}, append(window(vm), "--thumbprint", w.Thumbprint)...)
			if o.exit != -1 {
				t.Fatalf("exit status %d, want a death by SIGKILL", o.exit)
			}
			clock.set(t, step)
			r, exit := recovery(t, env, "--thumbprint", w.Thumbprint)
			if exit != exitOK || len(r.Things) != 3 || len(r.Leftovers) > 0 {
				t.Errorf("recover: exit status %d, things %v, left %v, want 0, 3 things and nothing", exit, r.Things, r.Leftovers)
			}
			free(t, w, vm, 4*time.Second)
			clean(t, w, vm)
			clock.set(t, 2*step)
			if o := operate(t, env, nil, append(window(vm), "--thumbprint", w.Thumbprint)...); o.exit != exitOK || o.result.Verdict.Level != freezewindow.Filesystem {
				t.Errorf("a window afterwards: exit status %d, level %s", o.exit, o.result.Verdict.Level)
			}
		})
	}
}

// TestClockStepsAndRefusedPassword: a refused password is locked for 15 min of the clock. Set back, the clock begins them
// anew, once; set forward, it ends them. Each costs one logon at most.
func TestClockStepsAndRefusedPassword(t *testing.T) {
	t.Parallel()
	w := start(t, "wrong-guest-password")
	env, clock := w.clocked(t, "vm")
	env["GOVC_GUEST_LOGIN"], env["GOVC_TLS_CA_CERTS"] = "root:tried", ""
	for i, step := range []struct {
		off    time.Duration
		code   string
		logons int
	}{
		{0, "SF3001", 1},
		{0, "SF1104", 1},
		{-time.Hour, "SF1104", 1},
		{-46 * time.Minute, "SF1104", 1}, // 14 min after the step was seen
		{-44 * time.Minute, "SF3001", 2},
		{16 * time.Minute, "SF3001", 3}, // an hour forward
		{16 * time.Minute, "SF1104", 3},
	} {
		clock.set(t, step.off)
		o := operate(t, env, nil, append(window("vm"), "--thumbprint", w.Thumbprint)...)
		if n := w.count(t, "ValidateCredentialsInGuest"); o.exit != exitAuth || !strings.Contains(o.stderr, "("+step.code+")") || n != step.logons {
			t.Errorf("step %d, clock off by %v: exit status %d, %d logons, want %d with %s, %d", i, step.off, o.exit, n, exitAuth, step.code, step.logons)
		}
	}
}

// TestClockOutsideCertificate: by a clock that is wrong, vCenter's certificate is not valid yet, or not any more. The error
// says both times and names the clock; the password is not sent.
func TestClockOutsideCertificate(t *testing.T) {
	t.Parallel()
	w := start(t, "clock")
	env, clock := w.clocked(t, "vm")
	for off, says := range map[time.Duration]string{-24 * time.Hour: "is before", year: "is after"} {
		clock.set(t, off)
		o := operate(t, env, nil, window("vm")...)
		if o.exit != exitAuth {
			t.Errorf("clock off by %v: exit status %d, want %d", off, o.exit, exitAuth)
		}
		for _, part := range []string{"(SF2011)", "current time", says, "why: by this machine's clock", "try: set this machine's clock"} {
			if !strings.Contains(o.stderr, part) {
				t.Errorf("clock off by %v: the error does not say %q", off, part)
			}
		}
	}
	if n := w.count(t, "Login"); n != 0 {
		t.Errorf("%d logins", n)
	}
}

// TestVCenterClockSteps: vCenter's clock jumps while the snapshot task runs. Level and status are those of any other day,
// and no time of the task that is told or remembered is longer than we waited, or below 0.
func TestVCenterClockSteps(t *testing.T) {
	t.Parallel()
	for _, scenario := range []string{"vcenter-clock-forward", "vcenter-clock-back"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			w := start(t, scenario)
			env := w.environment("vm")
			o := operate(t, env, nil, window("vm")...)
			if o.exit != exitOK || o.result.Verdict.Level != freezewindow.Filesystem || len(o.codes()) > 0 {
				t.Errorf("exit status %d, level %s, findings %v, want 0, filesystem, none", o.exit, o.result.Verdict.Level, o.codes())
			}
			if task := o.result.Snapshot.TaskSeconds; task < 0.5 || task > o.took.Seconds() {
				t.Errorf("the task is said to have taken %.3f s", task)
			}
			store, err := statefile.Open(env["STILLFRAME_STATE_DIR"], statefile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			samples, err := store.Windows(t.Context(), o.result.VM.InstanceUUID)
			if err != nil || len(samples) != 1 || samples[0].Snapshot < 500*time.Millisecond || samples[0].Snapshot > o.took {
				t.Errorf("the windows are remembered as %v (%v)", samples, err)
			}
			var state lab.State
			w.get(t, "/state", &state)
			if len(state.Happened) != 1 || state.Happened[0].Event != "vcenter_clock" || state.Happened[0].Error != "" {
				t.Errorf("what happened: %v, want one step of vCenter's clock", state.Happened)
			}
			free(t, w, "vm", 3*time.Second)
			clean(t, w, "vm")
		})
	}
}

// TestProductHasNoSeam: only the build tagged lab knows of a clock that can be stepped.
func TestProductHasNoSeam(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]bool{binaries.stillframe: false, binaries.clocked: true} {
		content, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(content, []byte("STILLFRAME_LAB_CLOCK")); has != want {
			t.Errorf("%s knows of STILLFRAME_LAB_CLOCK: %v, want %v", filepath.Base(program), has, want)
		}
	}
}
