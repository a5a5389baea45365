package api

import (
	"context"
	"net/http"
	"time"
)

// Window is a freeze window that is open now.
type Window struct {
	RunID         string    `json:"run_id"`
	VMID          string    `json:"vm_id"`
	VM            string    `json:"vm"`
	VCenterID     string    `json:"vcenter_id"`
	Node          string    `json:"node" doc:"The daemon that runs it"`
	Mode          string    `json:"mode"`
	Phase         string    `json:"phase"`
	GoAt          time.Time `json:"go_at"`
	HeldSeconds   float64   `json:"held_seconds" doc:"Upper bound, as of this answer"`
	BudgetSeconds float64   `json:"budget_seconds"`
}

func (s *Server) windowRoutes() {
	handle(s, operation{id: "windows:list", method: http.MethodGet, path: "/windows", summary: "Freeze windows that are open now"},
		func(ctx context.Context, _ *nothing) (*body[List[Window]], error) {
			windows, err := s.b.Work.Windows(ctx)
			return listed(windows, "", err)
		})
}
