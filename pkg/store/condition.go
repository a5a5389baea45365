package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Condition is how a database is. What could not be read for a damage is empty.
type Condition struct {
	// Schema is the version of its tables, Known the one that this program makes.
	Schema, Known int64
	// Installation is whose database it is.
	Installation string
}

// current refuses tables that a newer program has made.
func (c Condition) current(op string) error {
	if c.Schema > c.Known {
		return &Error{newer, op, fmt.Errorf("it has schema version %d, this stillframe knows %d: a newer stillframe has used it", c.Schema, c.Known)}
	}
	return nil
}

// Inspect looks at a database, whether a daemon works with it or not, and changes nothing. SQLite is read through as a whole,
// which may take minutes. Its errors have the codes SF1902 (newer schema), SF1909 (damaged) and SF1910 (PostgreSQL cannot be
// reached); a SQLite that is not there is fs.ErrNotExist. o.Log may be nil.
func Inspect(ctx context.Context, o Options) (c Condition, err error) {
	s := &Store{dialect: SQLite, dir: o.Dir, files: migrations}
	op := "look at the database " + s.file()
	if o.DSN != "" {
		s.dialect, op = Postgres, "look at the database"
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.dialect == Postgres {
		err = s.openPostgres(ctx, o.DSN)
	} else if _, err = os.Stat(s.file()); err == nil {
		s.write, err = sql.Open("sqlite", sqliteDSN(s.file(), "query_only(1)")+"&mode=rw") // to read beside a writer is to write into -shm
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%s: %w", op, err)
	}
	if err != nil {
		return c, coded(op, err, unwritable)
	}
	if c, err = s.condition(ctx); err != nil {
		return c, coded(op, err, damaged)
	}
	return c, c.current(op)
}

// condition reads the whole of a SQLite, and of both what they say of themselves.
func (s *Store) condition(ctx context.Context) (c Condition, err error) {
	if c.Known, err = s.known(); err != nil {
		return c, err
	}
	if s.dialect == SQLite {
		if err := check(ctx, s.write, "integrity_check"); err != nil {
			return c, err
		}
	}
	if c.Schema, err = s.version(ctx); err != nil {
		return c, err
	}
	err = s.write.QueryRowContext(ctx, "SELECT value FROM settings WHERE name = 'installation_id'").Scan(&c.Installation)
	if err != nil {
		return c, fmt.Errorf("it is no database of stillframe: %w", err)
	}
	return c, nil
}

// known is the version of the tables that this program makes.
func (s *Store) known() (int64, error) {
	steps, err := fs.Glob(s.files, path.Join("migrations", "*.sql"))
	if err != nil || len(steps) == 0 {
		return 0, errors.Join(errors.New("no step is known"), err)
	}
	number, _, _ := strings.Cut(filepath.Base(steps[len(steps)-1]), "_") // they are in order
	return strconv.ParseInt(number, 10, 64)
}
