package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
)

// cursorOf makes a cursor of a text that may hold what a cursor may not, textOfCursor reads it again.
func cursorOf(text string) string { return base64.URLEncoding.EncodeToString([]byte(text)) }

func textOfCursor(c string) (string, error) {
	text, err := base64.URLEncoding.DecodeString(c)
	if err != nil {
		return "", api.ErrCursor
	}
	return string(text), nil
}

// Runs lists, the newest first. The cursor is the id of the last one.
func (b backends) Runs(ctx context.Context, f api.RunFilter, p api.Page) ([]api.Run, string, error) {
	filter := catalog.RunFilter{VMID: f.VM, VCenter: f.VCenter, State: catalog.State(f.State), Unfinished: f.Unfinished, Limit: p.Limit + 1}
	if f.Job != "" {
		j, err := b.catalog.Job(ctx, f.Job)
		if err != nil {
			return nil, "", translated(err)
		}
		filter.JobID = j.ID
	}
	var err error
	if filter.Before, err = b.before(ctx, p); err != nil {
		return nil, "", err
	}
	found, err := b.catalog.Runs(ctx, filter)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(found) > p.Limit {
		found = found[:p.Limit]
		next = found[p.Limit-1].ID
	}
	runs, err := b.runsOf(ctx, found...)
	return runs, next, err
}

// before is the run that a part of a list begins after.
func (b backends) before(ctx context.Context, p api.Page) (catalog.Run, error) {
	if p.Cursor == "" {
		return catalog.Run{}, nil
	}
	r, err := b.catalog.Run(ctx, p.Cursor)
	return r, cursor(err)
}

// Run gives one with its report.
func (b backends) Run(ctx context.Context, id string) (api.Run, error) {
	r, err := b.catalog.Run(ctx, id)
	if err != nil {
		return api.Run{}, translated(err)
	}
	runs, err := b.runsOf(ctx, r)
	if err != nil {
		return api.Run{}, err
	}
	if len(r.Report) > 0 {
		if err := json.Unmarshal(r.Report, &runs[0].Report); err != nil {
			return api.Run{}, fmt.Errorf("read the report of run %s: %w", id, err)
		}
	}
	return runs[0], nil
}

// runsOf adds the names of jobs and VMs.
func (b backends) runsOf(ctx context.Context, found ...catalog.Run) ([]api.Run, error) {
	ofJobs, ofVMs := map[string]bool{}, map[string]bool{}
	var jobIDs, vmIDs []string
	for _, r := range found {
		if r.JobID != "" && !ofJobs[r.JobID] {
			ofJobs[r.JobID] = true
			jobIDs = append(jobIDs, r.JobID)
		}
		if !ofVMs[r.VMID] {
			ofVMs[r.VMID] = true
			vmIDs = append(vmIDs, r.VMID)
		}
	}
	jobs, err := b.catalog.JobNames(ctx, jobIDs)
	if err != nil {
		return nil, err
	}
	vms, err := b.catalog.VMNames(ctx, vmIDs)
	if err != nil {
		return nil, err
	}
	runs := make([]api.Run, 0, len(found))
	for _, r := range found {
		runs = append(runs, api.Run{
			ID: r.ID, Kind: string(r.Kind), JobID: r.JobID, Job: jobs[r.JobID], VMID: r.VMID, VM: vms[r.VMID], VCenterID: r.VCenter,
			ScheduledFor: when(r.ScheduledFor), Trigger: string(r.Trigger), RequestedBy: r.RequestedBy, State: string(r.State), Phase: r.Phase,
			Epoch: r.Epoch, Attempt: r.Attempt, Priority: r.Priority, NextAttemptAt: nextAttempt(r), CancelRequested: r.CancelRequested,
			Level: string(r.Level), Mode: string(r.Mode), Outcome: r.Outcome, Cause: r.Cause, ErrorCode: r.ErrorCode,
			BytesRead: r.BytesRead, BytesStored: r.BytesStored, CreatedAt: r.Created, StartedAt: when(r.Started), FinishedAt: when(r.Finished),
		})
	}
	return runs, nil
}

// settled says whether nothing is to be done for a run any more.
func settled(s catalog.State) bool {
	return s != catalog.Queued && s != catalog.Running && s != catalog.Compensating
}

// nextAttempt is empty for a run that is not tried again.
func nextAttempt(r catalog.Run) *time.Time {
	if r.State == catalog.Queued {
		return when(r.NextAttempt)
	}
	return nil
}

// Timeline is what was seen of a run's windows.
func (b backends) Timeline(ctx context.Context, id string) ([]api.TimelineEvent, error) {
	if _, err := b.catalog.Run(ctx, id); err != nil {
		return nil, translated(err)
	}
	events, err := b.catalog.Events(ctx, id)
	all := make([]api.TimelineEvent, 0, len(events))
	for _, e := range events {
		all = append(all, api.TimelineEvent{At: e.At, MonoSeconds: e.Mono.Seconds(), Side: e.Side, Kind: e.Kind, Detail: e.Detail})
	}
	return all, err
}

// Findings are those of the run's report. A run that failed without one is explained by its code.
func (b backends) Findings(ctx context.Context, id string) ([]api.Finding, error) {
	r, err := b.catalog.Run(ctx, id)
	if err != nil {
		return nil, translated(err)
	}
	var report struct {
		Findings []advice.Finding `json:"findings"`
	}
	if len(r.Report) > 0 {
		if err := json.Unmarshal(r.Report, &report); err != nil {
			return nil, fmt.Errorf("read the report of run %s: %w", id, err)
		}
	}
	if len(report.Findings) == 0 && r.ErrorCode != "" {
		report.Findings = []advice.Finding{advice.Explain(advice.Code(r.ErrorCode), r.Cause)}
	}
	all := make([]api.Finding, 0, len(report.Findings))
	for _, f := range report.Findings {
		all = append(all, api.Finding{Code: string(f.Code), Title: f.Title, Evidence: f.Evidence, Next: f.Next})
	}
	return all, nil
}

// RunLog opens the log of a run. One that wrote nothing, or on another node, has none here.
func (b backends) RunLog(ctx context.Context, id string) (io.ReadCloser, error) {
	if _, err := b.catalog.Run(ctx, id); err != nil {
		return nil, translated(err)
	}
	file, err := os.Open(runLogPath(runLogDir(b.daemon.Config().Store.StateDir), id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", api.ErrUnknown, err)
	}
	return file, err
}
