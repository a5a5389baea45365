//go:build failpoint && unix

package failpoint

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

type fireBody struct{}

// TestMain passes two points when it is the child of a test.
func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_CHILD") == "" {
		os.Exit(m.Run())
	}
	defer os.Stdout.WriteString("a deferred call ran\n") //nolint:errcheck // the parent reads it
	for range 2 {
		Before("some", "two words")
		After("some", &fireBody{})
	}
	os.Stdout.WriteString("it lives\n") //nolint:errcheck // the parent reads it
}

func TestKill(t *testing.T) {
	for name, want := range map[string]struct {
		spec, trace string
		killed      bool
	}{
		"none":           {"", "some.two-words.before some.fire.after some.two-words.before some.fire.after", false},
		"first":          {"some.two-words.before=kill", "some.two-words.before", true},
		"second":         {"some.fire.after#2=kill", "some.two-words.before some.fire.after some.two-words.before some.fire.after", true},
		"never passed":   {"some.other.after=kill", "some.two-words.before some.fire.after some.two-words.before some.fire.after", false},
		"not so often":   {"some.fire.after#3=kill", "some.two-words.before some.fire.after some.two-words.before some.fire.after", false},
		"what is absurd": {"some.fire.after=explode", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "STILLFRAME_FAILPOINT="+want.spec, "STILLFRAME_FAILPOINT_TRACE="+trace)
			var out bytes.Buffer
			cmd.Stdout = &out
			err := cmd.Run()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if killed := status.Signaled() && status.Signal() == syscall.SIGKILL; killed != want.killed {
				t.Errorf("killed %v (%v), want %v", killed, err, want.killed)
			}
			if want.killed && out.Len() > 0 {
				t.Errorf("after its death it said %q", out.String())
			}
			passed, err := os.ReadFile(trace)
			if err != nil || strings.Join(strings.Fields(string(passed)), " ") != want.trace {
				t.Errorf("passed %q, %v, want %q", passed, err, want.trace)
			}
		})
	}
}

func TestStop(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "STILLFRAME_FAILPOINT=some.fire.after=stop")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Errorf("it is not stopped: %v, %v", status, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "it lives") {
		t.Errorf("it went on to %v and said %q, want it to live", err, out.String())
	}
}
