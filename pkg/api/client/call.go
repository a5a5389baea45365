package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/stillframe/stillframe/pkg/api"
)

// Jobs lists all jobs.
func (c *Client) Jobs(ctx context.Context) ([]api.Job, error) {
	return list[api.Job](ctx, c, url.Values{}, 0, "jobs")
}

// Job gives one job.
func (c *Client) Job(ctx context.Context, name string) (api.Job, error) {
	return get[api.Job](ctx, c, nil, "jobs", name)
}

// FireJob starts all VMs of a job. The key makes it safe to repeat.
func (c *Client) FireJob(ctx context.Context, name, key string) (api.Fired, error) {
	return call[api.Fired](ctx, c, request{method: http.MethodPost, path: join([]string{"jobs", name + ":run"}), key: key})
}

// EnableJob resumes or pauses a job's schedule.
func (c *Client) EnableJob(ctx context.Context, name string, enabled bool) (api.Job, error) {
	verb := ":pause"
	if enabled {
		verb = ":resume"
	}
	return call[api.Job](ctx, c, request{method: http.MethodPost, path: join([]string{"jobs", name + verb})})
}

// Runs lists runs, the newest first, up to limit; 0 means all.
func (c *Client) Runs(ctx context.Context, f api.RunFilter, limit int) ([]api.Run, error) {
	q := url.Values{}
	set(q, "job", f.Job)
	set(q, "vm", f.VM)
	set(q, "vcenter", f.VCenter)
	set(q, "state", f.State)
	if f.Unfinished {
		q.Set("unfinished", "true")
	}
	return list[api.Run](ctx, c, q, limit, "runs")
}

// Run gives one run with its report.
func (c *Client) Run(ctx context.Context, id string) (api.Run, error) {
	return get[api.Run](ctx, c, nil, "runs", id)
}

// StartRun starts a run of one VM. The key makes it safe to repeat.
func (c *Client) StartRun(ctx context.Context, o api.Order, key string) (api.Accepted, error) {
	return call[api.Accepted](ctx, c, request{method: http.MethodPost, path: join([]string{"runs"}), key: key, body: o})
}

// CancelRun ends a run in good order: a guest that is held is thawed first.
func (c *Client) CancelRun(ctx context.Context, id string) error {
	_, err := call[api.Accepted](ctx, c, request{method: http.MethodPost, path: join([]string{"runs", id + ":cancel"})})
	return err
}

// Timeline is what happened in a run.
func (c *Client) Timeline(ctx context.Context, id string) ([]api.TimelineEvent, error) {
	part, err := get[api.List[api.TimelineEvent]](ctx, c, nil, "runs", id, "timeline")
	return part.Items, err
}

// Findings is what went wrong in a run.
func (c *Client) Findings(ctx context.Context, id string) ([]api.Finding, error) {
	part, err := get[api.List[api.Finding]](ctx, c, nil, "runs", id, "findings")
	return part.Items, err
}

// RunLog opens the log of a run, lines of JSON. The caller closes it.
func (c *Client) RunLog(ctx context.Context, id string) (io.ReadCloser, error) {
	answer, err := c.send(ctx, request{method: http.MethodGet, path: join([]string{"runs", id, "log"})}, nil)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// VMs lists VMs.
func (c *Client) VMs(ctx context.Context, f api.VMFilter) ([]api.VM, error) {
	q := url.Values{}
	set(q, "vcenter", f.VCenter)
	set(q, "job", f.Job)
	set(q, "protection", f.Protection)
	set(q, "name", f.Name)
	return list[api.VM](ctx, c, q, 0, "vms")
}

// VM gives one VM by its id.
func (c *Client) VM(ctx context.Context, id string) (api.VM, error) {
	return get[api.VM](ctx, c, nil, "vms", id)
}

// History lists the windows of a VM, the newest first, up to limit; 0 means all.
func (c *Client) History(ctx context.Context, id string, limit int) ([]api.PastWindow, error) {
	return list[api.PastWindow](ctx, c, url.Values{}, limit, "vms", id, "history")
}

// Coverage counts VMs by their protection.
func (c *Client) Coverage(ctx context.Context) (api.Coverage, error) {
	return get[api.Coverage](ctx, c, nil, "protection")
}

// Windows lists the windows that are open now.
func (c *Client) Windows(ctx context.Context) ([]api.Window, error) {
	part, err := get[api.List[api.Window]](ctx, c, nil, "windows")
	return part.Items, err
}

// Snapshots lists the ledger.
func (c *Client) Snapshots(ctx context.Context, f api.SnapshotFilter) ([]api.Snapshot, error) {
	q := url.Values{}
	set(q, "vcenter", f.VCenter)
	set(q, "vm", f.VM)
	set(q, "state", strings.Join(f.States, ","))
	if f.Orphans {
		q.Set("orphans", "true")
	}
	return list[api.Snapshot](ctx, c, q, 0, "snapshots")
}

// RemoveSnapshot removes one snapshot that the run made.
func (c *Client) RemoveSnapshot(ctx context.Context, id, run string) (api.Snapshot, error) {
	return call[api.Snapshot](ctx, c, request{method: http.MethodDelete, path: join([]string{"snapshots", id}), query: url.Values{"run": {run}}})
}

// Examine asks the doctor about a VM, or about the installation if vm is empty.
func (c *Client) Examine(ctx context.Context, vm, road string) (api.Examination, error) {
	q := url.Values{}
	set(q, "vm", vm)
	set(q, "road", road)
	return get[api.Examination](ctx, c, q, "doctor")
}

// Tokens lists tokens.
func (c *Client) Tokens(ctx context.Context) ([]api.Token, error) {
	part, err := get[api.List[api.Token]](ctx, c, nil, "tokens")
	return part.Items, err
}

// CreateToken makes a token; its secret is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, t api.NewToken) (api.IssuedToken, error) {
	return call[api.IssuedToken](ctx, c, request{method: http.MethodPost, path: join([]string{"tokens"}), body: t})
}

// RevokeToken makes a token invalid.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodDelete, path: join([]string{"tokens", id})})
	return err
}

// Audit lists the audit log, the newest first, up to limit; 0 means all.
func (c *Client) Audit(ctx context.Context, limit int) ([]api.AuditEntry, error) {
	return list[api.AuditEntry](ctx, c, url.Values{}, limit, "audit")
}

// ReloadConfig lets the daemon read its configuration anew. Mistakes in it are in the *api.Problem.
func (c *Client) ReloadConfig(ctx context.Context) (api.Reloaded, error) {
	return call[api.Reloaded](ctx, c, request{method: http.MethodPost, path: join([]string{"config:reload"})})
}

// Metrics gives what Prometheus reads.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := c.send(ctx, request{method: http.MethodGet, path: "/metrics"}, nil)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return text, errors.Join(err, answer.Body.Close())
}

// Readiness says whether the daemon does its work, and if not, why.
func (c *Client) Readiness(ctx context.Context) (api.Readiness, error) {
	var r api.Readiness
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stillframe/readyz", nil)
	if err != nil {
		return r, err
	}
	answer, err := c.http.Do(req) // not ready is an answer here, not an error
	if err != nil {
		return r, &UnreachableError{c.socket, err}
	}
	return r, errors.Join(json.NewDecoder(io.LimitReader(answer.Body, maxProblem)).Decode(&r), answer.Body.Close())
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
