package catalog_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(postgres.Exit)) }

// world is a database with a catalog in it whose clock is set by hand.
type world struct {
	*catalog.Catalog
	store   *store.Store
	journal *journal.Journal
	engine  *engine.Engine
	now     time.Time
}

func onSQLite(t testing.TB) *world { t.Helper(); return open(t, "") }

func onPostgres(t testing.TB) *world {
	t.Helper()
	lab.Need(t, lab.Postgres)
	return open(t, postgres.Database(t))
}

var databases = map[string]func(testing.TB) *world{"sqlite": onSQLite, "postgres": onPostgres}

func open(t testing.TB, dsn string) *world {
	t.Helper()
	w := &world{now: time.Now().UTC().Truncate(time.Millisecond)}
	var err error
	if w.store, err = store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "state"), DSN: dsn, Log: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	none := func(context.Context, catalog.Delivery) error { return nil }
	if w.engine, err = engine.New(t.Context(), w.store, engine.Options{Undo: none, Log: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	w.journal = journal.New(w.store)
	w.Catalog = catalog.New(w.store, w.journal, w.engine, func() time.Time { return w.now })
	return w
}

// vms are n VMs of a vCenter.
func (w *world) vms(t testing.TB, vcenter string, n int) []catalog.VM {
	t.Helper()
	found := make([]catalog.VM, n)
	for i := range found {
		found[i] = catalog.VM{InstanceUUID: fmt.Sprint(vcenter, "-", i), Moref: fmt.Sprint("vm-", i), Name: fmt.Sprintf("vm%05d", i), Path: fmt.Sprint("/dc/vm/", i)}
	}
	all, err := w.SawVMs(t.Context(), vcenter, found)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (w *world) order(t testing.TB, vm catalog.VM) catalog.Run {
	t.Helper()
	r, err := w.Order(t.Context(), catalog.Order{Kind: catalog.Backup, VMID: vm.ID, Priority: 1, RequestedBy: "uid 0"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// deliveries counts the rows of the queue.
func (w *world) deliveries(t testing.TB) (n int) {
	t.Helper()
	err := w.store.View(t.Context(), "count", func(tx store.Tx) error {
		return tx.One(t.Context(), []any{&n}, "SELECT count(*) FROM river_job")
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) job(t testing.TB, name string) catalog.Job {
	t.Helper()
	j, err := w.PutJob(t.Context(), catalog.Job{Name: name, Origin: catalog.FromFile, Enabled: true, Spec: []byte(`{"a":1}`), Priority: 3, Next: w.now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func targets(vms []catalog.VM) []catalog.Target {
	all := make([]catalog.Target, len(vms))
	for n, v := range vms {
		all[n] = catalog.Target{VMID: v.ID, VCenter: v.VCenter}
	}
	return all
}
