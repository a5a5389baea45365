package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

func (c *cli) configReloadCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "reload", Short: "Have the daemon read its configuration anew", Args: cobra.NoArgs,
		Long: `Has the daemon read and check its files, and says what is different now. Runs that are at work keep the former configuration. Files with mistakes change
nothing: all of the mistakes are listed and the exit status is 8.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			r, err := d.ReloadConfig(ctx)
			if err != nil {
				return refusedReload(err)
			}
			if f.output == "json" {
				return writeJSON(c.stdout, struct {
					APIVersion string `json:"api_version"`
					api.Reloaded
				}{backup.APIVersion, r})
			}
			if len(r.Changed)+len(r.NeedsRestart) == 0 {
				_, err := fmt.Fprintln(c.stdout, "nothing is different")
				return err
			}
			for _, line := range r.Changed {
				fmt.Fprintln(c.stdout, printable(line))
			}
			for _, line := range r.NeedsRestart {
				fmt.Fprintln(c.stdout, printable(line)+" (needs a restart)")
			}
			return nil
		}),
	}
	f.flags(cmd)
	return cmd
}

// refusedReload gives mistakes in the configuration the exit status that they have everywhere.
func refusedReload(err error) error {
	if codeOf(err) == "SF1715" {
		return &settingError{"SF1200", err}
	}
	return err
}
