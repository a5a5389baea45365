package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/store"
)

func (c *cli) dbCheckCommand() *cobra.Command {
	var f dbFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Say whether the database is whole, and which schema version it has", Args: cobra.NoArgs,
		Long: `Reads through the SQLite database, beside the daemon or without one, and changes nothing; of a PostgreSQL it asks for the schema version. The exit
status is 0 when it is whole and no newer stillframe has used it, 1 when it is damaged (SF1909) or too new (SF1902).`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.dbCheck(cmd.Context(), f) },
	}
	f.flags(cmd)
	return cmd
}

// dbChecked is how the database is, as -o json prints it. Fields are only ever added.
type dbChecked struct {
	APIVersion   string `json:"api_version"`
	Kind         string `json:"kind"`
	StateDir     string `json:"state_dir"`
	OK           bool   `json:"ok"`
	Schema       int64  `json:"schema"`
	KnownSchema  int64  `json:"known_schema"`
	Installation string `json:"installation_id"`
}

func checkedDatabase(o store.Options, found store.Condition, bad error) dbChecked {
	kind := store.SQLite
	if o.DSN != "" {
		kind = store.Postgres
	}
	return dbChecked{backup.APIVersion, string(kind), o.Dir, bad == nil, found.Schema, found.Known, found.Installation}
}

func (c *cli) dbCheck(ctx context.Context, f dbFlags) error {
	p, err := c.place(f)
	if err != nil {
		return err
	}
	o, err := c.database(ctx, p)
	if err != nil {
		return err
	}
	found, bad := store.Inspect(ctx, o)
	bad = notHere(bad)
	if f.output == "json" {
		err = writeJSON(c.stdout, checkedDatabase(o, found, bad))
	} else if bad == nil {
		_, err = fmt.Fprintf(c.stdout, "%s is whole: schema version %d of %d, installation %s\n", checkedDatabase(o, found, nil).Kind, found.Schema, found.Known, found.Installation)
	}
	if bad != nil {
		return bad
	}
	return err
}
