package schedule

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// must parses what a test knows to be right.
func must(t testing.TB, text, zone string) *Schedule {
	t.Helper()
	s, err := Parse(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at reads an instant with its offset, as the tables write it.
func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02 15:04 -07:00", text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// ticks are those after one instant up to another, in the zone of the schedule.
func ticks(s *Schedule, after, until time.Time) []string {
	var all []string
	for tick := range s.Ticks(after, until) {
		all = append(all, tick.Format("2006-01-02 15:04 -07:00"))
	}
	return all
}

func TestClockChanges(t *testing.T) {
	for _, tc := range []struct {
		name, text, zone string
		after, until     string
		want             []string
	}{
		{
			"spring gap, New York", "30 2 * * *", "America/New_York", "2026-03-07 02:30 -05:00", "2026-03-09 23:59 -04:00",
			[]string{"2026-03-08 03:00 -04:00", "2026-03-09 02:30 -04:00"},
		},
		{
			"end of the gap, New York", "0 3 * * *", "America/New_York", "2026-03-07 12:00 -05:00", "2026-03-08 23:59 -04:00",
			[]string{"2026-03-08 03:00 -04:00"},
		},
		{
			"two readings of one gap are one tick", "0,30 2,3 * * *", "America/New_York", "2026-03-07 12:00 -05:00", "2026-03-08 23:59 -04:00",
			[]string{"2026-03-08 03:00 -04:00", "2026-03-08 03:30 -04:00"},
		},
		{
			"autumn fold, New York", "30 1 * * *", "America/New_York", "2026-10-31 12:00 -04:00", "2026-11-02 12:00 -05:00",
			[]string{"2026-11-01 01:30 -04:00", "2026-11-02 01:30 -05:00"},
		},
		{
			"asked within the fold, New York", "30 1 * * *", "America/New_York", "2026-11-01 01:10 -05:00", "2026-11-02 12:00 -05:00",
			[]string{"2026-11-02 01:30 -05:00"},
		},
		{
			"last minute of the fold, New York", "59 1 * * *", "America/New_York", "2026-11-01 01:10 -05:00", "2026-11-02 12:00 -05:00",
			[]string{"2026-11-02 01:59 -05:00"},
		},
		{
			"end of the fold, New York", "0 2 * * *", "America/New_York", "2026-10-31 12:00 -04:00", "2026-11-01 23:00 -05:00",
			[]string{"2026-11-01 02:00 -05:00"},
		},
		{
			"list through the fold, New York", "0,30 1 * * *", "America/New_York", "2026-10-31 12:00 -04:00", "2026-11-01 23:00 -05:00",
			[]string{"2026-11-01 01:00 -04:00", "2026-11-01 01:30 -04:00"},
		},
		{
			"midnight gap, Sao Paulo", "0 0 * * *", "America/Sao_Paulo", "2018-11-03 12:00 -03:00", "2018-11-05 12:00 -02:00",
			[]string{"2018-11-04 01:00 -02:00", "2018-11-05 00:00 -02:00"},
		},
		{
			"fold over midnight, Sao Paulo", "30 23 * * *", "America/Sao_Paulo", "2018-02-16 23:30 -02:00", "2018-02-18 23:59 -03:00",
			[]string{"2018-02-17 23:30 -02:00", "2018-02-18 23:30 -03:00"},
		},
		{
			"midnight gap, Cairo", "0 0 * * *", "Africa/Cairo", "2024-04-25 12:00 +02:00", "2024-04-27 12:00 +03:00",
			[]string{"2024-04-26 01:00 +03:00", "2024-04-27 00:00 +03:00"},
		},
		{
			"half an hour, Lord Howe", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00 +10:30", "2026-10-05 12:00 +11:00",
			[]string{"2026-10-04 02:30 +11:00", "2026-10-05 02:15 +11:00"},
		},
		{
			"half an hour back, Lord Howe", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00 +11:00", "2026-04-06 12:00 +10:30",
			[]string{"2026-04-05 01:45 +11:00", "2026-04-06 01:45 +10:30"},
		},
		{
			"a day that never was, Apia", "30 2 * * *", "Pacific/Apia", "2011-12-28 12:00 -10:00", "2012-01-01 12:00 +14:00",
			[]string{"2011-12-29 02:30 -10:00", "2011-12-31 02:30 +14:00", "2012-01-01 02:30 +14:00"},
		},
		{
			"a weekday that never was, Apia", "0 0 * * 5", "Pacific/Apia", "2011-12-22 12:00 -10:00", "2012-01-07 12:00 +14:00",
			[]string{"2011-12-23 00:00 -10:00", "2012-01-06 00:00 +14:00"},
		},
		{
			"a day that came twice, Alaska", "0 16 * * *", "America/Juneau", "1867-10-17 23:00 +15:02", "1867-10-20 00:00 -08:58",
			[]string{"1867-10-18 16:00 +15:02", "1867-10-19 16:00 -08:57"},
		},
		{
			"late in a day that came twice, Alaska", "0 15 * * *", "America/Juneau", "1867-10-19 14:00 -08:58", "1867-10-21 00:00 -08:58",
			[]string{"1867-10-20 15:00 -08:57"},
		},
		{
			"a gap up to midnight, Nuuk", "30 23 * * *", "America/Nuuk", "2026-03-27 23:30 -02:00", "2026-03-30 12:00 -01:00",
			[]string{"2026-03-29 00:00 -01:00", "2026-03-29 23:30 -01:00"},
		},
		{
			// Where Go's bounds of a stretch lie before it; a daemon without the system's zone files meets it in 2028.
			"31 December of a leap year by the yearly rule", "0 0 * * *", "America/New_York", "2040-12-30 12:00 -05:00", "2041-01-02 12:00 -05:00",
			[]string{"2040-12-31 00:00 -05:00", "2041-01-01 00:00 -05:00", "2041-01-02 00:00 -05:00"},
		},
		{
			"the same for intervals", "0 */8 * * *", "America/New_York", "2040-12-30 12:00 -05:00", "2041-01-01 07:00 -05:00",
			[]string{"2040-12-30 16:00 -05:00", "2040-12-31 00:00 -05:00", "2040-12-31 08:00 -05:00", "2040-12-31 16:00 -05:00", "2041-01-01 00:00 -05:00"},
		},
		{
			"intervals leave out what is skipped", "*/30 * * * *", "America/New_York", "2026-03-08 01:00 -05:00", "2026-03-08 03:30 -04:00",
			[]string{"2026-03-08 01:30 -05:00", "2026-03-08 03:00 -04:00", "2026-03-08 03:30 -04:00"},
		},
		{
			"intervals keep both repeated hours", "30 * * * *", "America/New_York", "2026-11-01 00:30 -04:00", "2026-11-01 02:30 -05:00",
			[]string{"2026-11-01 01:30 -04:00", "2026-11-01 01:30 -05:00", "2026-11-01 02:30 -05:00"},
		},
		{
			"interval at the very change", "*/30 1 * * *", "America/New_York", "2026-11-01 01:30 -04:00", "2026-11-01 23:00 -05:00",
			[]string{"2026-11-01 01:00 -05:00", "2026-11-01 01:30 -05:00"},
		},
		{
			"last saturday", "last saturday at 02:30", "Europe/Berlin", "2026-01-31 02:30 +01:00", "2026-04-01 00:00 +02:00",
			[]string{"2026-02-28 02:30 +01:00", "2026-03-28 02:30 +01:00"},
		},
		{
			"last sunday is the change itself", "Last Sun at 02:30", "Europe/Berlin", "2026-03-01 00:00 +01:00", "2026-04-01 00:00 +02:00",
			[]string{"2026-03-29 03:00 +02:00"},
		},
		{
			"last day", "last day at 23:00", "Europe/Berlin", "2028-01-31 23:00 +01:00", "2028-05-01 00:00 +02:00",
			[]string{"2028-02-29 23:00 +01:00", "2028-03-31 23:00 +02:00", "2028-04-30 23:00 +02:00"},
		},
		{
			"second tuesday", "second tuesday at 22:00", "UTC", "2026-06-30 00:00 +00:00", "2026-11-30 00:00 +00:00",
			[]string{"2026-07-14 22:00 +00:00", "2026-08-11 22:00 +00:00", "2026-09-08 22:00 +00:00", "2026-10-13 22:00 +00:00", "2026-11-10 22:00 +00:00"},
		},
		{
			"either of two day fields", "0 4 13 * 5", "UTC", "2026-02-01 00:00 +00:00", "2026-02-28 00:00 +00:00",
			[]string{"2026-02-06 04:00 +00:00", "2026-02-13 04:00 +00:00", "2026-02-20 04:00 +00:00", "2026-02-27 04:00 +00:00"},
		},
		{
			"no leap year in 2100", "0 12 29 2 *", "UTC", "2096-02-29 12:00 +00:00", "2109-01-01 00:00 +00:00",
			[]string{"2104-02-29 12:00 +00:00", "2108-02-29 12:00 +00:00"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ticks(must(t, tc.text, tc.zone), at(t, tc.after), at(t, tc.until))
			if !slices.Equal(got, tc.want) {
				t.Errorf("%s in %s = %q, want %q", tc.text, tc.zone, got, tc.want)
			}
		})
	}
}

// TestZeroIsNeverDue: a schedule that nobody parsed starts nothing.
func TestZeroIsNeverDue(t *testing.T) {
	var s Schedule
	if tick, ok := s.Next(time.Now()); ok {
		t.Errorf("Next = %v, want none", tick)
	}
	if d := s.Due(time.Now().Add(-day), time.Now(), CatchUp{RunOnce, day}, nil, 0); !d.Tick.IsZero() || d.Missed != 0 {
		t.Errorf("Due = %+v, want nothing", d)
	}
}

func TestZone(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kathmandu", "Etc/GMT+5"} {
		if loc, err := Zone(name); err != nil || loc.String() != name {
			t.Errorf("Zone(%s) = %v, %v", name, loc, err)
		}
	}
	for name, why := range map[string]string{
		"": "empty", "Local": "machine", "local": "machine", "right/UTC": "leap", "Europe/Berlino": "not known", "europe/berlin": "not known",
		"../etc/passwd": "not known", "UTC+2": "not known",
	} {
		_, err := Zone(name)
		var wrong *Error
		if !errors.As(err, &wrong) || wrong.Code() != "SF1921" || wrong.Field != "zone" || !strings.Contains(err.Error(), why) {
			t.Errorf("Zone(%q) = %v, want SF1921 with %q", name, err, why)
		}
	}
}
