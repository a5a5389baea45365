package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/schedule"
)

// Bounds of "jobs next".
const (
	maxNextDays  = 366
	maxNextTicks = 10_000
	// runNeeds is how much of a backup window has to be left for a run to begin.
	runNeeds = time.Minute
)

func (c *cli) jobsNextCommand() *cobra.Command {
	var f socketFlags
	var days int
	var file string
	cmd := &cobra.Command{
		Use: "next", Short: "List when jobs are due in the next days", Args: cobra.NoArgs,
		Long: `Lists the times at which jobs fire, in each job's own zone, and where a backup window or a blackout makes its runs wait. Paused jobs are left out.

With --config the file is asked instead of the daemon, which need not run.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < 1 || days > maxNextDays {
				return invalid("--days is %d: 1 to %d are possible", days, maxNextDays)
			}
			if cmd.Flags().Changed("config") {
				loaded, err := c.loaded(file, config.Options{})
				if err != nil {
					return err
				}
				return c.next(f.output, loaded.Jobs, days)
			}
			return c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
				jobs, err := configured(ctx, d)
				if err != nil {
					return err
				}
				return c.next(f.output, jobs, days)
			})(cmd, args)
		},
	}
	f.flags(cmd)
	cmd.Flags().IntVar(&days, "days", 7, "how many days to look ahead")
	cmd.Flags().StringVar(&file, "config", "", "take the jobs of this file, without any daemon")
	return cmd
}

// configured are the jobs of the daemon as its configuration has them; a paused one is not enabled.
func configured(ctx context.Context, d *client.Client) ([]config.Job, error) {
	jobs, err := d.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	var all []config.Job
	for _, listed := range jobs {
		one, err := d.Job(ctx, listed.Name)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(one.Spec)
		if err != nil {
			return nil, err
		}
		var j config.Job
		if err := json.Unmarshal(text, &j); err != nil {
			return nil, fmt.Errorf("read job %s: %w", listed.Name, err)
		}
		j.Name, j.Enabled = listed.Name, one.Enabled
		all = append(all, j)
	}
	return all, nil
}

// tick is one time at which a job is due, as -o json prints it. Fields are only ever added.
type tick struct {
	Job string    `json:"job"`
	At  time.Time `json:"at"`
	// StartsAt is later than At when a backup window or a blackout makes the runs wait; null when they never start.
	StartsAt *time.Time `json:"starts_at"`
	Waits    string     `json:"waits"`
	zone     string
}

func (c *cli) next(output string, jobs []config.Job, days int) error {
	now := c.now()
	ticks := []tick{}
	for _, j := range jobs {
		if !j.Enabled || j.Schedule == nil {
			continue
		}
		of, err := ticksOf(j, now, now.AddDate(0, 0, days))
		if err != nil {
			return err
		}
		if ticks = append(ticks, of...); len(ticks) > maxNextTicks {
			return invalid("more than %d times are due in %d days: give fewer --days", maxNextTicks, days)
		}
	}
	slices.SortStableFunc(ticks, func(a, b tick) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Job, b.Job)) })
	var rows [][]string
	for _, t := range ticks {
		rows = append(rows, []string{inZone(&t.At, t.zone), t.Job, t.Waits})
	}
	return c.printList(output, "ticks", ticks, "DUE|JOB|WAITS", rows)
}

func ticksOf(j config.Job, from, to time.Time) ([]tick, error) {
	s, err := schedule.Parse(j.Schedule.Text(), j.Schedule.Zone)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", j.Name, err)
	}
	var windows schedule.Windows
	for _, w := range j.Windows {
		window, err := w.Window()
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", j.Name, err)
		}
		windows = append(windows, window)
	}
	var all []tick
	for at := range s.Ticks(from, to) {
		t := tick{Job: j.Name, At: at.UTC(), zone: j.Schedule.Zone}
		t.StartsAt = &t.At
		if open, why, next := windows.Open(at, runNeeds); !open {
			t.Waits, t.StartsAt = why, when(next.UTC())
			if next.IsZero() {
				t.StartsAt = nil
			}
		}
		if all = append(all, t); len(all) > maxNextTicks {
			break
		}
	}
	return all, nil
}
