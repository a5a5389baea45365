package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

func (c *cli) runsExplainCommand() *cobra.Command {
	return c.ofRun("explain", "Say what was proved of a run, what went wrong and what to do",
		"Prints the report of a run as \"stillframe run\" does, with each finding, its evidence and the next steps.",
		func(ctx context.Context, d *client.Client, id, output string) error {
			r, err := d.Run(ctx, id)
			if err != nil {
				return err
			}
			findings, err := d.Findings(ctx, id)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(c.stdout, struct {
					APIVersion string        `json:"api_version"`
					Run        api.Run       `json:"run"`
					Findings   []api.Finding `json:"findings"`
				}{backup.APIVersion, r, some(findings)})
			}
			if result, ok := resultOf(r); ok {
				return writeTable(c.stdout, result)
			}
			return c.explainRun(r, findings)
		})
}

// resultOf is the report of a run; false when it has none, or one of another kind.
func resultOf(r api.Run) (backup.Result, bool) {
	var result backup.Result
	text, err := json.Marshal(r.Report)
	if err == nil {
		err = json.Unmarshal(text, &result)
	}
	return result, err == nil && result.RunID != ""
}

// explainRun is for a run that left no report: it was skipped, or its process died.
func (c *cli) explainRun(r api.Run, findings []api.Finding) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	line("run      %s   %s %s", r.ID, strings.ToUpper(r.State), r.Outcome)
	line("vm       %s", r.VM)
	if r.Cause != "" {
		line("cause    %s", r.Cause)
	}
	if len(r.Report) == 0 {
		line("report   none: the run has not ended, never began, or its process died")
	}
	for _, f := range findings {
		line("finding  %s %s", f.Code, f.Title)
		for _, e := range f.Evidence {
			line("         seen: %s", e)
		}
		for _, n := range f.Next {
			line("         try:  %s", n)
		}
	}
	if _, err := fmt.Fprint(c.stdout, b.String()); err != nil {
		return err
	}
	if len(r.Report) > 0 {
		return writeJSON(c.stdout, r.Report)
	}
	return nil
}
