package backup

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// explain turns what the window met into findings, the first cause first.
func (r *Result) explain(w freezewindow.Report) {
	reasons := w.Verdict.Reasons
	switch w.Verdict.Cause {
	case freezewindow.CauseFreezeSlow:
		r.find("SF4001", reasons...)
	case freezewindow.CauseNoTime:
		r.find("SF4017", reasons...)
	case freezewindow.CauseDeadman, freezewindow.CauseHoldTimeout:
		if advice.HRESULT(w.Release.SetResult).Code == "" || ownVeto(w.Release) { // else that is the finding
			r.find("SF4002", reasons...)
		}
	case freezewindow.CauseLinkLost:
		r.find("SF4009", reasons...)
	case freezewindow.CauseStalled:
		r.find("SF4918", reasons...)
	case freezewindow.CauseSnapshotFailed:
		if w.Snap == freezewindow.SnapLost {
			r.find("SF4016", w.SnapErr)
		} else {
			r.find("SF4015", w.SnapErr)
		}
	case freezewindow.CauseWitness:
		r.find("SF4912", reasons...)
	default:
	}
	r.explainSet(w)
	r.owner(w)
	if w.SnapCode != "" {
		r.find(w.SnapCode, w.SnapErr)
	}
	if w.GuestCode != "" {
		r.find(w.GuestCode, w.GuestErr)
	}
	if failed := hookErrors(w.Release.Hooks); len(failed) > 0 && w.GuestCode != "SF4019" {
		r.find("SF4019", failed...)
	}
	if w.Release.Expired && w.Verdict.Cause == freezewindow.CauseGuestError {
		r.find("SF4002", fmt.Sprintf("the guest released itself (%s) after %.3f s", w.Release.ExpiredBy, w.Release.Held.Seconds()))
	}
	if w.Late && w.LinkLosses == 0 {
		r.find("SF4014", fmt.Sprintf("vCenter spent %.3f s on the task", w.Timing.Task().Seconds()))
	}
	var foreign, hung []string
	for _, volume := range slices.Sorted(maps.Keys(w.Release.Failed)) {
		if why := w.Release.Failed[volume]; strings.HasPrefix(why, "EINVAL") {
			foreign = append(foreign, volume+": "+why)
		} else {
			hung = append(hung, volume+": "+why)
		}
	}
	if len(hung) > 0 {
		r.find("SF4709", hung...)
	}
	if len(foreign) > 0 && !w.Release.Expired { // else it was our own second net
		r.find("SF4018", foreign...)
	}
	if w.OverrunByStun() && w.Verdict.Cause != freezewindow.CauseStalled {
		r.find("SF4911", fmt.Sprintf("our bound is %.3f s, the guest measured %.3f s", w.HeldAtMost.Seconds(), w.HeldByGuest.Seconds()))
	}
}

// hookErrors says which hooks failed, and how.
func hookErrors(hooks []freezewindow.Hook) []string {
	var out []string
	for _, h := range hooks {
		if !h.OK {
			out = append(out, fmt.Sprintf("hook %s at %s: %s", h.Name, h.Point, h.Error))
		}
	}
	return out
}

// late records a snapshot that appeared when the window was over: it exists, and t says where its task spent the time, if
// vSphere said so.
func (r *Result) late(s inventory.Snapshot, t inventory.Timing) {
	r.Snapshot.Moref, r.Snapshot.Late, r.Snapshot.TaskSeconds = s.Moref, true, t.Task().Seconds()
	r.Verdict.Level = freezewindow.Crash
	reasons := []string{"the snapshot appeared only after the window had ended"}
	for _, reason := range r.Verdict.Reasons {
		if !strings.HasPrefix(reason, freezewindow.NotKnown) { // it is known now
			reasons = append(reasons, reason)
		}
	}
	r.Verdict.Reasons = reasons
	r.find("SF4014", "the task had not ended when the guest was released")
	if code, why := task(t); code != "" && r.Verdict.Cause == freezewindow.CauseSnapshotSlow {
		r.find(code, why)
	}
}

// rescued records what the guest's own thaw found when the agent's last word did not come: a bound of the hold, and
// whether the guest had been free already.
func (r *Result) rescued(released bool, sinceGo time.Duration) {
	r.Window.HeldAtMostSeconds = new(sinceGo.Seconds())
	r.Window.overBudget = sinceGo.Seconds() > r.Window.BudgetSeconds
	if !released {
		r.find("SF4905", "the guest's own \"stillframe-agent thaw\" found nothing frozen any more: the guest had released itself")
		return
	}
	r.Window.SelfReleased, r.Window.ReleasedBy = false, "rescue"
	r.Verdict.Reasons = append(r.Verdict.Reasons, fmt.Sprintf("the guest was still frozen until we released it from outside, %.3f s after GO", sinceGo.Seconds()))
	r.find("SF4905", "the guest was still frozen: its own \"stillframe-agent thaw\", run from outside, released it")
}

// notHeld records file systems that the level does not speak of.
func (r *Result) notHeld(volumes []guest.Volume) {
	for _, v := range volumes {
		r.Window.NotHeld = append(r.Window.NotHeld, NotHeld{v.Mount, v.FS, v.Why})
	}
}

// unheld names them in the verdict, where a level above crash could be taken for the whole VM's.
func (r *Result) unheld() {
	if len(r.Window.NotHeld) == 0 || !r.Verdict.Level.Consistent() {
		return
	}
	var mounts []string
	for _, v := range r.Window.NotHeld {
		mounts = append(mounts, fmt.Sprintf("%s (%s, %s)", v.Mount, v.FS, v.Why))
	}
	r.Verdict.Reasons = append(r.Verdict.Reasons, "not held, so the level does not speak of them: "+strings.Join(mounts, ", "))
}

// failure records an error that ended the run outside the window; one without a code has no page and is only printed.
func (r *Result) failure(err error) {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		r.find(coded.Code(), err.Error())
	}
}
