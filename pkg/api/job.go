package api

import (
	"context"
	"net/http"
	"time"
)

// Job is one job.
type Job struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Origin is file for a job of the configuration, which is changed there only.
	Origin  string `json:"origin" enum:"file,api"`
	Enabled bool   `json:"enabled" doc:"False while paused"`
	// Revision rises with each change.
	Revision int64  `json:"revision"`
	Schedule string `json:"schedule" doc:"As it is configured; empty for a job that is only started by hand"`
	Zone     string `json:"zone"`
	Priority int    `json:"priority"`
	// Ticks are civil times of the job's zone, given as instants.
	NextRunAt    *time.Time `json:"next_run_at,omitempty"`
	LastFiredFor *time.Time `json:"last_fired_for,omitempty"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	// Spec is the job as it is configured; secrets are references in it.
	Spec map[string]any `json:"spec,omitempty" doc:"Only when one job is asked for"`
}

// Fired is what a start of a whole job made.
type Fired struct {
	Job string `json:"job"`
	// ScheduledFor is the tick that the runs belong to.
	ScheduledFor time.Time `json:"scheduled_for"`
	RunIDs       []string  `json:"run_ids" nullable:"false"`
}

// Jobs reads and switches jobs.
type Jobs interface {
	// Jobs lists by name; it gives the cursor of what follows, empty at the end.
	Jobs(ctx context.Context, p Page) ([]Job, string, error)
	// Job gives one, or ErrUnknown.
	Job(ctx context.Context, name string) (Job, error)
	// EnableJob lets the schedule fire or not; it never starts anything.
	EnableJob(ctx context.Context, name string, enabled bool) error
	// FireJob makes the runs of one tick and gives their ids; the same tick again makes no second ones. By names who asked.
	FireJob(ctx context.Context, name string, tick time.Time, by string) ([]string, error)
}

type jobName struct {
	Name string `path:"name" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
}

// Parameters are never in an embedded struct whose name is not exported: huma would leave them out without a word.
type fireJob struct {
	Name string `path:"name" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
	Key  string `header:"Idempotency-Key" required:"true" minLength:"8" maxLength:"128" doc:"New for each new request, the same to repeat one; a UUID serves well"`
}

func (s *Server) jobRoutes() {
	handle(s, operation{id: "jobs:list", method: http.MethodGet, path: "/jobs", summary: "List jobs"},
		func(ctx context.Context, in *Page) (*body[List[Job]], error) {
			return listed(s.b.Jobs.Jobs(ctx, *in))
		})
	handle(s, operation{id: "jobs:get", method: http.MethodGet, path: "/jobs/{name}", summary: "Show one job"},
		func(ctx context.Context, in *jobName) (*body[Job], error) {
			return answered(s.b.Jobs.Job(ctx, in.Name))
		})
	handle(s, operation{
		id: "jobs:run", method: http.MethodPost, path: "/jobs/{name}:run", summary: "Start a job now", status: http.StatusAccepted,
		about: "Makes one run for each VM of the job. The same Idempotency-Key again starts nothing and gives the same runs.",
	}, s.fireJob)
	handle(s, operation{id: "jobs:pause", method: http.MethodPost, path: "/jobs/{name}:pause", summary: "Let a job's schedule rest", status: http.StatusOK},
		func(ctx context.Context, in *jobName) (*body[Job], error) {
			return s.enable(ctx, "jobs:pause", in.Name, false)
		})
	handle(s, operation{id: "jobs:resume", method: http.MethodPost, path: "/jobs/{name}:resume", summary: "Let a job's schedule fire again", status: http.StatusOK},
		func(ctx context.Context, in *jobName) (*body[Job], error) {
			return s.enable(ctx, "jobs:resume", in.Name, true)
		})
}

func (s *Server) enable(ctx context.Context, what, name string, enabled bool) (*body[Job], error) {
	job, err := s.b.Jobs.Job(ctx, name)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, what, "job "+job.Name, "", func(ctx context.Context) error {
		if err := s.b.Jobs.EnableJob(ctx, job.Name, enabled); err != nil {
			return err
		}
		job, err = s.b.Jobs.Job(ctx, job.Name)
		return err
	})
	return answered(job, err)
}

func (s *Server) fireJob(ctx context.Context, in *fireJob) (*body[Fired], error) {
	job, err := s.b.Jobs.Job(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	claim, _, err := s.claim(ctx, in.Key, "jobs:run", job.Name)
	if err != nil {
		return nil, err
	}
	fired := Fired{Job: job.Name, ScheduledFor: claim.At}
	err = s.change(ctx, "jobs:run", "job "+job.Name, "", func(ctx context.Context) error {
		runs, err := s.b.Jobs.FireJob(ctx, job.Name, claim.At, callerOf(ctx).Name)
		fired.RunIDs = orEmpty(runs)
		return err
	})
	return answered(fired, err)
}
