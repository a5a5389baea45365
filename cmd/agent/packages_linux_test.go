package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
)

// TestPackages has Debian's own reader look at the deb; of the rpm no reader is at hand, only its lead (rpm's "Package format").
func TestPackages(t *testing.T) {
	lab.Need(t, lab.Nfpm)
	dir := t.TempDir()
	program := filepath.Join(dir, "agent")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("../../scripts/packages", program, "amd64", "v1.2.3-4-gabcdef", dir).CombinedOutput(); err != nil {
		t.Fatalf("scripts/packages: %v\n%s", err, out)
	}
	deb, rpm := filepath.Join(dir, "stillframe-agent_1.2.3_amd64.deb"), filepath.Join(dir, "stillframe-agent-1.2.3-1.x86_64.rpm")
	out, err := exec.Command("dpkg-deb", "--contents", deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^(-\S+) (\S+) .* \./(\S+)$`)
	files := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(out), -1) {
		files[m[3]] = m[1] + " " + m[2]
	}
	want := map[string]string{
		"usr/bin/stillframe-agent":                           "-rwxr-xr-x root/root",
		"usr/lib/systemd/system/stillframe-agent.service":    "-rw-r--r-- root/root",
		"usr/share/doc/stillframe-agent/persistent-agent.md": "-rw-r--r-- root/root",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files of the deb (-want +got):\n%s", diff)
	}
	control := filepath.Join(dir, "control")
	if out, err := exec.Command("dpkg-deb", "--control", deb, control).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	for name, part := range map[string]string{
		"control": "\nVersion: 1.2.3\n", "postinst": "try-restart stillframe-agent.service", "prerm": "/usr/bin/stillframe-agent uninstall", "postrm": "daemon-reload",
	} {
		if text, err := os.ReadFile(filepath.Join(control, name)); err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s = %q, %v, want %q in it", name, text, err, part)
		}
	}
	// An update must not take the identity away: neither dpkg's "upgrade" nor rpm's 1 uninstalls.
	for _, why := range []string{"upgrade", "1", ""} {
		if out, err := exec.Command(filepath.Join(control, "prerm"), why).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("prerm %q = %v, %s, want nothing done", why, err, out)
		}
	}
	if lead, err := os.ReadFile(rpm); err != nil || !bytes.HasPrefix(lead, []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Errorf("the rpm begins with %x, %v", lead[:min(len(lead), 4)], err)
	}
}
