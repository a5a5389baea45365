package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab"
)

const (
	// bandColumns is the width of the 20 s band.
	bandColumns = 50
	// textColumns is where running text is broken.
	textColumns = 84
)

// printer writes for an operator on a terminal of 90 columns. It keeps the first error.
type printer struct {
	to  io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.to, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func (p *printer) introduction(r lab.Ready, why string) {
	p.line("A world on this machine: vCenter %s (simulated, behind its own TLS)", host(r.VCenter))
	if why == "" {
		p.line("with %s: an ext4 on a loop device, under writes that are each made durable.", demoVM)
		return
	}
	p.line("with %s: a SCRIPTED guest (%s).", demoVM, why)
	p.line("Its writer really stops, but there is no file system: nothing below is proved of one.")
}

// timeline draws the window's phases and the hold against the 20 s band. seen is what the lab itself saw, by means that note
// names.
func (p *printer) timeline(r *report, seen float64, note string) {
	p.line("")
	p.line("%-32s%-12s%-13s%-12s%-13s%s", "THE WINDOW", "0 s", "5", "10", "15", "20 s limit")
	row := func(name string, start, length float64, mark string) {
		p.line("  %-16s %8.3f s  |%s|", name, length, bar(start, length, mark))
	}
	for _, ph := range r.Window.Phases {
		row(strings.ReplaceAll(ph.Name, "_", " "), ph.StartSeconds, ph.DurationSeconds, "=")
	}
	p.line("")
	start := heldFrom(r)
	if held := r.Window.HeldByGuestSeconds; held != nil {
		row("held, guest", start, *held, "#")
	}
	if held := r.Window.HeldAtMostSeconds; held != nil {
		row("held, at most", start, *held, "#")
	}
	row("still, lab saw", start, seen, "#")
	p.line("  %-16s %8.3f s", "budget", r.Window.BudgetSeconds)
	if task := r.Snapshot.TaskSeconds; task != nil {
		p.line("  %-16s %8.3f s", "snapshot task", *task)
	}
	p.line("  %s", note)
}

// heldFrom places the hold on the band: it ends with the phase thaw, or begins with the first phase.
func heldFrom(r *report) float64 {
	for _, ph := range r.Window.Phases {
		if ph.Name == "thaw" && r.Window.HeldAtMostSeconds != nil {
			return max(0, ph.StartSeconds+ph.DurationSeconds-*r.Window.HeldAtMostSeconds)
		}
	}
	return 0
}

// bar is a stretch of the band; what is there at all has at least one column, what passes the limit ends in >.
func bar(start, length float64, mark string) string {
	if start+length <= 0 {
		return fmt.Sprintf("%-*s", bandColumns, " before the band: nothing is held yet")
	}
	if start < 0 {
		start, length = 0, start+length
	}
	perColumn := float64(limitSeconds) / bandColumns
	from := min(int(start/perColumn), bandColumns-1)
	columns := min(max(1, int(math.Round(length/perColumn))), bandColumns-from)
	if length <= 0 {
		columns = 0
	}
	text := strings.Repeat(" ", from) + strings.Repeat(mark, columns)
	if start+length > limitSeconds {
		text = text[:len(text)-1] + ">"
	}
	return fmt.Sprintf("%-*s", bandColumns, text)
}

func (p *printer) verdict(r *report) {
	p.line("")
	p.line("VERDICT  %s", r.Verdict.Level)
	for _, reason := range r.Verdict.Reasons {
		p.wrapped("  - ", reason)
	}
	snapshot := "kept"
	if r.Snapshot.Removed {
		snapshot = "removed"
	}
	p.line("  snapshot %s", orNone(r.Snapshot.Name))
	p.line("  %s; agent by road %s, channel %s", snapshot, orNone(r.Guest.Road), orNone(r.Guest.Channel))
	for _, f := range r.Findings {
		p.wrapped("  ! ", strings.TrimSpace(f.Code+" "+f.Title))
		for _, next := range f.Next {
			p.wrapped("      try: ", next)
		}
	}
}

// proof prints both images side by side.
func (p *printer) proof(proven *proof) {
	f, c := proven.sides, proven.Control
	row := func(what, frozen, control string) { p.line("  %-40s %-20s %s", what, frozen, control) }
	p.line("")
	p.line("THE PROOF  both images as they lie: not mounted, no journal replayed")
	p.line("")
	row("", "snapshot (frozen)", "control (not frozen)")
	row("records acknowledged before the copy", count(f.RecordsAcknowledged), count(c.RecordsAcknowledged))
	row("records found, whole and without a gap", count(f.RecordsFound), count(c.RecordsFound))
	row("records torn", count(uint64(f.RecordsTorn)), count(uint64(c.RecordsTorn)))
	row("records written during the copy", count(f.RecordsWrittenMeanwhile), count(c.RecordsWrittenMeanwhile))
	row("e2fsck -fn clean", yes(f.E2fsckClean), yes(c.E2fsckClean))
	row("journal recovery needed", yes(f.JournalRecoveryNeeded), yes(c.JournalRecoveryNeeded))
	if f.RecordsFoundAfterRecovery != nil && c.RecordsFoundAfterRecovery != nil {
		row("records found after recovery (a copy)", count(*f.RecordsFoundAfterRecovery), count(*c.RecordsFoundAfterRecovery))
	}
	p.line("")
	p.line("  longest silence of the guest in the whole run: %.3f s; the lab had to thaw: %d times",
		proven.LabLongestStallSeconds, proven.LabRescues)
	if proven.GuestKind != "linux" {
		p.line("  SCRIPTED guest: e2fsck and the journal have no say, and the control looks as good.")
	}
	if proven.Holds {
		if proven.GuestKind != "linux" {
			p.line("  The window held its writer. Nothing is proved about a file system: that needs root.")
			return
		}
		p.line("  The snapshot is whole as it lies. The control has to be repaired first, as after a power cut.")
		p.line("  The proof holds.")
		return
	}
	p.line("  THE PROOF DOES NOT HOLD:")
	for _, why := range proven.Against {
		p.wrapped("  - ", why)
	}
}

// files tells where to look for oneself.
func (p *printer) files(out string, proven *proof) {
	p.line("")
	p.line("  %s/report.json  %s/proof.json", relative(out), relative(out))
	if proven.GuestKind == "linux" && proven.Image.Path != "" {
		p.line("  look yourself:")
		p.line("    e2fsck -fn %s", relative(proven.Image.Path))
		p.line("    e2fsck -fn %s", relative(proven.Control.Image.Path))
	}
}

// wrapped prints text broken into lines, indented as far as its bullet.
func (p *printer) wrapped(bullet, text string) {
	line := bullet
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > textColumns && len(line) > len(bullet) {
			p.line("%s", line)
			line = strings.Repeat(" ", len(bullet))
		}
		if len(line) > len(bullet) {
			line += " "
		}
		line += word
	}
	p.line("%s", line)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func count(n uint64) string { return fmt.Sprint(n) }

func yes(b *bool) string {
	switch {
	case b == nil:
		return "-"
	case *b:
		return "yes"
	default:
		return "no"
	}
}
