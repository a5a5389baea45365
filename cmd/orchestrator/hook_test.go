package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
	labguests "github.com/stillframe/stillframe/pkg/lab/guests"
)

// TestHookPostgreSQL holds a real PostgreSQL by the shipped hook, and starts a real PostgreSQL on a copy of the snapshot.
func TestHookPostgreSQL(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop, lab.Postgres)
	t.Parallel()
	w := start(t, "postgresql")
	o := operate(t, w.environment("vm"), nil, window("vm")...)
	r := o.result
	if o.exit != exitOK || r.Outcome != backup.OK || r.Verdict.Level != freezewindow.Application || len(r.Findings) != 0 {
		t.Fatalf("exit status %d, outcome %s, level %s, findings %v, want 0, ok, application, none", o.exit, r.Outcome, r.Verdict.Level, o.codes())
	}
	held := r.Guest.Hooks[len(r.Guest.Hooks)-1]
	if len(r.Guest.Hooks) != 2 || !held.OK || !held.Required || !held.Holds || held.HeldSeconds < 0.8 {
		t.Errorf("hooks %+v, want prepare and pre-freeze, the latter holding for at least the 0.8 s of the snapshot", r.Guest.Hooks)
	}
	if guest := *r.Window.HeldByGuestSeconds; held.HeldSeconds > guest+0.01 || guest > *r.Window.HeldAtMostSeconds {
		t.Errorf("the hook held %.3f s, the guest %.3f s, we bound %.3f s: they do not agree", held.HeldSeconds, guest, *r.Window.HeldAtMostSeconds)
	}
	var database lab.DatabaseOf
	w.get(t, "/vm/vm/database", &database)
	if database.Error != "" || strings.Count(database.Log, "checkpoint complete: ") < 2 {
		t.Errorf("the database says %q, its log is\n%s\nwant the checkpoints of the hook", database.Error, database.Log)
	}
	var snapshots lab.SnapshotsOf
	w.get(t, "/vm/vm/snapshots", &snapshots)
	if len(snapshots.Images) != 1 {
		t.Fatalf("%d images, want 1", len(snapshots.Images))
	}
	image := snapshots.Images[0]
	recovered, err := labguests.RecoverPostgres(t.Context(), image.Path, t.TempDir())
	if err != nil {
		t.Fatalf("no PostgreSQL starts on the snapshot: %v\n%s", err, recovered.Log)
	}
	acknowledged := database.AcknowledgedBefore[image.Snapshot]
	t.Logf("%d transactions were acknowledged before the snapshot, %d are in it; recovery:\n%s", acknowledged, recovered.Rows, recovered.Log)
	if recovered.First != 1 || recovered.Rows != recovered.Last || recovered.Rows < acknowledged || acknowledged == 0 {
		t.Errorf("%d rows from %d to %d, want all of the %d acknowledged ones without a gap", recovered.Rows, recovered.First, recovered.Last, acknowledged)
	}
	clean(t, w, "vm")
}

// TestHookBadDays are hooks that do not do as they should.
func TestHookBadDays(t *testing.T) {
	for _, day := range []struct {
		scenario string
		exit     int
		level    freezewindow.Level
		// says is part of the finding's evidence.
		says string
		// stall is the longest silence of the guest that the lab may have seen, took the longest time of the whole run.
		stall, took time.Duration
		snapshots   int
	}{
		{scenario: "hook-fails-in-prepare", exit: exitFailed, level: freezewindow.Unproved, says: "the application is not there", stall: time.Second, took: 20 * time.Second},
		{scenario: "hook-fails", exit: exitFailed, level: freezewindow.Unproved, says: "the application does not answer", stall: time.Second, took: 20 * time.Second},
		{scenario: "hook-hangs", exit: exitFailed, level: freezewindow.Unproved, says: "did not say HELD within 5.0 s", stall: time.Second, took: 25 * time.Second},
		{scenario: "hook-killed-while-held", exit: exitFailed, level: freezewindow.Filesystem, says: "before it was let go", stall: 3 * time.Second, took: 20 * time.Second, snapshots: 1},
		{scenario: "hook-ignores-end", exit: exitFailed, level: freezewindow.Filesystem, says: "and was killed", stall: 3 * time.Second, took: 20 * time.Second, snapshots: 1},
		{scenario: "hook-post-thaw-fails", exit: exitOK, level: freezewindow.Filesystem, says: "the application still waits", stall: 3 * time.Second, took: 20 * time.Second, snapshots: 1},
		{scenario: "hook-tolerated", exit: exitOK, level: freezewindow.Filesystem, says: "the application does not answer", stall: 3 * time.Second, took: 20 * time.Second, snapshots: 1},
	} {
		t.Run(day.scenario, func(t *testing.T) {
			t.Parallel()
			w := start(t, day.scenario)
			o := operate(t, w.environment("vm"), nil, window("vm")...)
			if o.exit != day.exit || o.result.Verdict.Level != day.level || o.took > day.took {
				t.Errorf("exit status %d, level %s after %v, want %d, %s within %v", o.exit, o.result.Verdict.Level, o.took, day.exit, day.level, day.took)
			}
			if !slices.Contains(o.codes(), "SF4019") || !strings.Contains(o.stdout, day.says) {
				t.Errorf("findings %v, want SF4019 with %q", o.codes(), day.says)
			}
			if n := w.count(t, "CreateSnapshotEx_Task"); n != day.snapshots {
				t.Errorf("%d snapshots were asked for, want %d", n, day.snapshots)
			}
			var holds lab.HoldsOf
			w.get(t, "/vm/vm/holds", &holds)
			if seen := time.Duration(holds.LongestStallSeconds * float64(time.Second)); seen > day.stall {
				t.Errorf("the lab saw the guest stand still for %v, want at most %v", seen, day.stall)
			}
			clean(t, w, "vm")
			unhooked(t, w)
		})
	}
}

// hooksOf names a process of the world's hooks, and is empty when there is none.
func hooksOf(t *testing.T, w *world) string {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if command, err := os.ReadFile(c); err == nil && bytes.Contains(command, []byte(w.dir+"/vms/00/hooks/")) {
			return c + " " + string(command)
		}
	}
	return ""
}

// unhooked checks that no hook lives, and that post-thaw left its mark wherever a scenario has such a hook.
func unhooked(t *testing.T, w *world) {
	t.Helper()
	if left := hooksOf(t, w); left != "" {
		t.Errorf("a hook lives: %q", left)
	}
	undo := filepath.Join(w.dir, "vms", "00", "hooks", "90-undo")
	if _, err := os.Stat(undo); err != nil {
		return
	}
	if text, err := os.ReadFile(filepath.Join(w.dir, "vms", "00", "hooks", ".undone")); err != nil || len(bytes.Fields(text)) != 1 {
		t.Errorf("post-thaw ran %q times, %v, want once", text, err)
	}
}

// TestHookAgentGone kills and stops the agent while hooks hold: something outside it has to let the applications go.
func TestHookAgentGone(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	for _, day := range []struct {
		scenario string
		lives    time.Duration // the longest life of any hook
	}{
		{"hook-agent-killed", 4 * time.Second},
		{"hook-agent-stopped", 20 * time.Second},
	} {
		t.Run(day.scenario, func(t *testing.T) {
			t.Parallel()
			w := start(t, day.scenario)
			var first, last time.Time
			o := operate(t, w.environment("vm"), func(*os.Process) {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for limit := time.Now().Add(time.Minute); time.Now().Before(limit); <-tick.C {
					switch alive := hooksOf(t, w) != ""; {
					case alive && first.IsZero():
						first = time.Now()
					case alive:
						last = time.Now()
					case !last.IsZero():
						return
					}
				}
			}, window("vm")...)
			if o.exit != exitBudget || o.result.Verdict.Level != freezewindow.Crash {
				t.Errorf("exit status %d, level %s, want %d, crash", o.exit, o.result.Verdict.Level, exitBudget)
			}
			lived := last.Sub(first)
			t.Logf("the hooks lived for %v", lived)
			if first.IsZero() || lived > day.lives {
				t.Errorf("the hooks lived for %v, want at most %v", lived, day.lives)
			}
			clean(t, w, "vm")
			unhooked(t, w)
		})
	}
}

// TestHookAgentGoneBesideTheHold kills the agent while hooks of prepare, or of post-thaw, run: the run has post-thaw run from
// outside, for nobody else would come.
func TestHookAgentGoneBesideTheHold(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	for _, day := range []struct {
		scenario string
		exit     int
		level    freezewindow.Level
	}{
		{"hook-agent-killed-early", exitFailed, freezewindow.Unproved},
		{"hook-agent-killed-late", exitOK, freezewindow.Filesystem},
	} {
		t.Run(day.scenario, func(t *testing.T) {
			t.Parallel()
			w := start(t, day.scenario)
			o := operate(t, w.environment("vm"), nil, window("vm")...)
			if o.exit != day.exit || o.result.Verdict.Level != day.level {
				t.Errorf("exit status %d, level %s, want %d, %s", o.exit, o.result.Verdict.Level, day.exit, day.level)
			}
			clean(t, w, "vm")
			unhooked(t, w)
		})
	}
}
