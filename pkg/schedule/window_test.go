package schedule

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// windows parses rows that a test knows to be right: name, effect, weekdays, start-end, zone.
func windows(t testing.TB, rows ...[5]string) Windows {
	t.Helper()
	var ws Windows
	for _, r := range rows {
		start, end, _ := strings.Cut(r[3], "-")
		row := Row{Name: r[0], Effect: Effect(r[1]), Start: start, End: end, Zone: r[4]}
		if r[2] != "" {
			row.Weekdays = strings.Split(r[2], ",")
		}
		w, err := ParseWindow(row)
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	return ws
}

func TestOpen(t *testing.T) {
	const berlin, newYork = "Europe/Berlin", "America/New_York"
	night := [5]string{"night", "allow", "", "22:00-06:00", berlin}
	weekend := [5]string{"weekend", "allow", "fri-sun", "20:00-06:00", berlin}
	payroll := [5]string{"payroll", "deny", "wed", "23:00-01:00", berlin}
	for _, tc := range []struct {
		name   string
		rows   [][5]string
		now    string
		need   time.Duration
		open   bool
		reason string
		next   string
	}{
		{"no windows at all", nil, "2026-01-07 12:00 +01:00", time.Hour, true, "", ""},
		{"inside", [][5]string{night}, "2026-01-07 22:00 +01:00", time.Minute, true, "", "2026-01-08 05:59 +01:00"},
		{"after midnight", [][5]string{night}, "2026-01-08 05:00 +01:00", time.Minute, true, "", "2026-01-08 05:59 +01:00"},
		{"fits to the end", [][5]string{night}, "2026-01-08 05:59 +01:00", time.Minute, true, "", "2026-01-08 05:59 +01:00"},
		{"a little too late", [][5]string{night}, "2026-01-08 05:59 +01:00", 61 * time.Second, false, `backup window "night" ends at Thu 2026-01-08 06:00 CET, within the 1m1s`, "2026-01-08 22:00 +01:00"},
		{"at the end", [][5]string{night}, "2026-01-08 06:00 +01:00", 0, false, "no backup window is open", "2026-01-08 22:00 +01:00"},
		{"by day", [][5]string{night}, "2026-01-08 12:00 +01:00", time.Minute, false, "a run may start at Thu 2026-01-08 22:00 CET", "2026-01-08 22:00 +01:00"},
		{"the weekday is that of the start", [][5]string{weekend}, "2026-01-12 05:00 +01:00", time.Minute, true, "", "2026-01-12 05:59 +01:00"},
		{"not the weekday's morning", [][5]string{weekend}, "2026-01-09 05:00 +01:00", time.Minute, false, "no backup window", "2026-01-09 20:00 +01:00"},
		{"windows that touch are one", [][5]string{{"a", "allow", "", "20:00-24:00", berlin}, {"b", "allow", "", "00:00-02:00", berlin}}, "2026-01-07 23:59 +01:00", time.Hour, true, "", "2026-01-08 01:00 +01:00"},
		{"the later of two names its end", [][5]string{{"a", "allow", "", "20:00-24:00", berlin}, {"b", "allow", "", "00:00-02:00", berlin}}, "2026-01-07 23:59 +01:00", 3 * time.Hour, false, `"b" ends at Thu 2026-01-08 02:00`, "2026-01-08 20:00 +01:00"},
		{"whole days never end", [][5]string{{"a", "allow", "", "00:00-24:00", berlin}}, "2026-01-07 23:59 +01:00", time.Hour, true, "", ""},
		{"blackout wins", [][5]string{night, payroll}, "2026-01-07 23:30 +01:00", time.Minute, false, `blackout "payroll" is on until Thu 2026-01-08 01:00 CET`, "2026-01-08 01:00 +01:00"},
		{"blackout begins during the run", [][5]string{night, payroll}, "2026-01-07 22:59 +01:00", 2 * time.Minute, false, `blackout "payroll" begins at Wed 2026-01-07 23:00 CET, within the 2m0s`, "2026-01-08 01:00 +01:00"},
		{"ends as the blackout begins", [][5]string{night, payroll}, "2026-01-07 22:58 +01:00", 2 * time.Minute, true, "", "2026-01-07 22:58 +01:00"},
		{"at the blackout's first instant", [][5]string{night, payroll}, "2026-01-07 23:00 +01:00", 0, false, "is on until", "2026-01-08 01:00 +01:00"},
		{"a blackout within the need", [][5]string{{"short", "deny", "", "12:10-12:11", berlin}}, "2026-01-07 12:00 +01:00", time.Hour, false, `"short" begins`, "2026-01-07 12:11 +01:00"},
		{"blackout alone", [][5]string{payroll}, "2026-01-07 12:00 +01:00", time.Hour, true, "", "2026-01-07 22:00 +01:00"},
		{"too short for ever", [][5]string{{"tiny", "allow", "", "02:00-02:10", berlin}}, "2026-01-07 02:00 +01:00", time.Hour, false, "none is ever open for that long", ""},
		{"blacked out for ever", [][5]string{night, {"stop", "deny", "", "00:00-24:00", berlin}}, "2026-01-07 12:00 +01:00", time.Minute, false, "none is ever open for that long", ""},
		{"spring: the start is in the gap", [][5]string{{"n", "allow", "", "02:30-04:00", newYork}}, "2026-03-08 01:59 -05:00", time.Minute, false, "03:00 EDT", "2026-03-08 03:00 -04:00"},
		{"spring: all of it is in the gap", [][5]string{{"n", "allow", "", "02:10-02:50", newYork}}, "2026-03-08 01:59 -05:00", time.Minute, false, "02:10 EDT", "2026-03-09 02:10 -04:00"},
		{"spring: the night is an hour shorter", [][5]string{{"n", "allow", "", "22:00-06:00", newYork}}, "2026-03-07 22:00 -05:00", 7 * time.Hour, true, "", "2026-03-07 22:00 -05:00"},
		{"spring: seven hours and a minute do not fit", [][5]string{{"n", "allow", "", "22:00-06:00", newYork}}, "2026-03-07 22:00 -05:00", 7*time.Hour + time.Minute, false, "06:00 EDT", "2026-03-08 22:00 -04:00"},
		{"autumn: the night is an hour longer", [][5]string{{"n", "allow", "", "22:00-06:00", newYork}}, "2026-10-31 22:00 -04:00", 9 * time.Hour, true, "", "2026-10-31 22:00 -04:00"},
		{"autumn: an end in the fold is the first", [][5]string{{"n", "allow", "", "22:00-01:30", newYork}}, "2026-11-01 01:15 -05:00", time.Minute, false, "no backup window", "2026-11-01 22:00 -05:00"},
		{"autumn: a blackout covers both", [][5]string{{"n", "deny", "", "01:00-02:00", newYork}}, "2026-11-01 01:30 -05:00", time.Minute, false, "02:00 EST", "2026-11-01 02:00 -05:00"},
		{"a day that never was", [][5]string{{"friday", "allow", "fri", "22:00-06:00", "Pacific/Apia"}}, "2011-12-31 01:00 +14:00", time.Minute, false, "no backup window", "2012-01-06 22:00 +14:00"},
		{"zones of their own", [][5]string{night, {"ny", "deny", "", "17:00-18:00", newYork}}, "2026-01-07 23:30 +01:00", time.Minute, false, "18:00 EST", "2026-01-08 00:00 +01:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			open, reason, next := windows(t, tc.rows...).Open(at(t, tc.now), tc.need)
			var want time.Time
			if tc.next != "" {
				want = at(t, tc.next)
			}
			if open != tc.open || !strings.Contains(reason, tc.reason) || (reason == "") != open || !next.Equal(want) {
				t.Errorf("Open(%s, %v) = %v, %q, %v; want %v, %q, %v", tc.now, tc.need, open, reason, next, tc.open, tc.reason, want)
			}
		})
	}
}

// TestOpenKeepsItsWord walks two weeks over a change of the clocks: what Open says of the next change comes true, and no
// minute is open that a look at the clock on the wall forbids.
func TestOpenKeepsItsWord(t *testing.T) {
	const need = 20 * time.Minute
	ws := windows(t,
		[5]string{"night", "allow", "mon-fri", "22:00-06:00", "America/New_York"}, [5]string{"weekend", "allow", "sat,sun", "00:00-24:00", "America/New_York"},
		[5]string{"batch", "deny", "", "01:15-01:45", "America/New_York"}, [5]string{"london", "deny", "sun", "20:00-02:30", "Europe/London"})
	covers := func(at time.Time) bool {
		h, m, _ := at.Clock()
		minute := h*60 + m
		weekday, yesterday := at.Weekday(), (at.Weekday()+6)%7
		work := func(d time.Weekday) bool { return d != time.Saturday && d != time.Sunday }
		return !work(weekday) || minute >= 22*60 || minute < 6*60 && work(yesterday)
	}
	loc := ws[0].loc
	for _, start := range []string{"2026-03-02 00:00 -05:00", "2026-10-26 00:00 -04:00"} {
		var promised time.Time
		opened := 0
		was, first := false, true
		for now := at(t, start).In(loc); now.Before(at(t, start).Add(14 * day)); now = now.Add(5 * time.Minute) {
			open, reason, next := ws.Open(now, need)
			if open {
				opened++
				if !covers(now) || !covers(now.Add(need-1)) {
					t.Fatalf("%v is open", now)
				}
			}
			changed := open != was && !first
			expected := !first && (was && now.After(promised) || !was && !now.Before(promised))
			if changed != expected {
				t.Fatalf("at %v open is %v (%s), promised was a change at %v", now, open, reason, promised)
			}
			was, promised, first = open, next, false
		}
		if opened == 0 {
			t.Error("nothing was ever open")
		}
	}
}

func TestParseWindow(t *testing.T) {
	good := Row{Name: "n", Zone: "UTC", Weekdays: []string{"Mon", "friday", "sat-sun"}, Start: "22:00", End: "24:00", Effect: Allow}
	w, err := ParseWindow(good)
	if want := [7]bool{true, true, false, false, false, true, true}; err != nil || w.weekdays != want {
		t.Errorf("weekdays = %v, %v, want %v", w.weekdays, err, want)
	}
	_, err = ParseWindow(Row{Zone: "Nowhere", Weekdays: []string{"mon-xyz"}, Start: "25:00", End: "6", Effect: "maybe"})
	var got []string
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		t.Fatalf("ParseWindow = %v, want all errors joined", err)
	}
	for _, e := range joined.Unwrap() {
		var wrong *Error
		if errors.As(e, &wrong) {
			got = append(got, wrong.SF+" "+wrong.Field)
		}
	}
	want := []string{"SF1922 name", "SF1922 effect", "SF1921 zone", "SF1922 weekdays", "SF1922 start", "SF1922 end"}
	if !slices.Equal(got, want) {
		t.Errorf("ParseWindow = %q, want %q", got, want)
	}
	good.End = good.Start
	if _, err := ParseWindow(good); err == nil || !strings.Contains(err.Error(), "00:00 to 24:00") {
		t.Errorf("ParseWindow of an empty window = %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	ws := windows(b, [5]string{"night", "allow", "", "22:00-06:00", "America/New_York"}, [5]string{"batch", "deny", "mon-fri", "01:15-01:45", "America/New_York"})
	now := at(b, "2026-03-02 00:00 -05:00")
	for b.Loop() {
		if open, _, _ := ws.Open(now, time.Minute); !open {
			b.Fatal("closed")
		}
	}
}

func BenchmarkNext(b *testing.B) {
	s := must(b, "30 2 * * *", "America/New_York")
	now := at(b, "2026-03-02 00:00 -05:00")
	for b.Loop() {
		if _, ok := s.Next(now); !ok {
			b.Fatal("never")
		}
	}
}
