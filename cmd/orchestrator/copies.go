package main

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

const (
	// copyEvery is the least time between two copies of the database, copyLook between two looks whether one is due.
	copyEvery = time.Hour
	copyLook  = time.Second
	// copyPatience is the age of the last copy from which on an open window is waited for no longer.
	copyPatience = 2 * time.Hour
)

// endedJobs are the jobs of which a run has ended since the last copy of the database; a run without a job counts as one of its own.
type endedJobs struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (e *endedJobs) add(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ids == nil {
		e.ids = map[string]bool{}
	}
	e.ids[id] = true
}

func (e *endedJobs) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for id := range e.ids {
		all = append(all, id)
	}
	return all
}

// take forgets those that a copy has.
func (e *endedJobs) take(ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		delete(e.ids, id)
	}
}

// keepCopies copies a SQLite when the runs of a job have ended, at most once an hour and when no guest is held, until ctx ends. A
// PostgreSQL is copied by its owner.
func (s *service) keepCopies(ctx context.Context) {
	if s.store.Dialect() != store.SQLite { // to return would end the daemon
		<-ctx.Done()
		return
	}
	dir := s.daemon.Config().Store.StateDir
	var last time.Time
	if all, err := store.Copies(dir); err == nil && len(all) > 0 {
		last = all[0].Made
	}
	ticker := time.NewTicker(copyLook)
	defer ticker.Stop()
	begun := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		age := time.Since(last)
		ended := s.ended.list()
		if len(ended) == 0 || age >= 0 && age < copyEvery {
			continue
		}
		if patient := min(age, time.Since(begun)) < copyPatience; patient && len(s.daemon.Windows()) > 0 {
			continue
		}
		if over, err := s.over(ctx, ended); err != nil || !over {
			continue
		}
		s.ended.take(ended)
		last = time.Now() // also of one that was not made: a full disk is not tried every second
		c, err := store.AddCopy(ctx, dir, last)
		switch {
		case err == nil:
			s.log.Info("the database was copied", zap.String("copy", c.Path), zap.Int64("bytes", c.Bytes), zap.String("sha256", c.SHA256))
		case ctx.Err() == nil:
			s.log.Error("copy the database", zap.Error(err))
			for _, id := range ended { // in an hour again
				s.ended.add(id)
			}
		}
	}
}

// over says whether one of the jobs has no run that is still to end.
func (s *service) over(ctx context.Context, jobs []string) (bool, error) {
	for _, id := range jobs {
		if id == "" {
			return true, nil
		}
		runs, err := s.catalog.Runs(ctx, catalog.RunFilter{JobID: id, Unfinished: true, Limit: 1})
		if err != nil || len(runs) == 0 {
			return err == nil, err
		}
	}
	return false, nil
}
