package vsphere

import (
	"errors"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// TestUnfinished sees a snapshot task while it runs, and none before and after.
func TestUnfinished(t *testing.T) {
	slowTasks(t, 700*time.Millisecond)
	s := newScene(t, nil)
	none := func(when string) {
		t.Helper()
		if tasks, err := s.s.Unfinished(t.Context(), s.vm); err != nil || len(tasks) > 0 {
			t.Errorf("%s: Unfinished = %v, %v, want none", when, tasks, err)
		}
	}
	none("before")
	p := s.prepare()
	var during error
	snap, _, err := p.Create(t.Context(), func(task string) {
		tasks, err := s.s.Unfinished(t.Context(), s.vm)
		if err != nil || len(tasks) != 1 || tasks[0].Moref != task || !tasks[0].Snapshots() {
			t.Errorf("while %s runs: Unfinished = %+v, %v, want it as a task on snapshots", task, tasks, err)
		}
		during = err
	})
	if err := errors.Join(err, during); err != nil {
		t.Fatal(err)
	}
	none("after")
	if _, err := s.s.Remove(t.Context(), snap); err != nil {
		t.Error(err)
	}
	s.refuse("RetrievePropertiesEx", &types.NoPermission{PrivilegeId: "System.Read"})
	_, err = s.s.Unfinished(t.Context(), s.vm)
	wantCode(t, err, "SF2101")
}

func TestCommandIs(t *testing.T) {
	const exe = "/var/lib/stillframe/agent/1/stillframe-agent"
	for line, want := range map[string]bool{
		exe + " run --peer x":        true,
		`"` + exe + `" run --peer x`: true,
		exe + " run":                 true,
		exe + " watchdog":            false, // it thaws when its agent ends
		exe + " runner":              false,
		exe + "-other run":           false,
		"":                           false,
		"vi " + exe + " run":         false,
		"/var/lib/stillframe/agent/2/stillframe-agent run": false,
	} {
		if got := commandIs(line, exe, "run"); got != want {
			t.Errorf("commandIs(%q) = %t, want %t", line, got, want)
		}
	}
}
