// Package schedule says in civil time when a job is due.
//
// Clocks on the wall are what operators plan by, so a job of the night runs on each day that the calendar of its zone has,
// and once: what daylight saving skips runs at the first instant after the gap, what it repeats runs the first time. Jobs
// that repeat within a day run in absolute time. The package asks neither the clock nor a database; whoever calls it says
// what time it is.
package schedule

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"time"
)

// Schedule is when a job is due. The zero Schedule is never due.
type Schedule struct {
	loc     *time.Location
	days    calendar
	minutes []int // of the day, rising
	// interval says that the job repeats within the day and is not bound to civil days.
	interval bool
}

// calendar chooses days; each is handed in as the reading of its midnight.
type calendar interface{ on(date time.Time) bool }

// maxLength bounds what a person can have meant: the longest useful list, of all minutes, has 169 characters.
const maxLength = 512

// searchDays is how far a schedule is searched for its next day. 29 February is the rarest, and from 2096 to 2104 it is
// 2,921 days.
const searchDays = 3000

// Parse reads a schedule: a cron expression of five fields, such as "30 2 * * 1-5", or a rule of the month, such as
// "last saturday at 02:30" and "last day at 23:00". The zone is an IANA name. The error is an *Error or several joined.
func Parse(text, zone string) (*Schedule, error) {
	loc, zoneErr := Zone(zone)
	s, err := parse(text)
	if err = errors.Join(err, zoneErr); err != nil {
		return nil, err
	}
	s.loc = loc
	return s, nil
}

func parse(text string) (*Schedule, error) {
	words := strings.Fields(text)
	switch {
	case len(words) == 0:
		return nil, refuse(text, "is empty", `write five fields, such as "30 2 * * *" for each day at 02:30`)
	case len(text) > maxLength:
		return nil, refuse(text[:20]+"...", "is longer than any schedule", "write ranges and steps, such as 0-30/5, or make two jobs")
	case ordinal(words[0]) != 0:
		return parseMonthly(text, words)
	}
	return parseCron(text, words)
}

func refuse(text, why, try string) error { return &Error{codeSchedule, "schedule", text, why, try} }

// Next is the first tick after an instant, in the zone of the schedule; ticks rise strictly. It is false only for the
// zero Schedule.
func (s *Schedule) Next(after time.Time) (time.Time, bool) {
	switch {
	case s.loc == nil:
		return time.Time{}, false
	case s.interval:
		return s.nextInterval(after.In(s.loc))
	default:
		return s.nextCivil(after.In(s.loc))
	}
}

// Ticks are all ticks after one instant up to another, in order. It is lazy: nothing is computed that is not asked for.
func (s *Schedule) Ticks(after, until time.Time) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		for {
			t, ok := s.Next(after)
			if !ok || t.After(until) || !yield(t) {
				return
			}
			after = t
		}
	}
}

// nextCivil leaves out the days that a zone never had, and nothing else.
func (s *Schedule) nextCivil(after time.Time) (time.Time, bool) {
	from := unread(after)
	for {
		r, ok := s.match(from)
		if !ok {
			return time.Time{}, false
		}
		at, date := instant(r, s.loc), midnight(r)
		if midnight(reading(at)).Equal(date) || existed(date, s.loc) {
			return at, true
		}
		from = date.Add(day)
	}
}

// nextInterval looks for a match in each stretch between two changes of the offset, so that a repeated hour counts twice.
func (s *Schedule) nextInterval(after time.Time) (time.Time, bool) {
	from := nextMinute(reading(after))
	for stretch := after; ; {
		r, ok := s.match(from)
		if !ok {
			return time.Time{}, false
		}
		_, offset := stretch.Zone()
		end := stretchEnd(stretch)
		at := r.Add(-time.Duration(offset) * time.Second)
		if end.IsZero() || at.Before(end) {
			return at.In(s.loc), true
		}
		stretch = end
		from = nextMinute(reading(end).Add(-1))
	}
}

// match is the first reading of the schedule at or after a whole minute.
func (s *Schedule) match(from time.Time) (time.Time, bool) {
	date := midnight(from)
	minute := int(from.Sub(date) / time.Minute)
	for range searchDays {
		if s.days.on(date) {
			if i, _ := slices.BinarySearch(s.minutes, minute); i < len(s.minutes) {
				return date.Add(time.Duration(s.minutes[i]) * time.Minute), true
			}
		}
		date, minute = date.Add(day), 0
	}
	return time.Time{}, false
}
