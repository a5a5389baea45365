package api

import (
	"context"
	"net/http"
	"time"
)

// VM is one virtual machine and how well it is protected.
type VM struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Path         string `json:"path"`
	VCenterID    string `json:"vcenter_id"`
	Moref        string `json:"moref"`
	InstanceUUID string `json:"instance_uuid"`
	GuestFamily  string `json:"guest_family"`
	Road         string `json:"road" doc:"How its agent was reached last"`
	// WindowP95Seconds is the p95 of its last holds; empty when there are too few.
	WindowP95Seconds    *float64   `json:"window_p95_seconds,omitempty"`
	ConsecutiveFailures int        `json:"consecutive_failures"`
	FirstSeenAt         time.Time  `json:"first_seen_at"`
	SeenAt              time.Time  `json:"seen_at"`
	Protection          Protection `json:"protection"`
	Sessions            Sessions   `json:"writer_sessions"`
}

// Protection is what a VM could be restored to.
type Protection struct {
	State string   `json:"state" enum:"protected,unprotected,excluded,overdue"`
	Jobs  []string `json:"jobs" nullable:"false" doc:"Names of the jobs that take it"`
	// ExcludedBy is a job that would take it, but for its exclusions.
	ExcludedBy string `json:"excluded_by,omitempty" doc:"A job that would take it, but for its exclusions"`
	// The last point of all, its level, and the last one that applications agreed to.
	LastPointAt              *time.Time `json:"last_point_at,omitempty"`
	LastPointLevel           string     `json:"last_point_level"`
	LastApplicationAt        *time.Time `json:"last_application_consistent_at,omitempty"`
	DaysSinceApplicationCons *float64   `json:"days_since_application_consistent,omitempty"`
}

// Sessions are the VSS writer sessions of a VM: Windows refuses more than 64 that were left open (event 12289).
type Sessions struct {
	Open   int `json:"open"`
	Leaked int `json:"leaked"`
	// RunsLeft is how many runs fit before the limit at the present rate; empty when nothing leaks.
	RunsLeft *int `json:"runs_left,omitempty"`
}

// VMFilter says which VMs are wanted.
type VMFilter struct {
	VCenter    string `query:"vcenter" maxLength:"64"`
	Job        string `query:"job" maxLength:"64" doc:"Name of a job that takes them"`
	Protection string `query:"protection" enum:"protected,unprotected,excluded,overdue"`
	Name       string `query:"name" maxLength:"256" doc:"Part of the name"`
}

// PastWindow is one window of a VM's history.
type PastWindow struct {
	RunID           string    `json:"run_id"`
	At              time.Time `json:"at"`
	Level           string    `json:"level"`
	Mode            string    `json:"mode"`
	Result          string    `json:"result"`
	ErrorCode       string    `json:"error_code"`
	HeldSeconds     *float64  `json:"held_seconds,omitempty" doc:"The longer of the guest's measure and our bound"`
	BudgetSeconds   float64   `json:"budget_seconds"`
	SnapshotSeconds *float64  `json:"snapshot_seconds,omitempty"`
	Phases          []Phase   `json:"phases" nullable:"false"`
}

// Phase is one phase of a window. StartSeconds counts from GO.
type Phase struct {
	Name            string  `json:"name"`
	StartSeconds    float64 `json:"start_seconds"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// Coverage counts VMs by their protection.
type Coverage struct {
	Protected   int `json:"protected"`
	Unprotected int `json:"unprotected"`
	Excluded    int `json:"excluded"`
	Overdue     int `json:"overdue"`
}

// VMs reads what is known of VMs.
type VMs interface {
	// VMs lists by name; it gives the cursor of what follows, empty at the end.
	VMs(ctx context.Context, f VMFilter, p Page) ([]VM, string, error)
	// VM finds one by id, inventory path, moref, instance UUID or name. None and several by that name are ErrUnknown.
	VM(ctx context.Context, ref string) (VM, error)
	// History lists the VM's windows, the newest first.
	History(ctx context.Context, id string, p Page) ([]PastWindow, string, error)
	Coverage(ctx context.Context) (Coverage, error)
}

type vmID struct {
	ID string `path:"id" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
}

type listVMs struct {
	VMFilter
	Page
}

type listHistory struct {
	ID string `path:"id" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
	Page
}

func (s *Server) vmRoutes() {
	handle(s, operation{id: "vms:list", method: http.MethodGet, path: "/vms", summary: "List VMs and their protection"},
		func(ctx context.Context, in *listVMs) (*body[List[VM]], error) {
			vms, next, err := s.b.VMs.VMs(ctx, in.VMFilter, in.Page)
			for i := range vms {
				vms[i].Protection.Jobs = orEmpty(vms[i].Protection.Jobs)
			}
			return listed(vms, next, err)
		})
	handle(s, operation{id: "vms:get", method: http.MethodGet, path: "/vms/{id}", summary: "Show one VM"},
		func(ctx context.Context, in *vmID) (*body[VM], error) {
			vm, err := s.b.VMs.VM(ctx, in.ID)
			vm.Protection.Jobs = orEmpty(vm.Protection.Jobs)
			return answered(vm, err)
		})
	handle(s, operation{id: "vms:history", method: http.MethodGet, path: "/vms/{id}/history", summary: "The windows of a VM, the newest first"},
		func(ctx context.Context, in *listHistory) (*body[List[PastWindow]], error) {
			vm, err := s.b.VMs.VM(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			windows, next, err := s.b.VMs.History(ctx, vm.ID, in.Page)
			for i := range windows {
				windows[i].Phases = orEmpty(windows[i].Phases)
			}
			return listed(windows, next, err)
		})
	handle(s, operation{id: "vms:protection", method: http.MethodGet, path: "/protection", summary: "How many VMs are protected, overdue, excluded, in no job"},
		func(ctx context.Context, _ *nothing) (*body[Coverage], error) { return answered(s.b.VMs.Coverage(ctx)) })
}
