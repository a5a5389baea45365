// Package example_test shows how a program that drives Stillframe is tested without VMware.
//
// Once against the lab, where a window really happens, and once against a stock vcsim, where the way into the guest ends.
// Copy it: it uses nothing but the command line, JSON and the environment. docs/vcsim.md explains what either proves.
package example_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
)

// world is the line of JSON that "stillframe-lab run --ready-fd" says; see docs/vcsim.md for the rest of it.
type world struct {
	VCenter  string `json:"vcenter"`
	User     string `json:"user"`
	Password string `json:"password"`
	CAFile   string `json:"ca_file"`
	Admin    string `json:"admin"`
	Guests   []struct {
		Name     string `json:"name"`
		User     string `json:"user"`
		Password string `json:"password"`
	} `json:"guests"`
}

// result is what is read here of the object that "stillframe run -o json" prints; docs/cli.md has all of it.
type result struct {
	Outcome string `json:"outcome"`
	Verdict struct {
		Level   string   `json:"level"`
		Reasons []string `json:"reasons"`
	} `json:"verdict"`
	Findings []struct {
		Code string `json:"code"`
	} `json:"findings"`
	Leftovers []string `json:"leftovers"`
}

// build makes a program of this tree. Outside of it, point at the released files instead.
func build(t *testing.T, name string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath", "-o", out}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %v: %v\n%s", args, err, text)
	}
	return out
}

// startLab runs a scenario until the test ends.
func startLab(t *testing.T, program, scenario string) world {
	t.Helper()
	ready, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "run", scenario, "--dir", t.TempDir(), "--ready-fd", "3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to pass on
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("end the lab: %v", err)
		}
	})
	line, err := io.ReadAll(ready) // the lab closes its end after the line
	var w world
	if err := errors.Join(err, ready.Close(), json.Unmarshal(line, &w)); err != nil {
		t.Fatalf("the lab did not become ready: %v %q", err, line)
	}
	return w
}

// stillframe runs the program and reads its object.
func stillframe(t *testing.T, program string, env []string, args ...string) (result, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "STILLFRAME_STATE_DIR="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	t.Logf("%s", stderr.String())
	var r result
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("standard output is not one object: %v\n%s", err, stdout.String())
	}
	return r, cmd.ProcessState.ExitCode()
}

// TestAgainstTheLab: the good day, then a bad one made by the admin, against a vCenter with guests that run programs.
func TestAgainstTheLab(t *testing.T) {
	program := build(t, "stillframe", "../../cmd/orchestrator")
	agent := build(t, "stillframe-agent", "-tags", "lab", "../../cmd/agent")
	w := startLab(t, build(t, "stillframe-lab", "../../cmd/lab"), "../../testing/scenarios/integrate.yaml")
	guest := w.Guests[0]
	env := []string{
		"GOVC_URL=" + w.VCenter, "GOVC_USERNAME=" + w.User, "GOVC_PASSWORD=" + w.Password, "GOVC_TLS_CA_CERTS=" + w.CAFile,
		"GOVC_GUEST_LOGIN=" + guest.User + ":" + guest.Password,
	}
	args := []string{"run", "--vm", guest.Name, "--window-only", "--agent", agent, "-o", "json"}
	r, exit := stillframe(t, program, env, args...)
	if exit != 0 || r.Verdict.Level != "filesystem" || len(r.Leftovers) != 0 {
		t.Errorf("exit status %d, level %q, leftovers %v, want 0, filesystem, none", exit, r.Verdict.Level, r.Leftovers)
	}
	body := bytes.NewReader([]byte(`{"run": "200ms", "fault": "FileLocked"}`))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.Admin+"/vm/"+guest.Name+"/snapshot", body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := new(http.Client).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusNoContent {
		t.Fatalf("plan a fault: %v %s", err, answer.Status)
	}
	if r, exit = stillframe(t, program, env, args...); exit == 0 || r.Verdict.Level != "unproved" {
		t.Errorf("with a snapshot that fails: exit status %d, level %q, want not 0, unproved", exit, r.Verdict.Level)
	}
}

// TestAgainstStockVCSim: login, inventory and preflight work; the simulator has no guests, and the program says so by a
// code that a caller can branch on.
func TestAgainstStockVCSim(t *testing.T) {
	program := build(t, "stillframe", "../../cmd/orchestrator")
	model := simulator.VPX()
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(model.Remove)
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	t.Cleanup(server.Close)
	password, _ := server.URL.User.Password()
	env := []string{
		"GOVC_URL=" + server.URL.Scheme + "://" + server.URL.Host + server.URL.Path,
		"GOVC_USERNAME=" + server.URL.User.Username(), "GOVC_PASSWORD=" + password, "GOVC_INSECURE=1", "GOVC_GUEST_LOGIN=root:any",
	}
	r, exit := stillframe(t, program, env, "run", "--vm", "DC0_H0_VM0", "--window-only", "--agent", program, "-o", "json")
	found := false
	for _, f := range r.Findings {
		found = found || f.Code == "SF3601"
	}
	if exit != 7 || !found || r.Verdict.Level != "unproved" {
		t.Errorf("exit status %d, findings %v, level %q, want 7 with SF3601, unproved", exit, r.Findings, r.Verdict.Level)
	}
}
