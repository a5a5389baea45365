package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestNetworkBadDays: the link to the agent goes silent in each state, or carries one byte at a time. While THAWING that
// costs the proof unless the link comes back in time for the agent's last word; in OPEN all is proved already.
func TestNetworkBadDays(t *testing.T) {
	t.Parallel()
	ext4 := []lab.Requirement{lab.Root, lab.Loop}
	for _, d := range []badDay{
		{scenario: "silent-link-arming", exit: exitFailed, level: freezewindow.Unproved, code: "SF3701"},
		{scenario: "silent-link-ready", exit: exitBudget, level: freezewindow.Unproved, code: "SF4001"},
		{scenario: "silent-link-frozen", needs: ext4, exit: exitBudget, level: freezewindow.Crash, code: "SF4905", held: 19 * time.Second},
		{scenario: "silent-link-thawing", exit: exitBudget, level: freezewindow.Crash, code: "SF4905", held: 8 * time.Second},
		{scenario: "silent-link-thawing-back", exit: exitOK, level: freezewindow.Filesystem, code: "SF4009", held: 8 * time.Second},
		{scenario: "silent-link-open", exit: exitOK, level: freezewindow.Filesystem, held: 3 * time.Second},
		{scenario: "one-byte", exit: exitOK, level: freezewindow.Filesystem, held: 3 * time.Second},
	} {
		t.Run(d.scenario, d.run)
	}
}

// TestThousand: one VM among a thousand, with snapshot tasks of heavy tails.
func TestThousand(t *testing.T) {
	t.Parallel()
	w := start(t, "thousand")
	if n := len(w.Guests); n != 1000 {
		t.Fatalf("the lab has %d VMs", n)
	}
	o := operate(t, w.environment("vm"), nil, window("vm")...)
	if o.exit != exitOK || o.result.Verdict.Level != freezewindow.Filesystem {
		t.Errorf("exit status %d, level %s", o.exit, o.result.Verdict.Level)
	}
	clean(t, w, "vm")
}

// cutPoints is in how many places of each direction TestCutAnywhere cuts.
const cutPoints = 8

// TestCutAnywhere cuts the connection to the agent after any number of bytes, also inside TLS records and the product's
// frames: whatever is cut, the guest is free, nothing is left, and only a run with every proof says consistent.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	w := start(t, "cut-anywhere")
	env := w.environment("vm")
	if o := operate(t, env, nil, window("vm")...); o.exit != exitOK {
		t.Fatalf("without a cut: exit status %d", o.exit)
	}
	var state lab.State
	w.get(t, "/state", &state)
	whole := state.Links["vm"]
	for i := range cutPoints {
		for direction, bytes := range map[string]int64{"cut_to_guest": whole.ToGuest, "cut_from_guest": whole.FromGuest} {
			after := bytes * int64(2*i+1) / (2 * cutPoints)
			w.post(t, "/vm/vm/proxy", fmt.Sprintf(`{%q: %d}`, direction, after))
			o := operate(t, env, nil, window("vm")...)
			level := o.result.Verdict.Level
			if level.Consistent() != (o.exit == exitOK) || level.Consistent() && o.result.Window.LinkLosses > 0 && o.result.Window.SelfReleased {
				t.Errorf("%s %d: exit status %d, level %s", direction, after, o.exit, level)
			}
			if len(o.result.Leftovers) > 0 {
				t.Errorf("%s %d: leftovers %v", direction, after, o.result.Leftovers)
			}
			free(t, w, "vm", 3*time.Second)
			clean(t, w, "vm")
		}
	}
}
