package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// startLimit bounds the making of the cluster and the server's start, stopLimit its end.
const (
	startLimit = 60 * time.Second
	stopLimit  = 15 * time.Second
)

// Cluster is a server of its own on loopback, with its data in a temporary folder.
type Cluster struct {
	dir  string
	port int
	stop func() error
}

// Start makes a cluster and its server, which never outlives this process. With durable it waits for the disk as a real
// one does; without, a test is faster and only a power failure could tell.
func Start(ctx context.Context, durable bool) (c *Cluster, err error) {
	installed, err := Find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("PostgreSQL took longer than %s", startLimit))
	defer cancel()
	c = &Cluster{stop: func() error { return nil }}
	if c.dir, err = os.MkdirTemp("", "stillframe-pg-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.Chown(c.dir, int(installed.UID), int(installed.GID)); err != nil {
		return nil, err
	}
	data := filepath.Join(c.dir, "data")
	if out, err := installed.Command("initdb", "-D", data, "-U", "stillframe", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a cluster: %w: %s", err, out)
	}
	if c.port, err = freePort(); err != nil {
		return nil, err
	}
	word := map[bool]string{true: "on", false: "off"}[durable]
	server := installed.Command("postgres", "-D", data, "-k", c.dir, "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "shared_buffers=64MB", "-c", "max_connections=200", "-c", "fsync="+word, "-c", "synchronous_commit="+word, "-c", "full_page_writes="+word)
	server.SysProcAttr.Pdeathsig = syscall.SIGQUIT // ends at once (PostgreSQL manual, 19.5)
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return nil, err
	}
	server.Stdout, server.Stderr = log, log
	if err := errors.Join(server.Start(), log.Close()); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	c.stop = func() error { return end(server.Process) }
	return c, c.wait(ctx)
}

// wait returns when the server answers.
func (c *Cluster) wait(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, c.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			text, readErr := os.ReadFile(filepath.Join(c.dir, "log"))
			return errors.Join(fmt.Errorf("wait for PostgreSQL: %w: %w: %s", context.Cause(ctx), err, text), readErr)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end stops the server at once, without a last checkpoint: nobody reads its data any more.
func end(server *os.Process) error {
	if err := server.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	force := time.AfterFunc(stopLimit, func() { server.Kill() }) //nolint:errcheck // it has ended then
	defer force.Stop()
	_, err := server.Wait()
	return err
}

// freePort is one that nobody listens on right now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// DSN is the address of one of its databases.
func (c *Cluster) DSN(database string) string {
	return fmt.Sprintf("postgres://stillframe@127.0.0.1:%d/%s?sslmode=disable", c.port, database)
}

// Create makes an empty database.
func (c *Cluster) Create(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize())
	return errors.Join(err, conn.Close(ctx))
}

// Close ends the server and removes its data. It is idempotent.
func (c *Cluster) Close() error {
	err := errors.Join(c.stop(), os.RemoveAll(c.dir))
	c.stop = func() error { return nil }
	return err
}

// shared is the one cluster of a test process.
var shared struct {
	sync.Mutex
	*Cluster
	databases int
}

// Database gives the address of a new, empty database in the test process's one cluster, whose TestMain ends with Exit.
// The test asks lab.Need for PostgreSQL first. Benchmarks get a cluster that waits for the disk.
func Database(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	ctx := context.WithoutCancel(t.Context())
	if shared.Cluster == nil {
		_, durable := t.(*testing.B)
		c, err := Start(ctx, durable)
		if err != nil {
			t.Fatal(err)
		}
		shared.Cluster = c
	}
	shared.databases++
	name := "test_" + strconv.Itoa(shared.databases)
	if err := shared.Create(ctx, name); err != nil {
		t.Fatal(err)
	}
	return shared.DSN(name)
}

// Exit ends the test process's cluster, if there is one, and the process.
func Exit(code int) {
	shared.Lock()
	if shared.Cluster != nil {
		if err := shared.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
