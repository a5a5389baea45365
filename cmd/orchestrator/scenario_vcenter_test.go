package main

import (
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// TestVCenterBadDays: vCenter hangs, goes, or comes back as another one.
func TestVCenterBadDays(t *testing.T) {
	t.Parallel()
	for _, d := range []badDay{
		{
			scenario: "task-never-ends", args: []string{"--late-limit", "2s"}, exit: exitRecovery, level: freezewindow.Unproved,
			code: "SF2304", held: 18 * time.Second, leftover: "may still appear", heal: [][2]string{{"/vm/vm/do", `{"do":"end_tasks"}`}},
		},
		{
			scenario: "vcenter-gone", args: []string{"--late-limit", "2s"}, exit: exitRecovery, level: freezewindow.Unproved,
			code: "SF2304", held: 18 * time.Second, leftover: "may still appear", heal: [][2]string{{"/vcenter/start", ""}},
		},
		{
			scenario: "vcenter-silent", args: []string{"--late-limit", "2s"}, exit: exitRecovery, level: freezewindow.Unproved,
			code: "SF2304", held: 18 * time.Second, leftover: "may still appear", heal: [][2]string{{"/vcenter/speak", ""}},
		},
		{scenario: "vcenter-restarted", exit: exitOK, level: freezewindow.Filesystem, held: 12 * time.Second},
		{
			scenario: "certificate-changed", args: []string{"--late-limit", "2s"}, exit: exitRecovery, level: freezewindow.Unproved,
			code: "SF2304", held: 18 * time.Second, leftover: "may still appear",
		},
		{scenario: "certificate-changed-early", exit: exitRecovery, level: freezewindow.Unproved, code: "SF2003", leftover: "agent"},
		{scenario: "session-dropped", exit: exitOK, level: freezewindow.Filesystem, held: 2 * time.Second},
		{scenario: "session-dropped-in-window", exit: exitOK, level: freezewindow.Filesystem, held: 6 * time.Second},
		{scenario: "answer-lost", exit: exitFailed, level: freezewindow.Crash, code: "SF4016", held: 3 * time.Second},
	} {
		t.Run(d.scenario, d.run)
	}
}
