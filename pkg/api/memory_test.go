package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/audit"
)

// Ids of what a fresh memory holds.
const (
	runOne = "0190a000-0000-7000-8000-000000000001"
	jobOne = "nightly"
	vmOne  = "0190b000-0000-7000-8000-000000000001"
	snapOf = "0190c000-0000-7000-8000-000000000001"
)

// memory is the daemon's part in plain maps. It counts what was changed.
type memory struct {
	mu        sync.Mutex
	jobs      map[string]Job
	runs      []Run // newest first
	vms       []VM
	snapshots []Snapshot
	tokens    []Token
	keys      map[string]Claim
	fired     map[string][]string
	faults    []Fault
	unready   []string
	changes   int
	cancelled []string
	started   []Start
	uses      int
	// fail is what every backend answers, if it is set.
	fail error
}

func newMemory() *memory {
	return &memory{
		jobs:      map[string]Job{jobOne: {ID: "1", Name: jobOne, Origin: "file", Enabled: true, Zone: "UTC", Spec: map[string]any{"level": "application"}}},
		runs:      []Run{{ID: runOne, Kind: "backup", Job: jobOne, VMID: vmOne, State: "running"}},
		vms:       []VM{{ID: vmOne, Name: "exch-01", Protection: Protection{State: "protected", Jobs: []string{jobOne}}}},
		snapshots: []Snapshot{{ID: snapOf, RunID: runOne, Name: "stillframe-" + runOne + "-1", State: "orphan"}},
		keys:      map[string]Claim{}, fired: map[string][]string{},
	}
}

func (m *memory) change(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.changes++
	return f()
}

func (m *memory) changed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

func (m *memory) Jobs(_ context.Context, _ Page) ([]Job, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Job
	for _, j := range m.jobs {
		all = append(all, j)
	}
	return all, "", m.fail
}

func (m *memory) Job(_ context.Context, name string) (Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[name]
	if !ok {
		return Job{}, ErrUnknown
	}
	return j, m.fail
}

func (m *memory) EnableJob(_ context.Context, name string, enabled bool) error {
	return m.change(func() error {
		j := m.jobs[name]
		j.Enabled = enabled
		m.jobs[name] = j
		return nil
	})
}

func (m *memory) FireJob(_ context.Context, name string, tick time.Time, _ string) ([]string, error) {
	var ids []string
	err := m.change(func() error {
		at := name + tick.Format(time.RFC3339Nano)
		if m.fired[at] == nil {
			m.fired[at] = []string{runOne}
		}
		ids = m.fired[at]
		return nil
	})
	return ids, err
}

func (m *memory) Runs(_ context.Context, f RunFilter, p Page) ([]Run, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Run
	skip := len(p.Cursor)
	for _, r := range m.runs {
		if f.Job != "" && r.Job != f.Job || f.State != "" && f.State != r.State {
			continue
		}
		if skip--; skip >= 0 {
			continue
		}
		if found = append(found, r); len(found) == p.Limit {
			return found, p.Cursor + strings.Repeat("x", p.Limit), m.fail
		}
	}
	return found, "", m.fail
}

func (m *memory) Run(_ context.Context, id string) (Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		if r.ID == id {
			return r, m.fail
		}
	}
	return Run{}, ErrUnknown
}

func (m *memory) Timeline(ctx context.Context, id string) ([]TimelineEvent, error) {
	_, err := m.Run(ctx, id)
	return []TimelineEvent{{Side: "guest", Kind: "frozen"}}, err
}

func (m *memory) Findings(ctx context.Context, id string) ([]Finding, error) {
	_, err := m.Run(ctx, id)
	return nil, err
}

func (m *memory) RunLog(ctx context.Context, id string) (io.ReadCloser, error) {
	_, err := m.Run(ctx, id)
	return io.NopCloser(strings.NewReader(strings.Repeat("{\"msg\":\"armed\"}\n", 10_000))), err
}

func (m *memory) StartRun(_ context.Context, s Start) error {
	return m.change(func() error {
		m.started = append(m.started, s)
		m.runs = append([]Run{{ID: s.RunID, Kind: s.Kind, VMID: s.VMID, State: "queued"}}, m.runs...)
		return nil
	})
}

func (m *memory) CancelRun(_ context.Context, id string) error {
	return m.change(func() error { m.cancelled = append(m.cancelled, id); return nil })
}

func (m *memory) Windows(context.Context) ([]Window, error) { return nil, m.fail }

func (m *memory) VMs(context.Context, VMFilter, Page) ([]VM, string, error) { return m.vms, "", m.fail }

func (m *memory) VM(_ context.Context, ref string) (VM, error) {
	for _, v := range m.vms {
		if v.ID == ref || v.Name == ref {
			return v, m.fail
		}
	}
	return VM{}, ErrUnknown
}

func (m *memory) History(context.Context, string, Page) ([]PastWindow, string, error) {
	return []PastWindow{{RunID: runOne}}, "", m.fail
}

func (m *memory) Coverage(context.Context) (Coverage, error) { return Coverage{Protected: 1}, m.fail }

func (m *memory) Snapshots(context.Context, SnapshotFilter, Page) ([]Snapshot, string, error) {
	return m.snapshots, "", m.fail
}

func (m *memory) Snapshot(_ context.Context, id string) (Snapshot, error) {
	if id != snapOf {
		return Snapshot{}, ErrUnknown
	}
	return m.snapshots[0], m.fail
}

func (m *memory) RemoveSnapshot(context.Context, string, string) error {
	return m.change(func() error { m.snapshots[0].State = "remove_requested"; return nil })
}

func (m *memory) Examine(_ context.Context, vm, _ string) ([]Check, error) {
	return []Check{{ID: "clock", Status: "ok", Title: vm}}, m.fail
}

func (m *memory) AddToken(_ context.Context, t Token) (Token, error) {
	t.ID = uuid.NewString()
	return t, m.change(func() error { m.tokens = append(m.tokens, t); return nil })
}

func (m *memory) Tokens(context.Context) ([]Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.tokens), m.fail
}

func (m *memory) UseToken(_ context.Context, sum string) (Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uses++
	for _, t := range m.tokens {
		if t.SHA256 == sum && t.RevokedAt == nil {
			return t, m.fail
		}
	}
	return Token{}, errors.Join(ErrUnknown, m.fail)
}

func (m *memory) RevokeToken(_ context.Context, id string) error {
	return m.change(func() error {
		now := time.Now()
		for i := range m.tokens {
			if m.tokens[i].ID == id {
				m.tokens[i].RevokedAt = &now
			}
		}
		return nil
	})
}

func (m *memory) ClaimKey(_ context.Context, c Claim) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kept, ok := m.keys[c.Key]; ok {
		return kept, nil
	}
	m.keys[c.Key] = c
	return c, nil
}

func (m *memory) ReloadConfig(context.Context) (Reloaded, []Fault, error) {
	err := m.change(func() error { return nil })
	return Reloaded{Changed: []string{"jobs"}}, m.faults, err
}

func (m *memory) Unready(context.Context) []string { return m.unready }

func (m *memory) backends(trail *audit.Log) Backends {
	return Backends{
		Jobs: m, Runs: m, Work: m, VMs: m, Snapshots: m, Doctor: m, Tokens: m, Keys: m, Config: m, Health: m, Audit: trail, Feed: NewFeed(),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "stillframe_build_info 1\n") }), //nolint:errcheck // a test's answer
	}
}
