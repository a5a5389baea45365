package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

// longestLine bounds a line of a run's log.
const longestLine = 1 << 20

func (c *cli) runsLogsCommand() *cobra.Command {
	return c.ofRun("logs", "Show what was logged of a run",
		"Prints what the daemon logged of a run, with each phase of its window and each finding. It is written when no guest is held, so it may be a second behind.",
		func(ctx context.Context, d *client.Client, id, output string) (err error) {
			log, err := d.RunLog(ctx, id)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, log.Close()) }()
			lines, err := logLines(log)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(c.stdout, struct {
					APIVersion string           `json:"api_version"`
					Lines      []map[string]any `json:"lines"`
				}{backup.APIVersion, lines})
			}
			for _, l := range lines {
				if _, err := fmt.Fprintln(c.stdout, printable(logText(l))); err != nil {
					return err
				}
			}
			return nil
		})
}

// logLines reads a run's log. A line that a dead daemon did not write to its end is left out.
func logLines(log io.Reader) ([]map[string]any, error) {
	lines := []map[string]any{}
	scanner := bufio.NewScanner(log)
	scanner.Buffer(nil, longestLine)
	for scanner.Scan() {
		var line map[string]any
		if json.Unmarshal(scanner.Bytes(), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines, scanner.Err()
}

// logText is a line for people: when, how grave, what, and the facts by name.
func logText(line map[string]any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %-5v %v", line["ts"], strings.ToUpper(fmt.Sprint(line["level"])), line["msg"])
	for _, key := range slices.Sorted(maps.Keys(line)) {
		switch key {
		case "ts", "level", "msg", "run", "logger", "caller", "stacktrace":
			continue
		}
		text, ok := line[key].(string)
		if !ok {
			raw, err := json.Marshal(line[key])
			if err != nil {
				continue
			}
			text = string(raw)
		}
		if text != "" {
			b.WriteString("  " + key + "=" + text)
		}
	}
	return b.String()
}
