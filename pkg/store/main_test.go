package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/postgres"
)

// TestMain is also the children that tests kill, or give a full disk.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		if err := child(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(postgres.Exit))
}

func child(what string, args []string) error {
	ctx := context.Background()
	o := Options{Dir: args[0], DSN: args[1], Log: zap.NewNop()}
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	if what == "full" {
		return fill(ctx, s)
	}
	for n := 1; ; n++ {
		err := s.Update(ctx, "write", func(tx Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, 'x'), ($2, 'x')", "a"+strconv.Itoa(n), "b"+strconv.Itoa(n))
			return err
		})
		if err != nil {
			return err
		}
		fmt.Println(n) // acknowledged
	}
}

// fill writes until the disk is full, which a limit on the size of files stands in for, and tells the code.
func fill(ctx context.Context, s *Store) error {
	signal.Ignore(syscall.SIGXFSZ)
	info, err := os.Stat(s.file())
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: uint64(info.Size()) + 1<<20, Max: uint64(info.Size()) + 1<<20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for n := 1; ; n++ {
		err := s.Update(ctx, "write", func(tx Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, $2)", "a"+strconv.Itoa(n), fmt.Sprintf("%0999d", n))
			return err
		})
		if err != nil {
			fmt.Println(n-1, codeOf(err))
			return s.View(ctx, "read", func(tx Tx) error { // reading still goes
				var rows int
				err := tx.One(ctx, []any{&rows}, "SELECT count(*) FROM settings WHERE name LIKE 'a%'")
				fmt.Println(rows)
				return err
			})
		}
	}
}

// start runs a child; its standard output is given line by line.
func start(t *testing.T, what string, o Options) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "child", what, o.Dir, o.DSN)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func onSQLite(t *testing.T) Options {
	t.Helper()
	return Options{Dir: filepath.Join(t.TempDir(), "state"), Log: zap.NewNop()}
}

func onPostgres(t *testing.T) Options {
	t.Helper()
	lab.Need(t, lab.Postgres)
	o := onSQLite(t)
	o.DSN = postgres.Database(t)
	return o
}

// databases are what most tests run on.
var databases = map[string]func(*testing.T) Options{"sqlite": onSQLite, "postgres": onPostgres}

func opened(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
