package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// Run is one run of one VM.
type Run struct {
	ID        string `json:"id"`
	Kind      string `json:"kind" doc:"backup, restore, verify"`
	JobID     string `json:"job_id"`
	Job       string `json:"job" doc:"Empty for a run that belongs to no job"`
	VMID      string `json:"vm_id"`
	VM        string `json:"vm"`
	VCenterID string `json:"vcenter_id"`
	// ScheduledFor is the tick that the run belongs to.
	ScheduledFor *time.Time `json:"scheduled_for,omitempty"`
	Trigger      string     `json:"trigger" doc:"schedule, catch_up, manual"`
	RequestedBy  string     `json:"requested_by" doc:"Who asked for it; empty when nobody did"`
	State        string     `json:"state" doc:"queued, running, compensating, done, failed, cancelled, skipped"`
	Phase        string     `json:"phase"`
	Epoch        int64      `json:"epoch"`
	Attempt      int        `json:"attempt"`
	Priority     int        `json:"priority"`
	// NextAttemptAt is when it is tried again; empty when it is not.
	NextAttemptAt   *time.Time `json:"next_attempt_at,omitempty"`
	CancelRequested bool       `json:"cancel_requested"`
	// Level is the consistency that was proved, Mode where the guest waited, Outcome how it ended under its policy.
	Level       string     `json:"level"`
	Mode        string     `json:"mode"`
	Outcome     string     `json:"outcome" doc:"ok, degraded, failed, aborted; empty before the end"`
	Cause       string     `json:"cause"`
	ErrorCode   string     `json:"error_code"`
	BytesRead   int64      `json:"bytes_read"`
	BytesStored int64      `json:"bytes_stored"`
	CreatedAt   time.Time  `json:"created_at"`
	StartedAt   *time.Time `json:"started_at,omitempty"`
	FinishedAt  *time.Time `json:"finished_at,omitempty"`
	// Report is the whole truth about the run, as "stillframe run -o json" prints it.
	Report map[string]any `json:"report,omitempty" doc:"Only when one run is asked for"`
}

// RunFilter says which runs are wanted; what is empty does not matter.
type RunFilter struct {
	Job        string `query:"job" maxLength:"64" doc:"Name of the job"`
	VM         string `query:"vm" maxLength:"128" doc:"Id of the VM"`
	VCenter    string `query:"vcenter" maxLength:"64"`
	State      string `query:"state" enum:"queued,running,compensating,done,failed,cancelled,skipped"`
	Unfinished bool   `query:"unfinished" doc:"Only those that have not ended"`
}

// Kinds of runs that can be started by hand.
const (
	KindBackup       = "backup"
	KindWindowOnly   = "window_only"
	KindDryRun       = "dry_run"
	KindDryRunFreeze = "dry_run_freeze"
	KindDifferential = "differential"
)

// Order asks for one run.
type Order struct {
	_    struct{} `additionalProperties:"false"`
	VM   string   `json:"vm" minLength:"1" maxLength:"512" doc:"Id, inventory path, moref, instance UUID or name of the VM"`
	Job  string   `json:"job,omitempty" maxLength:"64" doc:"The job whose policy counts; without it the defaults do"`
	Kind string   `json:"kind,omitempty" enum:"backup,window_only,dry_run,dry_run_freeze,differential" default:"backup" doc:"backup; window_only: freeze, snapshot, thaw, remove; dry_run: preflight only; dry_run_freeze: freeze and thaw without a snapshot; differential: VSS alone, snapshot alone, both"`
	// IgnoreWindows starts it outside the backup windows, too.
	IgnoreWindows bool `json:"ignore_windows,omitempty"`
}

// Start is an order whose names were resolved.
type Start struct {
	// RunID is the id of the run to make. If there is one by that id, Start is repeated and makes no second.
	RunID         string
	VMID, Job     string
	Kind          string
	IgnoreWindows bool
	// By names who asked.
	By string
}

// Accepted is the answer to an order.
type Accepted struct {
	RunID string `json:"run_id"`
}

// TimelineEvent is one thing that happened in a run. MonoSeconds counts from GO by the clock of the side that saw it; clocks of two
// sides are never subtracted.
type TimelineEvent struct {
	At          time.Time `json:"at"`
	MonoSeconds float64   `json:"mono_seconds"`
	Side        string    `json:"side" enum:"orchestrator,guest,vcenter"`
	Kind        string    `json:"kind"`
	Detail      string    `json:"detail"`
}

// Finding is what an operator reads about one failure.
type Finding struct {
	Code     string   `json:"code"`
	Title    string   `json:"title"`
	Evidence []string `json:"evidence" nullable:"false"`
	Next     []string `json:"next" nullable:"false"`
}

// Runs reads runs.
type Runs interface {
	// Runs lists, the newest first; it gives the cursor of what follows, empty at the end.
	Runs(ctx context.Context, f RunFilter, p Page) ([]Run, string, error)
	// Run gives one, or ErrUnknown, as all that follow.
	Run(ctx context.Context, id string) (Run, error)
	Timeline(ctx context.Context, id string) ([]TimelineEvent, error)
	Findings(ctx context.Context, id string) ([]Finding, error)
	// RunLog opens the run's log, lines of JSON. The caller closes it.
	RunLog(ctx context.Context, id string) (io.ReadCloser, error)
}

// Work starts and ends runs.
type Work interface {
	// StartRun makes a run. ErrConflict: the VM has an active one. ErrNotReady: no new work is taken.
	StartRun(ctx context.Context, s Start) error
	// CancelRun asks a run to end: a guest that is held is thawed first. A run that ended before is ErrConflict.
	CancelRun(ctx context.Context, id string) error
	// Windows are the freeze windows that are open now.
	Windows(ctx context.Context) ([]Window, error)
}

type runID struct {
	ID string `path:"id" format:"uuid"`
}

type listRuns struct {
	RunFilter
	Page
}

type startRun struct {
	Key  string `header:"Idempotency-Key" required:"true" minLength:"8" maxLength:"128" doc:"New for each new request, the same to repeat one; a UUID serves well"`
	Body Order
}

type startedRun struct {
	Location string `header:"Location"`
	Body     Accepted
}

func (s *Server) runRoutes() {
	handle(s, operation{id: "runs:list", method: http.MethodGet, path: "/runs", summary: "List runs, the newest first"},
		func(ctx context.Context, in *listRuns) (*body[List[Run]], error) {
			return listed(s.b.Runs.Runs(ctx, in.RunFilter, in.Page))
		})
	handle(s, operation{
		id: "runs:start", method: http.MethodPost, path: "/runs", summary: "Start a run of one VM", status: http.StatusAccepted,
		about: "The same Idempotency-Key with the same body starts nothing and gives the same answer; with another body it is refused.",
	}, s.startRun)
	handle(s, operation{id: "runs:get", method: http.MethodGet, path: "/runs/{id}", summary: "Show one run"},
		func(ctx context.Context, in *runID) (*body[Run], error) { return answered(s.b.Runs.Run(ctx, in.ID)) })
	handle(s, operation{
		id: "runs:cancel", method: http.MethodPost, path: "/runs/{id}:cancel", summary: "End a run in good order", status: http.StatusAccepted,
		about: "A guest that is held is thawed first. This is done even when the audit log cannot be written.",
	}, s.cancelRun)
	handle(s, operation{id: "runs:timeline", method: http.MethodGet, path: "/runs/{id}/timeline", summary: "What happened in a run, in order"},
		func(ctx context.Context, in *runID) (*body[List[TimelineEvent]], error) {
			events, err := s.b.Runs.Timeline(ctx, in.ID)
			return listed(events, "", err)
		})
	handle(s, operation{id: "runs:findings", method: http.MethodGet, path: "/runs/{id}/findings", summary: "What went wrong in a run and what to do"},
		func(ctx context.Context, in *runID) (*body[List[Finding]], error) {
			findings, err := s.b.Runs.Findings(ctx, in.ID)
			for i := range findings {
				findings[i].Evidence, findings[i].Next = orEmpty(findings[i].Evidence), orEmpty(findings[i].Next)
			}
			return listed(findings, "", err)
		})
	handle(s, operation{id: "runs:log", method: http.MethodGet, path: "/runs/{id}/log", summary: "The log of a run, as lines of JSON"}, s.runLog)
	ok := s.huma.OpenAPI().Paths[Prefix+"/runs/{id}/log"].Get.Responses["200"]
	ok.Content = map[string]*huma.MediaType{"application/x-ndjson": {Schema: &huma.Schema{Type: huma.TypeString}}}
}

func (s *Server) startRun(ctx context.Context, in *startRun) (*startedRun, error) {
	vm, err := s.b.VMs.VM(ctx, in.Body.VM)
	if errors.Is(err, ErrUnknown) {
		return nil, invalid(Fault{"body.vm", "there is no such VM, or there are several by that name"})
	}
	if err != nil {
		return nil, err
	}
	object, reason := "vm "+vm.ID, in.Body.Kind
	if in.Body.Job != "" {
		job, err := s.b.Jobs.Job(ctx, in.Body.Job)
		if errors.Is(err, ErrUnknown) {
			return nil, invalid(Fault{"body.job", "there is no such job"})
		}
		if err != nil {
			return nil, err
		}
		object += " job " + job.Name
	}
	if in.Body.IgnoreWindows {
		reason += ", outside the backup windows too"
	}
	claim, repeated, err := s.claim(ctx, in.Key, "runs:start", in.Body)
	if err != nil {
		return nil, err
	}
	answer := &startedRun{Prefix + "/runs/" + claim.RunID, Accepted{claim.RunID}}
	if repeated {
		if _, err := s.b.Runs.Run(ctx, claim.RunID); !errors.Is(err, ErrUnknown) {
			return answer, err
		}
	}
	err = s.change(ctx, "runs:start", object+" run "+claim.RunID, reason, func(ctx context.Context) error {
		return s.b.Work.StartRun(ctx, Start{
			RunID: claim.RunID, VMID: vm.ID, Job: in.Body.Job, Kind: in.Body.Kind, IgnoreWindows: in.Body.IgnoreWindows, By: callerOf(ctx).Name,
		})
	})
	return answer, err
}

func (s *Server) cancelRun(ctx context.Context, in *runID) (*body[Accepted], error) {
	run, err := s.b.Runs.Run(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	err = s.release(ctx, "runs:cancel", "run "+run.ID, func(ctx context.Context) error { return s.b.Work.CancelRun(ctx, run.ID) })
	return answered(Accepted{run.ID}, err)
}

// chunk is how much of a log is sent under one write deadline.
const chunk = 64 << 10

func (s *Server) runLog(ctx context.Context, in *runID) (*huma.StreamResponse, error) {
	log, err := s.b.Runs.RunLog(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(h huma.Context) { //nolint:contextcheck // h has the context of the request; ours ends with this function
		h.SetHeader("Content-Type", "application/x-ndjson")
		h.SetStatus(http.StatusOK)
		var err error
		for err == nil {
			extend(h.Context(), answerLimit)
			_, err = io.CopyN(h.BodyWriter(), log, chunk)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err := errors.Join(err, log.Close()); err != nil {
			s.log.Debug("log of a run not sent to its end", zap.String("run", in.ID), zap.Error(err))
		}
	}}, nil
}
