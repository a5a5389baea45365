package backup

import (
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Writer is one VSS writer as it said of itself in our own session after the freeze; before it, when no freeze took place
// (Windows).
type Writer struct {
	Name       string `json:"name"`
	ClassID    string `json:"class_id"`
	InstanceID string `json:"instance_id"`
	// State and StateName are VSS_WRITER_STATE, Phase the part of the run in which it failed, empty when it did not.
	State     int    `json:"state"`
	StateName string `json:"state_name"`
	Phase     string `json:"phase"`
	// FailureHR is the writer's HRESULT in 8 hexadecimal digits, Failure its name, empty when it is none.
	FailureHR string `json:"failure_hr"`
	Failure   string `json:"failure"`
	// AppHR and AppMessage are what the application itself said.
	AppHR      string `json:"app_hr,omitempty"`
	AppMessage string `json:"app_message,omitempty"`
	// HoldLimitSeconds is how long it stays frozen before it gives up.
	HoldLimitSeconds float64 `json:"hold_limit_seconds"`
	Required         bool    `json:"required"`
	failed           bool
}

// WriterOf describes one writer.
func WriterOf(w freezewindow.Writer) Writer {
	state, known := advice.WriterState(w.State), advice.WriterOf(w.ClassID, w.Name)
	x := Writer{
		Name: w.Name, ClassID: w.ClassID, InstanceID: w.InstanceID, State: w.State, StateName: state.Symbol,
		FailureHR: w.Failure, AppHR: w.AppFailure, AppMessage: w.AppMessage, Required: w.Required,
		HoldLimitSeconds: known.FreezeLimit.Seconds(), failed: w.Failed(),
	}
	if x.failed {
		x.Phase, x.Failure = state.Phase, advice.HRESULT(w.Failure).Symbol
	}
	return x
}

// Failed says whether the writer was not well.
func (w Writer) Failed() bool { return w.failed }

func (r *Result) writers(list []freezewindow.Writer) {
	if len(list) > 0 {
		r.Writers = []Writer{}
	}
	for _, w := range list {
		r.Writers = append(r.Writers, WriterOf(w))
	}
}

// explainSet turns what a shadow copy set and its writers say into findings.
func (r *Result) explainSet(w freezewindow.Report) {
	if f := advice.HRESULT(w.Release.SetResult); f.Code != "" && string(f.Code) != w.GuestCode && !ownVeto(w.Release) {
		r.find(string(f.Code), fmt.Sprintf("the shadow copy set ended with 0x%s %s", w.Release.SetResult, f.Symbol))
	}
	for _, x := range r.Writers {
		if x.Failed() {
			r.explainWriter(x)
		}
	}
	r.leaks(w.Release.Events)
}

// ownVeto says whether the set ended because the agent let go by itself: it then has its provider veto, for which VSS also
// says that the provider behaved unexpectedly. Nobody else's provider is to be looked for.
func ownVeto(r freezewindow.Release) bool {
	const veto, unexpected = "80042306", "8004230f"
	return r.Expired && r.ExpiredBy != "system" && (r.SetResult == veto || r.SetResult == unexpected)
}

// explainWriter has a finding for what failed, one for how, and one for the writer itself.
func (r *Result) explainWriter(x Writer) {
	seen := fmt.Sprintf("%s %s (instance %s) is in state %d %s with 0x%s %s; it stays frozen for at most %.0f s",
		x.Name, x.ClassID, x.InstanceID, x.State, x.StateName, x.FailureHR, x.Failure, x.HoldLimitSeconds)
	own := ""
	if x.AppHR != "" || x.AppMessage != "" {
		own = fmt.Sprintf("it says itself: 0x%s %s", x.AppHR, x.AppMessage)
	}
	if x.Required {
		r.find("SF4005", seen)
	} else {
		r.find("SF4006", seen)
	}
	if how := advice.HRESULT(x.FailureHR).Code; how != "" {
		r.find(string(how), seen, own, r.slowest())
	} else if how := advice.WriterState(x.State).Code; how != "" {
		r.find(string(how), seen, own, r.slowest())
	}
	r.find(string(advice.WriterOf(x.ClassID, x.Name).Code), seen)
}

// slowest names the phase that took most of the time between GO and the release.
func (r *Result) slowest() string {
	var most Phase
	for _, p := range r.Window.Phases {
		if p.StartSeconds >= 0 && p.Name != "verify" && p.DurationSeconds > most.DurationSeconds {
			most = p
		}
	}
	if most.Name == "" {
		return ""
	}
	return fmt.Sprintf("most of the time went into the phase %s: %.3f s", most.Name, most.DurationSeconds)
}

// leakEvent is VSS event 12289, which is generic: only with the result of a lost writer status does it tell of sessions
// that were never ended (Microsoft, event 12289; VSS_E_WRITER_STATUS_NOT_AVAILABLE, vsserror.h).
const (
	leakEvent  = 12289
	leakResult = "80042409"
)

// leaks tells of writer sessions that some backup product never ended. It says nothing about this run, which stays as
// good as it is.
func (r *Result) leaks(events []freezewindow.LogEvent) {
	var seen []string
	for _, e := range events {
		if e.Provider == "VSS" && e.ID == leakEvent && e.HR == leakResult {
			seen = append(seen, fmt.Sprintf("event %d, %.1f s before the end: %s", e.ID, e.Age.Seconds(), e.Text))
			if set := lostSet(e.Text); set != "" && !slices.Contains(r.Guest.LostSets, set) {
				r.Guest.LostSets = append(r.Guest.LostSets, set)
			}
		}
	}
	if len(seen) > 0 {
		r.find("SF4021", append(seen, "information only: the level of this run stands")...)
	}
}

// toleratedFailed says whether a writer failed whose failure the run tolerates.
func (r *Result) toleratedFailed() bool {
	for _, x := range r.Writers {
		if x.Failed() && !x.Required {
			return true
		}
	}
	return false
}
