package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The wait for another node that changes tables: a look every second, for 5 minutes.
const (
	lockPause = 1
	lockTries = 300
)

// Alone runs do while no other node changes tables. With SQLite the folder's lock sees to that already.
func (s *Store) Alone(ctx context.Context, do func(context.Context) error) (err error) {
	if s.dialect == SQLite {
		return do(ctx)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockPause, lockTries))
	if err != nil {
		return err
	}
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := locker.SessionLock(ctx, conn); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn)) }()
	return do(ctx)
}

func (s *Store) migrate(ctx context.Context) error {
	const op = "bring the database up to date"
	if err := s.Alone(ctx, s.up); err != nil {
		return coded(op, err, unwritable)
	}
	return nil
}

// up runs the steps that the database lacks. One that has more than this binary knows is left alone.
func (s *Store) up(ctx context.Context) error {
	files, err := fs.Sub(s.files, "migrations")
	if err != nil {
		return err
	}
	dialect := goose.DialectSQLite3
	if s.dialect == Postgres {
		dialect = goose.DialectPostgres
	}
	provider, err := goose.NewProvider(dialect, s.write, files, goose.WithDisableGlobalRegistry(true), goose.WithVerbose(false))
	if err != nil {
		return err
	}
	have, err := s.version(ctx)
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	know := sources[len(sources)-1].Version
	if err := (Condition{Schema: have, Known: know}).current("bring the database up to date"); err != nil || have == know {
		return err
	}
	if have > 0 && s.dialect == SQLite {
		kept := s.file() + "." + strconv.FormatInt(have, 10)
		if err := remove(kept); err != nil { // of an upgrade that did not end
			return err
		}
		if _, err := s.Backup(ctx, kept); err != nil {
			return fmt.Errorf("keep a copy of the database before it is changed: %w", err)
		}
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		s.log.Info("the database was changed", zap.Int64("schema", r.Source.Version), zap.Duration("took", r.Duration))
	}
	return err
}

// version is the schema that the database has, 0 when it has none. It changes nothing.
func (s *Store) version(ctx context.Context) (int64, error) {
	var name sql.NullString
	look := "SELECT max(name) FROM sqlite_master WHERE name = 'goose_db_version'"
	if s.dialect == Postgres {
		look = "SELECT to_regclass('goose_db_version')::text"
	}
	if err := s.write.QueryRowContext(ctx, look).Scan(&name); err != nil || !name.Valid {
		return 0, err
	}
	var version int64
	err := s.write.QueryRowContext(ctx, "SELECT COALESCE(max(version_id), 0) FROM goose_db_version").Scan(&version)
	return version, err
}
