package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
)

func codeOf(err error) string {
	var known interface{ Code() string }
	if errors.As(err, &known) {
		return known.Code()
	}
	return ""
}

func TestOpenAgain(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			first := s.Installation()
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
			second := opened(t, o).Installation()
			if first.ID == "" || first.ID != second.ID || first.Node != second.Node || first.Epoch >= second.Epoch {
				t.Errorf("opened as %+v, then as %+v", first, second)
			}
			if first.Reconcile != "" || second.Reconcile != "" {
				t.Errorf("reconcile: %q, then %q, want none", first.Reconcile, second.Reconcile)
			}
		})
	}
}

func TestAdopt(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			ahead := time.Now().Add(time.Hour).UnixMilli()
			o.Installation, o.EpochAbove = "from-before", ahead
			if in := opened(t, o).Installation(); in.ID != "from-before" || in.Epoch <= ahead {
				t.Errorf("Installation = %+v, want from-before and an epoch above %d", in, ahead)
			}
		})
	}
}

// TestOtherDaemon: one folder has one daemon, on PostgreSQL as well, where it is one node.
func TestOtherDaemon(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			opened(t, o)
			if _, err := Open(t.Context(), o); codeOf(err) != "SF1907" || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
				t.Errorf("Open = %v, want SF1907 with the process", err)
			}
		})
	}
}

func TestRemoteFileSystems(t *testing.T) {
	for magic, want := range map[int64]string{unix.NFS_SUPER_MAGIC: "NFS", 0xff534d42: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.EXT4_SUPER_MAGIC: ""} {
		if got := remote[magic]; got != want {
			t.Errorf("%#x is %q, want %q", magic, got, want)
		}
	}
	if err := localOnly(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			ctx := t.Context()
			stop := errors.New("stop")
			err := s.Update(ctx, "write", func(tx Tx) error {
				n, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ('a', '1')")
				if n != 1 || err != nil {
					t.Errorf("Exec = %d, %v", n, err)
				}
				return stop
			})
			if !errors.Is(err, stop) || codeOf(err) != "" {
				t.Errorf("Update = %v, want %v without a code", err, stop)
			}
			err = s.View(ctx, "read", func(tx Tx) error {
				var v string
				return tx.One(ctx, []any{&v}, "SELECT value FROM settings WHERE name = 'a'")
			})
			if !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("View = %v, want no row", err)
			}
			err = s.View(ctx, "write in a view", func(tx Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ('a', '1')")
				return err
			})
			if err == nil {
				t.Error("a view could write")
			}
		})
	}
}

func TestEpochRises(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			var mu sync.Mutex
			var all []int64
			var g errgroup.Group
			for range 8 {
				g.Go(func() error {
					for range 20 {
						err := s.Update(t.Context(), "draw", func(tx Tx) error {
							e, err := tx.Epoch(t.Context())
							mu.Lock()
							all = append(all, e)
							mu.Unlock()
							return err
						})
						if err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			slices.Sort(all)
			if n := len(slices.Compact(all)); n != 160 {
				t.Errorf("%d different epochs of 160", n)
			}
		})
	}
}

// TestBusy: writers and readers in parallel, and a copy beside them, never hear that the database is locked.
func TestBusy(t *testing.T) {
	s := opened(t, onSQLite(t))
	ctx := t.Context()
	var g errgroup.Group
	for w := range 8 {
		g.Go(func() error {
			for n := range 100 {
				err := s.Update(ctx, "write", func(tx Tx) error {
					var rows int // a read before the write is what makes deferred transactions fail
					if err := tx.One(ctx, []any{&rows}, "SELECT count(*) FROM settings"); err != nil {
						return err
					}
					_, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, 'x')", fmt.Sprint(w, "-", n))
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for range 200 {
				err := s.View(ctx, "read", func(tx Tx) error {
					_, err := All(ctx, tx, func(scan func(...any) error) (v string, err error) { return v, scan(&v) }, "SELECT name FROM settings")
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for n := range 5 {
			if _, err := s.Backup(ctx, filepath.Join(s.dir, fmt.Sprint("copy", n))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestIdleTransactionsEnd: a node that was stopped in the middle of a transaction does not keep the others from what it has locked.
// An administrator's own limit in the DSN wins.
func TestIdleTransactionsEnd(t *testing.T) {
	lab.Need(t, lab.Postgres)
	dsn := postgres.Database(t)
	for own, want := range map[string]string{"": "7s", "200ms": "200ms"} {
		o := onSQLite(t)
		o.DSN = dsn
		if own != "" {
			o.DSN += "&" + idleInTransaction + "=" + own
		}
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = s.Pool().QueryRow(t.Context(), "SHOW "+idleInTransaction).Scan(&got)
		if err := errors.Join(err, s.Close()); err != nil || got != want {
			t.Errorf("the limit is %q, %v, want %q", got, err, want)
		}
	}
	stopped := onSQLite(t)
	stopped.DSN = dsn + "&" + idleInTransaction + "=200ms"
	a, err := Open(t.Context(), stopped)
	if err != nil {
		t.Fatal(err)
	}
	other := onSQLite(t)
	other.DSN = dsn
	b, err := Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Pool().Exec(t.Context(), "CREATE TABLE held AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	tx, err := a.Pool().Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "UPDATE held SET n = 2")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pool().Exec(t.Context(), "UPDATE held SET n = 3"); err != nil {
		t.Errorf("an update of what a stopped node has locked: %v", err)
	}
	if tx.Commit(t.Context()) == nil {
		t.Error("the stopped node wrote after all")
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}

// TestMigrators: many nodes that start at once on an empty database.
func TestMigrators(t *testing.T) {
	lab.Need(t, lab.Postgres)
	dsn := postgres.Database(t)
	ids := make([]string, 4)
	var g errgroup.Group
	for n := range ids {
		o := onSQLite(t)
		o.DSN = dsn
		g.Go(func() error {
			s, err := Open(t.Context(), o)
			if err != nil {
				return err
			}
			ids[n] = s.Installation().ID
			return s.Close()
		})
	}
	if err := g.Wait(); err != nil || len(slices.Compact(ids)) != 1 {
		t.Errorf("four nodes: %v, %v, want one installation", ids, err)
	}
}

// TestNewerSchema: what a newer stillframe has changed is left alone.
func TestNewerSchema(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			err := s.Update(t.Context(), "play a newer one", func(tx Tx) error {
				_, err := tx.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, $1)", true)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			before := content(t, s.file())
			for range 2 {
				if _, err := Open(t.Context(), o); codeOf(err) != "SF1902" || !strings.Contains(err.Error(), "99") {
					t.Errorf("Open = %v, want SF1902 with the version", err)
				}
			}
			if content(t, s.file()) != before {
				t.Error("the file changed")
			}
		})
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// next is the migrations with one more.
func next(t *testing.T, step string) fs.FS {
	t.Helper()
	files := fstest.MapFS{"migrations/99999_next.sql": {Data: []byte("-- +goose Up\n" + step)}}
	own, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range own {
		data, err := fs.ReadFile(migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

// TestUpgrade: a copy of SQLite is made before its tables are changed, and a step that fails changes nothing.
func TestUpgrade(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			id := s.Installation().ID
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := open(t.Context(), o, next(t, "ALTER TABLE jobs ADD COLUMN more TEXT; NONSENSE;")); codeOf(err) != "SF1901" {
				t.Errorf("a step that fails: %v, want SF1901", err)
			}
			s, err := open(t.Context(), o, next(t, "ALTER TABLE jobs ADD COLUMN more TEXT NOT NULL DEFAULT '';"))
			if err != nil {
				t.Fatal(err)
			}
			if s.Installation().ID != id {
				t.Errorf("the installation is %s, want %s", s.Installation().ID, id)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if o.DSN == "" {
				copies, err := filepath.Glob(s.file() + ".[0-9]*") // named by the version that it had
				if err != nil || len(copies) != 1 {
					t.Fatalf("copies from before: %v, %v, want one", copies, err)
				}
				if _, err := Restore(t.Context(), o.Dir, copies[0]); err != nil {
					t.Errorf("the copy from before: %v", err)
				}
				opened(t, o)
			}
		})
	}
}

// TestKilled: whatever was acknowledged is there, and of the rest all or nothing.
func TestKilled(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			cmd, out := start(t, "write", o)
			last := 0
			for out.Scan() {
				if _, err := fmt.Sscan(out.Text(), &last); err != nil {
					t.Fatal(err)
				}
				if last == 40 {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err == nil {
				t.Fatal("the child ended by itself")
			}
			s := opened(t, o)
			var a, b int
			err := s.View(t.Context(), "count", func(tx Tx) error {
				return tx.One(t.Context(), []any{&a, &b}, `SELECT (SELECT count(*) FROM settings WHERE name LIKE 'a%'), (SELECT count(*) FROM settings WHERE name LIKE 'b%')`)
			})
			if err != nil || a != b || a < last {
				t.Errorf("%d and %d rows, %v, want equal and at least %d", a, b, err, last)
			}
		})
	}
}

// TestFullDisk: the write that does not fit has the code, and what was written before stays readable.
func TestFullDisk(t *testing.T) {
	cmd, out := start(t, "full", onSQLite(t))
	var rows, found int
	var code string
	if !out.Scan() {
		t.Fatal("the child says nothing")
	}
	if _, err := fmt.Sscan(out.Text(), &rows, &code); err != nil {
		t.Fatal(err)
	}
	if !out.Scan() {
		t.Fatal("the child does not read")
	}
	if _, err := fmt.Sscan(out.Text(), &found); err != nil || cmd.Wait() != nil {
		t.Fatal("the child failed", err)
	}
	if code != "SF1901" || rows == 0 || found != rows {
		t.Errorf("after %d rows: code %q, %d rows found; want SF1901 and all of them", rows, code, found)
	}
}

// TestNoRoomToStart needs root for a file system of 64 KiB.
func TestNoRoomToStart(t *testing.T) {
	lab.Need(t, lab.Root)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	o := onSQLite(t)
	o.Dir = dir
	if _, err := Open(t.Context(), o); codeOf(err) != "SF1901" {
		t.Errorf("Open = %v, want SF1901", err)
	}
}

func TestDamaged(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"garbage": func([]byte) []byte { return []byte(strings.Repeat("not a database ", 1000)) },
		"page": func(b []byte) []byte {
			return append(append(slices.Clone(b[:4096]), make([]byte, 8192)...), b[12288:]...)
		},
		"cut": func(b []byte) []byte { return b[:len(b)/2] },
	} {
		t.Run(name, func(t *testing.T) {
			o := onSQLite(t)
			s := opened(t, o)
			if _, err := s.Backup(t.Context(), s.file()+".copy"); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			bad := string(spoil([]byte(content(t, s.file()))))
			if err := os.WriteFile(s.file(), []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := Open(t.Context(), o); codeOf(err) != "SF1909" || !strings.Contains(err.Error(), s.file()+".copy") {
					t.Errorf("Open = %v, want SF1909 that names the copy", err)
				}
			}
			if content(t, s.file()) != bad {
				t.Error("the file changed")
			}
			aside, err := Restore(t.Context(), o.Dir, s.file()+".copy")
			if err != nil {
				t.Fatal(err)
			}
			if content(t, aside) != bad {
				t.Error("what was there is not kept aside")
			}
			opened(t, o)
		})
	}
}

// TestPutBack: a copy that is older than what the folder has seen asks for reconciliation, and the epoch rises all the same.
func TestPutBack(t *testing.T) {
	o := onSQLite(t)
	s := opened(t, o)
	c, err := s.Backup(t.Context(), filepath.Join(t.TempDir(), "copy"))
	if err != nil || c.Bytes == 0 || len(c.SHA256) != 64 {
		t.Fatalf("Backup = %+v, %v", c, err)
	}
	if _, err := s.Backup(t.Context(), c.Path); codeOf(err) != "SF1901" || !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Backup = %v, want SF1901: it exists", err)
	}
	if _, err := Restore(t.Context(), o.Dir, c.Path); codeOf(err) != "SF1907" {
		t.Errorf("Restore under a daemon = %v, want SF1907", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, o)
	seen := s.Installation()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), o.Dir, c.Path); err != nil {
		t.Fatal(err)
	}
	if in := opened(t, o).Installation(); in.Reconcile == "" || in.ID != seen.ID || in.Epoch <= seen.Epoch {
		t.Errorf("Installation = %+v, want a reason to reconcile and an epoch above %d", in, seen.Epoch)
	}
}

// TestLost: a database that is gone is a new one of the same installation.
func TestLost(t *testing.T) {
	o := onSQLite(t)
	s := opened(t, o)
	seen := s.Installation()
	if err := errors.Join(s.Close(), os.Remove(s.file())); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it stays so until somebody has looked outside, whatever is started anew
		s = opened(t, o)
		if in := s.Installation(); in.Reconcile == "" || in.ID != seen.ID || in.Epoch <= seen.Epoch {
			t.Errorf("Installation = %+v, want a reason to reconcile, the id %s and an epoch above %d", in, seen.ID, seen.Epoch)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = opened(t, o)
	if err := s.Update(t.Context(), "look outside", func(tx Tx) error { return tx.Reconciled(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if in := opened(t, o).Installation(); in.Reconcile != "" {
		t.Errorf("after that Installation = %+v, want nothing to reconcile", in)
	}
}

func TestRestoreRefuses(t *testing.T) {
	o := onSQLite(t)
	s := opened(t, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := content(t, s.file())
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", "file:"+other)
	if err == nil {
		_, err = db.ExecContext(t.Context(), "CREATE TABLE t (x)")
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{other: "SF1909", filepath.Join(t.TempDir(), "none"): ""} {
		if _, err := Restore(t.Context(), o.Dir, from); err == nil || codeOf(err) != want {
			t.Errorf("Restore(%s) = %v, want code %q", from, err, want)
		}
	}
	if content(t, s.file()) != before {
		t.Error("the file changed")
	}
}

func TestUnreachable(t *testing.T) {
	lab.Need(t, lab.Postgres)
	dsn := postgres.Database(t)
	for name, dsn := range map[string]string{
		"nobody listens": "postgres://u@127.0.0.1:1/x?sslmode=disable", "nonsense": "postgres://%%%", "no database": strings.Replace(dsn, "/test_", "/none_", 1),
	} {
		o := onSQLite(t)
		o.DSN = dsn
		if _, err := Open(t.Context(), o); codeOf(err) != "SF1910" {
			t.Errorf("%s: Open = %v, want SF1910", name, err)
		}
	}
}

// TestNoSecretInErrors: an address that cannot be read is not told with its password.
func TestNoSecretInErrors(t *testing.T) {
	o := onSQLite(t)
	for _, dsn := range []string{"postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable", "postgres://u:hunter2@127.0.0.1:port/x", "host=127.0.0.1 password=hunter2 port=x"} {
		o.DSN = dsn
		if _, err := Open(t.Context(), o); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open = %v, want an error without the password", err)
		}
	}
}

// TestCancelled: somebody who gives up gets no code, for the database is well.
func TestCancelled(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := s.Update(ctx, "write", func(Tx) error { return nil })
			if !errors.Is(err, context.Canceled) || codeOf(err) != "" {
				t.Errorf("Update = %v, want cancelled without a code", err)
			}
		})
	}
}
