package main

import (
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestFrames: frames of either direction come twice, again, in another order, or larger than any may be. A frame whose
// sequence does not rise changes nothing, so that one that was overtaken is as good as lost; one that is too large ends its
// connection, so that the guest is released and nothing is proved. The guest is held at most once, whatever comes.
func TestFrames(t *testing.T) {
	t.Parallel()
	const short, whole = 3 * time.Second, 18500 * time.Millisecond
	for _, d := range []badDay{
		{vm: "doubled-to", exit: exitOK, level: freezewindow.Filesystem, held: short},
		{vm: "doubled-from", exit: exitOK, level: freezewindow.Filesystem, held: short},
		{vm: "replayed-to", exit: exitOK, level: freezewindow.Filesystem, held: short},
		{vm: "replayed-from", exit: exitOK, level: freezewindow.Filesystem, held: short},
		{vm: "swapped-go", exit: exitBudget, level: freezewindow.Unproved, code: "SF4001"},
		{vm: "swapped-frozen", exit: exitBudget, level: freezewindow.Unproved, code: "SF4001", held: whole},
		{vm: "swapped-thaw", exit: exitBudget, level: freezewindow.Crash, code: "SF4002", held: whole},
		{vm: "swapped-thawed", exit: exitBudget, level: freezewindow.Crash, code: "SF4905", held: short},
		{vm: "oversized-go", exit: exitFailed, level: freezewindow.Unproved, code: "SF4009"},
		{vm: "oversized-frozen", exit: exitBudget, level: freezewindow.Unproved, code: "SF4009", held: short},
		{vm: "oversized-thaw", exit: exitBudget, level: freezewindow.Crash, code: "SF4009", held: short},
		{vm: "oversized-thawed", exit: exitBudget, level: freezewindow.Crash, code: "SF4905", held: short},
		{vm: "endless-go", exit: exitFailed, level: freezewindow.Unproved, code: "SF4009"},
		{vm: "endless-frozen", exit: exitBudget, level: freezewindow.Unproved, code: "SF4009", held: short},
		{vm: "endless-thaw", exit: exitBudget, level: freezewindow.Crash, code: "SF4009", held: short},
		{vm: "endless-thawed", exit: exitBudget, level: freezewindow.Crash, code: "SF4905", held: short},
	} {
		d.scenario, d.also = "frames", heldOnce
		t.Run(d.vm, d.run)
	}
}

// heldOnce checks that the guest was held once at most, by the lab's own witness.
func heldOnce(t *testing.T, w *world, vm string) {
	t.Helper()
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	if len(holds.Holds) > 1 {
		t.Errorf("the lab saw %d holds: %v", len(holds.Holds), holds.Holds)
	}
}
