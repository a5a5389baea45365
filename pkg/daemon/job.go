package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/schedule"
)

// spec is a job as the catalog keeps it. Paused is what somebody asked for beside the file.
type spec struct {
	config.Job
	Paused bool `json:"paused,omitempty"`
}

func readSpec(j catalog.Job) (spec, error) {
	var s spec
	if err := json.Unmarshal(j.Spec, &s); err != nil {
		return s, fmt.Errorf("read job %s: %w", j.Name, err)
	}
	return s, nil
}

// paused says whether somebody paused a job that the catalog knows already.
func (d *Daemon) paused(known []catalog.Job, j config.Job) bool {
	i := slices.IndexFunc(known, func(k catalog.Job) bool { return k.Name == j.Name })
	if i < 0 {
		return false
	}
	s, err := readSpec(known[i])
	return err == nil && s.Paused
}

// put writes a job into the catalog. It never fires by that: its next tick lies ahead.
func (d *Daemon) put(ctx context.Context, j config.Job, paused bool) (catalog.Job, error) {
	text, err := json.Marshal(spec{j, paused})
	if err != nil {
		return catalog.Job{}, err
	}
	put := catalog.Job{Name: j.Name, Origin: catalog.FromFile, Enabled: j.Enabled && !paused, Spec: text, Priority: j.Priority}
	if j.Schedule != nil {
		s, err := schedule.Parse(j.Schedule.Text(), j.Schedule.Zone)
		if err != nil {
			return catalog.Job{}, fmt.Errorf("job %s: %w", j.Name, err)
		}
		put.Next, _ = s.Next(d.Now())
	}
	return d.Catalog.PutJob(ctx, put)
}

// ErrNoJob says that the configuration has no such job.
var ErrNoJob = errors.New("no job of this name is configured")

// Enable pauses a job, or lets it go on. Neither fires it.
func (d *Daemon) Enable(ctx context.Context, name string, enabled bool) error {
	j, err := d.job(name)
	if err != nil {
		return err
	}
	d.applying.Lock()
	defer d.applying.Unlock()
	_, err = d.put(ctx, j, !enabled)
	return err
}

func (d *Daemon) job(name string) (config.Job, error) {
	jobs := d.Config().Jobs
	i := slices.IndexFunc(jobs, func(j config.Job) bool { return j.Name == name })
	if i < 0 {
		return config.Job{}, fmt.Errorf("job %q: %w", name, ErrNoJob)
	}
	return jobs[i], nil
}

// windows are the times in which a job's runs may begin.
func windows(j config.Job) (schedule.Windows, error) {
	all := schedule.Windows{}
	for _, w := range j.Windows {
		read, err := w.Window()
		if err != nil {
			return nil, err
		}
		all = append(all, read)
	}
	return all, nil
}

// needed is how much of a backup window has to be left for a run to begin: the hold's limit, and a snapshot that is slow.
const needed = 20*time.Second + 40*time.Second
