package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ text, why, try string }{
		{"", "is empty", "30 2 * * *"},
		{" \t\n", "is empty", "30 2 * * *"},
		{"0 2 * *", "4 fields instead of 5", "minute, hour"},
		{"0 0 2 * * *", "6 fields instead of 5", "neither seconds"},
		{"TZ=UTC 0 2 * * *", "names a zone", "zone beside it"},
		{"TZ=", "names a zone", "zone beside it"},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "names a zone", "zone beside it"},
		{"  cron_tz=X 0 2 * * *", "names a zone", "zone beside it"},
		{"@every 4h", "each restart", "0 */4 * * *"},
		{"@daily", "hides its time", "0 0 * * *"},
		{"@reboot", "hides its time", "write it out"},
		{"60 2 * * *", `minute "60" is not one of its values`, "0 to 59"},
		{"0 24 * * *", `hour "24"`, "0 to 23"},
		{"0 2 0 * *", `day of month "0"`, "1 to 31"},
		{"0 2 * 13 *", `month "13"`, "jan to dec"},
		{"0 2 * * 7", `day of week "7"`, "Sunday is 0, not 7"},
		{"0 2 * * monday", `day of week "monday"`, "sun to sat"},
		{"-5 2 * * *", `minute "-5"`, "0 to 59"},
		{"0 2 ? * *", "has a ?", "write *"},
		{"0 2 L * *", "is not cron here", "last day at 02:30"},
		{"0 2 15W * *", "is not cron here", "last day at 02:30"},
		{"0 2 * * 5L", "is not cron here", "last friday at 02:30"},
		{"0 2 * * 2#2", "is not cron here", "second tuesday at 02:30"},
		{"0 22-6 * * *", "runs backwards", "22-23,0-6"},
		{"0 2 * * fri-mon", "runs backwards", "fri-6,0-mon"},
		{"*/90 * * * *", "steps farther", "two jobs"},
		{"0 */24 * * *", "steps farther", "two jobs"},
		{"*/0 * * * *", `minute "*/0"`, "steps"},
		{"*/99999999999999999999 * * * *", "not one of its values", "steps"},
		{"*-5 * * * *", "mixes * with a range", "ranges"},
		{"1,,2 * * * *", "empty place", "lists"},
		{", * * * *", "empty place", "lists"},
		{"1/2/3 * * * *", "not one of its values", "steps"},
		{"0 2 é * *", "a character that is not cron", "1 to 31"},
		{"0 0 31 2 *", "never fires", "last day at 02:30"},
		{"0 0 31 4,6,9,11 *", "never fires", "last day at 02:30"},
		{"0 0 30-31 feb *", "never fires", "last day at 02:30"},
		{strings.Repeat("0,", 300) + "0 0 * * *", "longer than any", "ranges"},
		{"last saturday", "no rule of the month", "last saturday at 02:30"},
		{"last saturday on 02:30", "no rule of the month", "last saturday at 02:30"},
		{"last caturday at 02:30", `"caturday" is no day`, "last saturday at 02:30"},
		{"fifth friday at 02:30", "only four", "last"},
		{"first day at 02:30", "which cron can", "30 2 1 * *"},
		{"last day at 24:00", `"24:00" is no time of day`, "23:59"},
		{"last day at 2", `"2" is no time of day`, "23:59"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			_, err := Parse(tc.text, "Europe/Berlin")
			var wrong *Error
			if !errors.As(err, &wrong) {
				t.Fatalf("Parse = %v, want an *Error", err)
			}
			if wrong.Code() != "SF1920" || wrong.Field != "schedule" || !strings.Contains(wrong.Why, tc.why) || !strings.Contains(wrong.Try, tc.try) {
				t.Errorf("Parse = %v, want SF1920 with %q and %q", err, tc.why, tc.try)
			}
		})
	}
}

// TestBothWrong: an operator hears of the schedule and of the zone at once.
func TestBothWrong(t *testing.T) {
	_, err := Parse("61 2 * * *", "Mars/Olympus")
	for _, want := range []string{`minute "61"`, `zone "Mars/Olympus"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want it to name %s", err, want)
		}
	}
}

func TestAdviceParses(t *testing.T) {
	for _, text := range []string{
		"30 2 * * *", "*/15 * * * *", "0 */4 * * *", "0 0 * * 0", "0 0 1 * *", "0 * * * *", "30 2 4 * *", "0 22-23,0-6 * * *", "0 2 * * fri-6,0-mon",
		"last saturday at 02:30", "second tuesday at 22:00", "last day at 23:00", "last friday at 02:30", "30 2 * * 1-5", "0-30/5 1,3 1-5 JAN-dec *", "0 0 29 2 *",
		"0 0 31 2 mon",
	} {
		if _, err := Parse(text, "UTC"); err != nil {
			t.Error(err)
		}
	}
}

// FuzzParse wants no panic, words that help, and from whatever parses ticks that rise, at whole minutes that it matches.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"30 2 * * *", "*/15 * * * *", "0 0 31 2 *", "0 0 29 2 *", "TZ=", "CRON_TZ=UTC 0 0 * * *", "@every 1h", "@daily", "0 0 L * *", "0 22-6 * * 1#2", "*-5 * * * *",
		"? ? ? ? ?", "1,,2 * * * *", "last saturday at 02:30", "last day at 23:00", "fifth mon at 1:00", "0 0 */2 * sun", "59 23 31 12 *", "+1 * * * *",
	} {
		f.Add(text, "Europe/Berlin", int64(1_774_749_600))
	}
	f.Add("30 2 * * *", "America/New_York", int64(1_772_953_200))
	f.Add("0 0 * * *", "Pacific/Apia", int64(1_325_152_800))
	f.Add("0 0 * * *", "../../etc/passwd", int64(0))
	f.Fuzz(func(t *testing.T, text, zone string, unix int64) {
		s, err := Parse(text, zone)
		if err != nil {
			var wrong *Error
			if !errors.As(err, &wrong) || wrong.Code() == "" || wrong.Why == "" || wrong.Try == "" {
				t.Errorf("Parse(%q, %q) = %v, want an error that helps", text, zone, err)
			}
			return
		}
		after := time.Unix(unix%(1<<33), 0)
		for range 5 {
			tick, ok := s.Next(after)
			if !ok || !tick.After(after) {
				t.Fatalf("%q in %q: Next(%v) = %v, %v", text, zone, after, tick, ok)
			}
			r := reading(tick)
			if m, found := s.match(r.Truncate(time.Minute)); s.interval && (!found || !m.Equal(r)) {
				t.Errorf("%q in %q: the interval's tick %v does not match", text, zone, tick)
			}
			after = tick
		}
	})
}
