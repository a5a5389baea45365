package schedule

import (
	"strings"
	"time"
	_ "time/tzdata" // a machine without zone files still knows every zone
)

// A reading is what a clock on the wall shows: a time.Time in UTC that means no instant.

// reach is farther than two offsets of one zone lie apart; the widest jump is one day (Samoa 2011, Alaska 1867).
const reach = 26 * time.Hour

const day = 24 * time.Hour

// Zone finds a zone by its IANA name. What depends on the machine, or counts leap seconds, is refused.
func Zone(name string) (*time.Location, error) {
	const try = `use an IANA name such as "Europe/Berlin" or "UTC"; timedatectl list-timezones shows them`
	wrong := func(why string) (*time.Location, error) {
		return nil, &Error{codeZone, "zone", name, why, try}
	}
	switch {
	case name == "":
		return wrong("is empty, and a schedule means nothing without its zone")
	case strings.EqualFold(name, "local"), name == "localtime":
		return wrong("depends on the machine that reads it")
	case strings.HasPrefix(name, "right/"):
		return wrong("counts leap seconds, so its times are some seconds beside the clock")
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return wrong("is not known; upper and lower case matter")
	}
	return loc, nil
}

// reading is what clocks in the zone of t show at t.
func reading(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// instant is the first instant at which clocks show r or more. A reading that comes twice is so taken the first time, and
// one that is skipped at the first instant after the gap. It never falls when r rises.
func instant(r time.Time, loc *time.Location) time.Time {
	from := r.Add(-reach).In(loc)
	for {
		_, offset := from.Zone()
		end := stretchEnd(from)
		at := r.Add(-time.Duration(offset) * time.Second).In(loc)
		switch {
		case at.Before(from):
			return from // the change at from jumped over r
		case end.IsZero() || at.Before(end):
			return at
		}
		from = end
	}
}

// stretchEnd is an instant after t up to which the offset of its zone stays; the offset need not change there. It is zero
// when the offset stays for ever.
//
// Where a zone goes by a yearly rule, which is any year after the table in its data, Go ends the last stretch of a year
// after 365 days. On 31 December of a leap year that lies before t (time.tzset of Go 1.26, "that suffices for the only
// caller that cares"), and who steps from end to end never gets over it.
func stretchEnd(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		return midnight(t.UTC()).Add(day).In(t.Location())
	}
	return end
}

// unread is the first whole minute that clocks in the zone of t have not shown until t. After a clock was set back, that
// is not yet the minute that follows t.
func unread(t time.Time) time.Time {
	first := nextMinute(reading(t))
	for start, _ := t.ZoneBounds(); !start.IsZero() && t.Sub(start) < reach; {
		before := start.Add(-1)
		if shown := nextMinute(reading(before)); shown.After(first) {
			first = shown
		}
		start, _ = before.ZoneBounds()
	}
	return first
}

// nextMinute is the first whole minute after r.
func nextMinute(r time.Time) time.Time { return r.Truncate(time.Minute).Add(time.Minute) }

// midnight is the beginning of the day of r.
func midnight(r time.Time) time.Time { return r.Truncate(day) }

// existed says whether clocks in the zone ever showed the day that begins at the reading.
func existed(date time.Time, loc *time.Location) bool {
	return instant(date, loc).Before(instant(date.Add(day), loc))
}
