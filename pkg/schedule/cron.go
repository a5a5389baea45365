package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// fields are the five of a cron expression, in their order.
var fields = []struct {
	name     string
	option   cron.ParseOption
	min, max int
	hint     string
}{
	{"minute", cron.Minute, 0, 59, ""},
	{"hour", cron.Hour, 0, 23, ""},
	{"day of month", cron.Dom, 1, 31, ""},
	{"month", cron.Month, 1, 12, " or jan to dec"},
	{"day of week", cron.Dow, 0, 6, " or sun to sat (Sunday is 0, not 7)"},
}

// star is the bit by which robfig/cron remembers that a field was *.
const star = 1 << 63

// cronDays chooses days as cron does: when both fields name days, one of them is enough.
type cronDays struct{ dom, month, dow uint64 }

func (c cronDays) on(date time.Time) bool {
	_, month, d := date.Date()
	if c.month&(1<<month) == 0 {
		return false
	}
	byMonth, byWeek := c.dom&(1<<d) != 0, c.dow&(1<<date.Weekday()) != 0
	if (c.dom|c.dow)&star != 0 {
		return byMonth && byWeek
	}
	return byMonth || byWeek
}

func parseCron(text string, words []string) (*Schedule, error) {
	if err := checkCron(text, words); err != nil {
		return nil, err
	}
	parsed, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(strings.Join(words, " "))
	spec, ok := parsed.(*cron.SpecSchedule)
	if err != nil || !ok {
		return nil, refuse(text, fmt.Sprintf("is no cron expression (%v)", err), `write five fields, such as "30 2 * * *"`)
	}
	s := &Schedule{
		days:     cronDays{spec.Dom, spec.Month, spec.Dow},
		interval: strings.HasPrefix(words[0], "*") || strings.HasPrefix(words[1], "*"),
	}
	for m := range 24 * 60 {
		if spec.Hour&(1<<(m/60)) != 0 && spec.Minute&(1<<(m%60)) != 0 {
			s.minutes = append(s.minutes, m)
		}
	}
	// The search reaches over a leap day from wherever it begins.
	if _, ok := s.match(time.Date(2001, time.January, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return nil, refuse(text, "never fires: none of its months has such a day", `correct day or month; for the end of each month write "last day at 02:30"`)
	}
	return s, nil
}

// checkCron refuses what other programs call cron and what robfig/cron would take for something else.
func checkCron(text string, words []string) error {
	switch first := strings.ToUpper(words[0]); {
	case strings.HasPrefix(first, "TZ=") || strings.HasPrefix(first, "CRON_TZ="):
		return refuse(text, "names a zone, which is a setting of its own", "take the zone out of the expression and set zone beside it")
	case strings.HasPrefix(first, "@EVERY"):
		return refuse(text, "counts from the start of the program, so it shifts at each restart", `write steps of the clock, such as "*/15 * * * *" or "0 */4 * * *"`)
	case strings.HasPrefix(first, "@"):
		return refuse(text, "is a short name that hides its time", `write it out: @daily is "0 0 * * *", @weekly "0 0 * * 0", @monthly "0 0 1 * *", @hourly "0 * * * *"`)
	}
	if len(words) != len(fields) {
		return refuse(text, fmt.Sprintf("has %d fields instead of 5", len(words)),
			`write minute, hour, day of month, month, day of week, such as "30 2 * * *"; there are neither seconds nor years`)
	}
	for i, word := range words {
		if why, try := checkField(i, word); why != "" {
			return refuse(text, fmt.Sprintf("%s %q %s", fields[i].name, word, why), try)
		}
	}
	return nil
}

// checkField finds what is wrong with one field; robfig/cron's own messages do not say which it was.
func checkField(i int, word string) (why, try string) {
	f := fields[i]
	try = fmt.Sprintf("write %d to %d%s, or *, with lists 1,3, ranges 1-5 and steps 0-30/5", f.min, f.max, f.hint)
	const monthly = `for days counted within a month write "last day at 02:30", "last friday at 02:30" or "second tuesday at 02:30"`
	switch {
	case i > 1 && (strings.Contains(word, "#") || counted(i, word)):
		return "is not cron here", monthly
	case strings.Contains(word, "?"):
		return "has a ?, which is not cron here", "write * instead"
	case strings.ContainsFunc(word, foreign):
		return "has a character that is not cron", try
	}
	for part := range strings.SplitSeq(word, ",") {
		base, step, stepped := strings.Cut(part, "/")
		low, high, ranged := strings.Cut(base, "-")
		switch {
		case part == "":
			return "has an empty place in its list", try
		case low == "*" && ranged:
			return "mixes * with a range", try
		case stepped && tooWide(step, f.max-f.min):
			return "steps farther than the field reaches; steps begin anew with the field above", "name the values one by one, or make two jobs"
		}
		if _, err := cron.NewParser(f.option).Parse(part); err == nil {
			continue
		} else if ranged && strings.Contains(err.Error(), "beyond end of range") {
			return "is a range that runs backwards", fmt.Sprintf("write it as two: %s-%d,%d-%s", low, f.max, f.min, high)
		}
		return "is not one of its values", try
	}
	return "", ""
}

// foreign says whether a character never stands in a field.
func foreign(r rune) bool {
	return r > 'z' || !strings.ContainsRune("0123456789*,-/", r) && (r|0x20 < 'a' || r|0x20 > 'z')
}

// counted says whether a field of days has the L or W of other programs, as in L, 15W and 5L.
func counted(i int, word string) bool {
	word = strings.ToUpper(word)
	return i == 2 && strings.ContainsAny(word, "LW") || i == 4 && strings.HasSuffix(word, "L")
}

// tooWide says whether a step never leaves the first value of its range. No person means that: */90 is not every 90 minutes.
func tooWide(step string, reach int) bool {
	n, err := strconv.Atoi(step)
	return err == nil && n > reach
}
