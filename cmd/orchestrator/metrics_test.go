package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab"
)

// TestMetricsOut lets a window fail in the lab and reads what the file says of it. A file that cannot be written changes
// neither the exit status nor what is printed.
func TestMetricsOut(t *testing.T) {
	lab.Need(t, lab.Promtool)
	t.Parallel()
	w := start(t, "snapshot-fails")
	path := filepath.Join(t.TempDir(), "stillframe.prom")
	o := operate(t, w.environment("vm"), nil, append(window("vm"), "--metrics-out", path)...)
	if o.exit != exitFailed {
		t.Errorf("exit status %d, want %d", o.exit, exitFailed)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`stillframe_freeze_windows_total{cause="snapshot_failed",result="failed"} 1`,
		`stillframe_freeze_windows_total{cause="none",result="ok"} 0`,
		`stillframe_freeze_window_duration_seconds_count{channel="direct",os="linux",result="failed"} 1`,
		`stillframe_freeze_phase_duration_seconds_count{channel="direct",phase="snapshot_create"} 1`,
		`stillframe_freeze_phase_duration_seconds_count{channel="direct",phase="prepare"} 1`,
		`stillframe_freeze_limit_exceeded_total{limit="soft"} 0`,
		`stillframe_freeze_admissions_total{decision="fs"} 1`,
	} {
		if !strings.Contains(string(content), line+"\n") {
			t.Errorf("the file lacks %s", line)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(string(content))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	again := operate(t, w.environment("vm"), nil, append(window("vm"), "--metrics-out", filepath.Join(path, "below"))...)
	if again.exit != exitFailed || !strings.Contains(again.stderr, "(SF1004)") || again.result.Verdict.Level != o.result.Verdict.Level {
		t.Errorf("exit status %d, level %s, want those of the run and SF1004 on standard error", again.exit, again.result.Verdict.Level)
	}
	clean(t, w, "vm")
}
