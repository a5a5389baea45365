package api

import (
	"context"
	"encoding/json"
	"net/http"

	"go.uber.org/zap"
)

// Health says whether the daemon does its work.
type Health interface {
	// Unready are the reasons why it does not yet, such as "the store is not open" or "3 runs are being recovered"; none
	// means ready. They are shown to whoever asks.
	Unready(ctx context.Context) []string
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
	// Warnings do not hinder the work, but somebody has to act.
	Warnings []string `json:"warnings"`
}

func (s *Server) alive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := w.Write([]byte("alive\n")); err != nil {
		s.log.Debug("answer not sent", zap.Error(err))
	}
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	answer := Readiness{Reasons: orEmpty(s.b.Health.Unready(r.Context())), Warnings: []string{}}
	answer.Ready = len(answer.Reasons) == 0
	if err := s.b.Audit.Ready(); err != nil {
		answer.Warnings = append(answer.Warnings, "the audit log cannot be written: changes are refused (SF1701)")
	}
	w.Header().Set("Content-Type", "application/json")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.Debug("answer not sent", zap.Error(err))
	}
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if !callerOf(r.Context()).May(Viewer) {
		s.answer(w, r, newProblem(http.StatusForbidden, "SF1714", "this needs the scope "+string(Viewer)))
		return
	}
	s.b.Metrics.ServeHTTP(w, r)
}

// orEmpty lets a list that holds nothing be an empty list in JSON, never null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
