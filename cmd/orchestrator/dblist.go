package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/store"
)

func (c *cli) dbListCommand() *cobra.Command {
	var f dbFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the copies of the SQLite database in the state folder, the newest first", Args: cobra.NoArgs,
		Long: `Lists what the daemon and "stillframe db backup" copied to copies/ in the state folder, and the copies that an upgrade left (stillframe.db.N).`,
		RunE: func(*cobra.Command, []string) error {
			p, err := c.lite(f)
			if err != nil {
				return err
			}
			all, err := store.Copies(p.dir)
			if err != nil {
				return err
			}
			var items []dbCopy
			var rows [][]string
			for _, one := range all {
				items = append(items, dbCopyOf(one))
				rows = append(rows, []string{stamp(&one.Made), fmt.Sprint(one.Bytes), one.SHA256, one.Path})
			}
			return c.printList(f.output, "copies", some(items), "MADE|BYTES|SHA256|PATH", rows)
		},
	}
	f.flags(cmd)
	return cmd
}
