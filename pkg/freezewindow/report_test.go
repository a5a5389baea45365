package freezewindow_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// spans names the phases of a report as name and duration.
func spans(t *testing.T, r freezewindow.Report, end time.Duration) []string {
	t.Helper()
	var at time.Duration
	out := []string{}
	for _, p := range r.Phases {
		if p.Start != at || p.Duration < 0 {
			t.Errorf("phase %s is %v from %v, want it to begin where the one before ended, %v", p.Name, p.Duration, p.Start, at)
		}
		at += p.Duration
		out = append(out, p.Name+" "+p.Duration.String())
	}
	if at != end {
		t.Errorf("the phases add up to %v, the window took %v", at, end)
	}
	return out
}

func TestReportPhases(t *testing.T) {
	last := freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}
	cases := map[string]struct {
		way  []happening
		want []string
	}{
		"good":                      {with(freed, ms(3200), last), []string{"freeze 1.5s", "snapshot_create 1.5s", "thaw 50ms", "verify 150ms"}},
		"thawed with the last word": {with(done, ms(3050), last), []string{"freeze 1.5s", "snapshot_create 1.5s", "thaw 50ms", "verify 0s"}},
		"late snapshot":             {with(late, ms(17800), last), []string{"freeze 1.5s", "snapshot_create 16.2s", "thaw 100ms", "verify 0s"}},
		"never frozen":              {with(opened, ms(17000), fired(freezewindow.ThawBy), ms(17100), last), []string{"freeze 17s", "thaw 100ms", "verify 0s"}},
		"no time left":              {with(opened, ms(16900), freezewindow.GuestFrozen{Go: 7, Mode: "fs"}, ms(17100), last), []string{"freeze 16.9s", "thaw 200ms", "verify 0s"}},
		"thawed by itself":          {with(asked, ms(2000), freezewindow.GuestThawed{Go: 7, Final: true, Release: freezewindow.Release{Expired: true}}), []string{"freeze 1.5s", "snapshot_create 500ms", "thaw 0s", "verify 0s"}},
		"link lost and back":        {with(cut, ms(2400), freezewindow.LinkBack{}, ms(2500), last), []string{"freeze 1.5s", "snapshot_create 500ms", "reconnect 400ms", "thaw 100ms", "verify 0s"}},
		"never heard of again":      {with(late, ms(52700), fired(freezewindow.SettleBy)), []string{"freeze 1.5s", "snapshot_create 16.2s", "unheard 35s"}},
		"gone at once":              {with(opened, ms(10), freezewindow.LinkLost{}, ms(20), freezewindow.ResumeFailed{Gone: true}), []string{"unheard 20ms"}},
		"never begun":               {[]happening{{0, freezewindow.Start{}}}, []string{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := follow(freezewindow.DefaultBudget(), c.way)
			if s.Phase != freezewindow.Done {
				t.Fatalf("the window is %v, want it done", s.Phase)
			}
			if diff := cmp.Diff(c.want, spans(t, freezewindow.Conclude(s), s.EndAt)); diff != "" {
				t.Errorf("phases (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReportHold checks the bound by our own clock: from the earliest moment at which the hold can have begun (GO plus
// what the guest says that it prepared) to THAWED received.
func TestReportHold(t *testing.T) {
	thawed := func(held time.Duration, expired bool) freezewindow.Event {
		r := goodRelease()
		r.Held, r.Expired = held, expired
		return freezewindow.GuestThawed{Go: 7, Final: true, Release: r}
	}
	cases := map[string]struct {
		way                     []happening
		atMost, byGuest         time.Duration
		known, self, over, stun bool
	}{
		"good":                  {way: with(done, ms(3050), thawed(ms(2300), false)), atMost: ms(2350), byGuest: ms(2300), known: true},
		"the first THAWED":      {way: with(freed, ms(9000), thawed(ms(2300), false)), atMost: ms(2350), byGuest: ms(2300), known: true},
		"before FROZEN":         {way: with(opened, ms(900), freezewindow.Cancel{}, ms(1000), thawed(ms(100), false)), atMost: ms(1000), byGuest: ms(100), known: true},
		"dead-man":              {way: with(late, ms(18800), thawed(ms(18000), true)), atMost: ms(18100), byGuest: ms(18000), known: true, self: true},
		"stunned":               {way: with(late, ms(21000), thawed(ms(15000), false)), atMost: ms(20300), byGuest: ms(15000), known: true, stun: true},
		"over the budget":       {way: with(late, ms(21000), thawed(ms(20100), false)), atMost: ms(20300), byGuest: ms(20100), known: true, over: true},
		"never said":            {way: with(late, ms(52700), fired(freezewindow.SettleBy)), self: true},
		"lost and nobody there": {way: with(cut, ms(2100), freezewindow.ResumeFailed{Gone: true}), self: true},
		"never begun":           {way: []happening{{0, freezewindow.Start{}}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := follow(freezewindow.DefaultBudget(), c.way)
			r := freezewindow.Conclude(s)
			if r.HeldAtMost != c.atMost || r.HeldByGuest != c.byGuest {
				t.Errorf("held at most %v, by the guest %v, want %v and %v", r.HeldAtMost, r.HeldByGuest, c.atMost, c.byGuest)
			}
			if r.HeldAtMostKnown != c.known || r.HeldByGuestKnown != c.known || r.SelfReleased != c.self || r.OverBudget() != c.over || r.OverrunByStun() != c.stun {
				t.Errorf("known %t/%t, self released %t, over budget %t, stun %t, want %t, %t, %t, %t",
					r.HeldAtMostKnown, r.HeldByGuestKnown, r.SelfReleased, r.OverBudget(), r.OverrunByStun(), c.known, c.self, c.over, c.stun)
			}
		})
	}
}

func TestReportRepeats(t *testing.T) {
	s, _ := follow(freezewindow.DefaultBudget(), with(freed, ms(3200), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}))
	if diff := cmp.Diff(freezewindow.Conclude(s), freezewindow.Conclude(s)); diff != "" {
		t.Errorf("two reports of one state differ:\n%s", diff)
	}
}
