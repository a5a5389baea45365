package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/audit"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Who changed what"}
	cmd.AddCommand(c.auditVerifyCommand())
	return cmd
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var head, output string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Walk the chain of an audit log and name the first entry that breaks it", Args: cobra.ExactArgs(1),
		Long: `Reads an audit log from its beginning and compares the hash that each entry carries with the line before it. No daemon is
needed, and none is in the way.

Nobody can tell from the file alone that its last entries were taken away: --head with a hash from a former report says that this
entry must be there.

The exit status is 0 when the chain holds, 1 when it is broken, 3 when it holds but its last line was cut off by a crash.`,
		RunE: func(_ *cobra.Command, args []string) error { return c.auditVerify(args[0], head, output) },
	}
	cmd.Flags().StringVar(&head, "head", "", "hash of an entry that must be in the log, as a report printed it")
	outputFlag(cmd, &output)
	return cmd
}

// audited is what "stillframe audit verify" found, as -o json prints it. Fields are only ever added.
type audited struct {
	APIVersion string `json:"api_version"`
	File       string `json:"file"`
	Intact     bool   `json:"intact"`
	audit.Report
}

func (c *cli) auditVerify(path, head, output string) error {
	file, err := os.Open(path)
	if err != nil {
		return invalid("%w", err)
	}
	report, broken := audit.Verify(file, strings.ToLower(head))
	if err := file.Close(); err != nil {
		return err
	}
	if broken != nil && !errors.Is(broken, audit.ErrBroken) {
		return broken
	}
	if output == "json" {
		if err := writeJSON(c.stdout, audited{"stillframe/v1", path, broken == nil, report}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.stdout, "%d entries from %s to %s, head %s\n",
			report.Entries, report.From.Format(time.RFC3339), report.To.Format(time.RFC3339), report.Head.SHA256)
		for _, line := range report.Torn {
			fmt.Fprintf(c.stdout, "%s was cut off by a crash, as the entry after it says\n", printable(line))
		}
	}
	if broken == nil && report.Unfinished > 0 {
		c.exit = exitDegraded
		explain(c.stderr, &settingError{"SF1703", fmt.Errorf("%d bytes stand behind the last entry of %s", report.Unfinished, path)})
	}
	return broken
}
