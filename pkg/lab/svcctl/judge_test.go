package svcctl_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

// step is a line of testing/msrpc.
type step struct {
	Call   string `json:"call"`
	Win32  uint32 `json:"win32"`
	State  uint32 `json:"state"`
	PID    uint32 `json:"pid"`
	Path   string `json:"path"`
	Listed uint32 `json:"listed"`
}

// msrpc has go-msrpc make and remove a service, and gives what it was told.
func msrpc(t *testing.T, program string, w world, account, name, path string) []step {
	t.Helper()
	at := w.smb.Address()
	cmd := exec.CommandContext(t.Context(), program, at.Addr().String(), strconv.Itoa(int(at.Port())), account, name, path)
	cmd.Stdin = strings.NewReader(password + "\n")
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("msrpc: %v: %s%s", err, out, exit.Stderr)
	}
	var steps []step
	for in := json.NewDecoder(strings.NewReader(string(out))); ; {
		var s step
		if err := in.Decode(&s); errors.Is(err, io.EOF) {
			return steps
		} else if err != nil {
			t.Fatalf("msrpc: %v in %s", err, out)
		}
		steps = append(steps, s)
	}
}

// TestJudge has a client that shares no code with us, neither of RPC nor of SMB, use the double.
func TestJudge(t *testing.T) {
	program := filepath.Join(t.TempDir(), "msrpc")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../../testing/msrpc", "-trimpath", "-o", program, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const name, path = "Stillframe-judged", `"C:\a b\agent.exe" service -service`
	w := start(t, smb.Encrypted, svcctl.Options{
		Services: &svcctl.Table{}, Ordinary: []string{"user"}, Words: func() []string { return []string{"--lab-env", "A=b"} },
	})
	want := []step{
		{Call: "create"},
		{Call: "config", Path: path},
		{Call: "start"},
		{Call: "query in full", State: 4, PID: 4},
		{Call: "stop", State: 1},
		{Call: "query", State: 1},
		{Call: "list", Listed: 1},
		{Call: "delete"},
		{Call: "close"},
	}
	if diff := cmp.Diff(want, msrpc(t, program, w, "Administrator", name, path)); diff != "" {
		t.Errorf("what go-msrpc was told (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]step{{Call: "open", Win32: 5}}, msrpc(t, program, w, "user", name, path)); diff != "" {
		t.Errorf("no administrator (-want +got):\n%s", diff)
	}
	w.scm.Plan(svcctl.Fault{Call: svcctl.CreateService, Win32: 1073, Count: 1})
	if diff := cmp.Diff([]step{{Call: "create", Win32: 1073}}, msrpc(t, program, w, "Administrator", name, path)); diff != "" {
		t.Errorf("planned fault (-want +got):\n%s", diff)
	}
	w.scm.Plan(svcctl.Fault{Call: svcctl.StartService, Effect: svcctl.Split, Count: 1})
	if diff := cmp.Diff(len(want), len(msrpc(t, program, w, "Administrator", name, path))); diff != "" {
		t.Errorf("split answer (-want +got):\n%s", diff)
	}
}
