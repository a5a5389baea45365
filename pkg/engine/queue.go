package engine

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

// Settings of River. It runs each delivery once and gives it as long as a run may take: what it would do with a row whose
// process died is ours to do, by leases and epochs.
const (
	jobLimit    = 7 * 24 * time.Hour
	rescueAfter = jobLimit + time.Hour // less than jobLimit is refused
	keepRows    = time.Hour
	// fetchEvery bounds how often a queue is read: with 20 workers that is 400 deliveries a second.
	fetchEvery = 50 * time.Millisecond
	// pollEvery is how often it is read when no notification came.
	pollEvery = time.Second
	// atOnce is how many deliveries one call inserts.
	atOnce = 1000
)

// delivery is a row of the queue. It holds no more: what a run is about stands in the runs.
type delivery struct {
	RunID string `json:"run_id"`
	Epoch int64  `json:"epoch"`
}

// Kind is the name of the row's kind.
func (delivery) Kind() string { return "run" }

// queueOf names the queue of a vCenter, whose id may hold what the name of a queue may not.
func queueOf(vcenter string) string {
	sum := sha256.Sum256([]byte(vcenter))
	return "vc-" + hex.EncodeToString(sum[:10])
}

// queue is River on one of the two databases.
type queue interface {
	migrate(ctx context.Context) error
	insert(ctx context.Context, tx store.Tx, deliveries []catalog.Delivery) error
	start(ctx context.Context) error
	// stop takes no new deliveries and waits for those at work; now cancels them first.
	stop(ctx context.Context, now bool) error
	add(name string, workers int) error
	remove(ctx context.Context, name string) error
	pause(ctx context.Context, name string, paused bool) error
}

// driven is a queue on transactions of type T, which inside opens.
type driven[T any] struct {
	driver riverdriver.Driver[T]
	client *river.Client[T]
	inside func(store.Tx, func(T) error) error
}

func newQueue(s *store.Store, config *river.Config) (queue, error) {
	if s.Dialect() == store.SQLite {
		return newDriven(riversqlite.New(s.Writer()), config, func(tx store.Tx, do func(*sql.Tx) error) error { return do(tx.SQL()) })
	}
	return newDriven(riverpgxv5.New(s.Pool()), config, func(tx store.Tx, do func(pgx.Tx) error) error {
		return tx.Conn(func(c *pgx.Conn) error { return do(borrowed{c}) })
	})
}

func newDriven[T any](driver riverdriver.Driver[T], config *river.Config, inside func(store.Tx, func(T) error) error) (queue, error) {
	client, err := river.NewClient(driver, config)
	return driven[T]{driver, client, inside}, err
}

func (q driven[T]) migrate(ctx context.Context) error {
	m, err := rivermigrate.New(q.driver, &rivermigrate.Config{Logger: silent})
	if err != nil {
		return err
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (q driven[T]) insert(ctx context.Context, tx store.Tx, deliveries []catalog.Delivery) error {
	for len(deliveries) > 0 {
		n := min(atOnce, len(deliveries))
		rows := make([]river.InsertManyParams, 0, n)
		for _, d := range deliveries[:n] {
			options := &river.InsertOpts{Queue: queueOf(d.VCenter), Priority: min(max(d.Priority, 1), 4), MaxAttempts: 1, ScheduledAt: d.NotBefore}
			rows = append(rows, river.InsertManyParams{Args: delivery{d.RunID, d.Epoch}, InsertOpts: options})
		}
		err := q.inside(tx, func(t T) error {
			_, err := q.client.InsertManyFastTx(ctx, t, rows)
			return err
		})
		if err != nil {
			return err
		}
		deliveries = deliveries[n:]
	}
	return nil
}

func (q driven[T]) start(ctx context.Context) error { return q.client.Start(ctx) }

func (q driven[T]) stop(ctx context.Context, now bool) error {
	if now {
		return q.client.StopAndCancel(ctx)
	}
	return q.client.Stop(ctx)
}

func (q driven[T]) add(name string, workers int) error {
	err := q.client.Queues().Add(name, river.QueueConfig{MaxWorkers: workers})
	var there *river.QueueAlreadyAddedError
	if errors.As(err, &there) {
		return nil
	}
	return err
}

func (q driven[T]) remove(ctx context.Context, name string) error {
	err := q.client.Queues().Remove(ctx, name)
	var none *river.QueueNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	return err
}

func (q driven[T]) pause(ctx context.Context, name string, paused bool) error {
	var err error
	if paused {
		err = q.client.QueuePause(ctx, name, nil)
	} else {
		err = q.client.QueueResume(ctx, name, nil)
	}
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil // its row comes with its first producer, which is not paused
	}
	return err
}

// borrowed is the connection of a transaction that database/sql began, and alone ends.
type borrowed struct{ conn *pgx.Conn }

var (
	_         pgx.Tx = borrowed{}
	errBorrow        = errors.New("the transaction is another's")
)

// Begin, Commit and Rollback refuse; LargeObjects are not used.
func (b borrowed) Begin(context.Context) (pgx.Tx, error) { return nil, errBorrow }
func (b borrowed) Commit(context.Context) error          { return errBorrow }
func (b borrowed) Rollback(context.Context) error        { return errBorrow }
func (b borrowed) LargeObjects() pgx.LargeObjects        { return pgx.LargeObjects{} }
func (b borrowed) Conn() *pgx.Conn                       { return b.conn }

func (b borrowed) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	return b.conn.CopyFrom(ctx, table, columns, rows)
}

func (b borrowed) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	return b.conn.SendBatch(ctx, batch)
}

func (b borrowed) Prepare(ctx context.Context, name, text string) (*pgconn.StatementDescription, error) {
	return b.conn.Prepare(ctx, name, text)
}

func (b borrowed) Exec(ctx context.Context, text string, args ...any) (pgconn.CommandTag, error) {
	return b.conn.Exec(ctx, text, args...)
}

func (b borrowed) Query(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	return b.conn.Query(ctx, text, args...)
}

func (b borrowed) QueryRow(ctx context.Context, text string, args ...any) pgx.Row {
	return b.conn.QueryRow(ctx, text, args...)
}
