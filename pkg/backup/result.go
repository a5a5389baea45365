package backup

import (
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// APIVersion is the version of Result's JSON form. Fields are only ever added to it.
const APIVersion = "stillframe/v1"

// Outcome is how a run ended under its policy.
type Outcome string

// The outcomes.
const (
	OK       Outcome = "ok"
	Degraded Outcome = "degraded"
	Failed   Outcome = "failed"
	Aborted  Outcome = "aborted"
)

// Result is the truth about one run, as "stillframe run -o json" prints it.
type Result struct {
	APIVersion string    `json:"api_version"`
	RunID      string    `json:"run_id"`
	StartedAt  time.Time `json:"started_at"`
	// Outcome and the error are this run's end under its policy; the verdict is what was proved.
	Outcome Outcome `json:"outcome"`
	// DryRun is true when the run was to end before anything is touched: then ok says that nothing spoke against it.
	DryRun bool `json:"dry_run"`
	VM     VM   `json:"vm"`
	// Admission is null when the run ended before anything was predicted.
	Admission *Admitted `json:"admission"`
	Verdict   Verdict   `json:"verdict"`
	Window    Window    `json:"window"`
	Snapshot  Snap      `json:"snapshot"`
	// Mover is null when the run was to move nothing.
	Mover    *Moved           `json:"mover"`
	Guest    Guest            `json:"guest"`
	Writers  []Writer         `json:"writers"`
	Findings []advice.Finding `json:"findings"`
	// Leftovers names what this run made and could not remove.
	Leftovers []string `json:"leftovers"`
}

// VM names the machine.
type VM struct {
	Name         string `json:"name"`
	Path         string `json:"path"`
	Moref        string `json:"moref"`
	InstanceUUID string `json:"instance_uuid"`
}

// Verdict is what the window proved.
type Verdict struct {
	Level   freezewindow.Level `json:"level"`
	Cause   freezewindow.Cause `json:"cause"`
	Reasons []string           `json:"reasons"`
}

// Window is how long the guest was held. The two hold figures are null when they are not known.
type Window struct {
	Mode               freezewindow.Mode `json:"mode"`
	BudgetSeconds      float64           `json:"budget_seconds"`
	HeldAtMostSeconds  *float64          `json:"held_at_most_seconds"`
	HeldByGuestSeconds *float64          `json:"held_by_guest_seconds"`
	// SelfReleased is true when the guest let go by itself, by its own word or as found afterwards.
	SelfReleased bool `json:"self_released"`
	// ReleasedBy is the guest's own word for why it let go: deadman, link_lost, service_stop or system; rescue when it was
	// still held and had to be released from outside; empty when it did not, or was not heard of again.
	ReleasedBy    string `json:"released_by"`
	OverrunByStun bool   `json:"overrun_by_stun"`
	LinkLosses    int    `json:"link_losses"`
	// IOHeldSeconds is how long file-system writes were held inside CommitSnapshots, SetResult the HRESULT of the shadow
	// copy set in 8 hexadecimal digits; 0 and empty elsewhere (Windows).
	IOHeldSeconds float64  `json:"io_held_seconds"`
	SetResult     string   `json:"set_result"`
	RTTSeconds    float64  `json:"rtt_seconds"`
	Volumes       []string `json:"volumes"`
	// NotHeld are local file systems of the guest that were not part of the hold: the level does not speak of them.
	NotHeld []NotHeld `json:"not_held"`
	Phases  []Phase   `json:"phases"`
	// overBudget is true when the hold was longer than the budget.
	overBudget bool
}

// NotHeld is a file system that was not held, and why.
type NotHeld struct {
	Mount string `json:"mount"`
	FS    string `json:"fs"`
	Why   string `json:"why"`
}

// Phase is one phase; StartSeconds counts from the moment before GO, so what was prepared before is negative.
type Phase struct {
	Name            string  `json:"name"`
	StartSeconds    float64 `json:"start_seconds"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// Snap is the vSphere snapshot. TaskSeconds is the time vCenter says that it spent, 0 when it did not say.
type Snap struct {
	Name        string  `json:"name"`
	Moref       string  `json:"moref"`
	TaskSeconds float64 `json:"task_seconds"`
	Late        bool    `json:"late"`
	Removed     bool    `json:"removed"`
	// Road is whom the snapshot was asked of, RoadReason why, Host the ESXi host when it was that one's; all are empty when
	// the run ended before that was decided. Roads are what this VM's windows tell of both.
	Road       admission.SnapshotRoad `json:"road"`
	RoadReason string                 `json:"road_reason"`
	Host       string                 `json:"host"`
	Roads      []RoadTimes            `json:"roads"`
	// Kept is true when it was left on purpose: "stillframe recover --kept" removes it.
	Kept bool `json:"kept"`
}

// Guest is how we got in.
type Guest struct {
	Road string `json:"road"`
	// Start is what started the agent on that road.
	Start        string `json:"start"`
	Channel      string `json:"channel"`
	AgentVersion string `json:"agent_version"`
	OS           string `json:"os"`
	// BootID names this start of the guest; Session is the session with VSS writers that the run opened in it, null when it
	// opened none.
	BootID  string         `json:"boot_id"`
	Session *WriterSession `json:"writer_session"`
	// LostSets are the snapshot sets of other sessions that the guest's log says were never ended (event 12289).
	LostSets []string `json:"lost_snapshot_sets"`
	// Hooks are the guest's own programs that were run around the freeze, in their order.
	Hooks    []Hook    `json:"hooks"`
	Attempts []Attempt `json:"attempts"`
}

// Hook is how one of the guest's own programs went at one point: prepare, pre-freeze or post-thaw.
type Hook struct {
	Name        string  `json:"name"`
	Point       string  `json:"point"`
	OK          bool    `json:"ok"`
	HeldSeconds float64 `json:"held_seconds"`
	Required    bool    `json:"required"`
	Holds       bool    `json:"holds"`
	Error       string  `json:"error,omitempty"`
}

// Attempt is one try at one stage of one way into the guest.
type Attempt struct {
	Road  string `json:"road"`
	Start string `json:"start"`
	// Stage and Channel are empty for a way that was skipped.
	Stage   string `json:"stage"`
	Channel string `json:"channel"`
	OK      bool   `json:"ok"`
	Skipped bool   `json:"skipped"`
	// Class says what followed from the error: guest.Class.
	Class   string  `json:"class"`
	Code    string  `json:"code"`
	Text    string  `json:"text,omitempty"`
	Seconds float64 `json:"seconds"`
}

func newResult(p Plan) Result {
	r := Result{
		APIVersion: APIVersion, RunID: p.RunID, StartedAt: time.Now().UTC(), Outcome: Failed, DryRun: p.DryRun,
		Verdict:  Verdict{Level: freezewindow.Unproved, Reasons: []string{}},
		Window:   Window{BudgetSeconds: p.Budget.Hold.Seconds(), Phases: []Phase{}, Volumes: []string{}, NotHeld: []NotHeld{}},
		Snapshot: Snap{Name: p.SnapshotName(), Roads: []RoadTimes{}},
		Guest:    Guest{LostSets: []string{}, Hooks: []Hook{}, Attempts: []Attempt{}},
		Writers:  []Writer{}, Findings: []advice.Finding{}, Leftovers: []string{},
	}
	if p.Mover != nil {
		r.Mover = &Moved{State: MoveNotRun}
	}
	return r
}

// NotBegun is the result of a run that ended before it knew its VM.
func NotBegun(runID string, why error) Result {
	r := newResult(Plan{RunID: runID})
	r.Snapshot.Name = ""
	r.failure(why)
	return r
}

// OverBudget says whether a writer was, or may have been, held for longer than the budget, or the thaw had to be sent
// because the budget was spent.
func (r Result) OverBudget() bool {
	return r.Window.overBudget || r.Verdict.Cause == freezewindow.CauseStalled || r.Verdict.Cause == freezewindow.CauseSnapshotSlow || r.Verdict.Cause == freezewindow.CauseFreezeSlow ||
		r.Verdict.Cause == freezewindow.CauseNoTime
}

// report takes over what the window found.
func (r *Result) report(w freezewindow.Report, prepared time.Duration) {
	r.Verdict = Verdict{Level: w.Verdict.Level, Cause: w.Verdict.Cause, Reasons: w.Verdict.Reasons}
	r.Window.Mode = w.Mode
	r.Window.SelfReleased, r.Window.OverrunByStun, r.Window.LinkLosses = w.SelfReleased, w.OverrunByStun(), w.LinkLosses
	if w.Release.Expired {
		r.Window.ReleasedBy = w.Release.ExpiredBy
	}
	r.Window.overBudget = w.OverBudget()
	if w.HeldAtMostKnown {
		r.Window.HeldAtMostSeconds = new(w.HeldAtMost.Seconds())
	}
	if w.HeldByGuestKnown {
		r.Window.HeldByGuestSeconds = new(w.HeldByGuest.Seconds())
	}
	r.Window.Phases = []Phase{{"prepare", -prepared.Seconds(), prepared.Seconds()}}
	for _, p := range w.Phases {
		r.Window.Phases = append(r.Window.Phases, Phase{p.Name, p.Start.Seconds(), p.Duration.Seconds()})
	}
	r.Snapshot.Moref, r.Snapshot.Late = w.Snapshot.Moref, w.Late
	r.Snapshot.TaskSeconds = w.Timing.Task().Seconds()
	for _, h := range w.Release.Hooks {
		r.Guest.Hooks = append(r.Guest.Hooks, Hook{h.Name, h.Point, h.OK, h.Held.Seconds(), h.Required, h.Holds, h.Error})
	}
	r.writers(w.Release.Writers)
	r.Window.IOHeldSeconds, r.Window.SetResult = w.Release.IO.Seconds(), w.Release.SetResult
}

// find adds a finding.
func (r *Result) find(code string, evidence ...string) {
	r.Findings = append(r.Findings, advice.Explain(advice.Code(code), evidence...))
}
