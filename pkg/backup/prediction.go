package backup

import (
	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Admitted is what was predicted before the freeze, and what followed from it.
type Admitted struct {
	Decision admission.Word `json:"decision"`
	// Overridden is true when the run went on against the decision.
	Overridden bool              `json:"overridden"`
	Mode       freezewindow.Mode `json:"mode"`
	// Code is empty when the window was admitted; Reason has the numbers.
	Code      string    `json:"code"`
	Reason    string    `json:"reason"`
	Predicted Predicted `json:"predicted"`
}

// Predicted is the window as this VM's earlier windows let expect it. Without any they are defaults.
type Predicted struct {
	Windows            int     `json:"windows"`
	FreezeP99Seconds   float64 `json:"freeze_p99_seconds"`
	SnapshotP50Seconds float64 `json:"snapshot_p50_seconds"`
	SnapshotP95Seconds float64 `json:"snapshot_p95_seconds"`
	SnapshotP99Seconds float64 `json:"snapshot_p99_seconds"`
	ThawP99Seconds     float64 `json:"thaw_p99_seconds"`
	// SumSeconds has to stay within LimitSeconds; NeedSeconds is the least time that is worth asking for a snapshot.
	SumSeconds   float64 `json:"sum_seconds"`
	LimitSeconds float64 `json:"limit_seconds"`
	NeedSeconds  float64 `json:"need_seconds"`
}

// admit takes over what admission decided.
func (r *Result) admit(d admission.Decision) {
	p := d.Predicted
	r.Admission = &Admitted{
		Decision: d.Word, Mode: d.Mode, Code: d.Code, Reason: d.Reason,
		Predicted: Predicted{
			Windows: p.Samples, FreezeP99Seconds: p.Freeze99.Seconds(), SnapshotP50Seconds: p.Snapshot50.Seconds(),
			SnapshotP95Seconds: p.Snapshot95.Seconds(), SnapshotP99Seconds: p.Snapshot99.Seconds(), ThawP99Seconds: p.Thaw99.Seconds(),
			SumSeconds: p.Sum().Seconds(), LimitSeconds: d.Limit.Seconds(), NeedSeconds: d.Need.Seconds(),
		},
	}
}
