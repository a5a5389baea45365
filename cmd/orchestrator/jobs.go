package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

func (c *cli) jobsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "jobs", Short: "What the daemon does by itself, and when", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.jobsListCommand(), c.jobsShowCommand(), c.jobsRunCommand(), c.jobsEnableCommand(false), c.jobsEnableCommand(true), c.jobsNextCommand())
	return group
}

func (c *cli) jobsListCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the jobs and when each is due next", Args: cobra.NoArgs,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			jobs, err := d.Jobs(ctx)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, j := range jobs {
				rows = append(rows, []string{j.Name, jobState(j), j.Schedule, j.Zone, inZone(j.NextRunAt, j.Zone), inZone(j.LastFiredFor, j.Zone)})
			}
			return c.printList(f.output, "jobs", some(jobs), "NAME|STATE|SCHEDULE|ZONE|NEXT|LAST", rows)
		}),
	}
	f.flags(cmd)
	return cmd
}

func jobState(j api.Job) string {
	switch {
	case !j.Enabled:
		return "paused"
	case j.Schedule == "":
		return "by hand"
	}
	return "enabled"
}

func (c *cli) jobsShowCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "show JOB", Short: "Show one job as it is configured", Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			name, err := jobName(args[0])
			if err != nil {
				return err
			}
			j, err := d.Job(ctx, name)
			if err != nil {
				return err
			}
			return c.showJob(f.output, j)
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1, jobNames)
	return cmd
}

// jobName refuses what cannot be the name of a job, before it is a part of a path.
func jobName(name string) (string, error) {
	if !plain.MatchString(name) {
		return "", &notThere{"SF1717", fmt.Sprintf("there is no job %q", name)}
	}
	return name, nil
}

func (c *cli) showJob(output string, j api.Job) error {
	if output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string `json:"api_version"`
			api.Job
		}{backup.APIVersion, j})
	}
	rows := [][]string{
		{"state", jobState(j)},
		{"schedule", strings.TrimSpace(j.Schedule + " " + j.Zone)},
		{"next", inZone(j.NextRunAt, j.Zone)},
		{"last", inZone(j.LastFiredFor, j.Zone)},
		{"origin", j.Origin},
		{"priority", fmt.Sprint(j.Priority)},
		{"revision", fmt.Sprint(j.Revision)},
	}
	if err := columns(c.stdout, "job|"+j.Name, rows); err != nil {
		return err
	}
	return writeJSON(c.stdout, j.Spec)
}

// jobsRunFlags are the flags of "jobs run".
type jobsRunFlags struct {
	socketFlags
	vm, kind, key  string
	ignore, follow bool
}

func (c *cli) jobsRunCommand() *cobra.Command {
	var f jobsRunFlags
	cmd := &cobra.Command{
		Use: "run JOB", Short: "Start a job now, of all its VMs or of one", Args: cobra.ExactArgs(1),
		Long: `Makes one run for each VM that the job takes at this moment, or with --vm one run of that VM. The daemon does them; this command ends as soon
as they are queued, or with --follow when they have ended. A VM on which another run works has a run that is skipped.

When the answer got lost, the same --key again starts nothing twice.`,
		RunE: c.asked(&f.socketFlags, func(ctx context.Context, d *client.Client, args []string) error { return c.jobsRun(ctx, d, args[0], f) }),
	}
	f.flags(cmd)
	kinds := []string{api.KindBackup, api.KindWindowOnly, api.KindDryRun, api.KindDryRunFreeze, api.KindDifferential}
	f.kind = api.KindBackup
	flags := cmd.Flags()
	flags.StringVar(&f.vm, "vm", "", "only this VM: id, inventory path, moref, instance UUID or name")
	flags.Var(&choice{&f.kind, kinds}, "kind", "with --vm: how far the run goes, "+strings.Join(kinds, ", "))
	flags.BoolVar(&f.ignore, "ignore-windows", false, "with --vm: also outside the job's backup windows")
	flags.StringVar(&f.key, "key", "", "8 to 128 characters that make this request repeatable (default: new ones)")
	flags.BoolVar(&f.follow, "follow", false, "stay until the runs have ended")
	cmd.ValidArgsFunction = c.completed(&f.socketFlags, 1, jobNames)
	c.completedFlag(cmd, "vm", &f.socketFlags, vmNames)
	if err := cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
	return cmd
}

func (c *cli) jobsRun(ctx context.Context, d *client.Client, job string, f jobsRunFlags) error {
	if f.vm == "" && (f.kind != api.KindBackup || f.ignore) {
		return invalid("--kind and --ignore-windows go with --vm only")
	}
	job, err := jobName(job)
	if err != nil {
		return err
	}
	key := first(f.key, uuid.NewString())
	fired := api.Fired{Job: job, ScheduledFor: c.now().UTC()}
	if f.vm == "" {
		fired, err = d.FireJob(ctx, job, key)
	} else {
		var v api.VM
		if v, err = findVM(ctx, d, f.vm); err == nil {
			var a api.Accepted
			a, err = d.StartRun(ctx, api.Order{VM: v.ID, Job: job, Kind: f.kind, IgnoreWindows: f.ignore}, key)
			fired.RunIDs = []string{a.RunID}
		}
	}
	if err != nil {
		return err
	}
	if f.follow {
		return c.follow(ctx, d, fired.RunIDs, f.output)
	}
	if f.output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string `json:"api_version"`
			api.Fired
		}{backup.APIVersion, fired})
	}
	for _, id := range fired.RunIDs {
		if _, err := fmt.Fprintln(c.stdout, printable(id)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) jobsEnableCommand(enabled bool) *cobra.Command {
	var f socketFlags
	use, short := "pause JOB", "Let a job's schedule rest until it is resumed"
	if enabled {
		use, short = "resume JOB", "Let a paused job's schedule fire again; nothing that was due meanwhile is caught up"
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			name, err := jobName(args[0])
			if err != nil {
				return err
			}
			j, err := d.EnableJob(ctx, name, enabled)
			if err != nil {
				return err
			}
			return c.printList(f.output, "jobs", []api.Job{j}, "NAME|STATE|NEXT", [][]string{{j.Name, jobState(j), inZone(j.NextRunAt, j.Zone)}})
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1, jobNames)
	return cmd
}
