package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// columns prints a table for people. Cells lose their control characters; an empty one is a dash.
func columns(w io.Writer, head string, rows [][]string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	lines := append([][]string{strings.Split(head, "|")}, rows...)
	for _, row := range lines {
		cells := make([]string, len(row))
		for n, cell := range row {
			if cells[n] = printable(cell); cells[n] == "" {
				cells[n] = "-"
			}
		}
		if _, err := io.WriteString(t, strings.Join(cells, "\t")+"\n"); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printList prints what a command found: one object of JSON with the name of the list, or a table.
func (c *cli) printList(output, name string, items any, head string, rows [][]string) error {
	if output == "json" {
		return writeJSON(c.stdout, map[string]any{"api_version": "stillframe/v1", name: items})
	}
	return columns(c.stdout, head, rows)
}

// some is a list that is never null in JSON.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// stamp is a time in UTC, empty when it is none.
func stamp(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// inZone is a time as the people of a zone see it.
func inZone(t *time.Time, zone string) string {
	if t == nil || t.IsZero() {
		return ""
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		loc = time.UTC
	}
	return t.In(loc).Format("Mon 2006-01-02 15:04 MST")
}

// ofBudget is a time against the budget.
func ofBudget(seconds *float64, budget float64) string {
	if seconds == nil {
		return ""
	}
	return fmt.Sprintf("%.2f/%.0f s", *seconds, budget)
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
