// Package catalog remembers jobs, runs and what they made.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// What callers branch on.
var (
	ErrNotFound = errors.New("there is none of that name")
	// ErrState says that a run, or what else is to be changed, is not in a state that allows it.
	ErrState = errors.New("its state does not allow that")
	// ErrReadOnly says that a job comes from a file, and is changed there.
	ErrReadOnly = errors.New("it comes from a file and is changed there")
)

// Delivery brings a run to the owner of its vCenter. It carries no truth: a delivery whose epoch is not the run's is dropped.
type Delivery struct {
	RunID   string
	Epoch   int64
	VCenter string
	// Priority is 1 (restore and manual) to 4 (verification).
	Priority  int
	NotBefore time.Time
}

// Deliverer enqueues in the caller's transaction, satisfied by *engine.Engine.
type Deliverer interface {
	Enqueue(ctx context.Context, tx store.Tx, deliveries ...Delivery) error
}

// Catalog is the database as the daemon sees it. It is safe for concurrent use.
type Catalog struct {
	store   *store.Store
	journal *journal.Journal
	deliver Deliverer
	now     func() time.Time
}

// New gives the catalog in a database, which stays its opener's. now is the wall clock; nil is this machine's.
func New(s *store.Store, j *journal.Journal, d Deliverer, now func() time.Time) *Catalog {
	if now == nil {
		now = time.Now
	}
	return &Catalog{s, j, d, now}
}

func (c *Catalog) millis() int64 { return store.Millis(c.now()) }

// page bounds a list that does not say how long it may be, maxPage one that does.
const (
	page    = 100
	maxPage = 1000
)

func limit(n int) int {
	if n <= 0 {
		return page
	}
	return min(n, maxPage)
}

// state says that nothing was changed because of the state that a thing is in.
func state(what, id string) error { return fmt.Errorf("%s %s: %w", what, id, ErrState) }
