package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// operator is what the faces ask of the running daemon: all that the database alone cannot do. Its errors are those of
// pkg/api and pkg/catalog, or have a code of the catalogue.
type operator interface {
	// Fire makes the runs of a whole job for a tick. The same tick again makes none.
	Fire(ctx context.Context, job string, tick time.Time, by string) error
	// Order makes one run with the id of the order. If there is one by that id it makes no second.
	Order(ctx context.Context, s api.Start) error
	// Enable pauses a job's schedule, or lets it go on.
	Enable(ctx context.Context, job string, enabled bool) error
	Reload(ctx context.Context) (api.Reloaded, []api.Fault, error)
	// Preflight asks the VM's vCenter what would keep a window from its start.
	Preflight(ctx context.Context, vm catalog.VM) ([]inventory.Check, error)
	// Sweep has this node look now at what has to be taken away.
	Sweep()
	// Unready is why no work is done yet; empty when it is.
	Unready(ctx context.Context) []string
	// Windows are the freeze windows that are open now.
	Windows(ctx context.Context) ([]api.Window, error)
	Config() *config.Config
}

// backends answers what the API asks: from the database where that knows, from the daemon otherwise.
type backends struct {
	catalog *catalog.Catalog
	daemon  operator
	now     func() time.Time
}

var (
	_ api.Jobs      = backends{}
	_ api.Runs      = backends{}
	_ api.Work      = backends{}
	_ api.VMs       = backends{}
	_ api.Snapshots = backends{}
	_ api.Doctor    = backends{}
	_ api.Tokens    = backends{}
	_ api.Keys      = backends{}
	_ api.Config    = backends{}
	_ api.Health    = backends{}
)

// newBackends joins what the API needs. All of it stays its makers'. now is the wall clock.
func newBackends(c *catalog.Catalog, trail api.Trail, daemon operator, feed *api.Feed, metrics http.Handler, now func() time.Time) api.Backends {
	b := backends{c, daemon, now}
	return api.Backends{
		Jobs: b, Runs: b, Work: b, VMs: b, Snapshots: b, Doctor: b, Tokens: b, Keys: b, Config: b, Health: b,
		Audit: trail, Feed: feed, Metrics: metrics,
	}
}

// ReloadConfig reads the configuration anew.
func (b backends) ReloadConfig(ctx context.Context) (api.Reloaded, []api.Fault, error) {
	return b.daemon.Reload(ctx)
}

// Unready is why no work is done yet.
func (b backends) Unready(ctx context.Context) []string { return b.daemon.Unready(ctx) }

// translated gives an error of the catalogue of the database the meaning that the API has for it.
func translated(err error) error {
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return fmt.Errorf("%w: %w", api.ErrUnknown, err)
	case errors.Is(err, catalog.ErrState), errors.Is(err, catalog.ErrReadOnly):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

// cursor is the error of a part of a list that begins after something that is not there any more.
func cursor(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("%w: %w", api.ErrCursor, err)
	}
	return err
}

// when is a time that may be never.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
