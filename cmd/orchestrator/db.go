package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/secret"
	"github.com/stillframe/stillframe/pkg/store"
)

func (c *cli) dbCommand() *cobra.Command {
	group := &cobra.Command{Use: "db", Short: "The daemon's database: copies of it, and whether it is whole"}
	group.AddCommand(c.dbBackupCommand(), c.dbListCommand(), c.dbRestoreCommand(), c.dbCheckCommand())
	return group
}

// dbFlags are those of every command of the group.
type dbFlags struct{ config, state, output string }

func (f *dbFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "the daemon's configuration (default STILLFRAME_CONFIG, else "+config.DefaultPath+")")
	cmd.Flags().StringVar(&f.state, "state-dir", "", "the daemon's state folder, with SQLite in it (default store.state_dir of the configuration)")
	outputFlag(cmd, &f.output)
}

// place is where the daemon keeps what it knows.
type place struct {
	dir string
	dsn config.Ref // empty for SQLite
}

// place takes the state folder from the flag, else what the configuration says, else, when that cannot be read, the last good one's
// folder: a database may have to be put back when nothing else works.
func (c *cli) place(f dbFlags) (place, error) {
	p := place{dir: f.state}
	if p.dir == "" {
		conf, problems := config.LoadWith(first(f.config, c.getenv("STILLFRAME_CONFIG"), config.DefaultPath), config.Options{Getenv: c.getenv})
		p.dir = first(c.getenv("STILLFRAME_STATE_DIR"), defaultStateDir)
		switch {
		case conf != nil:
			p.dir, p.dsn = conf.Store.StateDir, conf.Store.DSN
		case f.config != "":
			return p, &problemsError{problems}
		}
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return p, invalid("state folder: %v", err)
	}
	p.dir = dir
	return p, nil
}

// lite is the place of a SQLite; what its owner copies by other means is refused.
func (c *cli) lite(f dbFlags) (place, error) {
	p, err := c.place(f)
	if err == nil && p.dsn != "" {
		err = invalid("the database is a PostgreSQL: copy it with pg_dump, and put it back with pg_restore")
	}
	return p, err
}

// database says how the database is opened; of a PostgreSQL the address is read where the reference leads.
func (c *cli) database(ctx context.Context, p place) (store.Options, error) {
	o := store.Options{Dir: p.dir}
	if p.dsn == "" {
		return o, nil
	}
	secrets, err := secret.OpenStore(filepath.Join(p.dir, "creds"), secret.StoreOptions{Getenv: c.getenv})
	if err != nil {
		return o, err
	}
	found, err := (&vcenters{secrets: secret.NewResolver(secret.Options{Getenv: c.getenv, Store: secrets})}).read(ctx, p.dsn)
	if err != nil {
		return o, err
	}
	o.DSN = found.Value.Reveal()
	return o, nil
}

// notHere makes a file that does not exist a mistake in the command line.
func notHere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return invalid("%w", err)
	}
	return err
}
