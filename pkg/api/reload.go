package api

import (
	"context"
	"net/http"
)

// Reloaded is what a reload of the configuration changed.
type Reloaded struct {
	Changed []string `json:"changed" nullable:"false" doc:"What is different now"`
	// NeedsRestart is what changed in the file but counts only after a restart.
	NeedsRestart []string `json:"needs_restart" nullable:"false"`
}

// Config reloads the configuration.
type Config interface {
	// ReloadConfig reads it anew. Faults are why it was not taken; the former one then stays.
	ReloadConfig(ctx context.Context) (Reloaded, []Fault, error)
}

func (s *Server) configRoutes() {
	handle(s, operation{
		id: "config:reload", method: http.MethodPost, path: "/config:reload", summary: "Read the configuration anew", status: http.StatusOK,
		about: "A configuration with mistakes is not taken; all of them are listed and the former one stays.",
	}, s.reloadConfig)
}

func (s *Server) reloadConfig(ctx context.Context, _ *nothing) (*body[Reloaded], error) {
	var done Reloaded
	err := s.change(ctx, "config:reload", "configuration", "", func(ctx context.Context) error {
		reloaded, faults, err := s.b.Config.ReloadConfig(ctx)
		if err != nil {
			return err
		}
		if len(faults) > 0 {
			p := newProblem(http.StatusUnprocessableEntity, "SF1715", "the configuration has mistakes; the former one stays")
			p.Errors = faults
			return p
		}
		done = Reloaded{orEmpty(reloaded.Changed), orEmpty(reloaded.NeedsRestart)}
		return nil
	})
	return answered(done, err)
}
