package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
)

// Jobs lists by name. The cursor is the name of the last one.
func (b backends) Jobs(ctx context.Context, p api.Page) ([]api.Job, string, error) {
	all, err := b.catalog.Jobs(ctx)
	if err != nil {
		return nil, "", err
	}
	// The database may sort names otherwise than Go does, and the cursor needs one order.
	slices.SortFunc(all, func(a, b catalog.Job) int { return strings.Compare(a.Name, b.Name) })
	after, err := textOfCursor(p.Cursor)
	if err != nil {
		return nil, "", err
	}
	jobs := []api.Job{}
	for _, j := range all {
		if p.Cursor != "" && j.Name <= after {
			continue
		}
		if len(jobs) == p.Limit {
			return jobs, cursorOf(jobs[len(jobs)-1].Name), nil
		}
		jobs = append(jobs, jobOf(j))
	}
	return jobs, "", nil
}

// Job gives one with what is configured of it.
func (b backends) Job(ctx context.Context, name string) (api.Job, error) {
	j, err := b.catalog.Job(ctx, name)
	if err != nil {
		return api.Job{}, translated(err)
	}
	job := jobOf(j)
	if err := json.Unmarshal(j.Spec, &job.Spec); err != nil {
		return api.Job{}, fmt.Errorf("read job %s: %w", j.Name, err)
	}
	return job, nil
}

func jobOf(j catalog.Job) api.Job {
	job := api.Job{
		ID: j.ID, Name: j.Name, Origin: string(j.Origin), Enabled: j.Enabled, Revision: j.Revision, Priority: j.Priority,
		LastFiredFor: when(j.LastFired), CreatedAt: j.Created, UpdatedAt: j.Updated,
	}
	if j.Enabled {
		job.NextRunAt = when(j.Next)
	}
	if s := scheduleOf(j); s != nil {
		job.Schedule, job.Zone = s.Text(), s.Zone
	}
	return job
}

// scheduleOf is the schedule of a job; nil when it is started by hand only, or nobody can read what is written of it.
func scheduleOf(j catalog.Job) *config.Schedule {
	var spec struct {
		Schedule *config.Schedule `json:"schedule"`
	}
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		return nil
	}
	return spec.Schedule
}

// EnableJob lets the schedule fire or not.
func (b backends) EnableJob(ctx context.Context, name string, enabled bool) error {
	return translated(b.daemon.Enable(ctx, name, enabled))
}

// FireJob makes the runs of one tick. What became of them is read, so that the second answer to one request is the first.
func (b backends) FireJob(ctx context.Context, name string, tick time.Time, by string) (runs []string, err error) {
	if err := b.daemon.Fire(ctx, name, tick, by); err != nil {
		return nil, translated(err)
	}
	j, err := b.catalog.Job(ctx, name)
	if err != nil {
		return nil, translated(err)
	}
	return b.catalog.RunsOfTick(ctx, j.ID, tick)
}
