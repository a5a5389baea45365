package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestChannels reaches agents that listen to nobody: one that dials, and one that speaks through the VM's configuration.
func TestChannels(t *testing.T) {
	t.Parallel()
	w := start(t, "channels")
	for _, c := range []struct {
		vm, channel, code string
		args              []string
		exit              int
		tried             string // channels of the HELLOs
	}{
		{"dials", "reverse", "", []string{"--dial-to", "127.0.0.1:16466"}, exitOK, "direct SF3701, reverse"},
		{"dials", "reverse", "", []string{"--dial-to", "127.0.0.1:16466", "--channel", "reverse"}, exitOK, "reverse"},
		{"silent", "reverse", "", []string{"--dial-to", "127.0.0.1:16466"}, exitOK, "direct SF3701, reverse"},
		{"silent", "", "SF3701", nil, exitFailed, "direct SF3701"},
		{"mailbox", "mailbox", "", []string{"--channel", "mailbox"}, exitOK, "mailbox"},
		{"mailbox-refused", "", "SF3850", []string{"--channel", "mailbox"}, exitFailed, ""},
		{"dials", "", "SF3701", nil, exitFailed, "direct SF3701"},
	} {
		args := append([]string{"run", "--vm", c.vm, "--window-only", "--agent", binaries.agent, "-o", "json"}, c.args...)
		o := operate(t, w.environment(c.vm), nil, args...)
		var r backup.Result
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
			t.Fatalf("%v: %v: %s", args, err, o.stderr)
		}
		if o.exit != c.exit || r.Guest.Channel != c.channel {
			t.Errorf("%v: exit status %d by channel %q, want %d by %q: %s", args, o.exit, r.Guest.Channel, c.exit, c.channel, o.stderr)
		}
		if c.exit == exitOK && r.Verdict.Level != freezewindow.Filesystem {
			t.Errorf("%v: level %s", args, r.Verdict.Level)
		}
		var tried []string
		for _, a := range r.Guest.Attempts {
			if a.Stage == "hello" {
				tried = append(tried, strings.TrimSpace(a.Channel+" "+a.Code))
			}
		}
		if got := strings.Join(tried, ", "); got != c.tried {
			t.Errorf("%v: tried %q, want %q", args, got, c.tried)
		}
		if c.code != "" && !strings.Contains(o.stderr, c.code) {
			t.Errorf("%v: %s, want %s", args, o.stderr, c.code)
		}
		removed(t, w, c.vm)
	}
	o := operate(t, w.environment("dials"), nil, "run", "--vm", "dials", "--window-only", "--channel", "reverse")
	if o.exit != exitUsage || !strings.Contains(o.stderr, "dial-to") {
		t.Errorf("reverse without an address: exit status %d, %s", o.exit, o.stderr)
	}
}

// TestWithoutTools backs a guest up into which guest operations do not lead, because VMware Tools do not run: a finding where they
// would be another road, and a refusal where they are the only one.
func TestWithoutTools(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine, lab.Smbd)
	t.Parallel()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, "windows-without-tools")
	address := w.guest(t, "file-01").Outside
	for _, c := range []struct {
		road     string
		exit     int
		level    freezewindow.Level
		findings []string
	}{
		{"auto", exitOK, freezewindow.Application, []string{"SF2125", "SF3601"}},
		{"adminshare+svcctl", exitOK, freezewindow.Application, []string{"SF2125"}},
		{"persistent", exitPreflight, freezewindow.Unproved, []string{"SF2125", "SF3020"}},
		{"guestops", exitPreflight, freezewindow.Unproved, []string{"SF2125", "SF3601"}},
	} {
		o := operate(t, w.environment("file-01"), nil, append(window("file-01"), "--agent", agent, "--guest-address", address, "--road", c.road)...)
		codes := o.codes()
		slices.Sort(codes)
		if o.exit != c.exit || o.result.Verdict.Level != c.level || !slices.Equal(codes, c.findings) {
			t.Errorf("--road %s: exit status %d, level %s, findings %q, want %d, %s, %q", c.road, o.exit, o.result.Verdict.Level, codes, c.exit, c.level, c.findings)
		}
	}
	windowsRemoved(t, w, "file-01")
}

// TestPersistent enrols an agent by each way that can, runs by it without an account of the guest, and takes it out again.
func TestPersistent(t *testing.T) {
	lab.Need(t, lab.Mingw, lab.Wine, lab.Smbd)
	t.Parallel()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, "windows-roads")
	env := w.environment("exch-01")
	manage := func(want int, args ...string) string {
		t.Helper()
		o := operate(t, env, nil, append([]string{"agent"}, args...)...)
		if o.exit != want {
			t.Fatalf("agent %v: exit status %d, want %d: %s", args, o.exit, want, o.stderr)
		}
		return o.stdout
	}
	manage(exitUsage, "upgrade", "exch-01", "--agent", agent)
	manage(exitUsage, "remove", "exch-01", "--agent", agent)
	first := ""
	for _, road := range []string{"adminshare+svcctl", "adminshare+winrm", "guestops"} {
		verb := "deploy"
		if first != "" {
			verb = "upgrade"
		}
		out := manage(exitOK, verb, "exch-01", "--agent", agent, "--road", road)
		_, certificate, found := strings.Cut(out, "certificate ")
		if first == "" {
			first = certificate
		}
		if !found || certificate != first {
			t.Errorf("agent %s by %s: %s, want the certificate that it had before: %s", verb, road, out, first)
		}
		if list := manage(exitOK, "status"); !strings.Contains(list, "/DC0/vm/exch-01") {
			t.Errorf("agent status: %s", list)
		}
	}
	newer, broken := otherAgent(t), filepath.Join(t.TempDir(), "broken.exe")
	if err := os.WriteFile(broken, append([]byte("MZ"), make([]byte, 1<<10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	manage(exitOK, "upgrade", "exch-01", "--agent", newer, "--road", "adminshare+svcctl")
	manage(exitFailed, "upgrade", "exch-01", "--agent", broken, "--road", "adminshare+svcctl")
	without := w.environment("exch-01")
	delete(without, "GOVC_GUEST_LOGIN")
	o := operate(t, without, nil, "run", "--vm", "exch-01", "--window-only", "--road", "persistent", "--agent", agent, "-o", "json")
	var r backup.Result
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.exit != exitOK || r.Guest.Road != "persistent" || r.Verdict.Level != freezewindow.Application {
		t.Errorf("run by the installed agent: exit status %d, road %s, level %s, %v: %s", o.exit, r.Guest.Road, r.Verdict.Level, err, o.stderr)
	}
	d := operate(t, without, nil, "doctor", "--vm", "exch-01", "--road", "persistent")
	if !strings.Contains(d.stdout, "OK       persistent_agent") {
		t.Errorf("doctor: %s", d.stdout)
	}
	// An upgrade that is cut off leaves the enrolled agent, an installation that is cut off leaves nothing.
	cut := func(verb string, kept bool) {
		t.Helper()
		killed := func(p *os.Process) {
			await(t, verb+" to begin", func() bool {
				text, err := os.ReadFile(filepath.Join(env["STILLFRAME_STATE_DIR"], "state.json"))
				return err == nil && strings.Contains(string(text), "agent_installed")
			})
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		}
		if o := operate(t, env, killed, "agent", verb, "exch-01", "--agent", agent, "--road", "adminshare+svcctl"); o.exit != -1 {
			t.Errorf("agent %s ended by itself, with %d", verb, o.exit)
		}
		if o := operate(t, env, nil, "recover"); o.exit != exitOK || !strings.Contains(o.stdout, "GONE      agent_installed") {
			t.Errorf("recover after agent %s: exit status %d: %s", verb, o.exit, o.stdout)
		}
		if list := manage(exitOK, "status"); strings.Contains(list, "exch-01") != kept {
			t.Errorf("agent status after agent %s was cut off: %s", verb, list)
		}
	}
	cut("upgrade", true)
	if o := operate(t, without, nil, "run", "--vm", "exch-01", "--window-only", "--road", "persistent", "--agent", agent); o.exit != exitOK {
		t.Errorf("run by the agent that was put back: exit status %d: %s", o.exit, o.stderr)
	}
	manage(exitOK, "remove", "exch-01", "--agent", agent)
	cut("deploy", false)
	windowsRemoved(t, w, "exch-01")
	manage(exitUsage, "deploy", "exch-01", "--agent", agent, "--agent-port", "0")
	if list := manage(exitOK, "status"); strings.Contains(list, "exch-01") {
		t.Errorf("agent status after remove: %s", list)
	}
	windowsRemoved(t, w, "exch-01")
	o = operate(t, without, nil, "run", "--vm", "exch-01", "--window-only", "--road", "persistent", "--agent", agent)
	if o.exit != exitPreflight || !strings.Contains(o.stderr, "SF3020") {
		t.Errorf("run by an agent that is gone: exit status %d, %s", o.exit, o.stderr)
	}
}
