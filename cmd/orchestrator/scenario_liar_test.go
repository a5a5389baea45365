package main

import (
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestLies: an agent that lies can spoil what is said of its own guest's data, and nothing else (docs/vcsim.md). Whatever
// it says, a late snapshot is never consistent, and THAW is sent in time.
func TestLies(t *testing.T) {
	t.Parallel()
	for _, d := range []badDay{
		{scenario: "lies", vm: "never-held-late", exit: exitBudget, level: freezewindow.Crash, code: "SF4014"},
		{scenario: "lies", vm: "still-held", exit: exitBudget, level: freezewindow.Crash, code: "SF4014", held: 18 * time.Second},
		{scenario: "lies", vm: "early-go", exit: exitBudget, level: freezewindow.Crash, code: "SF4014", held: 18 * time.Second},
		{scenario: "lies", vm: "other-go", exit: exitBudget, level: freezewindow.Unproved, code: "SF4001", held: 18 * time.Second},
		{scenario: "lies", vm: "short-hold", exit: exitOK, level: freezewindow.Filesystem, held: 3 * time.Second},
	} {
		t.Run(d.vm, d.run)
	}
}

// TestLieThatNobodyCanSee: a guest that freezes nothing and says that it did is believed; only the lab's witness knows.
func TestLieThatNobodyCanSee(t *testing.T) {
	t.Parallel()
	w := start(t, "lies")
	o := operate(t, w.environment("never-held"), nil, window("never-held")...)
	var holds lab.HoldsOf
	w.get(t, "/vm/never-held/holds", &holds)
	if o.exit != exitOK || o.result.Verdict.Level != freezewindow.Filesystem || len(holds.Holds) != 0 {
		t.Errorf("exit status %d, level %s, %d holds seen by the lab", o.exit, o.result.Verdict.Level, len(holds.Holds))
	}
	clean(t, w, "never-held")
}
