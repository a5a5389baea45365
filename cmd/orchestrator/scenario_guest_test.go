package main

import (
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestGuestBadDays: the guest has no room, refuses, reboots, is thawed by others or stands still.
func TestGuestBadDays(t *testing.T) {
	t.Parallel()
	ext4 := []lab.Requirement{lab.Root, lab.Loop}
	for _, d := range []badDay{
		{scenario: "guest-operations-fail", exit: exitPreflight, level: freezewindow.Unproved, code: "SF3601"},
		{
			scenario: "guest-operations-gone", exit: exitRecovery, level: freezewindow.Unproved, code: "SF3601",
			leftover: "/var/lib/stillframe", heal: [][2]string{{"/vm/vm/tools", `{"state":"running"}`}},
		},
		{
			scenario: "guest-disk-full", needs: []lab.Requirement{lab.Root}, exit: exitFailed, level: freezewindow.Unproved, code: "SF3608",
		},
		{scenario: "guest-reboots", needs: ext4, exit: exitBudget, level: freezewindow.Crash, code: "SF4009", held: 3 * time.Second},
		{scenario: "guest-powered-off", exit: exitRecovery, level: freezewindow.Crash, code: "SF4009", held: 3 * time.Second, leftover: "/var/lib/stillframe"},
		{scenario: "foreign-thaw", needs: ext4, exit: exitFailed, level: freezewindow.Crash, code: "SF4018", held: 3 * time.Second},
		{scenario: "stunned", needs: ext4, exit: exitOK, level: freezewindow.Filesystem, held: 6 * time.Second},
		{scenario: "stunned-too-long", needs: ext4, exit: exitBudget, level: freezewindow.Crash, code: "SF4009", held: 23 * time.Second},
	} {
		t.Run(d.scenario, d.run)
	}
}
