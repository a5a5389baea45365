package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestWindowsNeighbours finds agents in the guest that are not of this run: another orchestrator's, a dead one's, a kept one.
func TestWindowsNeighbours(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine, lab.Smbd)
	t.Parallel()
	w := startWays(t, "windows-neighbours")
	for vm, live := range map[string]func(*testing.T, *world){"two": twoOrchestrators, "crashed": crashedWithoutTools, "kept": keptAgent, "stalled": stalledShare} {
		t.Run(vm, func(t *testing.T) {
			t.Parallel()
			live(t, w)
		})
	}
}

// otherAgent is an agent whose program is another one: as of another version.
func otherAgent(t *testing.T) string {
	t.Helper()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(agent)
	other := filepath.Join(t.TempDir(), "other.exe")
	if err := errors.Join(err, os.WriteFile(other, append(program, 0), 0o600)); err != nil {
		t.Fatal(err)
	}
	return other
}

// neighbour is another orchestrator, which knows nothing of ours.
func (w *world) neighbour(vm string) map[string]string {
	env := w.environment(vm)
	env["STILLFRAME_STATE_DIR"] += "-neighbour"
	return env
}

// A second orchestrator, whose agent is of another version, finds the port taken while the first holds the guest; a run of it waits
// for the first one's snapshot task, and then goes well. The first is not disturbed.
func twoOrchestrators(t *testing.T, w *world) {
	t.Helper()
	other, second := otherAgent(t), w.neighbour("two")
	args := []string{"--agent", other, "--road", "adminshare+svcctl"}
	beside := func(do func()) {
		wayRun{way: guest.WaySCM}.during(t, w, "two", func(*os.Process) {
			await(t, "the hold", func() bool { return w.heldNow(t, "two") })
			do()
		})
	}
	beside(func() {
		refused := operate(t, second, nil, append([]string{"agent", "freeze-test", "two", "--hold", "1s"}, args...)...)
		if refused.exit != exitFailed || !strings.Contains(refused.stderr, "(SF3705)") {
			t.Errorf("a freeze of the second orchestrator meanwhile: exit status %d, want %d with SF3705", refused.exit, exitFailed)
		}
	})
	beside(func() {
		o := operate(t, second, nil, append(window("two"), args...)...)
		if o.exit != exitOK || !strings.Contains(o.stderr, "waiting for a task on the VM") {
			t.Errorf("a run of the second orchestrator: exit status %d, want %d after the other's snapshot task", o.exit, exitOK)
		}
	})
	nothingLeft(t, w, second, "two")
}

// The agent of an orchestrator that was killed lets go by itself, and its leftovers are taken away by the share when VMware
// Tools are gone too.
func crashedWithoutTools(t *testing.T, w *world) {
	t.Helper()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	env, address := w.environment("crashed"), w.guest(t, "crashed").Outside
	o := operate(t, env, func(p *os.Process) {
		await(t, "the hold", func() bool { return w.heldNow(t, "crashed") })
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	}, append(window("crashed"), "--agent", agent)...)
	if o.exit != -1 {
		t.Fatalf("exit status %d, want a death by SIGKILL", o.exit)
	}
	w.post(t, "/vm/crashed/tools", `{"state": "absent"}`)
	blind := operate(t, env, nil, "recover", "--vm", "crashed")
	if blind.exit != exitRecovery || !strings.Contains(blind.stdout, "SF3201") || !strings.Contains(blind.stdout, "--guest-address") {
		t.Errorf("recover without an address: exit status %d, want %d and what to do", blind.exit, exitRecovery)
	}
	if r, exit := recovery(t, env, "--vm", "crashed", "--guest-address", address); exit != exitOK || len(r.Leftovers) > 0 || !slices.Contains(kinds(r, backup.Gone), "agent_folder") {
		t.Errorf("recover by the share: exit status %d, gone %v, left %v", exit, kinds(r, backup.Gone), r.Leftovers)
	}
	free(t, w, "crashed", longestHold)
	nothingLeft(t, w, env, "crashed")
}

// A share that stands still leads to the next way. One that stops while the guest is held keeps the clean-up from its end: what is
// left is named and written down, and a recovery takes it away.
func stalledShare(t *testing.T, w *world) {
	t.Helper()
	wayRun{args: pinned("adminshare+svcctl"), exit: exitFailed, code: "SF3204"}.live(t, w, "stalled")
	well(guest.WayGuestOps, "SF3204", "SF3204").live(t, w, "stalled")
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	const vm = "stalls-later"
	env := wayRun{}.environment(t, w, vm)
	o := operate(t, env, nil, append(window(vm), "--agent", agent, "--road", "adminshare+svcctl")...)
	if o.exit != exitRecovery || len(o.result.Leftovers) == 0 || o.result.Verdict.Level != freezewindow.Application || !strings.Contains(o.stdout, "SF3950") {
		t.Errorf("exit status %d, level %q, left %q, want %d with SF3950 and what is left", o.exit, o.result.Verdict.Level, o.result.Leftovers, exitRecovery)
	}
	free(t, w, vm, short)
	if r, exit := recovery(t, env, "--vm", vm); exit != exitOK || len(r.Leftovers) > 0 || !slices.Contains(kinds(r, backup.Gone), "agent_folder") {
		t.Errorf("recover: exit status %d, gone %v, left %v", exit, kinds(r, backup.Gone), r.Leftovers)
	}
	nothingLeft(t, w, env, vm)
}

// A program that was kept is used again, by whatever way, as long as it is the same. On no way the password is to be seen.
func keptAgent(t *testing.T, w *world) {
	t.Helper()
	cached := func(way guest.Way) wayRun {
		return wayRun{way: way, args: []string{"--road", way.String(), "--agent-lifetime", "cached"}}
	}
	folders := func() (names []string) {
		found, err := filepath.Glob(filepath.Join(w.guest(t, "kept").Root, "[Ww]indows", "[Ss]tillframe", "*", "*"))
		if err != nil {
			t.Error(err)
		}
		return found
	}
	secrecy := w.secretive(t, "kept")
	cached(guest.WaySCM).during(t, w, "kept", nil)
	first := folders()
	if len(first) != 2 || filepath.Base(first[0]) != guest.KeptFile {
		t.Errorf("kept is %q, want the program and its mark", first)
	}
	for _, way := range []guest.Way{guest.WayWinRM, guest.WayGuestOps, guest.WaySCM} {
		cached(way).during(t, w, "kept", nil)
		if again := folders(); !slices.Equal(again, first) {
			t.Errorf("after a run by %v there is %q, want %q as before", way, again, first)
		}
	}
	spoilt := first[len(first)-1]
	home := filepath.Dir(filepath.Dir(spoilt))
	program, err := os.ReadFile(spoilt)
	if err := errors.Join(err, os.WriteFile(spoilt, append(program, 0), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{strings.Repeat("1", 32): 25 * time.Hour, strings.Repeat("2", 32): 23 * time.Hour} { // of crashed runs
		dir, at := filepath.Join(home, name), time.Now().Add(-age)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "stillframe-agent.exe"), nil, 0o755), os.Chtimes(dir, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	cached(guest.WaySCM).during(t, w, "kept", nil)
	young, err := filepath.Glob(filepath.Join(home, strings.Repeat("[12]", 32)))
	if err != nil || len(young) != 1 || !strings.HasPrefix(filepath.Base(young[0]), "2") {
		t.Fatalf("of what crashed runs left there is %q, %v, want what is younger than a day", young, err)
	}
	if err := os.RemoveAll(young[0]); err != nil {
		t.Fatal(err)
	}
	fresh := folders()
	if len(fresh) != 2 || filepath.Dir(fresh[0]) == filepath.Dir(first[0]) {
		t.Errorf("after another program lay there, there is %q, want a fresh folder in place of %q", fresh, first)
	} else if now, err := os.ReadFile(fresh[1]); err != nil || !bytes.Equal(now, program) {
		t.Errorf("kept are %d bytes, want those of the agent, %v", len(now), err)
	}
	well(guest.WaySCM).live(t, w, "kept")
	secrecy.kept(t)
}
