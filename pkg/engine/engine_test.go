package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

func TestDelivered(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			drain := n.serve(t, n.finish, "vc", "vc.2/with spaces")
			var all []string
			for i := range 30 {
				all = append(all, n.order(t, []string{"vc", "vc.2/with spaces"}[i%2], fmt.Sprint("vm", i)).ID)
			}
			for _, id := range all {
				n.until(t, func() bool { return n.state(t, id) == catalog.Done })
			}
			drain()
			if len(n.engine.Owned()) != 0 || n.engine.Fresh("vc") != math.MaxInt64 {
				t.Error("a drained node owns something")
			}
		})
	}
}

// TestRolledBack: a run and its delivery are there together or not at all.
func TestRolledBack(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			ctx := t.Context()
			stop := errors.New("stop")
			err := n.store.Update(ctx, "write", func(tx store.Tx) error {
				if err := n.engine.Enqueue(ctx, tx, catalog.Delivery{RunID: "x", Epoch: 1, VCenter: "vc"}); err != nil {
					return err
				}
				return stop
			})
			if !errors.Is(err, stop) {
				t.Fatal(err)
			}
			if rows := n.deliveries(t); rows != 0 {
				t.Errorf("%d deliveries, want none", rows)
			}
		})
	}
}

func (n *node) deliveries(t *testing.T) (rows int) {
	t.Helper()
	err := n.store.View(t.Context(), "count", func(tx store.Tx) error {
		return tx.One(t.Context(), []any{&rows}, "SELECT count(*) FROM river_job WHERE state IN ('available', 'scheduled', 'running')")
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestStale: deliveries with an epoch that is not the run's are dropped.
func TestStale(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			ctx := t.Context()
			var calls atomic.Int32
			n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
				calls.Add(1)
				return n.finish(ctx, d)
			}, "vc")
			n.until(t, func() bool { return len(n.engine.Owned()) == 1 })
			r := n.order(t, "vc", "vm")
			err := n.store.Update(ctx, "deliver what is old", func(tx store.Tx) error {
				old := catalog.Delivery{RunID: r.ID, Epoch: r.Epoch - 1, VCenter: "vc"}
				return n.engine.Enqueue(ctx, tx, old, catalog.Delivery{RunID: "forgotten", Epoch: r.Epoch, VCenter: "vc"}, old)
			})
			if err != nil {
				t.Fatal(err)
			}
			n.until(t, func() bool { return n.state(t, r.ID) == catalog.Done && n.deliveries(t) == 0 })
			if calls.Load() != 1 {
				t.Errorf("%d calls, want 1", calls.Load())
			}
		})
	}
}

// TestKilled: a node dies with a run at work; its next start, or another node, undoes it and delivers what was queued.
func TestKilled(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			n := opened(t, o)
			began := n.order(t, "vc", "vm1")
			if o.DSN == "" { // one folder has one process
				if err := n.store.Close(); err != nil {
					t.Fatal(err)
				}
			}
			childs := o
			if o.DSN != "" {
				childs = onSQLite(t)
				childs.DSN = o.DSN
			}
			cmd, _, line := start(t, childs)
			if got := line(); got != fmt.Sprint("begun ", began.Epoch) && got[:5] != "begun" {
				t.Fatalf("the child says %q", got)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed := time.Now()
			if err := cmd.Wait(); err == nil {
				t.Fatal("the child ended by itself")
			}
			if o.DSN == "" {
				n = opened(t, o)
			}
			queued := n.order(t, "vc", "vm2")
			n.serve(t, n.finish, "vc")
			d := <-n.undone
			took := time.Since(killed)
			if d.RunID != began.ID || d.Epoch <= began.Epoch || d.VCenter != "vc" {
				t.Errorf("undone is %+v, want run %s with a higher epoch than %d", d, began.ID, began.Epoch)
			}
			if took < short.ttl/2 && o.DSN != "" {
				t.Errorf("it was undone %v after the kill, while the lease was good", took)
			}
			n.until(t, func() bool { return n.state(t, queued.ID) == catalog.Done && n.state(t, began.ID) == catalog.Failed })
			if err := n.catalog.Advance(t.Context(), journal.Fence{RunID: began.ID, Epoch: began.Epoch}, "window"); codeOf(err) != "SF1904" {
				t.Errorf("a write with the old epoch: %v, want SF1904", err)
			}
		})
	}
}

// TestStopped: a node that stood still past its lease is fenced at its first write, and ends its work by itself.
func TestStopped(t *testing.T) {
	o := onPostgres(t)
	n := opened(t, o)
	run := n.order(t, "vc", "vm")
	childs := onSQLite(t)
	childs.DSN = o.DSN
	cmd, in, line := start(t, childs)
	if got := line(); got[:5] != "begun" {
		t.Fatalf("the child says %q", got)
	}
	tell := func() {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if got := line(); got != "wrote well" {
		t.Errorf("the owner %s", got)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.serve(t, n.finish, "vc")
	if d := <-n.undone; d.RunID != run.ID {
		t.Errorf("undone is %+v, want run %s", d, run.ID)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	tell()
	want := map[string]bool{"wrote SF1904": true, "ended SF1903": true}
	for range 2 {
		got := line()
		if !want[got] {
			t.Errorf("the zombie %q, want once each of %v", got, want)
		}
		delete(want, got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
}

// TestHandedOver: what a drained node lets go is another's at once, and one vCenter has one owner.
func TestHandedOver(t *testing.T) {
	o := onPostgres(t)
	a := opened(t, o)
	other := onSQLite(t)
	other.DSN = o.DSN
	b := opened(t, other)
	drain := a.serve(t, a.finish, "vc1", "vc2")
	a.until(t, func() bool { return len(a.engine.Owned()) == 2 })
	if _, err := b.engine.take(t.Context(), "vc1"); !errors.Is(err, ErrOwned) {
		t.Errorf("take of an owned one = %v, want ErrOwned", err)
	}
	b.serve(t, b.finish, "vc1", "vc2")
	run := b.order(t, "vc2", "vm") // any node may order, the owner does it
	b.until(t, func() bool { return b.state(t, run.ID) == catalog.Done })
	if n := len(b.engine.Owned()); n != 0 {
		t.Errorf("the second node owns %d", n)
	}
	drain()
	b.until(t, func() bool { return len(b.engine.Owned()) == 2 })
}

// TestReleasedStays: a renewal that began before its vCenter was let go does not take it back.
func TestReleasedStays(t *testing.T) {
	n := opened(t, onPostgres(t))
	taken, err := n.engine.take(t.Context(), "vc")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := n.engine.renew(t.Context(), []Lease{taken.Lease}); err != nil || len(r.lost) > 0 {
		t.Errorf("a renewal = %+v, %v, want nothing lost", r, err)
	}
	if err := n.engine.release(t.Context(), taken.Lease); err != nil {
		t.Fatal(err)
	}
	if r, err := n.engine.renew(t.Context(), []Lease{taken.Lease}); err != nil || len(r.lost) != 1 {
		t.Errorf("a renewal after the release = %+v, %v, want it lost", r, err)
	}
	n.engine.node = "another"
	if _, err := n.engine.take(t.Context(), "vc"); err != nil {
		t.Errorf("another node's take = %v", err)
	}
}

// TestDrainLetsGo: a node that drains lets an idle vCenter go while it still works on another one.
func TestDrainLetsGo(t *testing.T) {
	o := onPostgres(t)
	a := opened(t, o)
	other := onSQLite(t)
	other.DSN = o.DSN
	b := opened(t, other)
	release := make(chan struct{})
	drain := a.serve(t, func(ctx context.Context, d catalog.Delivery) error {
		if _, err := a.catalog.Start(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}); err != nil {
			return err
		}
		<-release
		_, err := a.catalog.Finish(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}, catalog.End{State: catalog.Done})
		return err
	}, "busy", "idle")
	a.until(t, func() bool { return len(a.engine.Owned()) == 2 })
	b.serve(t, b.finish, "busy", "idle")
	run := b.order(t, "busy", "vm")
	b.until(t, func() bool { return b.state(t, run.ID) == catalog.Running })
	go drain()
	b.until(t, func() bool { owned := b.engine.Owned(); return len(owned) == 1 && owned[0].VCenter == "idle" })
	close(release)
	b.until(t, func() bool { return len(b.engine.Owned()) == 2 && b.state(t, run.ID) == catalog.Done })
	drain() // it has ended
}

func TestDrainWaits(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			begun, release := make(chan struct{}), make(chan struct{})
			drain := n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
				close(begun)
				<-release
				return n.finish(ctx, d)
			}, "vc")
			run := n.order(t, "vc", "vm")
			<-begun
			time.AfterFunc(50*time.Millisecond, func() { close(release) })
			drain()
			if s := n.state(t, run.ID); s != catalog.Done {
				t.Errorf("the run is %s after the drain, want done", s)
			}
		})
	}
}

func TestPause(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			n.serve(t, n.finish, "vc", free)
			n.until(t, func() bool { return len(n.engine.Owned()) == 2 })
			if err := n.engine.Pause(t.Context(), "none"); !errors.Is(err, catalog.ErrNotFound) {
				t.Errorf("Pause of an unknown one = %v, want ErrNotFound", err)
			}
			if err := n.engine.Pause(t.Context(), "vc"); err != nil {
				t.Fatal(err)
			}
			run := n.waiting(t, "vc")
			if err := n.engine.Resume(t.Context(), "vc"); err != nil {
				t.Fatal(err)
			}
			n.until(t, func() bool { return n.state(t, run.ID) == catalog.Done })
		})
	}
}

func TestCancel(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			cause := make(chan error, 100)
			n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
				if d.VCenter == free {
					return n.finish(ctx, d)
				}
				f := journal.Fence{RunID: d.RunID, Epoch: d.Epoch}
				if _, err := n.catalog.Start(ctx, f); err != nil {
					return err
				}
				<-ctx.Done()
				cause <- context.Cause(ctx)
				_, err := n.catalog.Finish(context.WithoutCancel(ctx), f, catalog.End{State: catalog.Cancelled})
				return err
			}, "vc", free)
			run := n.order(t, "vc", "vm")
			n.until(t, func() bool { return n.state(t, run.ID) == catalog.Running })
			if err := n.catalog.Cancel(t.Context(), run.ID); err != nil {
				t.Fatal(err)
			}
			if err := <-cause; !errors.Is(err, ErrCancelled) {
				t.Errorf("the cause is %v, want ErrCancelled", err)
			}
			n.until(t, func() bool { return n.state(t, run.ID) == catalog.Cancelled })
			if err := n.catalog.Cancel(t.Context(), run.ID); !errors.Is(err, catalog.ErrState) {
				t.Errorf("Cancel of an ended one = %v, want ErrState", err)
			}
			if err := n.engine.Pause(t.Context(), "vc"); err != nil {
				t.Fatal(err)
			}
			waiting := n.waiting(t, "vc")
			if err := n.catalog.Cancel(t.Context(), waiting.ID); err != nil {
				t.Fatal(err)
			}
			n.until(t, func() bool { return n.state(t, waiting.ID) == catalog.Cancelled })
		})
	}
}

// TestLeft: a run whose work ends without ending the run, or panics, is undone; one that was not begun comes again.
func TestLeft(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
				if _, err := n.catalog.Start(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}); err != nil {
					return err
				}
				panic("planted")
			}, "vc")
			run := n.order(t, "vc", "vm")
			if d := <-n.undone; d.RunID != run.ID || d.Epoch != run.Epoch && d.Epoch < run.Epoch {
				t.Errorf("undone is %+v, want run %s", d, run.ID)
			}
			n.until(t, func() bool { return n.state(t, run.ID) == catalog.Failed })
		})
	}
}

// TestSweep: a queued run never waits for a delivery that does not exist.
func TestSweep(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			run := n.order(t, "vc", "vm")
			err := n.store.Update(t.Context(), "lose all deliveries", func(tx store.Tx) error {
				_, err := tx.Exec(t.Context(), "DELETE FROM river_job")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			n.engine.held["vc"] = &held{Lease: Lease{"vc", 1}}
			for range 2 { // the second finds nothing to do
				n.engine.sweep(t.Context())
				if rows := n.deliveries(t); rows != 1 {
					t.Errorf("%d deliveries of run %s, want 1", rows, run.ID)
				}
			}
			delete(n.engine.held, "vc")
		})
	}
}

// serveTillEnd serves vCenters by work that goes on until its context ends, and tells why that was.
func (n *node) serveTillEnd(t *testing.T, vcenters ...string) <-chan error {
	t.Helper()
	cause := make(chan error, 1)
	n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
		if _, err := n.catalog.Start(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}); err != nil {
			return err
		}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil
	}, vcenters...)
	return cause
}

// TestUnreachable: an owner that cannot renew ends its work before another may begin.
func TestUnreachable(t *testing.T) {
	o := onPostgres(t)
	n := opened(t, o)
	n.engine.timing = short
	cause := n.serveTillEnd(t, "vc")
	run := n.order(t, "vc", "vm")
	n.until(t, func() bool { return n.state(t, run.ID) == catalog.Running })
	// A lock on its row makes every renewal wait.
	release := make(chan struct{})
	locked := make(chan error, 1)
	go func() {
		locked <- n.store.Update(t.Context(), "lock", func(tx store.Tx) error {
			var id string
			err := tx.One(t.Context(), []any{&id}, "SELECT vcenter_id FROM vcenter_leases WHERE vcenter_id = 'vc'"+tx.Lock())
			<-release
			return err
		})
	}()
	var lost *LostError
	if err := <-cause; !errors.As(err, &lost) || lost.Code() != "SF1903" {
		t.Errorf("the cause is %v, want a LostError", err)
	}
	if age := n.engine.Fresh("vc"); age < short.dead {
		t.Errorf("Fresh = %v, want more than %v", age, short.dead)
	}
	close(release)
	if err := <-locked; err != nil {
		t.Error(err)
	}
	n.until(t, func() bool { return len(n.engine.Owned()) == 1 }) // it takes it again
	if d := <-n.undone; d.RunID != run.ID {
		t.Errorf("undone is %+v, want run %s", d, run.ID)
	}
}

// TestSilent: an owner whose every call of the database hangs, as with a network that drops what is sent, ends its work in time
// all the same.
func TestSilent(t *testing.T) {
	o := onPostgres(t)
	between := newBetween(t, o.DSN)
	o.DSN = between.dsn
	n := opened(t, o)
	n.engine.timing = short
	cause := n.serveTillEnd(t, "vc", "another's") // the second has the node look for its end all the time
	err := n.store.Update(t.Context(), "give one to another node", func(tx store.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO vcenter_leases (vcenter_id, owner_node, epoch, lease_until, updated_at) VALUES ($1, 'other', 1, $2, 1)
			ON CONFLICT (vcenter_id) DO UPDATE SET owner_node = 'other', lease_until = EXCLUDED.lease_until`, "another's", int64(math.MaxInt64))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	run := n.order(t, "vc", "vm")
	n.until(t, func() bool { return n.state(t, run.ID) == catalog.Running })
	between.gate.Lock()
	var lost *LostError
	if err := <-cause; !errors.As(err, &lost) {
		t.Errorf("the cause is %v, want a LostError", err)
	}
	between.gate.Unlock()
	if d := <-n.undone; d.RunID != run.ID { // it takes it again
		t.Errorf("undone is %+v, want run %s", d, run.ID)
	}
}

// TestUnwanted: what is to be undone on a vCenter that is not wanted any more is left alone, the vCenter is let go, and it is
// undone when the vCenter is wanted again.
func TestUnwanted(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			n := opened(t, on(t))
			asked := make(chan struct{}, 100)
			n.engine.options.Undo = func(context.Context, catalog.Delivery) error {
				n.engine.Want()
				asked <- struct{}{}
				return errors.New("the vCenter is not configured")
			}
			n.serve(t, func(ctx context.Context, d catalog.Delivery) error {
				_, err := n.catalog.Start(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch})
				return errors.Join(err, errors.New("planted"))
			}, "vc")
			run := n.order(t, "vc", "vm")
			<-asked
			n.until(t, func() bool { return len(n.engine.Owned()) == 0 })
			if s := n.state(t, run.ID); s != catalog.Compensating || len(asked) > 0 {
				t.Errorf("the run is %s, and Undo was called %d times more, want it left as it was", s, len(asked))
			}
			n.engine.Want("vc")
			<-asked
		})
	}
}

// TestShared: a node that comes later gets its share of the vCenters, and no more.
func TestShared(t *testing.T) {
	o := onPostgres(t)
	a := opened(t, o)
	other := onSQLite(t)
	other.DSN = o.DSN
	b := opened(t, other)
	a.engine.timing.share = 2 * time.Second
	all := []string{"vc1", "vc2", "vc3"}
	a.serve(t, a.finish, all...)
	a.until(t, func() bool { return len(a.engine.Owned()) == 3 })
	b.serve(t, b.finish, all...)
	a.until(t, func() bool { return len(a.engine.Owned()) == 2 && len(b.engine.Owned()) == 1 })
	run := a.order(t, b.engine.Owned()[0].VCenter, "vm")
	a.until(t, func() bool { return a.state(t, run.ID) == catalog.Done })
	if none := slices.Concat(a.engine.Unowned(), b.engine.Unowned()); len(none) > 0 {
		t.Errorf("nobody owns %v", none)
	}
	if n, err := a.engine.least(t.Context()); n != 1 || err != nil {
		t.Errorf("the other node owns %d (%v), want 1", n, err)
	}
}
