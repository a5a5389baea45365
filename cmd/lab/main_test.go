package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab"
)

// TestMain lets the test binary be the program itself.
func TestMain(m *testing.M) {
	if os.Getenv("STILLFRAME_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// program starts the lab as a process of its own; its ready line comes over descriptor 3.
func program(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "STILLFRAME_TEST_MAIN=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(r)
}

func TestRunUntilSIGTERM(t *testing.T) {
	dir := t.TempDir()
	cmd, ready := program(t, "run", "../../testing/scenarios/snapshot-fails.yaml", "--dir", filepath.Join(dir, "world"), "--ready-fd", "3")
	line, err := ready.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r lab.Ready
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	if r.PID != cmd.Process.Pid || len(r.Guests) != 1 || r.VCenter == "" || r.Password == "" || r.Thumbprint == "" {
		t.Errorf("ready line = %s", line)
	}
	if _, err := os.Stat(r.CAFile); err != nil {
		t.Error(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.Admin+"/state", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := new(http.Client).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), "snapshot-fails") {
		t.Errorf("/state = %d, %s, %v", res.StatusCode, body, err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestUsage(t *testing.T) {
	cases := map[string]struct {
		args []string
		code int
		want string
	}{
		"help":             {nil, exitOK, "stillframe-lab run SCENARIO.yaml"},
		"unknown":          {[]string{"dance"}, exitUsage, `unknown command "dance"`},
		"run nothing":      {[]string{"run"}, exitUsage, "needs a scenario"},
		"run two":          {[]string{"run", "x.yaml", "--dir", "d", "y.yaml"}, exitUsage, "y.yaml"},
		"missing scenario": {[]string{"run", "missing.yaml", "--dir", t.TempDir()}, exitFailed, "missing.yaml"},
		"demo of nothing":  {[]string{"demo"}, exitUsage, "demo needs"},
	}
	for name, c := range cases {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), c.args, &stdout, &stderr); code != c.code {
			t.Errorf("%s: exit status %d, want %d", name, code, c.code)
		}
		if said := stdout.String() + stderr.String(); !strings.Contains(said, c.want) {
			t.Errorf("%s: said %q, want %q in it", name, said, c.want)
		}
	}
}
