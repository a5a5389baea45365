package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/lab"
	labguests "github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// script writes a mover of the shell; its first argument is a folder that it may write to.
func script(t *testing.T, body string) (args []string, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "mover")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"--mover-command", path, "--mover-arg", dir}, dir
}

func moving(vm string, args ...string) []string {
	return append([]string{"run", "--vm", vm, "--agent", binaries.agent, "-o", "json"}, args...)
}

// pidIn waits for a program to write its process id.
func pidIn(t *testing.T, dir, name string) int {
	t.Helper()
	pid := 0
	await(t, "the mover", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

// running says whether a process lives and is no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// ended wants a process to have ended.
func moverEnded(t *testing.T, what string, pid int) {
	t.Helper()
	await(t, what+" to end", func() bool { return !running(pid) })
}

// TestMoverCopiesTheDisk has a real program read account, endpoint and snapshot, copy the disk and check it.
func TestMoverCopiesTheDisk(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "mover")
	copied := filepath.Join(t.TempDir(), "disk.raw")
	o := operate(t, w.environment("db"), nil, moving("db", "--mover-command", binaries.mover, "--mover-arg=--admin", "--mover-arg="+w.Admin, "--mover-arg=--out", "--mover-arg="+copied)...)
	m := o.result.Mover
	if o.exit != exitOK || m == nil || m.State != backup.MoveStored || m.Told != backup.ToldAll || m.Progress != 1 || m.Text != "copied and checked" {
		t.Fatalf("exit status %d, mover %+v, want 0, stored, told all", o.exit, m)
	}
	if info, err := os.Stat(copied); err != nil || info.Size() != 32<<20 {
		t.Errorf("the copy is %v, %v, want 32 MiB", info, err)
	}
	if !o.result.Snapshot.Removed || len(o.codes()) > 0 {
		t.Errorf("snapshot %+v, findings %v, want it removed and none", o.result.Snapshot, o.codes())
	}
	clean(t, w, "db")
}

// TestMoversThatFail are movers that do not do what they should, one after the other on one VM.
func TestMoversThatFail(t *testing.T) {
	t.Parallel()
	w := start(t, "mover")
	env := w.environment("vm")
	env["AWS_SECRET_ACCESS_KEY"] = "CANARY-ours"
	for _, c := range []struct {
		name, body string
		args       []string
		kill       bool
		exit       int
		outcome    backup.Outcome
		state      backup.MoveState
		told       backup.Told
		code, says string
	}{
		{
			name: "stores a part", body: `echo '{"progress":0.5,"bytes_read":7,"text":"half"}'; echo "disk 2 is missing" >&2; exit 3`,
			exit: exitDegraded, outcome: backup.Degraded, state: backup.MovePartial, told: backup.ToldNone, code: "SF5203", says: "disk 2 is missing",
		},
		{name: "fails", body: `printf '\033[31mno space\n' >&2; exit 1`, exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5202", says: "no space"},
		{name: "is killed", body: `echo $$ >"$1/pid"; exec sleep 1000`, kill: true, exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5202"},
		{name: "hangs", body: `echo $$ >"$1/pid"; sleep 1000`, args: []string{"--mover-limit", "1s"}, exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5204"},
		{name: "is silent", body: `echo $$ >"$1/pid"; sleep 1000`, args: []string{"--mover-silence", "1s"}, exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5205"},
		{name: "floods", body: `yes & yes >&2 & sleep 1; exit 1`, exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5202", says: "..."},
		{
			name: "leaves a daemon that keeps its output", body: `setsid sh -c 'echo $$ >"$1/pid"; exec sleep 1000' - "$1" & while ! [ -s "$1/pid" ]; do sleep 0.05; done`,
			exit: exitOK, outcome: backup.OK, state: backup.MoveStored, told: backup.ToldAll,
		},
		{
			name: "looks for our secrets", body: `{ cat /proc/$$/environ /proc/$PPID/cmdline; set; } >&2; exit 1`,
			exit: exitFailed, outcome: backup.Failed, state: backup.MoveFailed, told: backup.ToldNone, code: "SF5202", says: "STILLFRAME_RUN_ID",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			args, dir := script(t, c.body)
			var during func(*os.Process)
			if c.kill {
				during = func(*os.Process) {
					if err := syscall.Kill(pidIn(t, dir, "pid"), syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			}
			o := operate(t, env, during, moving("vm", append(args, c.args...)...)...)
			m := o.result.Mover
			if o.exit != c.exit || o.result.Outcome != c.outcome || m == nil || m.State != c.state || m.Told != c.told {
				t.Fatalf("exit status %d, outcome %s, mover %+v, want %d, %s, %s, told %s", o.exit, o.result.Outcome, m, c.exit, c.outcome, c.state, c.told)
			}
			if c.code != "" && !slices.Contains(o.codes(), c.code) || !strings.Contains(m.Said, c.says) || len(m.Said) > 9<<10 || strings.Contains(m.Said, "\x1b") {
				t.Errorf("findings %v, said %q, want %s and %q", o.codes(), m.Said, c.code, c.says)
			}
			if all := o.stdout + o.stderr; strings.Contains(all, w.Password) || strings.Contains(all, "CANARY") {
				t.Error("a secret was shown")
			}
			if strings.Contains(c.body, "setsid") { // it left the group, which is its own affair
				if err := syscall.Kill(pidIn(t, dir, "pid"), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			} else if strings.Contains(c.body, "pid") {
				moverEnded(t, "the mover", pidIn(t, dir, "pid"))
			}
			clean(t, w, "vm")
		})
	}
}

// TestKilledInTheMover kills stillframe while its mover works; recover ends what the mover left, and removes the snapshot.
func TestKilledInTheMover(t *testing.T) {
	t.Parallel()
	w := start(t, "mover")
	env := w.environment("vm")
	args, dir := script(t, `trap '' TERM; setsid sh -c 'trap "" TERM; echo $$ >"$1/child"; while :; do sleep 0.2; done' - "$1" & echo $$ >"$1/pid"; while :; do sleep 0.2; done`)
	pids := map[string]int{}
	o := operate(t, env, func(p *os.Process) {
		pids["the mover"], pids["its child"] = pidIn(t, dir, "pid"), pidIn(t, dir, "child")
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	}, moving("vm", args...)...)
	if o.exit != -1 {
		t.Fatalf("exit status %d, want a death by SIGKILL", o.exit)
	}
	for what, pid := range pids {
		if !running(pid) {
			t.Errorf("%s has ended by itself: this proves nothing", what)
		}
	}
	r, exit := recovery(t, env)
	if exit != exitOK || !slices.Equal(kinds(r, backup.Gone), []statefile.Kind{statefile.Folder, statefile.Process, statefile.Snapshot}) {
		t.Errorf("recover: exit status %d, %+v, want 0 and all gone", exit, r.Things)
	}
	for what, pid := range pids {
		moverEnded(t, what, pid)
	}
	clean(t, w, "vm")
}

// TestKeepSnapshot leaves a snapshot on purpose: no later run is refused for it, and it goes only when somebody asks.
func TestKeepSnapshot(t *testing.T) {
	t.Parallel()
	w := start(t, "mover")
	env := w.environment("vm")
	first := operate(t, env, nil, moving("vm", "--window-only", "--keep-snapshot")...)
	kept := first.result.Snapshot
	if first.exit != exitOK || !kept.Kept || kept.Removed || kept.Moref == "" {
		t.Fatalf("exit status %d, snapshot %+v, want 0 and it kept", first.exit, kept)
	}
	second := operate(t, env, nil, window("vm")...)
	if second.exit != exitOK || !second.result.Snapshot.Removed {
		t.Errorf("a later run: exit status %d, snapshot %+v, want 0 and its own removed", second.exit, second.result.Snapshot)
	}
	names := func() []string {
		var s lab.SnapshotsOf
		w.get(t, "/vm/vm/snapshots", &s)
		return s.Names
	}
	logins := w.count(t, "Login")
	r, exit := recovery(t, env)
	if exit != exitOK || len(kinds(r, backup.Kept)) != 1 || w.count(t, "Login") != logins || !slices.Equal(names(), []string{kept.Name}) {
		t.Errorf("recover: exit status %d, %+v, snapshots %v, want 0, it kept, and nobody asked", exit, r.Things, names())
	}
	if r, exit := recovery(t, env, "--kept", "--vm", "vm"); exit != exitOK || len(kinds(r, backup.Gone)) != 1 || len(names()) > 0 {
		t.Errorf("recover --kept: exit status %d, %+v, snapshots %v, want 0 and it gone", exit, r.Things, names())
	}
	clean(t, w, "vm")
}

// TestRehearsals go part of the way: neither takes a snapshot, and the dry one does not even go to the guest.
func TestRehearsals(t *testing.T) {
	t.Parallel()
	w := start(t, "mover")
	env := w.environment("vm")
	args, dir := script(t, `touch "$1/ran"`)
	o := operate(t, env, nil, moving("vm", append(args, "--dry-run")...)...)
	if o.exit != exitOK || !o.result.DryRun || o.result.Outcome != backup.OK || o.result.Admission == nil || o.result.Mover.State != backup.MoveNotRun {
		t.Errorf("--dry-run: exit status %d, %+v, want 0, admitted, the mover not run", o.exit, o.result)
	}
	for _, method := range []string{"PUT", "StartProgramInGuest", "ValidateCredentialsInGuest", "CreateSnapshotEx_Task"} {
		if n := w.count(t, method); n > 0 {
			t.Errorf("--dry-run called %s %d times", method, n)
		}
	}
	if o := operate(t, env, nil, moving("vm", "--dry-run", "--mover-command", "/no/such/mover")...); o.exit != exitFailed || !strings.Contains(o.stderr, "(SF5201)") {
		t.Errorf("--dry-run with a mover that is not there: exit status %d, want %d with SF5201", o.exit, exitFailed)
	}
	o = operate(t, env, nil, moving("vm", "--dry-run-freeze")...)
	var f frozen
	if err := json.Unmarshal([]byte(o.stdout), &f); err != nil || o.exit != exitOK || !f.OK {
		t.Errorf("--dry-run-freeze: exit status %d, %v, %+v, want 0 and ok", o.exit, err, f)
	}
	var holds lab.HoldsOf
	w.get(t, "/vm/vm/holds", &holds)
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil || w.count(t, "CreateSnapshotEx_Task") > 0 || len(holds.Holds) != 1 {
		t.Errorf("the mover ran (%v), a snapshot was taken, or there were %d holds, want one", err, len(holds.Holds))
	}
	clean(t, w, "vm")
}

// TestDifferential has the doctor name what is to blame for three broken guests, and nothing for a sound one.
func TestDifferential(t *testing.T) {
	t.Parallel()
	for _, sick := range []struct {
		vm      string
		exit    int
		culprit backup.Culprit
		code    string
		says    string
	}{
		{"well", exitOK, backup.CulpritNone, "", "both: well"},
		{"slow-guest", exitPreflight, backup.CulpritGuestSlow, "SF4920", "freeze alone: failed, freeze 17."},
		{"slow-snapshot", exitPreflight, backup.CulpritSnapshotSlow, "SF4921", "snapshot alone: well, "},
		{"slow-together", exitPreflight, backup.CulpritTogether, "SF4922", "alone they add up to 18."},
		{"failing-snapshot", exitPreflight, backup.CulpritSnapshotFails, "SF2206", "snapshot alone: failed"},
	} {
		t.Run(sick.vm, func(t *testing.T) {
			t.Parallel()
			w := start(t, "differential")
			o := operate(t, w.environment(sick.vm), nil, "doctor", "--differential", "--vm", sick.vm, "--agent", binaries.agent, "-o", "json")
			var x comparison
			if err := json.Unmarshal([]byte(o.stdout), &x); err != nil {
				t.Fatal(err)
			}
			if o.exit != sick.exit || x.Culprit != sick.culprit || x.Code != sick.code {
				t.Errorf("exit status %d, culprit %s, code %q, want %d, %s, %q", o.exit, x.Culprit, x.Code, sick.exit, sick.culprit, sick.code)
			}
			if evidence := strings.Join(x.Evidence, "\n"); !strings.Contains(evidence, sick.says) {
				t.Errorf("evidence is\n%s\nwant %q in it", evidence, sick.says)
			}
			if len(x.Remedy) > 0 != (sick.code != "") || len(x.Leftovers) > 0 || x.VM.Name != sick.vm {
				t.Errorf("remedy %q, leftovers %q, VM %+v", x.Remedy, x.Leftovers, x.VM)
			}
			clean(t, w, sick.vm)
		})
	}
}

// TestMoverTellsWindows has the writers of a Windows guest told of a backup, of none, and of none by a recovery: each
// session in VSS is completed once.
func TestMoverTellsWindows(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine)
	t.Parallel()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, "mover-windows")
	env := w.environment("vm")
	run := func(body string, during func(*os.Process, string)) outcome {
		args, dir := script(t, body)
		return operate(t, env, func(p *os.Process) {
			if during != nil {
				during(p, dir)
			}
		}, append([]string{"run", "--vm", "vm", "--agent", agent, "-o", "json"}, args...)...)
	}
	closed := func(r backup.Result) {
		t.Helper()
		s := r.Guest.Session
		if s == nil || s.State != backup.SessionClosed || s.SetID == "" || r.Guest.BootID == "" || len(r.Guest.LostSets) > 0 {
			t.Errorf("the session with writers is %+v of boot %q, lost sets %v, want it closed by the agent's word", s, r.Guest.BootID, r.Guest.LostSets)
		}
	}
	if o := run("exit 0", nil); o.exit != exitOK || o.result.Mover.Told != backup.ToldAll {
		t.Errorf("stored: exit status %d, mover %+v, want 0 and told all", o.exit, o.result.Mover)
	} else {
		closed(o.result)
	}
	if o := run("exit 1", nil); o.exit != exitFailed || o.result.Mover.Told != backup.ToldNone {
		t.Errorf("not stored: exit status %d, mover %+v, want %d and told none", o.exit, o.result.Mover, exitFailed)
	} else {
		closed(o.result)
	}
	o := run(`echo $$ >"$1/pid"; exec sleep 1000`, func(p *os.Process, dir string) {
		pidIn(t, dir, "pid")
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	if o.exit != -1 {
		t.Fatalf("exit status %d, want a death by SIGKILL", o.exit)
	}
	if r, exit := recovery(t, env); exit != exitOK || len(r.Leftovers) > 0 {
		t.Errorf("recover: exit status %d, left %v, want 0 and nothing", exit, r.Leftovers)
	}
	var seen labguests.Look
	w.get(t, "/vm/vm/windows", &seen)
	completed := 0
	for _, s := range seen.Sessions {
		completed += s.Completed
	}
	if len(seen.Sessions) != 3 || completed != 3 || seen.Opened != seen.Closed || seen.Leaked > 0 {
		t.Errorf("sessions in VSS: %+v, want three that were completed", seen)
	}
	windowsRemoved(t, w, "vm")
}
