package guests

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Scripted is a guest without root: its writer is a goroutine of the lab that appends records to a raw file, and its
// freezer is a word on a unix socket.
//
// It is credible for what a freezer's answers do to the product, and for a writer that really stops. It never emulates a
// file system: there is no cache to flush and no journal, so an image cut without a hold looks as good as any other.
type Scripted struct {
	Witness
	name, disk, socket string
	rest               time.Duration
	listener           *net.UnixListener
	short              string // a directory made because dir is too long for a socket; empty when it is not

	mu      sync.Mutex
	turn    *sync.Cond // the writer waits here while held
	held    *net.UnixConn
	ended   func()
	rescue  *time.Timer
	leave   bool
	leaving chan struct{} // closed when leave becomes true
	conns   map[*net.UnixConn]bool
	err     error
	rescues []time.Time
	done    sync.WaitGroup
	closing sync.Once
	closed  error
}

// scriptedPause is the rest between two records. Each is synced, which costs the machine far more than the guest gains by it: a
// hold is seen by the freezer's word, not by a record that does not come.
const scriptedPause = 20 * time.Millisecond

// ScriptedOptions are a scripted guest's.
type ScriptedOptions struct {
	// Name names it in errors. Dir exists and is its own.
	Name, Dir string
	// Rest lies between two records; 0 is scriptedPause.
	Rest time.Duration
}

// StartScripted makes the raw disk, and returns once the first record is durable. The caller closes it.
func StartScripted(_ context.Context, o ScriptedOptions) (*Scripted, error) {
	g := &Scripted{
		name: o.Name, disk: filepath.Join(o.Dir, "disk1.raw"), socket: filepath.Join(o.Dir, "freezer"), conns: map[*net.UnixConn]bool{},
		rest: cmp.Or(o.Rest, scriptedPause), leaving: make(chan struct{}),
	}
	g.turn = sync.NewCond(&g.mu)
	f, err := g.open()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start scripted guest %s: %w", o.Name, err), g.dismantle())
	}
	g.done.Go(func() {
		err := g.write(f)
		g.stop(time.Now())
		g.fail(errors.Join(err, f.Close()))
	})
	g.done.Go(g.accept)
	return g, nil
}

// open makes the disk with its first record, then the socket.
func (g *Scripted) open() (*os.File, error) {
	if err := g.shorten(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(g.disk, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := g.writeOne(f, 1); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if g.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: g.socket, Net: "unix"}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// dismantle removes the socket, as far as there is one.
func (g *Scripted) dismantle() error {
	var err error
	if g.listener != nil {
		err = g.listener.Close()
	}
	if g.short != "" {
		err = errors.Join(err, os.RemoveAll(g.short))
	}
	return err
}

// socketLimit is the longest path of a unix socket (sun_path of sys/un.h, less its zero byte).
const socketLimit = 107

// shorten moves the socket to a directory of its own in the system's temporary directory when its path is too long.
func (g *Scripted) shorten() (err error) {
	if len(g.socket) <= socketLimit {
		return nil
	}
	if g.short, err = os.MkdirTemp("", "sf-"); err == nil {
		g.socket = filepath.Join(g.short, "freezer")
	}
	return err
}

// write is the writer. It looks at the hold before each record, and holds g.mu while it writes one: so a freeze is
// answered only when no record is under way.
func (g *Scripted) write(f *os.File) error {
	for n := uint64(2); ; n++ {
		g.mu.Lock()
		for g.held != nil && !g.leave {
			g.turn.Wait()
		}
		leave := g.leave
		var err error
		if !leave {
			err = g.writeOne(f, n)
		}
		g.mu.Unlock()
		if leave || err != nil {
			return err
		}
		select {
		case <-time.After(g.rest):
		case <-g.leaving:
		}
	}
}

func (g *Scripted) writeOne(f *os.File, n uint64) error {
	if err := appendSynced(f, n); err != nil {
		return err
	}
	g.acknowledge(n, time.Now())
	return nil
}

func (g *Scripted) accept() {
	for {
		conn, err := g.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			g.fail(fmt.Errorf("accept a freezer's connection: %w", err))
			return
		}
		g.mu.Lock()
		if g.leave {
			g.mu.Unlock()
			g.fail(conn.Close())
			return
		}
		g.conns[conn] = true
		g.mu.Unlock()
		g.done.Go(func() { g.serve(conn) })
	}
}

// serve speaks the scripted freezer's line protocol on one connection, and releases what it holds when it ends.
func (g *Scripted) serve(conn *net.UnixConn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer := "unknown"
		switch lines.Text() {
		case "freeze":
			answer = g.freeze(conn)
		case "thaw":
			answer = "notheld"
			if g.release(conn) {
				answer = "thawed"
			}
		}
		if _, err := conn.Write([]byte(answer + "\n")); err != nil {
			break // the other end has gone: released below
		}
	}
	g.release(conn)
	g.mu.Lock()
	delete(g.conns, conn)
	g.mu.Unlock()
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		g.fail(err)
	}
}

func (g *Scripted) freeze(conn *net.UnixConn) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		return "busy" // as EBUSY of a second FIFREEZE
	}
	g.held = conn
	g.Witness.held(time.Now())
	g.rescue = time.AfterFunc(stallLimit, func() {
		if g.release(conn) {
			g.mu.Lock()
			g.rescues = append(g.rescues, time.Now())
			g.mu.Unlock()
		}
	})
	return "frozen"
}

// OnEnd sets the hook that is told of the end of each hold, before the freezer is.
func (g *Scripted) OnEnd(hook func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = hook
}

// release ends the hold of one connection; false when it holds nothing.
func (g *Scripted) release(conn *net.UnixConn) bool {
	g.mu.Lock()
	if g.held == nil || g.held != conn {
		g.mu.Unlock()
		return false
	}
	g.Witness.held(time.Now())
	g.held = nil
	g.rescue.Stop()
	g.turn.Broadcast()
	ended := g.ended
	g.mu.Unlock()
	if ended != nil {
		ended()
	}
	return true
}

// Thaw releases the guest behind the back of who holds it, as a foreign FITHAW does. held is false when nobody did.
func (g *Scripted) Thaw() (held bool, err error) {
	g.mu.Lock()
	conn := g.held
	g.mu.Unlock()
	return conn != nil && g.release(conn), nil
}

// Name is the VM's name.
func (g *Scripted) Name() string { return g.name }

// Kind is "scripted".
func (g *Scripted) Kind() string { return "scripted" }

// Disk is the raw file of records: what a snapshot copies.
func (g *Scripted) Disk() string { return g.disk }

// Env is what an agent of a build tagged lab needs to be this guest's freezer.
func (g *Scripted) Env() []string { return []string{"STILLFRAME_LAB_FREEZER=unix:" + g.socket} }

// Count checks the records of an image of this guest's disk.
func (g *Scripted) Count(_ context.Context, image string) (Tally, error) { return CountFile(image) }

// Rescues lists when the lab itself had to release the guest: each is a defect of what is tested.
func (g *Scripted) Rescues() []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]time.Time{}, g.rescues...)
}

// Err is the first thing that went wrong with the writer or the socket, nil while all is well.
func (g *Scripted) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *Scripted) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

// Close releases the guest and ends its writer. It is idempotent; the disk file stays.
func (g *Scripted) Close(context.Context) error {
	g.closing.Do(func() {
		err := g.dismantle()
		g.mu.Lock()
		g.leave = true
		close(g.leaving)
		g.turn.Broadcast()
		for conn := range g.conns {
			err = errors.Join(err, conn.Close())
		}
		g.mu.Unlock()
		g.done.Wait()
		if err != nil {
			g.closed = fmt.Errorf("close scripted guest %s: %w", g.name, err)
		}
	})
	return g.closed
}
