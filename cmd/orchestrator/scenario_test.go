package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/canary"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
)

// binaries is where TestMain's programs are built, once, when the first scenario asks for them.
// clocked is stillframe with a wall clock that STILLFRAME_LAB_CLOCK steps.
var binaries struct{ dir, stillframe, clocked, agent, lab, mover string }

// parallelism is how many scenarios run at once: they wait far more than they work.
const parallelism = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", parallelism); err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "stillframe-scenarios-")
	if err != nil {
		panic(err)
	}
	binaries.stillframe, binaries.agent, binaries.lab = filepath.Join(dir, "stillframe"), filepath.Join(dir, "agent"), filepath.Join(dir, "lab")
	binaries.clocked = filepath.Join(dir, "stillframe-clocked")
	binaries.mover = filepath.Join(dir, "mover")
	for _, b := range [][]string{
		{"-o", binaries.mover, "../../testing/mover"},
		{"-o", binaries.stillframe, "../orchestrator"},
		{"-o", binaries.clocked, "-tags", "lab", "../orchestrator"},
		{"-o", binaries.agent, "-tags", "lab", "../agent"},
		{"-o", binaries.lab, "../lab"},
	} {
		cmd := exec.CommandContext(context.Background(), "go", append([]string{"build", "-trimpath"}, b...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("go build %v: %v\n%s", b, err, out))
		}
	}
	binaries.dir = dir
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	postgres.Exit(status)
}

// world is one running stillframe-lab.
type world struct {
	lab.Ready
	dir string
}

// start runs a scenario in a process of its own and ends it with the test.
func start(t *testing.T, scenario string) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	r, ready, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binaries.lab, "run", "../../testing/scenarios/"+scenario+".yaml", "--dir", w.dir, "--ready-fd", "3")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{ready}, &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := ready.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("end the lab: %v", err)
		}
		limit := time.AfterFunc(60*time.Second, func() {
			if cmd.Process.Kill() == nil {
				t.Error("the lab did not end by itself")
			}
		})
		defer limit.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the lab ended with %v\n%s", err, log.String())
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(mounts, []byte(w.dir)) {
			t.Errorf("the lab left a mount of %s behind (%v)", w.dir, err)
		}
	})
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("the lab did not become ready: %v", err) // what it said comes with its end
	}
	if err := json.Unmarshal(line, &w.Ready); err != nil {
		t.Fatal(err)
	}
	return w
}

// get reads one page of the lab's admin.
func (w *world) get(t *testing.T, path string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := new(http.Client).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %v %s", path, err, answer.Status)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}

// post changes the lab's world.
func (w *world) post(t *testing.T, path, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.Admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := new(http.Client).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusNoContent {
		t.Fatalf("POST %s %s: %v %s: %s", path, body, err, answer.Status, said)
	}
}

// await looks until the lab says what is waited for, for at most a minute.
func await(t *testing.T, what string, seen func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute) // a machine that is busy may need a minute
	for !seen() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited 3 minutes for %s", what)
		}
	}
}

// heldNow says whether the lab's witness sees the VM's guest held.
func (w *world) heldNow(t *testing.T, vm string) bool {
	t.Helper()
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	return holds.HeldNow
}

// free checks what holds whatever else went wrong: the guest moves, was not held for longer than most (0: not at all) by
// the lab's own witness, and the lab had to release nothing.
func free(t *testing.T, w *world, vm string, most time.Duration) {
	t.Helper()
	await(t, "the guest to be free", func() bool { return !w.heldNow(t, vm) })
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	if len(holds.Rescues) > 0 || holds.Error != "" {
		t.Errorf("rescued by the lab: %v, its writer says: %q", holds.Rescues, holds.Error)
	}
	for _, h := range holds.Holds {
		if seen := h.LastSeen.Sub(h.FirstSeen); seen > most || most == 0 {
			t.Errorf("the lab saw the guest held for %v, want at most %v", seen, most)
		}
	}
}

// count counts the calls of a method that reached the lab's vCenter.
func (w *world) count(t *testing.T, method string) int {
	t.Helper()
	var calls []lab.Call
	w.get(t, "/calls", &calls)
	n := 0
	for _, c := range calls {
		if c.Method == method {
			n++
		}
	}
	return n
}

// environment is what an operator of this world would set.
func (w *world) environment(vm string) map[string]string {
	env := map[string]string{
		"GOVC_URL": w.VCenter, "GOVC_USERNAME": w.User, "GOVC_PASSWORD": w.Password,
		"GOVC_TLS_CA_CERTS": w.CAFile, "GOVC_GUEST_LOGIN": "root:none", "PATH": os.Getenv("PATH"),
		"STILLFRAME_STATE_DIR": filepath.Join(w.dir, "state"),
	}
	for _, g := range w.Guests {
		if g.Name == vm {
			env["GOVC_GUEST_LOGIN"] = g.User + ":" + g.Password
		}
	}
	return env
}

// outcome is what one run of the program gave.
type outcome struct {
	result backup.Result
	stdout string
	stderr string
	exit   int
	took   time.Duration
}

// operate runs the program as an operator would; during, when given, is called with its process.
func operate(t *testing.T, env map[string]string, during func(*os.Process), args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	program := binaries.stillframe
	if env["STILLFRAME_LAB_CLOCK"] != "" {
		program = binaries.clocked
	}
	cmd := exec.CommandContext(ctx, program, args...)
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if during != nil {
		during(cmd.Process)
	}
	err := cmd.Wait()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	unprinted(t, env, args, stdout.Bytes(), stderr.Bytes())
	o := outcome{stdout: stdout.String(), stderr: stderr.String(), exit: cmd.ProcessState.ExitCode(), took: time.Since(begin)}
	if stdout.Len() > 0 && slices.Contains(args, "json") {
		if err := json.Unmarshal(stdout.Bytes(), &o.result); err != nil {
			t.Fatalf("standard output is not one object: %v\n%s", err, stdout.String())
		}
	}
	t.Logf("stillframe %s: exit status %d after %v\n%s%s", strings.Join(args, " "), o.exit, o.took.Round(time.Millisecond), o.stderr, o.stdout)
	return o
}

// unprinted checks that no password of the environment is in what was printed, however it is spelled.
func unprinted(t *testing.T, env map[string]string, args []string, printed ...[]byte) {
	t.Helper()
	_, guestPassword, _ := strings.Cut(env["GOVC_GUEST_LOGIN"], ":")
	for _, password := range []string{env["GOVC_PASSWORD"], guestPassword} {
		if len(password) < 16 { // a lab's own password is longer
			continue
		}
		for _, text := range printed {
			if found := canary.Of(password).Find(text); found != nil {
				t.Errorf("stillframe %s prints a password, as %q", strings.Join(args, " "), found)
			}
		}
	}
}

func window(vm string) []string {
	return []string{"run", "--vm", vm, "--window-only", "--agent", binaries.agent, "-o", "json"}
}

func (o outcome) codes() []string {
	var out []string
	for _, f := range o.result.Findings {
		out = append(out, string(f.Code))
	}
	return out
}

// clean checks that nothing of ours is left (removed), and that the guest never stood still for longer than 20 s.
func clean(t *testing.T, w *world, vm string) {
	t.Helper()
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	if holds.LongestStallSeconds > 20 {
		t.Errorf("the lab saw the guest stand still for %.3f s", holds.LongestStallSeconds)
	}
	removed(t, w, vm)
}

// removed checks that nothing of ours is left: no snapshot, nobody held, no file and no process of the agent's.
func removed(t *testing.T, w *world, vm string) {
	t.Helper()
	var snapshots lab.SnapshotsOf
	w.get(t, "/vm/"+vm+"/snapshots", &snapshots)
	if len(snapshots.Names) > 0 {
		t.Errorf("snapshots are left: %v", snapshots.Names)
	}
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	if holds.HeldNow || len(holds.Rescues) > 0 || holds.Error != "" {
		t.Errorf("the guest is held: %v, rescued by the lab: %v, its writer says: %q", holds.HeldNow, holds.Rescues, holds.Error)
	}
	noAgent(t, w.dir)
}

// noAgent checks that below a folder of the lab there is neither the agent's file nor its process.
func noAgent(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "stillframe-agent") {
			t.Errorf("the agent is left in the guest: %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Error(err)
	}
	for _, p := range programs {
		if program, err := os.Readlink(p); err == nil && strings.HasPrefix(program, dir) && strings.Contains(program, "stillframe-agent") {
			t.Errorf("an agent still runs: %s %s", p, program)
		}
	}
}

// TestBadDays runs each bad day against the real program, agent and a lab of its own.
func TestBadDays(t *testing.T) {
	t.Parallel()
	for _, day := range []struct {
		scenario string
		needs    []lab.Requirement
		exit     int
		level    freezewindow.Level
		code     string
		// stall is the longest silence of the guest that the lab may have seen.
		stall time.Duration
	}{
		{scenario: "snapshot-fails", exit: exitFailed, level: freezewindow.Unproved, code: "SF4015", stall: 3 * time.Second},
		{scenario: "snapshot-refused", exit: exitFailed, level: freezewindow.Unproved, code: "SF2201", stall: 3 * time.Second},
		{scenario: "snapshot-slow", exit: exitBudget, level: freezewindow.Crash, code: "SF4014", stall: 18 * time.Second},
		{scenario: "cut-while-frozen", needs: []lab.Requirement{lab.Root, lab.Loop}, exit: exitBudget, level: freezewindow.Crash, code: "SF4009", stall: 5 * time.Second},
		{scenario: "cut-for-good", needs: []lab.Requirement{lab.Root, lab.Loop}, exit: exitBudget, level: freezewindow.Crash, code: "SF4905", stall: 5 * time.Second},
		{scenario: "agent-killed", needs: []lab.Requirement{lab.Root, lab.Loop}, exit: exitBudget, level: freezewindow.Crash, code: "SF4009", stall: 5 * time.Second},
		{scenario: "agent-stopped", needs: []lab.Requirement{lab.Root, lab.Loop}, exit: exitBudget, level: freezewindow.Crash, code: "SF4905", stall: 19500 * time.Millisecond},
	} {
		t.Run(day.scenario, func(t *testing.T) {
			lab.Need(t, day.needs...)
			t.Parallel()
			w := start(t, day.scenario)
			o := operate(t, w.environment("vm"), nil, window("vm")...)
			if o.exit != day.exit {
				t.Errorf("exit status %d, want %d", o.exit, day.exit)
			}
			if o.result.Verdict.Level != day.level || o.result.Outcome == backup.OK {
				t.Errorf("level %s, outcome %s, want %s and not ok", o.result.Verdict.Level, o.result.Outcome, day.level)
			}
			if !slices.Contains(o.codes(), day.code) {
				t.Errorf("findings %v, want %s among them", o.codes(), day.code)
			}
			var holds lab.HoldsOf
			w.get(t, "/vm/vm/holds", &holds)
			if seen := time.Duration(holds.LongestStallSeconds * float64(time.Second)); seen > day.stall {
				t.Errorf("the lab saw the guest stand still for %v, want at most %v", seen, day.stall)
			}
			clean(t, w, "vm")
		})
	}
}

func TestRefusedBeforeTheWindow(t *testing.T) {
	t.Parallel()
	for _, day := range []struct {
		name, scenario, vm string
		change             map[string]string // of the environment
		exit               int
		code, says         string
		// once is a call that must have reached vCenter exactly once.
		once string
	}{
		{name: "unknown VM", scenario: "names", vm: "exchange-02", exit: exitNoMatch, code: "SF2009", says: "exchange-01"},
		{name: "two VMs of one name", scenario: "names", vm: "twin", exit: exitNoMatch, code: "SF2010", says: "/two/twin"},
		{name: "wrong vCenter password", scenario: "untrusted-certificate", vm: "vm", change: map[string]string{"GOVC_PASSWORD": "wrong"}, exit: exitAuth, code: "SF2001", once: "Login"},
		{name: "untrusted certificate", scenario: "untrusted-certificate", vm: "vm", change: map[string]string{"GOVC_TLS_CA_CERTS": ""}, exit: exitAuth, code: "SF2003"},
		{name: "wrong guest password", scenario: "wrong-guest-password", vm: "vm", change: map[string]string{"GOVC_GUEST_LOGIN": "root:tried"}, exit: exitAuth, code: "SF3001", once: "ValidateCredentialsInGuest"},
		{name: "stock vcsim without guest managers", scenario: "no-guest-operations", vm: "vm", exit: exitPreflight, code: "SF3601"},
	} {
		t.Run(day.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, day.scenario)
			env := w.environment(day.vm)
			for k, v := range day.change {
				env[k] = v
			}
			o := operate(t, env, nil, window(day.vm)...)
			if o.exit != day.exit || !strings.Contains(o.stderr, "("+day.code+")") || !strings.Contains(o.stderr, day.says) {
				t.Errorf("exit status %d, want %d with %s and %q", o.exit, day.exit, day.code, day.says)
			}
			for _, part := range []string{"error: ", "why: ", "try: "} {
				if !strings.Contains(o.stderr, part) {
					t.Errorf("the error has no %q", part)
				}
			}
			if day.once != "" && w.count(t, day.once) != 1 {
				t.Errorf("%s was tried %d times, want once", day.once, w.count(t, day.once))
			}
			if n := w.count(t, "CreateSnapshotEx_Task") + w.count(t, "CreateSnapshot_Task"); n != 0 {
				t.Errorf("%d snapshots were asked for", n)
			}
			if strings.Contains(o.stderr+o.stdout, w.Password) {
				t.Error("the vCenter password was printed")
			}
		})
	}
}

// TestInterrupt presses Ctrl-C while the guest is frozen: it is thawed first, then the late snapshot is removed.
func TestInterrupt(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "interrupted")
	o := operate(t, w.environment("vm"), func(p *os.Process) {
		deadline := time.Now().Add(time.Minute)
		for w.count(t, "CreateSnapshotEx_Task") == 0 && time.Now().Before(deadline) {
			continue // each look is a request to the lab: it paces itself
		}
		if err := p.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	}, window("vm")...)
	if o.exit != exitInterrupted || o.result.Outcome != backup.Aborted || o.result.Verdict.Level.Consistent() {
		t.Errorf("exit status %d, outcome %s, level %s, want %d, aborted, not consistent", o.exit, o.result.Outcome, o.result.Verdict.Level, exitInterrupted)
	}
	var holds lab.HoldsOf
	w.get(t, "/vm/vm/holds", &holds)
	if holds.LongestStallSeconds > 3 {
		t.Errorf("the guest stood still for %.3f s although the snapshot takes 4 s: Ctrl-C did not thaw first", holds.LongestStallSeconds)
	}
	clean(t, w, "vm")
}

// TestWindow is the good day, with a real file system.
func TestWindow(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "demo")
	o := operate(t, w.environment("demo-linux"), nil, window("demo-linux")...)
	r := o.result
	if o.exit != exitOK || r.Outcome != backup.OK || r.Verdict.Level != freezewindow.Filesystem || len(r.Findings) != 0 {
		t.Errorf("exit status %d, outcome %s, level %s, findings %v, want 0, ok, filesystem, none", o.exit, r.Outcome, r.Verdict.Level, o.codes())
	}
	if !r.Snapshot.Removed || r.Window.HeldAtMostSeconds == nil || r.Window.HeldByGuestSeconds == nil {
		t.Fatalf("the result lacks a removed snapshot or a hold: %+v", r)
	}
	var holds lab.HoldsOf
	w.get(t, "/vm/demo-linux/holds", &holds)
	if guest, bound, seen := *r.Window.HeldByGuestSeconds, *r.Window.HeldAtMostSeconds, holds.LongestStallSeconds; guest > bound || seen > bound+0.5 {
		t.Errorf("held %.3f s by the guest, at most %.3f s by us, %.3f s seen by the lab: they do not agree", guest, bound, seen)
	}
	clean(t, w, "demo-linux")
}
