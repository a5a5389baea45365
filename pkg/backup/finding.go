package backup

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/stillframe/stillframe/pkg/freezewindow"
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
		r.find("SF4002", reasons...)
	case freezewindow.CauseLinkLost:
		r.find("SF4009", reasons...)
	case freezewindow.CauseSnapshotFailed:
		if w.Snap == freezewindow.SnapLost {
			r.find("SF4016", w.SnapErr)
		} else {
			r.find("SF4015", w.SnapErr)
		}
	case freezewindow.CauseWriterFailed:
		r.find("SF4005", reasons...)
	default:
	}
	if w.SnapCode != "" {
		r.find(w.SnapCode, w.SnapErr)
	}
	if w.GuestCode != "" {
		r.find(w.GuestCode, w.GuestErr)
	}
	if w.Late && w.LinkLosses == 0 {
		r.find("SF4014", fmt.Sprintf("vCenter spent %.3f s on the task", w.Timing.Task().Seconds()))
	}
	if len(w.Release.Failed) > 0 && !w.Release.Expired { // else it was our own second net
		var evidence []string
		for _, volume := range slices.Sorted(maps.Keys(w.Release.Failed)) {
			evidence = append(evidence, volume+": "+w.Release.Failed[volume])
		}
		r.find("SF4018", evidence...)
	}
	if !w.HeldAtMostKnown && w.SelfReleased {
		r.find("SF4905", "the agent's last word did not come")
	}
	if w.OverrunByStun() {
		r.find("SF4911", fmt.Sprintf("our bound is %.3f s, the guest measured %.3f s", w.HeldAtMost.Seconds(), w.HeldByGuest.Seconds()))
	}
}

// late records a snapshot that appeared when the window was over: it exists, and that is all that is known of it.
func (r *Result) late(s inventory.Snapshot) {
	r.Snapshot.Moref, r.Snapshot.Late = s.Moref, true
	r.Verdict.Level = freezewindow.Crash
	r.Verdict.Reasons = []string{"the snapshot appeared after the window had ended, when the guest was running freely again"}
	r.find("SF4014", "the task had not ended when the guest was released")
}

// failure records an error that ended the run outside the window; one without a code has no page and is only printed.
func (r *Result) failure(err error) {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		r.find(coded.Code(), err.Error())
	}
}
