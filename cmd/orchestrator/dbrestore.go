package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/store"
)

func (c *cli) dbRestoreCommand() *cobra.Command {
	var f dbFlags
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a copy in the place of the SQLite database; the daemon must be stopped", Args: cobra.ExactArgs(1),
		Long: `Compares the copy with the SHA-256 in FILE.sha256, if there is one, reads it through, moves the database aside and puts the copy in its place.
Nothing is deleted; it prints where the old database lies. While a daemon works in the state folder the exit status is 11.

The daemon notices at its next start that the database is older than what was seen, and reads every inventory before a schedule fires.`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.dbRestore(cmd.Context(), f, args[0]) },
	}
	f.flags(cmd)
	return cmd
}

func (c *cli) dbRestore(ctx context.Context, f dbFlags, from string) error {
	p, err := c.lite(f)
	if err != nil {
		return err
	}
	aside, err := store.Restore(ctx, p.dir, from)
	if err != nil {
		if aside != "" {
			say(c.stderr, "the old database lies at "+aside)
		}
		return notHere(err)
	}
	if f.output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string `json:"api_version"`
			From       string `json:"from"`
			// Aside is where the old database lies, empty when there was none.
			Aside string `json:"aside"`
		}{backup.APIVersion, from, aside})
	}
	text := "there was no database before"
	if aside != "" {
		text = "the old database lies at " + aside
	}
	_, err = fmt.Fprintf(c.stdout, "put back from %s; %s\n", printable(from), printable(text))
	return err
}
