package guests

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/postgres"
)

const (
	// postgresStart bounds initdb and the server's start, postgresClose its end.
	postgresStart = 60 * time.Second
	postgresClose = 15 * time.Second
	// postgresFolder is the data directory below the guest's mount.
	postgresFolder = "postgres"
	// transactionPause is the client's rest between two transactions.
	transactionPause = 3 * time.Millisecond
)

// ProbePostgres says whether StartPostgres can work here.
func ProbePostgres() error {
	_, err := postgres.Find()
	return err
}

// postgresServer is one running server; only its own user reaches it, through a unix socket.
type postgresServer struct {
	postgres.System
	socket string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// servePostgres starts a server on a data directory and waits until it answers.
func servePostgres(ctx context.Context, s postgres.System, data, log string) (*postgresServer, error) {
	socket, err := os.MkdirTemp("", "lab-pg-")
	if err != nil {
		return nil, err
	}
	v := &postgresServer{System: s, socket: socket, log: log, exited: make(chan struct{})}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = os.Chown(socket, int(s.UID), int(s.GID))
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(socket))
	}
	v.cmd = s.Command("postgres", "-D", data, "-k", socket, "-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_wal_size=32MB",
		"-c", "min_wal_size=8MB", "-c", "log_checkpoints=on", "-c", "unix_socket_permissions=0700")
	v.cmd.Stdout, v.cmd.Stderr = out, out
	if err := errors.Join(v.cmd.Start(), out.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), os.Remove(socket))
	}
	go func() {
		defer close(v.exited)
		if err := v.cmd.Wait(); err != nil {
			return // its log says more
		}
	}()
	for {
		_, err := v.query(ctx, "SELECT 1")
		if err == nil {
			return v, nil
		}
		select {
		case <-v.exited:
			text, readErr := os.ReadFile(log)
			return nil, errors.Join(fmt.Errorf("start PostgreSQL: it ended: %s", text), readErr, os.RemoveAll(socket))
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for PostgreSQL: %w", err), v.close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// psql is a client of the server.
func (v *postgresServer) psql(args ...string) *exec.Cmd {
	return v.Command("psql", append([]string{"-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-h", v.socket, "-d", "postgres"}, args...)...)
}

// query runs one statement and gives what it prints.
func (v *postgresServer) query(ctx context.Context, sql string) (string, error) {
	cmd := v.psql("-c", sql)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() }) //nolint:errcheck // it has ended then
	defer stop()
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", sql, err, strings.TrimSpace(out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// close ends the server fast, and with force when it does not end.
func (v *postgresServer) close() error {
	err := v.cmd.Process.Signal(syscall.SIGINT) // fast shutdown (PostgreSQL manual, 19.5)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	timer := time.NewTimer(postgresClose)
	defer timer.Stop()
	select {
	case <-v.exited:
	case <-timer.C:
		err = errors.Join(err, fmt.Errorf("PostgreSQL did not end in %s", postgresClose), syscall.Kill(-v.cmd.Process.Pid, syscall.SIGKILL))
		<-v.exited
	}
	return errors.Join(err, os.RemoveAll(v.socket))
}

// Postgres is a real PostgreSQL on the disk of a linux guest, with a client that commits one numbered row after the other.
type Postgres struct {
	server *postgresServer
	client *exec.Cmd
	input  io.WriteCloser
	done   sync.WaitGroup

	mu   sync.Mutex
	acks []time.Time // when row i+1 was acknowledged
	over bool
	err  error

	closing sync.Once
	closed  error
}

// StartPostgres makes a cluster on the guest's disk, starts its server and returns when the client's first transaction
// is committed. It needs root, and PostgreSQL. The guest closes it.
func StartPostgres(ctx context.Context, g *Linux) (*Postgres, error) {
	installed, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, postgresStart, fmt.Errorf("PostgreSQL took longer than %s", postgresStart))
	defer cancel()
	data := filepath.Join(g.mount, postgresFolder)
	if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, int(installed.UID), int(installed.GID))); err != nil {
		return nil, fmt.Errorf("make a cluster: %w", err)
	}
	out, err := installed.Command("initdb", "-D", data, "-U", installed.User, "-A", "trust", "-k", "-E", "UTF8", "--wal-segsize=1", "--no-instructions").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make a cluster: %w: %s", err, out)
	}
	server, err := servePostgres(ctx, installed, data, filepath.Join(filepath.Dir(g.disk), "postgres.log"))
	if err != nil {
		return nil, err
	}
	p := &Postgres{server: server}
	g.closers = append(g.closers, p.Close)
	if _, err := server.query(ctx, "CREATE TABLE records (n bigint PRIMARY KEY, filler text NOT NULL)"); err != nil {
		return nil, err
	}
	return p, p.startClient(ctx)
}

func (p *Postgres) startClient(ctx context.Context) error {
	p.client = p.server.psql()
	p.client.Stderr = os.Stderr
	in, err := p.client.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.client.StdoutPipe()
	if err != nil {
		return err
	}
	p.input = in
	if err := p.client.Start(); err != nil {
		return fmt.Errorf("start the client: %w", err)
	}
	first := make(chan struct{})
	p.done.Go(func() { p.fail(p.write(bufio.NewScanner(out), first)) })
	select {
	case <-first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the first transaction: %w", context.Cause(ctx))
	}
}

// write commits one row after the other. psql prints the number behind each when the server has said that it is committed.
func (p *Postgres) write(answers *bufio.Scanner, first chan struct{}) error {
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(p.input, "INSERT INTO records VALUES (%d, repeat('x', 100));\n\\echo %d\n", n, n); err != nil {
			return fmt.Errorf("write transaction %d: %w", n, err)
		}
		if !answers.Scan() {
			return errors.Join(fmt.Errorf("transaction %d was not acknowledged", n), answers.Err())
		}
		if answers.Text() != strconv.Itoa(n) {
			return fmt.Errorf("transaction %d was answered by %q", n, answers.Text())
		}
		p.mu.Lock()
		p.acks = append(p.acks, time.Now())
		p.mu.Unlock()
		if n == 1 {
			close(first)
		}
		time.Sleep(transactionPause)
	}
}

func (p *Postgres) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && !p.over {
		p.err = err
	}
}

// HookEnv is what a hook's description has to set, so that the hook finds the server.
func (p *Postgres) HookEnv() []string {
	return []string{"PGHOST=" + p.server.socket, "STILLFRAME_PG_USER=" + p.server.User}
}

// AcknowledgedBefore counts the transactions that were acknowledged before t.
func (p *Postgres) AcknowledgedBefore(t time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _ := slices.BinarySearchFunc(p.acks, t, func(ack, t time.Time) int { return ack.Compare(t) })
	return n
}

// Log is what the server has logged so far. It lies outside the guest's disk.
func (p *Postgres) Log() (string, error) {
	text, err := os.ReadFile(p.server.log)
	return string(text), err
}

// Err is the first thing that went wrong with the client, nil while all is well.
func (p *Postgres) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends the client and the server; the guest must not be frozen. It is idempotent.
func (p *Postgres) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		var errs []error
		if p.client != nil && p.client.Process != nil {
			errs = append(errs, p.input.Close())
			p.done.Wait()
			if err := p.client.Wait(); err != nil && p.client.ProcessState == nil {
				errs = append(errs, err)
			}
		}
		p.closed = errors.Join(append(errs, p.server.close())...)
	})
	return p.closed
}

// Recovery is what a real start of PostgreSQL made of an image of a guest's disk.
type Recovery struct {
	// Rows counts the client's rows, First and Last are the lowest and the highest of them.
	Rows, First, Last int
	// Log is the server's log of its start and recovery.
	Log string
}

// RecoverPostgres copies an image into the folder dir, mounts the copy, starts a server on it and counts. The image is
// only read. It needs root.
func RecoverPostgres(ctx context.Context, image, dir string) (r Recovery, err error) {
	installed, err := postgres.Find()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresStart)
	defer cancel()
	copied, mount, log := filepath.Join(dir, "copy.raw"), filepath.Join(dir, "mnt"), filepath.Join(dir, "recovery.log")
	if err := system(ctx, "cp", "--sparse=always", image, copied); err != nil {
		return r, err
	}
	if err := os.Mkdir(mount, 0o700); err != nil {
		return r, err
	}
	if err := system(ctx, "mount", "-t", "ext4", "-o", "loop,nodev,nosuid", copied, mount); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, system(context.WithoutCancel(ctx), "umount", mount)) }()
	data := filepath.Join(mount, postgresFolder)
	// It names a process of the machine that the image was taken of, which is this one here and may still live.
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil {
		return r, err
	}
	server, err := servePostgres(ctx, installed, data, log)
	if err != nil {
		return r, err
	}
	answer, err := server.query(ctx, "SELECT count(*), min(n), max(n) FROM records WHERE filler = repeat('x', 100)")
	if err = errors.Join(err, server.close()); err != nil {
		return r, err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return r, err
	}
	r.Log = string(text)
	if _, err := fmt.Sscanf(answer, "%d|%d|%d", &r.Rows, &r.First, &r.Last); err != nil {
		return r, fmt.Errorf("count the rows: %w: %q", err, answer)
	}
	return r, nil
}
