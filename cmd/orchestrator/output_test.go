package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

func sample() backup.Result {
	return backup.Result{
		RunID: "run", Outcome: backup.Failed,
		VM:      backup.VM{Name: "vm", Path: "/DC0/vm/\x1b[31mvm", Moref: "vm-1"},
		Verdict: backup.Verdict{Level: freezewindow.Crash, Cause: freezewindow.CauseSnapshotSlow, Reasons: []string{"it was slow"}},
		Window: backup.Window{
			BudgetSeconds: 20, HeldByGuestSeconds: new(17.0),
			Phases: []backup.Phase{{Name: "prepare", StartSeconds: -1, DurationSeconds: 1}, {Name: "freeze", DurationSeconds: 1}, {Name: "snapshot_create", StartSeconds: 1, DurationSeconds: 30}},
		},
		Findings: []advice.Finding{advice.Explain("SF4014", "seen")},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := writeTable(&b, sample()); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"outcome FAILED", "level    crash (snapshot_slow)", "- it was slow", "17.000 s by the guest's clock, at most not known by ours", "SF4014", "| 20 s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("a control character of a VM's name reached the terminal")
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "snapshot_create") && len(line) > 100 {
			t.Errorf("a bar is not bounded: %q", line)
		}
	}
}

func TestExitOfRun(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*backup.Result)
		err    error
		want   int
	}{
		{"consistent", func(r *backup.Result) { r.Outcome, r.Verdict.Cause = backup.OK, "" }, nil, exitOK},
		{"budget spent", func(*backup.Result) {}, nil, exitBudget},
		{"guest released itself", func(r *backup.Result) { r.Verdict.Cause, r.Window.SelfReleased = freezewindow.CauseLinkLost, true }, nil, exitBudget},
		{"released itself while interrupted", func(r *backup.Result) { r.Outcome, r.Window.SelfReleased = backup.Aborted, true }, nil, exitBudget},
		{"interrupted", func(r *backup.Result) {
			r.Outcome, r.Verdict.Cause = backup.Aborted, freezewindow.CauseCancelled
		}, errInterrupted, exitInterrupted},
		{"lower level kept", func(r *backup.Result) {
			r.Outcome, r.Verdict.Cause = backup.Degraded, freezewindow.CauseSnapshotFailed
		}, nil, exitDegraded},
		{"failed", func(r *backup.Result) { r.Verdict.Cause = freezewindow.CauseSnapshotFailed }, nil, exitFailed},
		{"left something", func(r *backup.Result) { r.Leftovers = []string{"snapshot"} }, nil, exitRecovery},
		{"no VM", func(r *backup.Result) { r.Verdict.Cause = "" }, &backup.Refusal{SF: "SF2009", Err: errors.New("none")}, exitNoMatch},
		{"error without a code", func(r *backup.Result) { r.Verdict.Cause = "" }, errors.New("odd"), exitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sample()
			tc.change(&r)
			if got := exitOfRun(r, tc.err); got != tc.want {
				t.Errorf("exitOfRun = %d, want %d", got, tc.want)
			}
		})
	}
}
