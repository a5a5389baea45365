package backup

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	exchange = "{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}"
	unknown  = "{11111111-2222-3333-4444-555555555555}"
)

// told is the result of a window whose guest told of these writers and events.
func told(w freezewindow.Report) Result {
	r := newResult(Plan{})
	w.Phases = []freezewindow.PhaseTime{{Name: "freeze", Duration: time.Second}, {Name: "snapshot_create", Start: time.Second, Duration: 15 * time.Second}}
	r.report(w, 0)
	r.explain(w)
	return r
}

func TestWriterFindings(t *testing.T) {
	gaveUp := freezewindow.Writer{Name: "Microsoft Exchange Writer", ClassID: exchange, State: 9, Failure: "800423f2", Required: true}
	refused := freezewindow.Writer{Name: "Other", ClassID: unknown, State: 7, Failure: "800423f4", AppFailure: "80070005", AppMessage: "no"}
	silent := freezewindow.Writer{Name: "Other", ClassID: unknown, State: 7, Failure: "00000000"}
	fine := freezewindow.Writer{Name: "System Writer", ClassID: "{e8132975-6f93-4464-a53e-1050253ae220}", State: 5, Failure: "00000000"}
	leak := freezewindow.LogEvent{Provider: "VSS", ID: 12289, HR: "80042409", Text: "max 64"}
	now := time.Now()
	stamps := inventory.Timing{Queued: now, Started: now.Add(time.Second), Completed: now.Add(14 * time.Second)}
	for name, c := range map[string]struct {
		report freezewindow.Report
		want   []string
	}{
		"all well":               {freezewindow.Report{Release: freezewindow.Release{SetResult: "0004230a", Writers: []freezewindow.Writer{fine}}}, nil},
		"Exchange gave up":       {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseWriterFailed}, Timing: stamps, Release: freezewindow.Release{SetResult: "0004230a", Writers: []freezewindow.Writer{fine, gaveUp}}}, []string{"SF4005", "SF4422", "SF4530", "SF4937"}},
		"an unknown one refused": {freezewindow.Report{Release: freezewindow.Release{Writers: []freezewindow.Writer{refused}}}, []string{"SF4006", "SF4424", "SF4500"}},
		"only its state says so": {freezewindow.Report{Release: freezewindow.Release{Writers: []freezewindow.Writer{silent}}}, []string{"SF4006", "SF4407", "SF4500"}},
		"Windows let go":         {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseHoldTimeout}, Release: freezewindow.Release{SetResult: "80042314"}}, []string{"SF4003"}},
		"a provider vetoed":      {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseGuestError}, Release: freezewindow.Release{SetResult: "80042306"}}, []string{"SF4007"}},
		"our dead-man vetoed":    {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseDeadman}, Release: freezewindow.Release{SetResult: "80042306", Expired: true, ExpiredBy: "io_deadman"}}, []string{"SF4002"}},
		"and VSS wondered":       {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseDeadman}, Release: freezewindow.Release{SetResult: "8004230f", Expired: true, ExpiredBy: "deadman"}}, []string{"SF4002"}},
		"the service was ended":  {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseGuestError}, Release: freezewindow.Release{SetResult: "80042306", Expired: true, ExpiredBy: "service_stop"}}, []string{"SF4002"}},
		"12289":                  {freezewindow.Report{Release: freezewindow.Release{Events: []freezewindow.LogEvent{leak}}}, []string{"SF4021"}},
		"12289 of another kind":  {freezewindow.Report{Release: freezewindow.Release{Events: []freezewindow.LogEvent{{Provider: "VSS", ID: 12289, HR: "80070001"}}}}, nil},
		"a witness disagrees":    {freezewindow.Report{Verdict: freezewindow.Verdict{Cause: freezewindow.CauseWitness, Reasons: []string{"no"}}}, []string{"SF4912"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := told(c.report)
			if got := codes(r); !slices.Equal(got, c.want) {
				t.Errorf("findings %v, want %v", got, c.want)
			}
		})
	}
	r := told(freezewindow.Report{Release: freezewindow.Release{Writers: []freezewindow.Writer{gaveUp}}})
	if w := r.Writers[0]; w.Phase != "freeze" || w.HoldLimitSeconds != 20 || w.Failure != "VSS_E_WRITERERROR_TIMEOUT" || w.StateName != "VSS_WS_FAILED_AT_FREEZE" {
		t.Errorf("Exchange is told as %+v", w)
	}
	i := slices.IndexFunc(r.Findings, func(f advice.Finding) bool { return f.Code == "SF4422" })
	if i < 0 || !strings.Contains(strings.Join(r.Findings[i].Evidence, " "), "snapshot_create: 15.000 s") {
		t.Errorf("the finding does not name the phase that took the time: %+v", r.Findings)
	}
}
