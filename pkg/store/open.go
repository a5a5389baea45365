// Package store keeps what the daemon knows in one database, SQLite in its state folder or PostgreSQL for several nodes.
//
// Both run the same statements: numbered parameters ($1), TEXT for names and JSON, BIGINT for times in Unix milliseconds
// and for durations. Three things differ, and no more: how a row is locked (Tx.Lock), whose clock tells the time (Tx.Now),
// and who makes a copy (Store.Backup).
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/zap"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Dialect is which of the two databases it is.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// The names in the state folder.
const (
	fileName = "stillframe.db"
	lockName = "stillframe.lock"
)

// Limits.
const (
	// readers is how many reads of SQLite run beside each other, poolSize how many connections to PostgreSQL one node has.
	readers  = 4
	poolSize = 16
	// connectLimit bounds one attempt to reach PostgreSQL.
	connectLimit = 5 * time.Second
)

// Options say which database it is.
type Options struct {
	// Dir is the absolute path of the state folder, always needed: it holds the lock against a second daemon and what this
	// node remembers of its installation; with SQLite also the database.
	Dir string
	// DSN is the address of PostgreSQL; empty means SQLite. It must be a direct connection, or one pooled by session.
	DSN string
	// Installation and EpochAbove are what an earlier memory of this folder knew. A new database takes them over.
	Installation string
	EpochAbove   int64
	Log          *zap.Logger
}

func (o Options) check() error {
	switch {
	case !filepath.IsAbs(o.Dir):
		return fmt.Errorf("the path of the state folder %q is not absolute", o.Dir)
	case o.Log == nil:
		return errors.New("there is no log")
	}
	return nil
}

// Store is an open database. It is safe for concurrent use; who opened it closes it, when nothing uses it any more.
type Store struct {
	dialect      Dialect
	dir          string
	log          *zap.Logger
	lock         *os.File
	write, read  *sql.DB
	pool         *pgxpool.Pool
	installation Installation
	files        fs.FS
}

// Open locks the state folder, opens the database, looks whether it is whole, and brings its tables up to date. It blocks
// while another node does the latter. Its errors have the codes SF1901 (cannot be written), SF1902 (newer schema), SF1907
// (another daemon), SF1908 (file system), SF1909 (damaged) and SF1910 (PostgreSQL cannot be reached).
func Open(ctx context.Context, o Options) (*Store, error) { return open(ctx, o, migrations) }

func open(ctx context.Context, o Options, files fs.FS) (s *Store, err error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	s = &Store{dialect: SQLite, dir: o.Dir, log: o.Log.Named("store"), files: files}
	if o.DSN != "" {
		s.dialect = Postgres
	}
	if s.lock, err = lockFolder(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if s.dialect == Postgres {
		err = s.openPostgres(ctx, o.DSN)
	} else {
		err = s.openSQLite(ctx)
	}
	if err != nil {
		return s, err
	}
	if err := s.migrate(ctx); err != nil {
		return s, err
	}
	return s, s.install(ctx, o)
}

// sqliteDSN names a SQLite file. Pragmas belong to one connection, so they stand where every new one reads them. Without
// immediate, a transaction that reads first and writes then gets SQLITE_BUSY at once, whatever the timeout; FULL, because
// WAL with NORMAL may lose the last commits when the power fails.
func sqliteDSN(path string, pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func (s *Store) openSQLite(ctx context.Context) error {
	if err := localOnly(s.dir); err != nil {
		return err
	}
	path := s.file()
	// SQLite makes its file readable by all, as far as the umask lets it.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return coded("open the database "+path, err, unwritable)
	}
	if err := file.Close(); err != nil {
		return coded("open the database "+path, err, unwritable)
	}
	full := []string{"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}
	if s.write, err = sql.Open("sqlite", sqliteDSN(path, full...)+"&_txlock=immediate"); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	s.write.SetMaxIdleConns(1)
	if s.read, err = sql.Open("sqlite", sqliteDSN(path, append(full, "query_only(1)")...)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.whole(ctx)
}

// A node that is stopped in the middle of a transaction would hold its locks for as long as it stands, those of its leases too, and
// keep every other node from taking over: the server ends the session after idleLimit, before a lease is over.
const (
	idleInTransaction = "idle_in_transaction_session_timeout"
	idleLimit         = 7 * time.Second
)

func (s *Store) openPostgres(ctx context.Context, dsn string) error {
	const op = "open PostgreSQL"
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return coded(op, err, unreachable)
	}
	config.MaxConns = max(config.MaxConns, poolSize)
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectLimit
	}
	if _, told := config.ConnConfig.RuntimeParams[idleInTransaction]; !told {
		config.ConnConfig.RuntimeParams[idleInTransaction] = strconv.FormatInt(idleLimit.Milliseconds(), 10)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return coded(op, err, unreachable)
	}
	s.write = stdlib.OpenDBFromPool(s.pool)
	s.read = s.write
	if err := s.write.PingContext(ctx); err != nil {
		return coded(op, err, unreachable)
	}
	return nil
}

// file is the path of the SQLite file.
func (s *Store) file() string { return filepath.Join(s.dir, fileName) }

// Close ends all connections, and lets the state folder go. It is idempotent.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	s.read, s.write, s.pool, s.lock = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Dialect says which database it is.
func (s *Store) Dialect() Dialect { return s.dialect }

// Writer is the one write handle of SQLite, for the queue's driver.
func (s *Store) Writer() *sql.DB { return s.write }

// Pool are the connections to PostgreSQL, for the queue's driver; nil with SQLite.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }
