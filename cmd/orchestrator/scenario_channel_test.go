package main

import (
	"encoding/json"
	"os"
	"path/filepath"
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
	manage(exitOK, "remove", "exch-01", "--agent", agent)
	if list := manage(exitOK, "status"); strings.Contains(list, "exch-01") {
		t.Errorf("agent status after remove: %s", list)
	}
	windowsRemoved(t, w, "exch-01")
	o = operate(t, without, nil, "run", "--vm", "exch-01", "--window-only", "--road", "persistent", "--agent", agent)
	if o.exit != exitPreflight || !strings.Contains(o.stderr, "SF3020") {
		t.Errorf("run by an agent that is gone: exit status %d, %s", o.exit, o.stderr)
	}
}
