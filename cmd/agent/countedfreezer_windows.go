package main

import (
	"context"
	"errors"

	"github.com/stillframe/stillframe/pkg/agent"
)

// countedFreezer counts the sessions that a freezer opens in the guest's writers, and their ends. Its methods are called as
// those of the freezer are: one at a time, but for Thaw.
type countedFreezer struct {
	agent.Settler
	sessions *writerSessions
	open     bool
	err      error // of counting, which hinders no freeze
}

var _ agent.Settler = (*countedFreezer)(nil)

// Prepare implements agent.Freezer. What is counted is kept before the first writer is asked.
func (f *countedFreezer) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	if !f.open {
		f.count(1)
	}
	return f.Settler.Prepare(ctx, r)
}

// Complete implements agent.Settler.
func (f *countedFreezer) Complete(ctx context.Context, c agent.Completion) agent.Completed {
	done := f.Settler.Complete(ctx, c)
	if done.Closed {
		f.end()
	}
	return done
}

// Close implements agent.Freezer. A session that did not end is leaked.
func (f *countedFreezer) Close() error {
	err := f.Settler.Close()
	if err == nil {
		f.end()
	}
	f.open = false
	return err
}

func (f *countedFreezer) end() {
	if f.open {
		f.count(-1)
	}
}

func (f *countedFreezer) count(n int) {
	f.open = n > 0
	f.err = errors.Join(f.err, f.sessions.add(n))
}
