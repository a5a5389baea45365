package catalog

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

// Figures are what is asked of everything at once.
type Figures struct {
	Jobs      []JobFigures
	VMs       []VMFigures
	Snapshots []SnapshotFigures
	// Leftovers counts what still lies in guests of runs that are not at work.
	Leftovers int
}

// JobFigures are a job, when a run of it ended last that did all it should, and the VMs that it took when it fired last, by
// their IDs.
type JobFigures struct {
	Job
	LastOK time.Time
	Took   []string
}

// VMFigures are a VM that is there, and what its last good point proved.
type VMFigures struct {
	ID, VCenter, InstanceUUID, Moref, Name string
	Level                                  string
	LastOK                                 time.Time
	// ExcludedBy is that of VM.
	ExcludedBy string
}

// SnapshotFigures count the snapshots of a vCenter that may be there, and those that no run needs.
type SnapshotFigures struct {
	VCenter       string
	Open, Orphans int
	Oldest        time.Time
}

// A VM is gone when the others of its vCenter have been seen for so long without it: three inventories.
const goneAfter = 15 * time.Minute

// early is how much before its tick a run can seem to have been made: the clocks of nodes differ.
const early = time.Hour

// Figures reads them, all of the same instant, with a few statements for each job and a few for all else.
func (c *Catalog) Figures(ctx context.Context) (f Figures, err error) {
	err = c.store.View(ctx, "count jobs, VMs and snapshots", func(tx store.Tx) error {
		f = Figures{}
		jobs, err := store.All(ctx, tx, readJob, "SELECT "+jobColumns+" FROM jobs ORDER BY name")
		if err != nil {
			return err
		}
		for _, j := range jobs {
			one, err := jobFigures(ctx, tx, j)
			if err != nil {
				return err
			}
			f.Jobs = append(f.Jobs, one)
		}
		f.VMs, err = store.All(ctx, tx, func(scan func(...any) error) (VMFigures, error) {
			var v VMFigures
			var ok int64
			err := scan(&v.ID, &v.VCenter, &v.InstanceUUID, &v.Moref, &v.Name, &v.Level, &ok, &v.ExcludedBy)
			v.LastOK = store.Time(ok)
			return v, err
		}, `SELECT v.id, v.vcenter_id, v.instance_uuid, v.moref, v.name, COALESCE(r.level, ''), v.last_ok_at, v.excluded_by
			FROM vms v JOIN (SELECT vcenter_id, MAX(seen_at) AS last FROM vms GROUP BY vcenter_id) s ON s.vcenter_id = v.vcenter_id
			LEFT JOIN runs r ON r.id = v.last_ok_run WHERE v.seen_at >= s.last - $1`, goneAfter.Milliseconds())
		if err != nil {
			return err
		}
		f.Snapshots, err = store.All(ctx, tx, func(scan func(...any) error) (SnapshotFigures, error) {
			var s SnapshotFigures
			var oldest int64
			err := scan(&s.VCenter, &s.Open, &s.Orphans, &oldest)
			s.Oldest = store.Time(oldest)
			return s, err
		}, `SELECT s.vcenter_id, COUNT(*), SUM(CASE WHEN s.state = 'orphan' OR (s.state IN ('intent', 'created', 'remove_requested') AND r.id IS NULL) THEN 1 ELSE 0 END),
			MIN(s.created_at) FROM snapshot_ledger s LEFT JOIN runs r ON r.id = s.run_id AND r.state IN `+unfinished+`
			WHERE s.state <> 'removed' AND s.state NOT IN ('foreign', 'lost') GROUP BY s.vcenter_id ORDER BY s.vcenter_id`)
		if err != nil {
			return err
		}
		return tx.One(ctx, []any{&f.Leftovers}, `SELECT COUNT(*) FROM steps s JOIN runs r ON r.id = s.run_id
			WHERE s.state = 'intent' AND s.name IN ('agent_folder', 'agent_process') AND r.state NOT IN ('queued', 'running')`)
	})
	return f, err
}

func jobFigures(ctx context.Context, tx store.Tx, j Job) (JobFigures, error) {
	f := JobFigures{Job: j}
	last, err := store.All(ctx, tx, func(scan func(...any) error) (at int64, err error) { return at, scan(&at) },
		"SELECT finished_at FROM runs WHERE job_id = $1 AND state = 'done' AND level NOT IN ('', 'unproved') ORDER BY created_at DESC, id DESC LIMIT 1", j.ID)
	for _, at := range last {
		f.LastOK = store.Time(at)
	}
	if err != nil || j.LastFired.IsZero() {
		return f, err
	}
	f.Took, err = store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
		"SELECT vm_id FROM runs WHERE job_id = $1 AND created_at >= $2 AND scheduled_for = $3", j.ID, store.Millis(j.LastFired.Add(-early)), store.Millis(j.LastFired))
	return f, err
}
