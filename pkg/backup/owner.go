package backup

import (
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// muchOfBudget is when a part of a window took so long that it is worth a finding of its own.
const muchOfBudget = 0.5

// owner names who took most of the time of a window that was too long.
func (r *Result) owner(w freezewindow.Report) {
	switch w.Verdict.Cause {
	case freezewindow.CauseFreezeSlow, freezewindow.CauseNoTime, freezewindow.CauseSnapshotSlow, freezewindow.CauseDeadman,
		freezewindow.CauseHoldTimeout, freezewindow.CauseWriterFailed:
	default:
		return
	}
	total := time.Duration(0)
	var most freezewindow.PhaseTime
	for _, p := range w.Phases {
		if p.Name == "verify" || p.Name == "unheard" {
			continue
		}
		total += p.Duration
		if p.Duration > most.Duration {
			most = p
		}
	}
	if total == 0 || most.Duration.Seconds() < muchOfBudget*total.Seconds() {
		return
	}
	took := fmt.Sprintf("%s took %.3f s of the %.3f s from GO to the release", most.Name, most.Duration.Seconds(), total.Seconds())
	switch most.Name {
	case "freeze":
		r.find("SF4931", took)
	case "thaw":
		r.find("SF4940", took)
	case "snapshot_create":
		if code, why := task(w.Timing); code != "" {
			r.find(code, took, why)
		}
	}
}

// task says where a snapshot task spent its time, by vCenter's own stamps against each other; without them nobody knows,
// and code is empty.
func task(t inventory.Timing) (code, why string) {
	queued, ran := t.Started.Sub(t.Queued), t.Completed.Sub(t.Started)
	switch {
	case t.Queued.IsZero() || t.Started.IsZero() || t.Completed.IsZero() || queued < 0 || ran < 0:
		return "", ""
	case queued > ran:
		return "SF4935", fmt.Sprintf("the task waited for %.3f s in vCenter and ran for %.3f s", queued.Seconds(), ran.Seconds())
	}
	return "SF4937", fmt.Sprintf("the task ran for %.3f s, after %.3f s in vCenter's queue", ran.Seconds(), queued.Seconds())
}
