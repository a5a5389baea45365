package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	const berlin = "Europe/Berlin"
	once, skip := CatchUp{RunOnce, DefaultMaxCatchUp}, CatchUp{Skip, DefaultMaxCatchUp}
	night := windows(t, [5]string{"night", "allow", "", "22:00-06:00", berlin})
	for _, tc := range []struct {
		name, text   string
		settled, now string
		policy       CatchUp
		ws           Windows
		tick         string
		catchUp      bool
		missed       int
		why          string
		next         string
	}{
		{"nothing yet", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-07 12:00 +01:00", once, nil, "", false, 0, "", "2026-01-08 02:30 +01:00"},
		{"on time", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 02:30 +01:00", once, nil, "2026-01-08 02:30 +01:00", false, 0, "", "2026-01-09 02:30 +01:00"},
		{"a minute late is on time", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 02:31 +01:00", skip, nil, "2026-01-08 02:30 +01:00", false, 0, "", "2026-01-09 02:30 +01:00"},
		{"on time waits for its window", "30 12 * * *", "2026-01-07 12:30 +01:00", "2026-01-08 12:30 +01:00", once, night, "2026-01-08 12:30 +01:00", false, 0, "", "2026-01-09 12:30 +01:00"},
		{"late, made up for", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 05:00 +01:00", once, night, "2026-01-08 02:30 +01:00", true, 0, "", "2026-01-09 02:30 +01:00"},
		{"late, to be skipped", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 02:32 +01:00", skip, nil, "", false, 1, "policy is to skip", "2026-01-09 02:30 +01:00"},
		{"late, windows closed", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 07:00 +01:00", once, night, "", false, 1, "no backup window is open", "2026-01-09 02:30 +01:00"},
		{"late, at the limit", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 14:30 +01:00", once, nil, "2026-01-08 02:30 +01:00", true, 0, "", "2026-01-09 02:30 +01:00"},
		{"late, too old", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 14:31 +01:00", once, nil, "", false, 1, "older than max_catchup, 12h", "2026-01-09 02:30 +01:00"},
		{"three nights away", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-10 03:00 +01:00", once, nil, "2026-01-10 02:30 +01:00", true, 2, "", "2026-01-11 02:30 +01:00"},
		{"away, back on time", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-10 02:30 +01:00", skip, nil, "2026-01-10 02:30 +01:00", false, 2, "", "2026-01-11 02:30 +01:00"},
		{"an hour of quarters", "*/15 * * * *", "2026-01-07 02:00 +01:00", "2026-01-07 03:05 +01:00", once, nil, "2026-01-07 03:00 +01:00", true, 3, "", "2026-01-07 03:15 +01:00"},
		{"zero policy makes up for nothing", "30 2 * * *", "2026-01-07 02:30 +01:00", "2026-01-08 03:00 +01:00", CatchUp{}, nil, "", false, 1, "policy", "2026-01-09 02:30 +01:00"},
		{"just created", "30 2 * * *", "2026-01-08 02:30 +01:00", "2026-01-08 02:31 +01:00", once, nil, "", false, 0, "", "2026-01-09 02:30 +01:00"},
		{"away over the end of the gap", "30 2 * * *", "2026-03-28 02:30 +01:00", "2026-03-29 03:10 +02:00", once, nil, "2026-03-29 03:00 +02:00", true, 0, "", "2026-03-30 02:30 +02:00"},
		{"age is real time over a fold", "30 2 * * *", "2026-10-24 02:30 +02:00", "2026-10-25 13:31 +01:00", once, nil, "", false, 1, "12h", "2026-10-26 02:30 +01:00"},
		{"three years of minutes", "* * * * *", "2026-01-07 02:30 +01:00", "2029-01-07 02:30 +01:00", once, nil, "2029-01-07 02:30 +01:00", false, maxMissed, "", "2029-01-07 02:31 +01:00"},
		{"the clock was set back", "30 2 * * *", "2027-01-07 02:30 +01:00", "2026-01-08 02:30 +01:00", once, nil, "", false, 0, "", "2026-01-09 02:30 +01:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, settled, now := must(t, tc.text, berlin), at(t, tc.settled), at(t, tc.now)
			d := s.Due(settled, now, tc.policy, tc.ws, time.Minute)
			var want time.Time
			if tc.tick != "" {
				want = at(t, tc.tick)
			}
			if !d.Tick.Equal(want) || d.CatchUp != tc.catchUp || d.Missed != tc.missed || (d.Why == "") != (tc.why == "") || !strings.Contains(d.Why, tc.why) ||
				!d.Next.Equal(at(t, tc.next)) {
				t.Errorf("Due = %+v", d)
			}
			if first, _ := s.Next(settled); d.Missed > 0 && (!d.FirstMissed.Equal(first) || d.LastMissed.Before(first) || d.LastMissed.After(now)) {
				t.Errorf("missed from %v to %v", d.FirstMissed, d.LastMissed)
			}
			if again := s.Due(d.Settled, now, tc.policy, tc.ws, time.Minute); !again.Tick.IsZero() || again.Missed != 0 {
				t.Errorf("a second look finds %+v", again)
			}
		})
	}
}

// TestEachTickOnce lets a daemon look at odd moments, with pauses, and counts: every tick runs or is missed, and never both.
func TestEachTickOnce(t *testing.T) {
	policy := CatchUp{RunOnce, 3 * time.Hour}
	for _, text := range []string{"30 2 * * *", "*/20 * * * *", "0,30 0-5 * * *"} {
		s := must(t, text, "America/New_York")
		start, end := at(t, "2026-10-25 00:00 -04:00"), at(t, "2026-11-05 00:00 -05:00")
		ran, missed := map[time.Time]bool{}, 0
		settled, now := start, start
		for i := 0; now.Before(end); i++ {
			now = now.Add(time.Duration(1+i%97*i%89) * 7 * time.Second)
			if i%50 == 49 {
				now = now.Add(5 * time.Hour)
			}
			d := s.Due(settled, now, policy, nil, 0)
			if !d.Tick.IsZero() {
				if ran[d.Tick] {
					t.Fatalf("%s: %v ran twice", text, d.Tick)
				}
				ran[d.Tick] = true
			}
			missed += d.Missed
			settled = d.Settled
		}
		all := len(ticks(s, start, now))
		if len(ran)+missed != all || len(ran) == 0 || missed == 0 {
			t.Errorf("%s: %d ran and %d were missed of %d", text, len(ran), missed, all)
		}
	}
}

// TestClockSetBack: a job goes on at once when a clock that ran ahead is put right.
func TestClockSetBack(t *testing.T) {
	s := must(t, "30 2 * * *", "UTC")
	now := at(t, "2026-01-08 01:00 +00:00")
	d := s.Due(now.AddDate(1, 0, 0), now, CatchUp{RunOnce, day}, nil, 0)
	if !d.Settled.Equal(now) {
		t.Fatalf("settled = %v, want now", d.Settled)
	}
	if d = s.Due(d.Settled, now.Add(90*time.Minute), CatchUp{RunOnce, day}, nil, 0); !d.Tick.Equal(at(t, "2026-01-08 02:30 +00:00")) {
		t.Errorf("Due = %+v, want the tick of the same night", d)
	}
}

func TestParseCatchUp(t *testing.T) {
	if p, err := ParseCatchUp("", 0); err != nil || p != (CatchUp{RunOnce, 12 * time.Hour}) {
		t.Errorf("the default is %+v, %v", p, err)
	}
	if p, err := ParseCatchUp("skip", time.Hour); err != nil || p != (CatchUp{Skip, time.Hour}) {
		t.Errorf("ParseCatchUp(skip) = %+v, %v", p, err)
	}
	for _, tc := range []struct {
		missed string
		limit  time.Duration
		field  string
	}{{"run_twice", time.Hour, "missed"}, {"run_once", -time.Hour, "max_catchup"}, {"run_once", time.Second, "max_catchup"}, {"run_once", 32 * day, "max_catchup"}} {
		_, err := ParseCatchUp(tc.missed, tc.limit)
		var wrong *Error
		if !errors.As(err, &wrong) || wrong.Code() != "SF1923" || wrong.Field != tc.field {
			t.Errorf("ParseCatchUp(%s, %v) = %v, want SF1923 about %s", tc.missed, tc.limit, err, tc.field)
		}
	}
}

// TestJitter: the numbers are written down because another process, and another release, must find the same.
func TestJitter(t *testing.T) {
	for vm, want := range map[string]time.Duration{
		"5029c1ab-1111-4222-8333-000000000001": 20*time.Minute + 15_428*time.Millisecond,
		"5029c1ab-1111-4222-8333-000000000002": 24*time.Minute + 12_806*time.Millisecond,
	} {
		if got := Jitter(vm, 30*time.Minute); got != want {
			t.Errorf("Jitter(%s) = %v, want %v", vm, got, want)
		}
	}
	for _, none := range []time.Duration{0, -time.Hour, time.Microsecond} {
		if got := Jitter("vm", none); got != 0 {
			t.Errorf("Jitter below %v = %v, want none", none, got)
		}
	}
	const vms, slots = 20_000, 20
	var count [slots]int
	for i := range vms {
		count[Jitter(fmt.Sprintf("5029c1ab-1111-4222-8333-%012x", i), slots*time.Minute)/time.Minute]++
	}
	for slot, n := range count {
		if n < vms/slots*8/10 || n > vms/slots*12/10 {
			t.Errorf("minute %d has %d of %d VMs", slot, n, vms)
		}
	}
}
