package daemon

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/store"
)

// TestPrune lets a daemon serve, beside another node that prunes as well: the run that ended long ago is forgotten, the one of
// yesterday stays.
func TestPrune(t *testing.T) {
	for name, dsn := range map[string]func(t *testing.T) string{
		"sqlite":   func(*testing.T) string { return "" },
		"postgres": func(t *testing.T) string { t.Helper(); lab.Need(t, lab.Postgres); return postgres.Database(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "state"), DSN: dsn(t), Log: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			queue, err := engine.New(t.Context(), db, engine.Options{Undo: func(context.Context, catalog.Delivery) error { return nil }, Log: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			at := func(ago time.Duration) *catalog.Catalog {
				return catalog.New(db, journal.New(db), queue, func() time.Time { return time.Now().Add(-ago) })
			}
			old, young := ended(t, at(91*24*time.Hour), "old"), ended(t, at(24*time.Hour), "young")
			known := at(0)
			conf := &config.Config{Store: config.Store{KeepRuns: config.Duration{Duration: 90 * 24 * time.Hour}}}
			d := New(Options{Catalog: known, Queue: queue, Config: conf, Log: zap.NewNop()})
			ctx, stop := context.WithCancel(t.Context())
			var group sync.WaitGroup
			group.Go(func() {
				if err := d.Serve(ctx); err != nil {
					t.Error(err)
				}
			})
			group.Go(func() { d.prune(ctx) })
			for end := time.Now().Add(time.Minute); ; {
				there, err := known.Levels(t.Context(), []string{old, young})
				if _, still := there[old]; err == nil && !still {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the old run is still there: %v, %v", there, err)
				}
				<-time.After(20 * time.Millisecond)
			}
			stop()
			group.Wait()
			if _, err := known.Run(t.Context(), young); err != nil {
				t.Errorf("the run of yesterday: %v", err)
			}
		})
	}
}

// ended makes a run of a VM that failed by the catalog's clock.
func ended(t *testing.T, c *catalog.Catalog, vm string) string {
	t.Helper()
	vms, err := c.SawVMs(t.Context(), "vc", []catalog.VM{{InstanceUUID: vm, Moref: vm, Name: vm, Path: "/dc/vm/" + vm}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Order(t.Context(), catalog.Order{Kind: catalog.Backup, VMID: vms[0].ID, Priority: 1, RequestedBy: "uid 0"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Finish(t.Context(), r.Fence(), catalog.End{State: catalog.Failed}); err != nil {
		t.Fatal(err)
	}
	return r.ID
}
