package schedule

import (
	"fmt"
	"strings"
	"time"
)

// last stands for the last of its kind in a month.
const last = -1

// monthly is one day of each month: the nth weekday, the last weekday of its name, or the last day.
type monthly struct {
	nth     int // 1 to 4, or last
	weekday time.Weekday
	anyDay  bool // the last day, whatever its weekday
}

func (m monthly) on(date time.Time) bool {
	if !m.anyDay && date.Weekday() != m.weekday {
		return false
	}
	if m.nth == last {
		week := 7 * day
		if m.anyDay {
			week = day
		}
		return date.Add(week).Month() != date.Month()
	}
	return (date.Day()-1)/7+1 == m.nth
}

// ordinal is the number of a word, and 0 for any other word.
func ordinal(word string) int {
	switch strings.ToLower(word) {
	case "first", "1st":
		return 1
	case "second", "2nd":
		return 2
	case "third", "3rd":
		return 3
	case "fourth", "4th":
		return 4
	case "fifth", "5th":
		return 5
	case "last":
		return last
	}
	return 0
}

func parseMonthly(text string, words []string) (*Schedule, error) {
	const example = `write "last saturday at 02:30", "second tuesday at 22:00" or "last day at 23:00"`
	if len(words) != 4 || !strings.EqualFold(words[2], "at") {
		return nil, refuse(text, "is no rule of the month", example)
	}
	m := monthly{nth: ordinal(words[0])}
	weekday, known := weekdayOf(words[1])
	switch {
	case m.nth == 5:
		return nil, refuse(text, "would leave out the months that have only four", `write "last" instead of "fifth"`)
	case known:
		m.weekday = weekday
	case !strings.EqualFold(words[1], "day"):
		return nil, refuse(text, fmt.Sprintf("%q is no day of the week", words[1]), example)
	case m.nth != last:
		return nil, refuse(text, "counts days, which cron can", fmt.Sprintf(`write "30 2 %d * *" for 02:30 on day %d of each month`, m.nth, m.nth))
	default:
		m.anyDay = true
	}
	minute, ok := minuteOf(words[3])
	if !ok {
		return nil, refuse(text, fmt.Sprintf("%q is no time of day", words[3]), "write hours and minutes from 00:00 to 23:59")
	}
	return &Schedule{days: m, minutes: []int{minute}}, nil
}

// weekdayOf reads a weekday, written out or by its first three letters.
func weekdayOf(word string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := d.String(); strings.EqualFold(word, name) || strings.EqualFold(word, name[:3]) {
			return d, true
		}
	}
	return 0, false
}

// minuteOf reads a time of day as the minute of the day.
func minuteOf(clock string) (int, bool) {
	at, err := time.Parse("15:04", clock)
	return at.Hour()*60 + at.Minute(), err == nil
}
