package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stillframe/stillframe/internal/failpoint"
)

// attempts bounds how often a transaction is tried that came off worst against another one.
const attempts = 5

// Tx is a transaction. It is not safe for concurrent use and is good only inside the function that got it.
type Tx struct {
	dialect Dialect
	conn    *sql.Conn
	tx      *sql.Tx
}

// Update runs do in a transaction that may write; what it wrote is durable when Update returns nil, and is not there when
// it returns an error, but for a connection that is lost in the very commit. do may be called again, when two transactions of PostgreSQL
// wait for each other, so it sets what it gives out and does not add to it. With SQLite, writers wait for each other.
func (s *Store) Update(ctx context.Context, op string, do func(Tx) error) error {
	failpoint.Before("store", op)
	err := s.update(ctx, do)
	failpoint.After("store", op)
	if err != nil {
		return named(op, err)
	}
	return nil
}

func (s *Store) update(ctx context.Context, do func(Tx) error) error {
	for n := 1; ; n++ {
		err := s.within(ctx, s.write, nil, do)
		if err == nil || n == attempts || !again(err) {
			return err
		}
	}
}

// View runs do in a transaction that only reads, all of it the same instant's state.
func (s *Store) View(ctx context.Context, op string, do func(Tx) error) error {
	options := &sql.TxOptions{ReadOnly: true}
	if s.dialect == Postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	if err := s.within(ctx, s.read, options, do); err != nil {
		return named(op, err)
	}
	return nil
}

// named says what was tried, and adds the code when the database itself is the cause.
func named(op string, err error) error {
	if code := cause(err); code != "" {
		return coded(op, err, code)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func (s *Store) within(ctx context.Context, db *sql.DB, options *sql.TxOptions, do func(Tx) error) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer func() {
		if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			s.log.Debug("a transaction was not rolled back in order") // its connection is dropped, which ends it
		}
	}()
	if err := do(Tx{s.dialect, conn, tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// Exec runs a statement and says how many rows it changed.
func (t Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// One reads the only row of a query; sql.ErrNoRows when there is none.
func (t Tx) One(ctx context.Context, into []any, query string, args ...any) error {
	return t.tx.QueryRowContext(ctx, query, args...).Scan(into...)
}

// All reads the rows of a query, each by read.
func All[T any](ctx context.Context, t Tx, read func(scan func(into ...any) error) (T, error), query string, args ...any) (all []T, err error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		one, err := read(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// Lock ends a SELECT whose rows must not change until the transaction ends. SQLite has one writer, so it needs nothing.
func (t Tx) Lock() string {
	if t.dialect == Postgres {
		return " FOR UPDATE"
	}
	return ""
}

// Now is the time by the database's clock, which all nodes share; with SQLite that is this machine's.
func (t Tx) Now(ctx context.Context) (time.Time, error) {
	if t.dialect == SQLite {
		return time.Now(), nil
	}
	var ms int64
	err := t.One(ctx, []any{&ms}, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
	return time.UnixMilli(ms), err
}

// Epoch draws a number that is higher than every one drawn before, whatever any clock does: the wall clock in
// milliseconds, or one more than the last.
func (t Tx) Epoch(ctx context.Context) (int64, error) {
	return t.epochAbove(ctx, time.Now().UnixMilli()-1)
}

func (t Tx) epochAbove(ctx context.Context, floor int64) (epoch int64, err error) {
	err = t.One(ctx, []any{&epoch},
		"UPDATE counters SET value = CASE WHEN value > $1 THEN value ELSE $1 END + 1 WHERE name = 'epoch' RETURNING value", floor)
	return epoch, err
}

// SQL is the transaction for the queue's driver of SQLite.
func (t Tx) SQL() *sql.Tx { return t.tx }

// Conn hands over the connection of PostgreSQL that the transaction runs on, for the queue's driver. do must neither
// end the transaction nor keep the connection.
func (t Tx) Conn(do func(*pgx.Conn) error) error {
	return t.conn.Raw(func(driver any) error { return do(driver.(*stdlib.Conn).Conn()) })
}

// Millis is a time as it is stored; the zero time is 0.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time is what Millis stored, in UTC.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Flag is a truth value as it is stored.
func Flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
