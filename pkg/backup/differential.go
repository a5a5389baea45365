package backup

import (
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Trial is what one of the three trials of a differential diagnosis showed.
type Trial struct {
	// OK is true when the trial ended as it should.
	OK bool `json:"ok"`
	// The times are 0 where the trial has no such phase or did not come so far. A snapshot that outlived its window has the
	// time that it was waited for inside.
	FreezeSeconds   float64 `json:"freeze_seconds"`
	SnapshotSeconds float64 `json:"snapshot_seconds"`
	ThawSeconds     float64 `json:"thaw_seconds"`
	// Cause is the window's, Code and Reason the first that there is to say; empty when OK.
	Cause  freezewindow.Cause `json:"cause"`
	Code   string             `json:"code"`
	Reason string             `json:"reason"`
}

// TrialOf reads a trial from the result of a run.
func TrialOf(r Result) Trial {
	t := Trial{OK: r.Outcome == OK}
	for _, p := range r.Window.Phases {
		switch p.Name {
		case "freeze":
			t.FreezeSeconds = p.DurationSeconds
		case "snapshot_create":
			t.SnapshotSeconds = p.DurationSeconds
		case "thaw":
			t.ThawSeconds = p.DurationSeconds
		}
	}
	if t.OK {
		return t
	}
	t.Cause = r.Verdict.Cause
	if len(r.Verdict.Reasons) > 0 {
		t.Reason = r.Verdict.Reasons[0]
	}
	i := slices.IndexFunc(r.Findings, func(f advice.Finding) bool { return f.Code != "SF4909" })
	if i < 0 {
		return t
	}
	t.Code = string(r.Findings[i].Code)
	if t.Reason == "" && len(r.Findings[i].Evidence) > 0 {
		t.Reason = r.Findings[i].Evidence[0]
	}
	return t
}

// slow says whether the trial failed for the time that something took.
func (t Trial) slow() bool {
	return slices.Contains([]freezewindow.Cause{
		freezewindow.CauseFreezeSlow, freezewindow.CauseNoTime, freezewindow.CauseSnapshotSlow, freezewindow.CauseDeadman, freezewindow.CauseHoldTimeout,
	}, t.Cause)
}

// Culprit is whose fault it is that windows fail.
type Culprit string

// The culprits. CulpritUnknown is for trials that were not all done.
const (
	CulpritUnknown       Culprit = ""
	CulpritNone          Culprit = "none"
	CulpritGuestSlow     Culprit = "guest_slow"
	CulpritGuestFails    Culprit = "guest_fails"
	CulpritSnapshotSlow  Culprit = "snapshot_slow"
	CulpritSnapshotFails Culprit = "snapshot_fails"
	CulpritBothSlow      Culprit = "both_slow"
	CulpritTogether      Culprit = "together"
)

// Trials are the three trials, and what a window may take.
type Trials struct {
	// FreezeOnly held the guest without a snapshot, SnapshotOnly took a snapshot without a hold, Both was a window.
	FreezeOnly   Trial `json:"freeze_only"`
	SnapshotOnly Trial `json:"snapshot_only"`
	Both         Trial `json:"both"`
	// LimitSeconds is what freeze and snapshot may take together, SnapshotLimitSeconds what the snapshot may take of it.
	LimitSeconds         float64 `json:"limit_seconds"`
	SnapshotLimitSeconds float64 `json:"snapshot_limit_seconds"`
}

// Diagnosis is what the three trials say together.
type Diagnosis struct {
	Culprit Culprit `json:"culprit"`
	// Code is empty when nothing is wrong; Evidence and Remedy are never null.
	Code     string   `json:"code"`
	Evidence []string `json:"evidence"`
	Remedy   []string `json:"remedy"`
}

// Diagnose compares the trials; it is pure. What already fails alone is the cause, whatever happens together.
func (t Trials) Diagnose() Diagnosis {
	freeze, snapshot, both := t.FreezeOnly, t.SnapshotOnly, t.Both
	slowFreeze := freeze.slow() || freeze.FreezeSeconds+freezewindow.MinNeed.Seconds() > t.LimitSeconds
	slowSnapshot := snapshot.SnapshotSeconds > t.SnapshotLimitSeconds
	d := Diagnosis{Evidence: t.evidence(), Remedy: []string{}}
	switch {
	case !freeze.OK && !slowFreeze:
		d.Culprit, d.Code = CulpritGuestFails, freeze.Code
	case !snapshot.OK && !slowSnapshot:
		d.Culprit, d.Code = CulpritSnapshotFails, snapshot.Code
	case slowFreeze && slowSnapshot:
		d.Culprit, d.Code = CulpritBothSlow, "SF4920"
	case slowFreeze:
		d.Culprit, d.Code = CulpritGuestSlow, "SF4920"
	case slowSnapshot:
		d.Culprit, d.Code = CulpritSnapshotSlow, "SF4921"
	case both.OK:
		d.Culprit = CulpritNone
		return d
	case both.slow():
		d.Culprit, d.Code = CulpritTogether, "SF4922"
	default: // together, but not for the time that it took
		d.Culprit, d.Code = CulpritTogether, both.Code
	}
	d.Remedy = advice.Explain(advice.Code(d.Code)).Next
	if d.Culprit == CulpritBothSlow {
		d.Remedy = append(d.Remedy, advice.Explain("SF4921").Next...)
	}
	return d
}

// evidence puts the trials beside each other in numbers.
func (t Trials) evidence() []string {
	said := func(name string, one Trial, times string) string {
		if one.OK {
			return fmt.Sprintf("%s: well, %s", name, times)
		}
		return fmt.Sprintf("%s: failed, %s: %s", name, times, one.Reason)
	}
	freeze, snapshot, both := t.FreezeOnly, t.SnapshotOnly, t.Both
	out := []string{
		said("freeze alone", freeze, fmt.Sprintf("freeze %.3f s, thaw %.3f s", freeze.FreezeSeconds, freeze.ThawSeconds)),
		said("snapshot alone", snapshot, fmt.Sprintf("%.3f s", snapshot.SnapshotSeconds)),
		said("both", both, fmt.Sprintf("freeze %.3f s, snapshot %.3f s, thaw %.3f s", both.FreezeSeconds, both.SnapshotSeconds, both.ThawSeconds)),
		fmt.Sprintf("alone they add up to %.3f s of at most %.3f s; the snapshot may take %.3f s of it",
			freeze.FreezeSeconds+snapshot.SnapshotSeconds, t.LimitSeconds, t.SnapshotLimitSeconds),
	}
	grew := func(what string, alone, together float64) {
		if alone > 0 && together > 1.5*alone && together-alone > 0.5 {
			out = append(out, fmt.Sprintf("%s took %.1f times as long together: %.3f s in place of %.3f s", what, together/alone, together, alone))
		}
	}
	grew("the freeze", freeze.FreezeSeconds, both.FreezeSeconds)
	grew("the snapshot", snapshot.SnapshotSeconds, both.SnapshotSeconds)
	return out
}

// NewTrials are trials within a budget, of which the guest was held in this mode.
func NewTrials(b freezewindow.Budget, mode freezewindow.Mode) Trials {
	t := Trials{LimitSeconds: b.ThawBy().Seconds(), SnapshotLimitSeconds: b.ThawBy().Seconds()}
	if mode == freezewindow.ModeIO {
		t.SnapshotLimitSeconds = b.IOThaw.Seconds()
	}
	return t
}
