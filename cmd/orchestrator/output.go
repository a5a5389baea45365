package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
)

// writeJSON prints one object.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// barWidth is how many characters the 20 s band is wide.
const barWidth = 50

// writeTable prints a run for people.
func writeTable(w io.Writer, r backup.Result) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	line("run      %s   outcome %s", r.RunID, strings.ToUpper(string(r.Outcome)))
	if r.VM.Name != "" {
		line("vm       %s (%s)", r.VM.Path, r.VM.Moref)
	}
	line("level    %s%s", r.Verdict.Level, cause(r))
	for _, reason := range r.Verdict.Reasons {
		line("         - %s", reason)
	}
	if len(r.Window.Phases) > 0 {
		line("held     %s by the guest's clock, at most %s by ours, budget %.0f s",
			known(r.Window.HeldByGuestSeconds), known(r.Window.HeldAtMostSeconds), r.Window.BudgetSeconds)
		line("")
		timeline(line, r.Window)
		line("")
		line("snapshot %s   task %.3f s   removed: %v", r.Snapshot.Name, r.Snapshot.TaskSeconds, r.Snapshot.Removed)
		if r.Snapshot.Kept {
			line("         kept as %s: \"stillframe recover --kept --vm %s\" removes it", r.Snapshot.Moref, r.VM.Moref)
		}
		line("road     %s", road(r.Snapshot))
	}
	if r.DryRun {
		line("dry run  nothing was touched")
	} else if r.Mover != nil {
		moved(line, *r.Mover)
	}
	writersTable(line, r.Writers)
	for _, a := range r.Guest.Attempts {
		line("%s", attempted(a))
	}
	for _, f := range r.Findings {
		line("finding  %s %s", f.Code, f.Title)
		for _, e := range f.Evidence {
			line("         seen: %s", e)
		}
		for _, n := range f.Next {
			line("         try:  %s", n)
		}
	}
	for _, l := range r.Leftovers {
		line("LEFT     %s", l)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// attempted is one attempt to come into a guest, in a line.
func attempted(a backup.Attempt) string {
	state := "ok"
	switch {
	case a.Skipped:
		state = "SKIPPED " + a.Code + " " + a.Text
	case !a.OK:
		state = "FAILED " + a.Code + " " + a.Text
	}
	if a.Channel != "" && a.Channel != string(guest.ChannelDirect) {
		state += " (" + a.Channel + ")"
	}
	return fmt.Sprintf("guest    %-17s %-8s %7.3f s  %s", guest.Way{Road: guest.Road(a.Road), Start: guest.Start(a.Start)}, a.Stage, a.Seconds, state)
}

// moved prints how the mover went.
func moved(line func(string, ...any), m backup.Moved) {
	told := map[backup.Told]string{
		backup.ToldNothing: "nothing, their session had ended with the window", backup.ToldAll: "that all is stored", backup.ToldNone: "that there is no backup",
		backup.ToldExpired: "that there is no backup: their session had ended meanwhile", backup.ToldUnknown: "not known what",
	}[m.Told]
	if m.State == backup.MoveNotRun {
		line("mover    NOT RUN")
		return
	}
	line("mover    %s after %.3f s at %.0f %% %s", strings.ToUpper(string(m.State)), m.DurationSeconds, 100*m.Progress, m.Text)
	line("         applications were told: %s", told)
	for said := range strings.Lines(m.Said) {
		line("         said: %s", strings.TrimSpace(said))
	}
}

// writersTable prints the VSS writers, what they said and how long each may be held.
func writersTable(line func(string, ...any), writers []backup.Writer) {
	if len(writers) == 0 {
		return
	}
	line("%-8s %-34s %-38s %-8s %-6s %s", "writers", "name", "class", "required", "limit", "state")
	for _, w := range writers {
		state := fmt.Sprintf("[%d] %s", w.State, strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(w.StateName, "VSS_WS_"), "_", " ")))
		if w.Phase != "" {
			state += fmt.Sprintf(", FAILED in %s: 0x%s %s", w.Phase, w.FailureHR, w.Failure)
		}
		line("%-8s %-34.34s %-38s %-8v %4.0f s %s", "", w.Name, w.ClassID, w.Required, w.HoldLimitSeconds, state)
	}
}

// timeline draws the phases against the 20 s band: the bar is the budget, so what passes its end is beyond it.
func timeline(line func(string, ...any), w backup.Window) {
	scale := float64(barWidth) / w.BudgetSeconds
	at := func(seconds float64) int { return min(max(int(seconds*scale+0.5), 0), barWidth+8) }
	line("%-16s 0 s%s| %.0f s", "", strings.Repeat(" ", barWidth-4), w.BudgetSeconds)
	for _, p := range w.Phases {
		if p.StartSeconds < 0 {
			line("%-16s %s %8.3f s before GO, nothing held", p.Name, strings.Repeat(" ", barWidth), p.DurationSeconds)
			continue
		}
		from, to := at(p.StartSeconds), at(p.StartSeconds+p.DurationSeconds)
		bar := strings.Repeat(".", min(from, barWidth)) + strings.Repeat("#", max(to-from, 1))
		if len(bar) < barWidth {
			bar += strings.Repeat(".", barWidth-len(bar))
		}
		line("%-16s %s %8.3f s", p.Name, bar, p.DurationSeconds)
	}
}

// road says whom the snapshot was asked of.
func road(s backup.Snap) string {
	if s.Host != "" {
		return fmt.Sprintf("%s %s: %s", s.Road, s.Host, s.RoadReason)
	}
	return fmt.Sprintf("%s: %s", s.Road, s.RoadReason)
}

func cause(r backup.Result) string {
	if r.Verdict.Cause == "" {
		return ""
	}
	return " (" + string(r.Verdict.Cause) + ")"
}

func known(seconds *float64) string {
	if seconds == nil {
		return "not known"
	}
	return fmt.Sprintf("%.3f s", *seconds)
}
