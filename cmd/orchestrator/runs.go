package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

func (c *cli) runsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "runs", Short: "What the daemon did and is doing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.runsListCommand(), c.runsShowCommand(), c.runsFollowCommand(), c.runsCancelCommand(), c.runsExplainCommand(), c.runsTimelineCommand(), c.runsLogsCommand())
	return group
}

func (c *cli) runsListCommand() *cobra.Command {
	var f socketFlags
	var filter api.RunFilter
	var vm string
	var most int
	states := []string{"queued", "running", "compensating", "done", "failed", "cancelled", "skipped"}
	cmd := &cobra.Command{
		Use: "list", Short: "List runs, the newest first", Args: cobra.NoArgs,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			if most < 0 {
				return invalid("--limit is %d", most)
			}
			if vm != "" {
				v, err := findVM(ctx, d, vm)
				if err != nil {
					return err
				}
				filter.VM = v.ID
			}
			runs, err := d.Runs(ctx, filter, most)
			if err != nil {
				return err
			}
			return c.listRuns(f.output, runs)
		}),
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&filter.Job, "job", "", "only of this job")
	flags.StringVar(&vm, "vm", "", "only of this VM")
	flags.StringVar(&filter.VCenter, "vcenter", "", "only of this vCenter, by its name in the configuration")
	flags.Var(&choice{&filter.State, states}, "state", "only in this state: "+strings.Join(states, ", "))
	flags.BoolVar(&filter.Unfinished, "unfinished", false, "only those that have not ended")
	flags.IntVar(&most, "limit", 50, "how many; 0 means all")
	c.completedFlag(cmd, "job", &f, jobNames)
	c.completedFlag(cmd, "vm", &f, vmNames)
	if err := cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
	return cmd
}

func (c *cli) listRuns(output string, runs []api.Run) error {
	var rows [][]string
	for _, r := range runs {
		rows = append(rows, []string{r.ID, r.Job, r.VM, r.State, r.Outcome, r.Level, first(r.ErrorCode, r.Cause), stamp(r.StartedAt), took(r)})
	}
	return c.printList(output, "runs", some(runs), "RUN|JOB|VM|STATE|OUTCOME|LEVEL|CAUSE|STARTED|TOOK", rows)
}

// took is how long a run took from its start to its end.
func took(r api.Run) string {
	if r.StartedAt == nil || r.FinishedAt == nil {
		return ""
	}
	return r.FinishedAt.Sub(*r.StartedAt).Round(100 * time.Millisecond).String()
}

// runID refuses what is no run's id, before it is a part of a path.
func runID(text string) (string, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return "", invalid("%q is not the id of a run; \"stillframe runs list\" lists them", text)
	}
	return id.String(), nil
}

// ofRun makes a command that is about one run.
func (c *cli) ofRun(use, short, long string, do func(ctx context.Context, d *client.Client, id, output string) error) *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: use + " RUN", Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			id, err := runID(args[0])
			if err != nil {
				return err
			}
			return do(ctx, d, id, f.output)
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1, runNames)
	return cmd
}

func (c *cli) runsShowCommand() *cobra.Command {
	return c.ofRun("show", "Show one run", "", func(ctx context.Context, d *client.Client, id, output string) error {
		r, err := d.Run(ctx, id)
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(c.stdout, struct {
				APIVersion string `json:"api_version"`
				api.Run
			}{backup.APIVersion, r})
		}
		return columns(c.stdout, "run|"+r.ID, [][]string{
			{"vm", r.VM + " (" + r.VMID + ")"},
			{"vcenter", r.VCenterID},
			{"job", r.Job},
			{"kind", r.Kind},
			{"trigger", strings.TrimSpace(r.Trigger + " " + r.RequestedBy)},
			{"for", stamp(r.ScheduledFor)},
			{"state", r.State},
			{"phase", r.Phase},
			{"outcome", r.Outcome},
			{"level", r.Level},
			{"mode", r.Mode},
			{"cause", strings.TrimSpace(r.ErrorCode + " " + r.Cause)},
			{"attempt", fmt.Sprint(r.Attempt)},
			{"next attempt", stamp(r.NextAttemptAt)},
			{"cancel asked", map[bool]string{true: "yes", false: "no"}[r.CancelRequested]},
			{"started", stamp(r.StartedAt)},
			{"finished", stamp(r.FinishedAt)},
			{"took", took(r)},
			{"read", fmt.Sprintf("%d bytes", r.BytesRead)},
			{"stored", fmt.Sprintf("%d bytes", r.BytesStored)},
		})
	})
}

func (c *cli) runsCancelCommand() *cobra.Command {
	cmd := c.ofRun("cancel", "End a run in good order: a guest that is held is thawed first",
		"Asks for the end of a run and does not wait for it; \"stillframe runs follow\" does. A run that has ended already ends this command with status 11.",
		func(ctx context.Context, d *client.Client, id, output string) error {
			if err := d.CancelRun(ctx, id); err != nil {
				return err
			}
			r, err := d.Run(ctx, id)
			if err != nil {
				return err
			}
			return c.listRuns(output, []api.Run{r})
		})
	return cmd
}

func (c *cli) runsTimelineCommand() *cobra.Command {
	return c.ofRun("timeline", "Show what happened in a run, in order",
		"Lists the events of a run's windows. SINCE GO counts by the clock of the side that saw the event; clocks of two sides are never subtracted.",
		func(ctx context.Context, d *client.Client, id, output string) error {
			events, err := d.Timeline(ctx, id)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, e := range events {
				rows = append(rows, []string{fmt.Sprintf("%+.3f s", e.MonoSeconds), e.At.UTC().Format("15:04:05.000Z"), e.Side, e.Kind, e.Detail})
			}
			return c.printList(output, "events", some(events), "SINCE GO|AT|SIDE|EVENT|DETAIL", rows)
		})
}
