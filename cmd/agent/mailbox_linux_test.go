package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	orchestrator "github.com/stillframe/stillframe/pkg/guest"
	estate "github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// vmOf is a VM of a simulated vCenter, with the folder that its guest takes for the hypervisor.
func vmOf(t *testing.T) (*vsphere.Endpoint, estate.VM, *guests.Mailbox, *vcenter.Server) {
	t.Helper()
	server, err := vcenter.Start(t.Context(), vcenter.Options{
		User: "u", Password: "p", VMs: []vcenter.VM{{Name: "db", UUID: testUUID, Create: vcenter.TaskPlan{Run: 300 * time.Millisecond}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := server.CAFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e, err := vsphere.Open(t.Context(), vsphere.Options{URL: server.URL(), CAFile: ca, Agent: "test", Login: func(context.Context) (*url.Userinfo, error) {
		return url.UserPassword("u", "p"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := e.Find(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	box, err := guests.OpenMailbox(t.Context(), server, "db", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(box.Close(), e.Close(ctx), server.Close()); err != nil {
			t.Error(err)
		}
	})
	return e, vm, box, server
}

// A whole window through the VM's own variables, with the real agent and real tasks of a simulated vCenter.
func TestRunByMailbox(t *testing.T) {
	exe := build(t, nil, "lab")
	own, fingerprint := identity(t)
	e, vm, inside, server := vmOf(t)
	box, err := vsphere.OpenMailbox(t.Context(), e, vm)
	if err != nil {
		t.Fatal(err)
	}
	line := orchestrator.OpenMailbox(t.Context(), box, "d1")
	script := listenScript(t)
	p := launchWith(t, exe, fingerprint, []string{"--mailbox"}, "STILLFRAME_LAB_FREEZER=unix:"+script.path, inside.Env())
	if p.address != "127.0.0.1:0" {
		t.Errorf("READY has the port of %s, want 0", p.address)
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s, err := orchestrator.Connect(t.Context(), orchestrator.Peer{
		Dial: line.Dial, Slow: true, Own: own, Fingerprint: p.fingerprint, Deployment: "d1", VMUUID: testUUID, SHA256: sha256.Sum256(program), Run: "r1", Epoch: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("connected after %v", time.Since(begin))
	rtt, err := s.RTT(t.Context())
	if err != nil {
		t.Error(err)
	}
	t.Logf("round trip %v", rtt)
	budget := line.Budget(freezewindow.DefaultBudget())
	ready, err := s.Arm(t.Context(), orchestrator.Order{Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := vsphere.NewSnapshotter(e).Prepare(t.Context(), vm, "stillframe-r1-1", "of a test")
	if err != nil {
		t.Fatal(err)
	}
	ready.Go, ready.Armed, ready.Name = 7, true, "stillframe-r1-1"
	report, pending := freezewindow.Run(t.Context(), budget, ready, s, line.Around(prepared))
	if pending != nil {
		t.Error("the snapshot is not known to be made")
	}
	if report.Verdict.Level != freezewindow.Filesystem || report.LinkLosses != 0 {
		t.Errorf("verdict %+v, %d losses, want filesystem and none", report.Verdict, report.LinkLosses)
	}
	t.Logf("held for %v by the guest, at most %v", report.HeldByGuest, report.HeldAtMost)
	if err := errors.Join(s.End(t.Context()), prepared.Close(t.Context())); err != nil {
		t.Error(err)
	}
	s.Close()
	p.ended(t, 15*time.Second)
	if err := line.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, key := range []string{keyDown, keyUp} {
		if text, err := server.Guestinfo("db", key); err != nil || text != "" {
			t.Errorf("%s is left with %.40q, %v", key, text, err)
		}
	}
}

// A guest that may not write its variable, and one that is no VM on VMware, say so before they are READY.
func TestMailboxRefusedAtStart(t *testing.T) {
	_, _, inside, _ := vmOf(t)
	if err := inside.Refuse("Permission denied"); err != nil {
		t.Fatal(err)
	}
	exe := build(t, nil, "lab")
	for name, c := range map[string]struct{ env, text string }{
		"isolation settings": {inside.Env(), "Permission denied"},
		"no VMware":          {"X=", errNoGuestinfo.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			cmd := exec.Command(exe, "run", "--peer", strings.Repeat("ab", 32), "--deployment", "d1", "--mailbox", "--ready-file", ready)
			cmd.Env = []string{"STILLFRAME_LAB_VM_UUID=" + testUUID, "STILLFRAME_LAB_RUN_DIR=" + t.TempDir(), c.env}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "ERROR SF3850 ") || !strings.Contains(string(out), c.text) {
				t.Errorf("run = %v, %q, want status 1, SF3850 and %q", err, out, c.text)
			}
			if text, err := os.ReadFile(ready); err != nil || !strings.HasPrefix(string(text), "ERROR SF3850 ") {
				t.Errorf("ready file = %q, %v", text, err)
			}
		})
	}
	if err := inside.Refuse(""); err != nil {
		t.Error(err)
	}
}

// The hypervisor's port is not touched where the processor does not say VMware: it would end this process.
func TestBackdoorOutsideVMware(t *testing.T) {
	if _, err := openBackdoor(); !errors.Is(err, errNoGuestinfo) {
		t.Errorf("openBackdoor = %v, want errNoGuestinfo: these tests run on no VMware", err)
	}
}

// answers is a hypervisor that answers as it is told, key by key.
type answers map[string]error

func (a answers) read(key string) (string, error) { return "", a["read "+key] }
func (a answers) write(key, _ string) error       { return a["write "+key] }

func TestOpenBox(t *testing.T) {
	why := errors.New("no")
	for name, c := range map[string]struct {
		info answers
		want bool
	}{
		"well":          {nil, true},
		"may not write": {answers{"write " + keyUp: why}, false},
		"may not read":  {answers{"read " + keyDown: why}, false},
	} {
		box, err := openBox(c.info)
		if (err == nil) != c.want || (box != nil) != c.want {
			t.Errorf("%s: openBox = %v, %v", name, box, err)
		}
		if err != nil && (!errors.Is(err, why) || !strings.HasPrefix(errorLine(err), "ERROR SF3850 ")) {
			t.Errorf("%s: openBox = %v, want SF3850 around %v", name, err, why)
		}
	}
}
