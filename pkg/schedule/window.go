package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Effect is what a window does to runs.
type Effect string

// The effects. Deny wins over Allow.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// Row is a window as it is written down. It begins at Start on each of its weekdays and lasts until End, on the next day
// when End is not later than Start. No weekdays are all of them; "mon-fri" is a range, and may run over Sunday.
type Row struct {
	Name, Zone string
	Weekdays   []string
	Start, End string // 22:00; an End of 24:00 is midnight
	Effect     Effect
}

// Window is a backup window or a blackout that comes again each week.
type Window struct {
	name       string
	loc        *time.Location
	weekdays   [7]bool
	start, end time.Duration // from midnight; end may lie on the next day
	effect     Effect
}

// ParseWindow reads a row. The error joins one *Error for each field that is wrong.
func ParseWindow(row Row) (Window, error) {
	w := Window{name: strings.TrimSpace(row.Name), effect: row.Effect}
	var errs []error
	wrong := func(field, value, why, try string) {
		errs = append(errs, &Error{codeWindow, field, value, why, try})
	}
	if w.name == "" {
		wrong("name", row.Name, "is empty", "give the window a name: it is what a waiting run says it waits for")
	}
	if row.Effect != Allow && row.Effect != Deny {
		wrong("effect", string(row.Effect), "is neither allow nor deny", "write allow for a backup window, deny for a blackout")
	}
	var err error
	if w.loc, err = Zone(row.Zone); err != nil {
		errs = append(errs, err)
	}
	if bad, ok := w.readWeekdays(row.Weekdays); !ok {
		wrong("weekdays", bad, "is neither a day of the week nor a range of days", `write days such as "mon", "saturday" or "mon-fri"`)
	}
	start, startOK := minuteOf(row.Start)
	if !startOK {
		wrong("start", row.Start, "is no time of day", "write hours and minutes from 00:00 to 23:59")
	}
	end, endOK := minuteOf(row.End)
	if row.End == "24:00" {
		end, endOK = 24*60, true
	}
	switch {
	case !endOK:
		wrong("end", row.End, "is no time of day", "write hours and minutes from 00:00 to 24:00")
	case startOK && start == end:
		wrong("end", row.End, "is the start", "write 00:00 to 24:00 for whole days")
	case end < start:
		end += 24 * 60
	}
	w.start, w.end = time.Duration(start)*time.Minute, time.Duration(end)*time.Minute
	return w, errors.Join(errs...)
}

// readWeekdays sets the days of the window, or hands back the word that names none.
func (w *Window) readWeekdays(words []string) (bad string, ok bool) {
	if len(words) == 0 {
		words = []string{"sun-sat"}
	}
	for _, word := range words {
		low, high, ranged := strings.Cut(strings.TrimSpace(word), "-")
		if !ranged {
			high = low
		}
		from, okFrom := weekdayOf(low)
		to, okTo := weekdayOf(high)
		if !okFrom || !okTo {
			return word, false
		}
		for w.weekdays[from] = true; from != to; w.weekdays[from] = true {
			from = (from + 1) % 7
		}
	}
	return "", true
}

// span is the time from one instant until just before another.
type span struct {
	from, to time.Time
	window   *Window
}

// spans are the times of the window that overlap a stretch, in order. A time that a clock change skips as a whole is none.
func (w *Window) spans(from, to time.Time) []span {
	var all []span
	// What began up to two days before may still last: one day by its own length, one by a jump of the clock.
	date, last := midnight(reading(from.In(w.loc))).Add(-2*day), reading(to.In(w.loc)).Add(day)
	for ; date.Before(last); date = date.Add(day) {
		if !w.weekdays[date.Weekday()] {
			continue
		}
		s := span{instant(date.Add(w.start), w.loc), instant(date.Add(w.end), w.loc), w}
		if !s.from.Before(s.to) || !s.from.Before(to) || !s.to.After(from) {
			continue
		}
		if midnight(reading(s.from)).Equal(date) || existed(date, w.loc) {
			all = append(all, s)
		}
	}
	return all
}

// Windows are all rows that bind one job.
type Windows []Window

// The next change is looked for in the next days, which nearly always have one, and then in two weeks, in case a zone
// skipped the only day of one, and a day more.
const (
	near = 2 * day
	far  = 15 * day
)

// Open says whether a run that needs some time may start now: no blackout may lie in that time, and if there are backup
// windows, they must cover all of it. When closed, the reason names the window. The next change is the last instant to
// start when open, and the first one when closed; it is zero when nothing changes within two weeks.
func (ws Windows) Open(now time.Time, need time.Duration) (open bool, reason string, next time.Time) {
	if len(ws) == 0 {
		return true, "", time.Time{}
	}
	if open, next = ws.look(now, need, near); next.IsZero() {
		open, next = ws.look(now, need, far)
	}
	if !open {
		reason = ws.closed(now, need, next)
	}
	return open, reason, next
}

// look finds a change that comes within a stretch.
func (ws Windows) look(now time.Time, need, stretch time.Duration) (open bool, next time.Time) {
	until := now.Add(stretch + need)
	for _, f := range ws.free(now, until) {
		last := f.to.Add(-need) // to start
		switch {
		case !f.to.After(now) || last.Before(now) || last.Before(f.from):
			continue
		case f.from.After(now) && f.from.Before(now.Add(stretch)):
			return false, f.from
		case f.from.After(now):
			return false, time.Time{}
		case f.to.Before(until):
			return true, last
		default:
			return true, time.Time{}
		}
	}
	return false, time.Time{}
}

// free is when runs may go on in a stretch: rising, and apart from each other.
func (ws Windows) free(from, to time.Time) []span {
	allow, some := ws.of(Allow, from, to)
	if !some {
		allow = []span{{from: from, to: to}}
	}
	deny, _ := ws.of(Deny, from, to)
	var free []span
	for _, a := range allow {
		for _, d := range deny {
			if !d.from.Before(a.to) || !a.from.Before(d.to) {
				continue
			}
			if a.from.Before(d.from) {
				free = append(free, span{from: a.from, to: d.from})
			}
			a.from = d.to
		}
		if a.from.Before(a.to) {
			free = append(free, a)
		}
	}
	return free
}

// of are the times of all windows of one effect, joined where they touch, and whether there is any such window. A joined
// span names the window that ends it.
func (ws Windows) of(e Effect, from, to time.Time) (joined []span, some bool) {
	var all []span
	for i := range ws {
		if ws[i].effect == e {
			some = true
			all = append(all, ws[i].spans(from, to)...)
		}
	}
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range all {
		if n := len(joined); n > 0 && !s.from.After(joined[n-1].to) {
			if s.to.After(joined[n-1].to) {
				joined[n-1].to, joined[n-1].window = s.to, s.window
			}
			continue
		}
		joined = append(joined, s)
	}
	return joined, some
}

// closed says in one line why no run may start now, and when one may.
func (ws Windows) closed(now time.Time, need time.Duration, next time.Time) string {
	why := "no backup window is open"
	until := now.Add(max(need, 1))
	deny, _ := ws.of(Deny, now, until)
	allow, _ := ws.of(Allow, now, until)
	switch {
	case len(deny) > 0 && deny[0].from.After(now):
		why = fmt.Sprintf("blackout %q begins at %s, within the %s that the run needs", deny[0].window.name, deny[0].window.clock(deny[0].from), need)
	case len(deny) > 0:
		why = fmt.Sprintf("blackout %q is on until %s", deny[0].window.name, deny[0].window.clock(deny[0].to))
	case len(allow) > 0 && !allow[0].from.After(now):
		why = fmt.Sprintf("backup window %q ends at %s, within the %s that the run needs", allow[0].window.name, allow[0].window.clock(allow[0].to), need)
	}
	if next.IsZero() {
		return why + "; none is ever open for that long"
	}
	return why + "; a run may start at " + next.Format(clockFormat)
}

const clockFormat = "Mon 2006-01-02 15:04 MST"

// clock is an instant as people see it where the window is meant.
func (w *Window) clock(t time.Time) string { return t.In(w.loc).Format(clockFormat) }
