package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
)

func (c *cli) vmsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "vms", Short: "How well VMs are protected", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.vmsListCommand(), c.vmsShowCommand(), c.vmsHistoryCommand())
	return group
}

func (c *cli) vmsListCommand() *cobra.Command {
	var f socketFlags
	var filter api.VMFilter
	states := []string{protected, unprotected, excluded, overdue}
	cmd := &cobra.Command{
		Use: "list", Short: "List VMs, their protection and the days since the last application-consistent point", Args: cobra.NoArgs,
		Long: `Lists the VMs that the daemon knows, by name. A VM is unprotected when no job took it when it fired last, and overdue when it has no good point, or
none since the last tick but one of a job that takes it. DAYS counts since the last point that applications agreed to.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			vms, err := d.VMs(ctx, filter)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, v := range vms {
				rows = append(rows, []string{
					v.Name, v.VCenterID, v.Protection.State, v.Protection.LastPointLevel, daysSince(v), p95(v), count(v.ConsecutiveFailures), sessions(v), strings.Join(v.Protection.Jobs, ","),
				})
			}
			return c.printList(f.output, "vms", some(vms), "VM|VCENTER|PROTECTION|LEVEL|DAYS|P95|FAILED|SESSIONS|JOBS", rows)
		}),
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&filter.VCenter, "vcenter", "", "only of this vCenter, by its name in the configuration")
	flags.StringVar(&filter.Job, "job", "", "only those that this job takes")
	flags.StringVar(&filter.Name, "name", "", "only those with this in their name")
	flags.Var(&choice{&filter.Protection, states}, "protection", "only those that are "+strings.Join(states, ", "))
	c.completedFlag(cmd, "job", &f, jobNames)
	if err := cmd.RegisterFlagCompletionFunc("protection", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
	return cmd
}

func daysSince(v api.VM) string {
	if days := v.Protection.DaysSinceApplicationCons; days != nil {
		return fmt.Sprintf("%.1f", *days)
	}
	return "never"
}

func p95(v api.VM) string {
	if v.WindowP95Seconds == nil {
		return ""
	}
	return fmt.Sprintf("%.2f s", *v.WindowP95Seconds)
}

// sessions are the writer sessions that were left open.
func sessions(v api.VM) string {
	if v.Sessions.Leaked == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d left", v.Sessions.Leaked, catalog.MaxSessions)
	if v.Sessions.RunsLeft != nil {
		text += fmt.Sprintf(", %d runs", *v.Sessions.RunsLeft)
	}
	return text
}

func (c *cli) vmsShowCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "show VM", Short: "Show one VM and its protection", Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			v, err := findVM(ctx, d, args[0])
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(c.stdout, struct {
					APIVersion string `json:"api_version"`
					api.VM
				}{backup.APIVersion, v})
			}
			return columns(c.stdout, "vm|"+v.Name, [][]string{
				{"id", v.ID},
				{"path", v.Path},
				{"vcenter", v.VCenterID},
				{"moref", v.Moref},
				{"instance uuid", v.InstanceUUID},
				{"guest", v.GuestFamily},
				{"road", v.Road},
				{"protection", v.Protection.State},
				{"excluded by", v.Protection.ExcludedBy},
				{"jobs", strings.Join(v.Protection.Jobs, ", ")},
				{"last point", strings.TrimSpace(stamp(v.Protection.LastPointAt) + " " + v.Protection.LastPointLevel)},
				{"application-consistent", strings.TrimSpace(stamp(v.Protection.LastApplicationAt) + " (days: " + daysSince(v) + ")")},
				{"failed in a row", fmt.Sprint(v.ConsecutiveFailures)},
				{"window p95", p95(v)},
				{"writer sessions left", sessions(v)},
				{"first seen", stamp(&v.FirstSeenAt)},
				{"seen", stamp(&v.SeenAt)},
			})
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1, vmNames)
	return cmd
}

func (c *cli) vmsHistoryCommand() *cobra.Command {
	var f socketFlags
	var most int
	cmd := &cobra.Command{
		Use: "history VM", Short: "List the windows of one VM, the newest first", Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			if most < 0 {
				return invalid("--limit is %d", most)
			}
			v, err := findVM(ctx, d, args[0])
			if err != nil {
				return err
			}
			windows, err := d.History(ctx, v.ID, most)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, w := range windows {
				rows = append(rows, []string{
					stamp(&w.At), w.RunID, w.Result, w.Level, w.Mode, ofBudget(w.HeldSeconds, w.BudgetSeconds), inSeconds(w.SnapshotSeconds), phases(w.Phases), w.ErrorCode,
				})
			}
			return c.printList(f.output, "windows", some(windows), "AT|RUN|RESULT|LEVEL|MODE|HELD|SNAPSHOT|PHASES|CODE", rows)
		}),
	}
	f.flags(cmd)
	cmd.Flags().IntVar(&most, "limit", 20, "how many; 0 means all")
	cmd.ValidArgsFunction = c.completed(&f, 1, vmNames)
	return cmd
}

func inSeconds(s *float64) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%.2f s", *s)
}

// phases are those after GO, with their lengths in seconds.
func phases(all []api.Phase) string {
	var words []string
	for _, p := range all {
		if p.StartSeconds >= 0 {
			words = append(words, fmt.Sprintf("%s %.2f", p.Name, p.DurationSeconds))
		}
	}
	return strings.Join(words, ", ")
}
