package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// badDay is one scenario with what has to come of it.
type badDay struct {
	scenario string
	vm       string // empty is "vm"
	needs    []lab.Requirement
	args     []string
	exit     int
	level    freezewindow.Level
	// code is a finding's, or with no window the error's; empty when there must be none.
	code string
	// held is the longest hold of the guest that the lab may have seen; 0 is none at all.
	held time.Duration
	// leftover is a part of what the output must name as left behind; empty when nothing may be left.
	leftover string
	// windows is true for a wine guest.
	windows bool
	// heal are the POSTs that bring the peer back, path and body, after which a run of recover must clean up.
	heal [][2]string
	// also looks at what else has to hold when the guest is free again.
	also func(t *testing.T, w *world, vm string)
}

// run lives one bad day.
func (d badDay) run(t *testing.T) {
	t.Helper()
	lab.Need(t, d.needs...)
	t.Parallel()
	if d.vm == "" {
		d.vm = "vm"
	}
	w := start(t, d.scenario)
	env := w.environment(d.vm)
	o := operate(t, env, nil, append(window(d.vm), d.args...)...)
	if o.exit != d.exit {
		t.Errorf("exit status %d, want %d", o.exit, d.exit)
	}
	if o.result.Verdict.Level != d.level || (o.result.Outcome == backup.OK) != d.level.Consistent() {
		t.Errorf("level %q, outcome %s, want level %q", o.result.Verdict.Level, o.result.Outcome, d.level)
	}
	if d.code != "" && !slices.Contains(o.codes(), d.code) || d.code == "" && len(o.codes()) > 0 {
		t.Errorf("findings %v, want %q among them", o.codes(), d.code)
	}
	free(t, w, d.vm, d.held)
	if d.windows && d.leftover == "" {
		windowsRemoved(t, w, d.vm)
	}
	if d.also != nil {
		d.also(t, w, d.vm)
	}
	switch left := strings.Join(o.result.Leftovers, "; "); {
	case d.leftover == "":
		if left != "" {
			t.Errorf("leftovers %q, want none", left)
		}
		if d.held > 20*time.Second { // the lab itself kept it from moving
			removed(t, w, d.vm)
		} else {
			clean(t, w, d.vm)
		}
	case !strings.Contains(left, d.leftover):
		t.Errorf("leftovers %q, want %q among them", left, d.leftover)
	case d.heal != nil:
		for _, h := range d.heal {
			w.post(t, h[0], h[1])
		}
		recovered(t, w, env, d.vm)
	}
}

// recovered has the program clean up what a run left, and checks that nothing of it remains.
func recovered(t *testing.T, w *world, env map[string]string, vm string) {
	t.Helper()
	if o := operate(t, env, nil, "recover"); o.exit != exitOK {
		t.Errorf("recover: exit status %d", o.exit)
		return
	}
	clean(t, w, vm)
}
