package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/store"
)

// Origin is where a job is written down.
type Origin string

// The origins.
const (
	FromFile Origin = "file"
	FromAPI  Origin = "api"
)

// Job is an operator's standing order.
type Job struct {
	ID, Name string
	Origin   Origin
	Enabled  bool
	// Spec is what it says, as the configuration has it; it is only kept here.
	Spec     json.RawMessage
	Priority int
	// Revision rises with each change.
	Revision int64
	// Next is when it fires next, never when zero; LastFired the tick for which it fired last.
	Next, LastFired  time.Time
	Created, Updated time.Time
}

const jobColumns = "id, name, origin, enabled, spec, priority, revision, next_run_at, last_fired_for, created_at, updated_at"

func readJob(scan func(...any) error) (Job, error) {
	var j Job
	var spec, origin string
	var next, fired, created, updated int64
	err := scan(&j.ID, &j.Name, &origin, &j.Enabled, &spec, &j.Priority, &j.Revision, &next, &fired, &created, &updated)
	j.Origin, j.Spec = Origin(origin), json.RawMessage(spec)
	j.Next, j.LastFired, j.Created, j.Updated = store.Time(next), store.Time(fired), store.Time(created), store.Time(updated)
	return j, err
}

// PutJob makes a job, or changes the one of its name. One that says what it said before keeps its next tick; otherwise Next
// is taken, which must lie ahead: a job never fires because it was edited. A job from a file is changed only from the file.
func (c *Catalog) PutJob(ctx context.Context, j Job) (Job, error) {
	var put Job
	err := c.store.Update(ctx, "write job "+j.Name, func(tx store.Tx) error {
		known, err := job(ctx, tx, j.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			known = Job{ID: uuid.NewString(), Created: c.now()}
		case err != nil:
			return err
		case known.Origin == FromFile && j.Origin != FromFile:
			return fmt.Errorf("job %s: %w", j.Name, ErrReadOnly)
		case known.Enabled == j.Enabled && string(known.Spec) == string(j.Spec) && known.Priority == j.Priority && known.Origin == j.Origin:
			put = known
			return nil
		}
		now := c.millis()
		rows, err := store.All(ctx, tx, readJob, `INSERT INTO jobs (id, name, origin, enabled, spec, priority, revision, next_run_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET origin = EXCLUDED.origin, enabled = EXCLUDED.enabled, spec = EXCLUDED.spec,
			priority = EXCLUDED.priority, revision = EXCLUDED.revision, next_run_at = EXCLUDED.next_run_at, updated_at = EXCLUDED.updated_at RETURNING `+jobColumns,
			known.ID, j.Name, string(j.Origin), store.Flag(j.Enabled), string(j.Spec), j.Priority, known.Revision+1, store.Millis(j.Next), store.Millis(known.Created), now)
		if err == nil {
			put = rows[0]
		}
		return err
	})
	return put, err
}

// job finds one by its name or ID.
func job(ctx context.Context, tx store.Tx, name string) (Job, error) {
	j, err := readJob(func(into ...any) error {
		return tx.One(ctx, into, "SELECT "+jobColumns+" FROM jobs WHERE name = $1 OR id = $1", name)
	})
	return j, missing("job", name, err)
}

// Job gives one by its name or ID, ErrNotFound if there is none.
func (c *Catalog) Job(ctx context.Context, name string) (j Job, err error) {
	err = c.store.View(ctx, "read a job", func(tx store.Tx) error {
		j, err = job(ctx, tx, name)
		return err
	})
	return j, err
}

// Jobs lists all jobs by name.
func (c *Catalog) Jobs(ctx context.Context) (all []Job, err error) {
	err = c.store.View(ctx, "list jobs", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readJob, "SELECT "+jobColumns+" FROM jobs ORDER BY name")
		return err
	})
	return all, err
}

// DueJobs lists the enabled jobs whose tick has come by the database's clock, which it gives too; those that wait for
// longest come first.
func (c *Catalog) DueJobs(ctx context.Context) (all []Job, now time.Time, err error) {
	err = c.store.View(ctx, "look for due jobs", func(tx store.Tx) error {
		if now, err = tx.Now(ctx); err != nil {
			return err
		}
		all, err = store.All(ctx, tx, readJob, "SELECT "+jobColumns+" FROM jobs WHERE enabled = 1 AND next_run_at > 0 AND next_run_at <= $1 ORDER BY next_run_at, name", store.Millis(now))
		return err
	})
	return all, now, err
}

// RemoveJob forgets a job. Its runs stay.
func (c *Catalog) RemoveJob(ctx context.Context, name string, by Origin) error {
	return c.store.Update(ctx, "remove job "+name, func(tx store.Tx) error {
		j, err := job(ctx, tx, name)
		if err != nil {
			return err
		}
		if j.Origin == FromFile && by != FromFile {
			return fmt.Errorf("job %s: %w", name, ErrReadOnly)
		}
		_, err = tx.Exec(ctx, "DELETE FROM jobs WHERE id = $1", j.ID)
		return err
	})
}
