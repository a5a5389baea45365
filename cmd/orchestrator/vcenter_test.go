package main

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
	"github.com/stillframe/stillframe/pkg/secret"
)

// deaf knows of no refused password and counts nothing.
type deaf struct{}

func (deaf) Tried(context.Context, string, string) error          { return nil }
func (deaf) Refuse(context.Context, string, string, string) error { return nil }
func (deaf) Called(_, _, _ string)                                {}
func (deaf) TaskEnded(_ string, _, _ time.Duration)               {}
func (deaf) Recovered(string)                                     {}

// Every run has a long poll at its vCenter, and a call beside it, so that more runs need more connections: a snapshot call that
// waited for one would wait with its guest frozen.
func TestConnectionsFollowTheRuns(t *testing.T) {
	lab, err := vcenter.Start(t.Context(), vcenter.Options{User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	ca, err := lab.CAFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &vcenters{
		secrets: secret.NewResolver(secret.Options{Getenv: func(string) string { return "p" }}), refused: deaf{}, count: deaf{},
		log: zap.NewNop(), open: map[string]*slot{},
	}
	defer func() {
		if err := s.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	take := func(runs int) *session {
		c := &config.Config{VCenters: []config.VCenter{{Name: "a", URL: lab.URL().String(), Username: "u", Password: "env:P", CA: ca}}}
		c.Limits.VCenter.Runs = runs
		v, err := s.VCenter(t.Context(), c, "a")
		if err != nil {
			t.Fatal(err)
		}
		return v.(*session)
	}
	few := take(20)
	if got := few.options.MaxConns; got != 64 {
		t.Errorf("20 runs have %d connections, want 64", got)
	}
	if take(24) != few {
		t.Error("24 runs, for which there is room, have a new session")
	}
	many := take(100)
	if many == few || many.options.MaxConns != 216 {
		t.Errorf("100 runs have %d connections, want 216", many.options.MaxConns)
	}
	if take(20) != many {
		t.Error("fewer runs have a new session, though there is more room than they need")
	}
}
