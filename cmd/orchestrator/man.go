package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (c *cli) manCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man --dir DIR", Short: "Write the manual pages, one for each command", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return missing("no folder for the manual pages: give --dir")
			}
			return manual(cmd.Root(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder, made if it is not there")
	return cmd
}

// manual writes the pages of section 1. Their date is SOURCE_DATE_EPOCH when that is set.
func manual(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder for the manual pages: %w", err)
	}
	root.DisableAutoGenTag = true
	header := doc.GenManHeader{Title: "STILLFRAME", Section: "1", Source: "stillframe " + version, Manual: "Stillframe"}
	if err := doc.GenManTree(root, &header, dir); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	return nil
}
