package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
	"github.com/stillframe/stillframe/pkg/store"
)

// lively is the real timing, but that everything is looked at more often; short lets a lease end soon as well, though not so
// soon that a busy machine could lose it by itself.
var (
	lively = timing{
		ttl: 10 * time.Second, renew: 300 * time.Millisecond, look: 50 * time.Millisecond, spread: 50 * time.Millisecond, share: time.Hour,
		stale: 6 * time.Second, dead: 8 * time.Second,
	}
	short = timing{
		ttl: 3 * time.Second, renew: 300 * time.Millisecond, look: 50 * time.Millisecond, spread: 50 * time.Millisecond, share: time.Hour,
		stale: 1800 * time.Millisecond, dead: 2400 * time.Millisecond,
	}
)

// TestMain is also the nodes that tests kill and stop.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "child" {
		if err := child(store.Options{Dir: os.Args[2], DSN: os.Args[3], Log: zap.NewNop()}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(postgres.Exit))
}

// child is a node that begins one run, says so, and for each line of its input tries to write and says what came of it.
func child(o store.Options) error {
	ctx := context.Background()
	n, err := newNode(ctx, o)
	if err != nil {
		return err
	}
	n.engine.timing = short
	n.engine.Want("vc")
	begun := make(chan journal.Fence)
	go func() {
		err := n.engine.Serve(ctx, func(ctx context.Context, d catalog.Delivery) error {
			f := journal.Fence{RunID: d.RunID, Epoch: d.Epoch}
			if _, err := n.catalog.Start(ctx, f); err != nil {
				return err
			}
			begun <- f
			<-ctx.Done()
			fmt.Println("ended", codeOf(context.Cause(ctx)))
			return nil
		})
		fmt.Println("served", err)
	}()
	f := <-begun
	fmt.Println("begun", f.Epoch)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println("wrote", codeOf(n.catalog.Advance(ctx, f, "window")))
	}
	return nil
}

func codeOf(err error) string {
	var known interface{ Code() string }
	switch {
	case err == nil:
		return "well"
	case errors.As(err, &known):
		return known.Code()
	}
	return err.Error()
}

// node is one daemon without its work.
type node struct {
	store   *store.Store
	engine  *Engine
	catalog *catalog.Catalog
	undone  chan catalog.Delivery
}

func newNode(ctx context.Context, o store.Options) (*node, error) {
	n := &node{undone: make(chan catalog.Delivery, 1000)}
	var err error
	if n.store, err = store.Open(ctx, o); err != nil {
		return nil, err
	}
	n.engine, err = New(ctx, n.store, Options{Hostname: "host", Version: "test", Log: o.Log, Undo: func(ctx context.Context, d catalog.Delivery) error {
		n.undone <- d
		_, err := n.catalog.Finish(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}, catalog.End{State: catalog.Failed})
		return err
	}})
	if err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	n.engine.timing = lively
	n.catalog = catalog.New(n.store, journal.New(n.store), n.engine, nil)
	return n, nil
}

func onSQLite(t testing.TB) store.Options {
	t.Helper()
	return store.Options{Dir: filepath.Join(t.TempDir(), "state"), Log: zap.NewNop()}
}

func onPostgres(t testing.TB) store.Options {
	t.Helper()
	lab.Need(t, lab.Postgres)
	o := onSQLite(t)
	o.DSN = postgres.Database(t)
	return o
}

var databases = map[string]func(testing.TB) store.Options{"sqlite": onSQLite, "postgres": onPostgres}

func opened(t testing.TB, o store.Options) *node {
	t.Helper()
	n, err := newNode(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// serve has the node own vCenters until the test ends, or until the function that it gives is called.
func (n *node) serve(t testing.TB, work func(context.Context, catalog.Delivery) error, vcenters ...string) (drain func()) {
	t.Helper()
	n.engine.Want(vcenters...)
	var done sync.WaitGroup
	done.Go(func() {
		if err := n.engine.Serve(context.WithoutCancel(t.Context()), work); err != nil {
			t.Error(err)
		}
	})
	drain = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		n.until(t, func() bool { n.engine.mu.Lock(); defer n.engine.mu.Unlock(); return n.engine.serving != nil })
		if err := n.engine.Drain(ctx); err != nil {
			t.Error(err)
		}
		done.Wait()
	})
	t.Cleanup(drain)
	return drain
}

// until waits for something that another goroutine or process does.
func (n *node) until(t testing.TB, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond) // there is no event to wait for
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not come about in 3 minutes")
		}
	}
}

// free is a vCenter beside the one that a test looks at.
const free = "free"

// waiting orders a run that its paused vCenter does not begin: one of another vCenter, ordered later, is done before it. The
// queue hears of a pause in its own time, so the first few may still begin; they are cancelled.
func (n *node) waiting(t testing.TB, vcenter string) catalog.Run {
	t.Helper()
	for try := range 100 {
		run, later := n.order(t, vcenter, fmt.Sprint("paused ", try)), n.order(t, free, fmt.Sprint("free ", try))
		n.until(t, func() bool { return n.state(t, later.ID) == catalog.Done })
		if n.state(t, run.ID) == catalog.Queued {
			return run
		}
		if err := n.catalog.Cancel(t.Context(), run.ID); err != nil && !errors.Is(err, catalog.ErrState) {
			t.Fatal(err)
		}
	}
	t.Fatal("a paused vCenter begins one run after the other")
	return catalog.Run{}
}

// order asks for a run of a VM of its own.
func (n *node) order(t testing.TB, vcenter, vm string) catalog.Run {
	t.Helper()
	vms, err := n.catalog.SawVMs(t.Context(), vcenter, []catalog.VM{{InstanceUUID: vm, Name: vm}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.catalog.Order(t.Context(), catalog.Order{Kind: catalog.Backup, VMID: vms[0].ID, Priority: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (n *node) state(t testing.TB, id string) catalog.State {
	t.Helper()
	r, err := n.catalog.Run(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r.State
}

// finish is the work of a run that does nothing.
func (n *node) finish(ctx context.Context, d catalog.Delivery) error {
	f := journal.Fence{RunID: d.RunID, Epoch: d.Epoch}
	if _, err := n.catalog.Start(ctx, f); err != nil {
		return err
	}
	_, err := n.catalog.Finish(ctx, f, catalog.End{State: catalog.Done})
	return err
}

// start runs a node in a process of its own.
func start(t *testing.T, o store.Options) (cmd *exec.Cmd, in interface{ Write([]byte) (int, error) }, line func() string) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0], "child", o.Dir, o.DSN)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	return cmd, in, func() string {
		lines.Scan()
		return strings.TrimSpace(lines.Text())
	}
}

// between stands between a node and PostgreSQL. While its gate is locked nothing passes, and nobody is told.
type between struct {
	gate sync.RWMutex
	dsn  string
}

func newBetween(t *testing.T, dsn string) *between {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, server := &between{}, u.Host
	u.Host = l.Addr().String()
	b.dsn = u.String()
	var all sync.WaitGroup
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	all.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			all.Go(func() { b.carry(here, there) })
			all.Go(func() { b.carry(there, here) })
		}
	})
	return b
}

// carry ends both when one has ended.
func (b *between) carry(from, to net.Conn) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }() //nolint:errcheck // the other direction may have closed them
	for text := make([]byte, 32<<10); ; {
		n, err := from.Read(text)
		if err != nil {
			return
		}
		b.gate.RLock()
		_, err = to.Write(text[:n])
		b.gate.RUnlock()
		if err != nil {
			return
		}
	}
}
