package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestThawRunsTheHooksOfADeadAgent has only the mark that the agent left: nothing was frozen.
func TestThawRunsTheHooksOfADeadAgent(t *testing.T) {
	exe, runDir, hooks := build(t, nil, "lab"), t.TempDir(), t.TempDir()
	mark := filepath.Join(runDir, "hooks")
	for _, c := range []struct {
		program string
		status  int
	}{
		{"#!/bin/sh\n[ \"$STILLFRAME_RUN $STILLFRAME_MODE $STILLFRAME_OK\" = 'r1 fs 0' ]\n", exitOK},
		{"#!/bin/sh\nexit 1\n", exitFailed},
	} {
		undo := filepath.Join(hooks, "90-undo")
		err := errors.Join(
			os.WriteFile(mark, []byte(`{"run":"r1","mode":"fs"}`), 0o600),
			os.WriteFile(undo, []byte(c.program), 0o600), os.Chmod(undo, 0o700), os.Chmod(hooks, 0o700),
			os.WriteFile(undo+".conf", []byte("point=post-thaw\n"), 0o600),
		)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "thaw")
		cmd.Env = []string{"STILLFRAME_LAB_RUN_DIR=" + runDir, "STILLFRAME_LAB_HOOKS_DIR=" + hooks}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.status {
			t.Errorf("thaw = %v, %s, want status %d", err, out, c.status)
		}
		if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the mark is still there: %v", err)
		}
	}
}
