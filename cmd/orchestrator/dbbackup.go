package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/store"
)

// dbCopy is a copy of the database, as -o json prints it. Fields are only ever added.
type dbCopy struct {
	Path      string    `json:"path"`
	MadeAt    time.Time `json:"made_at"`
	SizeBytes int64     `json:"size_bytes"`
	// SHA256 is empty when it was not written down.
	SHA256 string `json:"sha256"`
}

func dbCopyOf(c store.Copy) dbCopy { return dbCopy{c.Path, c.Made.UTC(), c.Bytes, c.SHA256} }

func (c *cli) dbBackupCommand() *cobra.Command {
	var f dbFlags
	var to string
	cmd := &cobra.Command{
		Use: "backup", Short: "Copy the SQLite database, while the daemon works or not", Args: cobra.NoArgs,
		Long: `Copies the database by VACUUM INTO: the copy is one instant's state, whole, and a file of its own that only its owner reads. Its SHA-256 lies
beside it in FILE.sha256. Without --to it goes to copies/ in the state folder, where the newest 14 are kept.

Run it as the user that the daemon runs as, or as root.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.dbBackup(cmd.Context(), f, to) },
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&to, "to", "", "where the copy goes; nothing may be there yet")
	return cmd
}

func (c *cli) dbBackup(ctx context.Context, f dbFlags, to string) error {
	p, err := c.lite(f)
	if err != nil {
		return err
	}
	var made store.Copy
	if to == "" {
		made, err = store.AddCopy(ctx, p.dir, time.Now())
	} else if to, err = filepath.Abs(to); err == nil {
		made, err = store.CopyOf(ctx, p.dir, to)
	}
	if err != nil {
		return notHere(err)
	}
	if f.output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string `json:"api_version"`
			Copy       dbCopy `json:"copy"`
		}{backup.APIVersion, dbCopyOf(made)})
	}
	_, err = fmt.Fprintf(c.stdout, "%s  %d bytes  SHA-256 %s\n", printable(made.Path), made.Bytes, made.SHA256)
	return err
}
