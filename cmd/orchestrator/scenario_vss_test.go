package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// windowsAgent builds the agent for Windows guests of the lab, when the first scenario asks for it.
var windowsAgent = sync.OnceValues(func() (string, error) {
	agent := filepath.Join(binaries.dir, "agent.exe")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", agent, "-tags", "lab", "../agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return agent, nil
})

// TestWindowsDays lives days with the real Windows agent under Wine, against a VSS made of fakes.
func TestWindowsDays(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine)
	t.Parallel()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []badDay{
		{scenario: "windows-io", exit: exitOK, level: freezewindow.Application, held: 5 * time.Second},
		{scenario: "windows-exchange-gives-up", exit: exitFailed, level: freezewindow.Crash, code: "SF4422", held: 6 * time.Second},
	} {
		d.args, d.windows = []string{"--agent", agent}, true
		t.Run(d.scenario, d.run)
	}
}

// TestWindowsVerbs looks at a Windows guest without a snapshot: its writers, a freeze, the agent's own test.
func TestWindowsVerbs(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine)
	t.Parallel()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, "windows-io")
	env := w.environment("vm")
	var list writerList
	verb(t, env, &list, "writers", "vm", "--agent", agent)
	if len(list.Writers) != 5 || list.VM.Name != "vm" || list.Writers[0].StateName != "VSS_WS_STABLE" {
		t.Errorf("writers = %+v, want five stable ones", list)
	}
	free(t, w, "vm", 0)
	var froze frozen
	out := verb(t, env, &froze, "agent", "freeze-test", "vm", "--agent", agent, "--mode", "io", "--hold", "500ms")
	if !froze.OK || len(froze.Writers) != 5 || froze.Window.IOHeldSeconds < 0.4 || strings.Contains(out, `"level"`) {
		t.Errorf("freeze-test: %s, want a hold of 0.5 s and no level", out)
	}
	free(t, w, "vm", 5*time.Second)
	var test selfTest
	verb(t, env, &test, "agent", "selftest", "vm", "--agent", agent, "--mode", "io", "--hold", "300ms")
	if checks, err := test.checks(); err != nil || len(checks) < 8 || test.ExitCode != 0 {
		t.Errorf("selftest = %+v, %v", checks, err)
	}
	free(t, w, "vm", 5*time.Second)
	windowsRemoved(t, w, "vm")
	if n := w.count(t, "CreateSnapshotEx_Task") + w.count(t, "CreateSnapshot_Task"); n != 0 {
		t.Errorf("%d snapshots were asked for", n)
	}
}

// verb runs a command with -o json, wants status 0, and reads its one object.
func verb(t *testing.T, env map[string]string, into any, args ...string) string {
	t.Helper()
	o := operate(t, env, nil, append(args, "-o", "json")...)
	if o.exit != exitOK {
		t.Errorf("%v: exit status %d", args, o.exit)
	}
	if err := json.Unmarshal([]byte(o.stdout), into); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return o.stdout
}

// TestFreezeTestOfLinux freezes a guest whose snapshots fail: without one all is well, which tells the two apart.
func TestFreezeTestOfLinux(t *testing.T) {
	t.Parallel()
	w := start(t, "snapshot-fails")
	env := w.environment("vm")
	var froze frozen
	verb(t, env, &froze, "agent", "freeze-test", "vm", "--agent", binaries.agent, "--hold", "300ms")
	if !froze.OK || froze.Window.HeldByGuestSeconds == nil || *froze.Window.HeldByGuestSeconds < 0.2 {
		t.Errorf("freeze-test = %+v, want a hold of 0.3 s", froze)
	}
	free(t, w, "vm", 3*time.Second)
	clean(t, w, "vm")
	for _, args := range [][]string{{"writers", "vm"}, {"agent", "selftest", "vm"}} {
		if o := operate(t, env, nil, args...); o.exit != exitUsage || !strings.Contains(o.stderr, "only Windows guests have VSS") {
			t.Errorf("%v of a Linux guest: exit status %d", args, o.exit)
		}
	}
	for _, args := range [][]string{{"agent", "freeze-test", "vm", "--hold", "17s"}, {"agent", "selftest", "vm", "--mode", "io", "--hold", "8s"}, {"writers", "a", "b"}} {
		if o := operate(t, env, nil, args...); o.exit != exitUsage {
			t.Errorf("%v: exit status %d, want %d", args, o.exit, exitUsage)
		}
	}
}

// windowsRemoved checks that nothing of ours is left in a wine guest: no folder, and no process that does not end by itself, as the
// one that started the service does after it, and a thaw whose caller has given up.
func windowsRemoved(t *testing.T, w *world, vm string) {
	t.Helper()
	root := w.guest(t, vm).Root
	left, err := filepath.Glob(filepath.Join(root, "[Ww]indows", "[Ss]tillframe", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the agent is left in the guest: %v, %v", left, err)
	}
	for _, command := range windowsAgents(t, root) {
		if strings.Contains(command, "\x00service\x00") && !strings.Contains(command, "\x00--once\x00") {
			t.Errorf("an agent still serves: %q", command)
		}
	}
	await(t, "the last program of ours in "+vm+" to end", func() bool { return len(windowsAgents(t, root)) == 0 })
}

// windowsAgents lists the command lines of programs that are, or are about, an agent of a wine guest.
func windowsAgents(t *testing.T, root string) (commands []string) {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Error(err)
	}
	for _, file := range environments {
		environment, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environment, []byte("WINEPREFIX="+filepath.Dir(root)+"\x00")) {
			continue // gone, or another guest's
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err == nil && strings.Contains(string(command), "stillframe-agent") {
			commands = append(commands, string(command))
		}
	}
	return commands
}

// guest is what the lab said of a VM.
func (w *world) guest(t *testing.T, vm string) lab.ReadyGuest {
	t.Helper()
	for _, g := range w.Guests {
		if g.Name == vm {
			return g
		}
	}
	t.Fatalf("the lab has no VM %q", vm)
	return lab.ReadyGuest{}
}
