package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Codes of the error catalogue.
const (
	unwritable  = "SF1901"
	newer       = "SF1902"
	held        = "SF1907"
	shared      = "SF1908"
	damaged     = "SF1909"
	unreachable = "SF1910"
)

// Error is why the database cannot be used.
type Error struct {
	// SF is the code of the error catalogue.
	SF string
	// Op is what was tried, as a verb phrase.
	Op  string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

// coded gives err the code that its cause asks for, or else.
func coded(op string, err error, otherwise string) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	code := cause(err)
	switch {
	case code != "":
	case errors.Is(err, context.Canceled): // somebody wanted it to end
		return fmt.Errorf("%s: %w", op, err)
	default:
		code = otherwise
	}
	return &Error{SF: code, Op: op, Err: err}
}

// cause is the code of what a database says; empty when it says nothing of its own health.
func cause(err error) string {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff { // the upper bytes say where it was noticed (sqlite.org/rescode.html)
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return damaged
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY,
			sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM:
			return unwritable
		}
		return ""
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch { // by class (PostgreSQL manual, appendix A)
		case strings.HasPrefix(pg.Code, "XX001"), strings.HasPrefix(pg.Code, "XX002"):
			return damaged
		case strings.HasPrefix(pg.Code, "53"), strings.HasPrefix(pg.Code, "58"), pg.Code == "25006":
			return unwritable
		case strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "28"), strings.HasPrefix(pg.Code, "57P"), pg.Code == "3D000":
			return unreachable
		}
		return ""
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.Is(err, driver.ErrBadConn) || errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) {
		return unreachable
	}
	return ""
}

// again says that a transaction came off worst against another one and may be tried anew.
func again(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01") // serialization_failure, deadlock_detected
}
