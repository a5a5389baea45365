package schedule

import (
	"sync/atomic"
	"testing"
	"time"
)

// The zones differ in how their clocks change: at midnight and at night, by half an hour, an hour, two hours and a day,
// twice and four times a year, by decree at any date, and never.
var zones = []string{
	"America/New_York", "America/Sao_Paulo", "America/Havana", "America/Caracas", "Africa/Cairo", "Africa/Casablanca", "Asia/Gaza", "Asia/Tehran",
	"Asia/Kathmandu", "Europe/Dublin", "Australia/Lord_Howe", "Pacific/Apia", "Antarctica/Troll",
}

type hour struct {
	text   string
	minute int
}

var daily = []hour{
	{"0 0 * * *", 0}, {"30 0 * * *", 30}, {"30 1 * * *", 90}, {"15 2 * * *", 135}, {"0 3 * * *", 180}, {"59 23 * * *", 1439},
}

// TestEachDayOnce: 20 years have 7,305 days, and every zone had all of them but Apia, where 30 December 2011 never came.
// The years to come go by the zones' yearly rules, which are another part of their data.
func TestEachDayOnce(t *testing.T) {
	for _, span := range []struct {
		name        string
		from, until time.Time
		daily       []hour
		want        int
	}{
		{"2006 to 2025", date(2006, 1, 1), date(2026, 1, 1), daily, (13*7305 - 1) * 6},
		{"2038 to 2057", date(2038, 1, 1), date(2058, 1, 1), daily[3:4], 13 * 7305},
	} {
		total := new(atomic.Int64)
		t.Run(span.name, func(t *testing.T) {
			for _, zone := range zones {
				t.Run(zone, func(t *testing.T) {
					t.Parallel()
					days := calendarOf(t, zone, span.from, span.until)
					for _, d := range span.daily {
						total.Add(int64(eachDayOnce(t, must(t, d.text, zone), d.minute, days)))
					}
				})
			}
		})
		if total.Load() != int64(span.want) {
			t.Errorf("%s: %d fires of %d schedules in %d zones, want %d", span.name, total.Load(), len(span.daily), len(zones), span.want)
		}
	}
}

func date(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
}

// calendarOf finds the days that a zone had, by looking at its clock every six hours.
func calendarOf(t *testing.T, zone string, from, until time.Time) []time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	var days []time.Time
	for at := from.Add(-2 * day); at.Before(until.Add(2 * day)); at = at.Add(6 * time.Hour) {
		year, month, d := at.In(loc).Date()
		shown := date(year, month, d)
		if !shown.Before(from) && shown.Before(until) && (len(days) == 0 || shown.After(days[len(days)-1])) {
			days = append(days, shown)
		}
	}
	return days
}

// eachDayOnce wants one tick on each day in turn, at its minute where the day has it, else at the first instant after the
// gap, and never at the second of two equal readings. It returns how many ticks it saw.
func eachDayOnce(t *testing.T, s *Schedule, minute int, days []time.Time) int {
	t.Helper()
	after := instant(days[0], s.loc).Add(-1)
	for i, want := range days {
		tick, ok := s.Next(after)
		if !ok || !tick.After(after) {
			t.Fatalf("Next(%v) = %v, %v", after, tick, ok)
		}
		after = tick
		r := reading(tick)
		if !midnight(r).Equal(want) {
			t.Fatalf("tick %d is %v, want the day %s", i, tick, want.Format(time.DateOnly))
		}
		shown, before := int(r.Sub(want)/time.Minute), reading(tick.Add(-1))
		if shown < minute || shown > minute && !before.Before(want.Add(time.Duration(minute)*time.Minute)) {
			t.Errorf("%v is neither minute %d of its day nor the end of a gap over it", tick, minute)
		}
		if reading(tick.Add(-3 * time.Hour)).Add(3 * time.Hour).Equal(r) {
			continue // no clock was changed
		}
		for back := 30 * time.Minute; back <= 3*time.Hour; back += 30 * time.Minute {
			if e := reading(tick.Add(-back)); e.Equal(r) {
				t.Errorf("%v is the second time, the first was %v before", tick, back)
			}
		}
	}
	return len(days)
}
