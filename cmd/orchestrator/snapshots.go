package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/catalog"
)

func (c *cli) snapshotsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "snapshots", Short: "Snapshots that the daemon made, or found", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.snapshotsListCommand(), c.snapshotsRemoveCommand())
	return group
}

func (c *cli) snapshotsListCommand() *cobra.Command {
	var f socketFlags
	var filter api.SnapshotFilter
	var vm string
	cmd := &cobra.Command{
		Use: "list", Short: "List the snapshots of the ledger that are not proved to be gone", Args: cobra.NoArgs,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			if vm != "" {
				v, err := findVM(ctx, d, vm)
				if err != nil {
					return err
				}
				filter.VM = v.ID
			}
			all, err := d.Snapshots(ctx, filter)
			if err != nil {
				return err
			}
			return c.listSnapshots(f.output, all)
		}),
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&filter.Orphans, "orphans", false, "only those that no run of ours needs, also foreign ones")
	flags.StringVar(&vm, "vm", "", "only of this VM")
	flags.StringVar(&filter.VCenter, "vcenter", "", "only of this vCenter, by its name in the configuration")
	c.completedFlag(cmd, "vm", &f, vmNames)
	return cmd
}

func (c *cli) listSnapshots(output string, all []api.Snapshot) error {
	var rows [][]string
	for _, s := range all {
		why := s.LastError
		if why == "" && s.State == string(catalog.Foreign) {
			why = s.Proof
		}
		rows = append(rows, []string{s.ID, s.VM, s.State, s.Name, stamp(&s.CreatedAt), stamp(s.KeepUntil), s.RunID, strings.TrimSpace(count(s.Attempts) + " " + why)})
	}
	return c.printList(output, "snapshots", some(all), "ID|VM|STATE|NAME|CREATED|KEEP UNTIL|RUN|ATTEMPTS", rows)
}

func (c *cli) snapshotsRemoveCommand() *cobra.Command {
	var f socketFlags
	var run string
	cmd := &cobra.Command{
		Use: "remove ID --run RUN", Short: "Have the daemon remove one snapshot", Args: cobra.ExactArgs(1),
		Long: `Asks for the removal of the snapshot with this id of the ledger. The run that made it has to be named too, and the ledger must agree; a snapshot that a
run still needs, or that bears the mark of another installation, is left alone (status 11). There is no way to remove several at once.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			if run == "" {
				return missing("no run: give --run with the run that made the snapshot, as \"stillframe snapshots list\" shows it")
			}
			maker, err := runID(run)
			if err != nil {
				return err
			}
			if !plain.MatchString(args[0]) {
				return &notThere{"SF1717", fmt.Sprintf("there is no snapshot %q", args[0])}
			}
			s, err := d.RemoveSnapshot(ctx, args[0], maker)
			if err != nil {
				return err
			}
			return c.listSnapshots(f.output, []api.Snapshot{s})
		}),
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&run, "run", "", "the run that made it")
	cmd.ValidArgsFunction = c.completed(&f, 1, snapshotNames)
	return cmd
}
