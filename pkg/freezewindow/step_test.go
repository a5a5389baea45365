package freezewindow_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// happening is one event with its time since GO.
type happening struct {
	at    time.Duration
	event freezewindow.Event
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func stepReady() freezewindow.Ready {
	return freezewindow.Ready{
		Go: 7, Mode: freezewindow.ModeFS, Left: 60 * time.Second, Armed: true, Volumes: []string{"/data"}, Name: "stillframe-r-1",
	}
}

// ways into each phase, each usable as the beginning of another.
var (
	opened = []happening{{0, freezewindow.Start{Ready: stepReady()}}}
	// The guest began to hold 700 ms after it had read GO, so THAW is due at 17.7 s.
	held    = with(opened, ms(1500), freezewindow.GuestFrozen{Go: 7, Mode: freezewindow.ModeFS, Hold: ms(300), SinceGo: ms(1000), Left: ms(17700)})
	asked   = with(held, ms(1600), freezewindow.SnapAccepted{Task: "task-1"})
	done    = with(asked, ms(3000), freezewindow.SnapDone{Snapshot: inventory.Snapshot{Moref: "snapshot-1"}})
	late    = with(asked, ms(17700), freezewindow.Fired{Timer: freezewindow.ThawBy})
	freed   = with(done, ms(3050), freezewindow.GuestThawed{Go: 7, Release: goodRelease()})
	cut     = with(asked, ms(2000), freezewindow.LinkLost{Err: errors.New("reset")})
	unheard = with(done, ms(4000), fired(freezewindow.ThawAck), ms(5000), fired(freezewindow.ThawAck), ms(6000), fired(freezewindow.ThawAck),
		ms(7000), fired(freezewindow.ThawAck))
)

func fired(t freezewindow.Timer) freezewindow.Event { return freezewindow.Fired{Timer: t} }

func goodRelease() freezewindow.Release {
	return freezewindow.Release{WasHeld: true, Held: ms(2300), Finished: true, Thawed: []string{"/data"}}
}

// with appends (time, event) pairs to a way.
func with(way []happening, pairs ...any) []happening {
	way = slices.Clone(way)
	for i := 0; i < len(pairs); i += 2 {
		way = append(way, happening{pairs[i].(time.Duration), pairs[i+1].(freezewindow.Event)})
	}
	return way
}

func follow(b freezewindow.Budget, way []happening) (s freezewindow.State, last []freezewindow.Command) {
	s.Budget = b
	for _, h := range way {
		s, last = freezewindow.Step(s, h.at, h.event)
	}
	return s, last
}

// TestCauseOfASet: a snapshot in time of which the set, or the guest's last word, proves nothing has a cause.
func TestCauseOfASet(t *testing.T) {
	ready := stepReady()
	ready.Mode, ready.Volumes = freezewindow.ModeIO, []string{`C:\`}
	going := []happening{{0, freezewindow.Start{Ready: ready}}}
	frozen := with(going, ms(1500), freezewindow.GuestFrozen{Go: 7, Mode: freezewindow.ModeIO, Hold: ms(300), SinceGo: ms(1000), IO: ms(10), Left: ms(8490)})
	r := freezewindow.Release{WasHeld: true, Held: ms(2300), IO: ms(2000), Thawed: ready.Volumes}
	freed := with(frozen, ms(3000), freezewindow.SnapDone{}, ms(3050), freezewindow.GuestThawed{Go: 7, Release: r})
	ended := func(result string) []happening {
		last := r
		last.SetResult = result
		return with(freed, ms(3300), freezewindow.GuestThawed{Go: 7, Final: true, Release: last})
	}
	for name, c := range map[string]struct {
		way    []happening
		cause  freezewindow.Cause
		reason string
	}{
		"Windows let go":    {ended("80042314"), freezewindow.CauseHoldTimeout, "the shadow copy set ended with 0x80042314"},
		"the set failed":    {ended("8004230f"), freezewindow.CauseGuestError, "the shadow copy set ended with 0x8004230f"},
		"nobody answers":    {with(freed, ms(98000), fired(freezewindow.SettleBy)), freezewindow.CauseUnknown, "the guest never said how its shadow copy set ended"},
		"the agent is gone": {with(freed, ms(3100), freezewindow.LinkLost{}, ms(3200), freezewindow.ResumeFailed{Gone: true}), freezewindow.CauseLinkLost, "the guest never said how its shadow copy set ended"},
	} {
		s, _ := follow(freezewindow.DefaultBudget(), c.way)
		v := freezewindow.Judge(s)
		if s.Phase != freezewindow.Done || v.Level != freezewindow.Crash || v.Cause != c.cause || !slices.Equal(v.Reasons, []string{c.reason}) {
			t.Errorf("%s: phase %s, %s, cause %q, %q", name, s.Phase, v.Level, v.Cause, v.Reasons)
		}
	}
}

// thawing are the commands of the first THAW of a Linux guest, whose last word is due within 35 s.
func thawing(at time.Duration, why freezewindow.Reason) []freezewindow.Command {
	return thawingWithin(at, why, 35*time.Second)
}

func thawingWithin(at time.Duration, why freezewindow.Reason, settle time.Duration) []freezewindow.Command {
	return []freezewindow.Command{
		freezewindow.StopTimer{Timer: freezewindow.ThawBy},
		freezewindow.StopTimer{Timer: freezewindow.IOBy},
		freezewindow.SendThaw{Go: 7, Reason: why},
		freezewindow.SetTimer{Timer: freezewindow.ThawAck, At: at + time.Second},
		freezewindow.SetTimer{Timer: freezewindow.SettleBy, At: at + settle},
	}
}

// stops are StopTimer of each.
func stops(timers ...freezewindow.Timer) []freezewindow.Command {
	var out []freezewindow.Command
	for _, t := range timers {
		out = append(out, freezewindow.StopTimer{Timer: t})
	}
	return out
}

func all(lists ...[]freezewindow.Command) []freezewindow.Command { return slices.Concat(lists...) }

// sorted makes lists of commands comparable: their order within one step means nothing.
func sorted(commands []freezewindow.Command) []string {
	out := []string{}
	for _, c := range commands {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%T%+v", c, c), "freezewindow."))
	}
	slices.Sort(out)
	return out
}

// TestStepRows is the table of the window's states and events, row by row.
func TestStepRows(t *testing.T) {
	const (
		goTimer, ioTimer, beat, ack, settle = freezewindow.ThawBy, freezewindow.IOBy, freezewindow.Beat, freezewindow.ThawAck, freezewindow.SettleBy
	)
	set := func(t freezewindow.Timer, at time.Duration) freezewindow.Command {
		return freezewindow.SetTimer{Timer: t, At: at}
	}
	one := func(c ...freezewindow.Command) []freezewindow.Command { return c }
	boom := errors.New("boom")
	start := func(change func(*freezewindow.Ready)) []happening {
		r := stepReady()
		change(&r)
		return []happening{{0, freezewindow.Start{Ready: r}}}
	}
	type rowCase struct {
		name  string
		way   []happening
		phase freezewindow.Phase
		want  []freezewindow.Command
	}
	cases := []rowCase{
		{"1 start", opened, freezewindow.Going, one(set(goTimer, ms(17000)), set(beat, ms(1000)), freezewindow.SendGo{Go: 7})},
		{"2 start with too little ready time", start(func(r *freezewindow.Ready) { r.Left = ms(4999) }), freezewindow.Done, one(freezewindow.Finish{})},
		{"2 start without a watcher", start(func(r *freezewindow.Ready) { r.Armed = false }), freezewindow.Done, one(freezewindow.Finish{})},
		{"2 start without a go id", start(func(r *freezewindow.Ready) { r.Go = 0 }), freezewindow.Done, one(freezewindow.Finish{})},
		{"3 frozen", held, freezewindow.Frozen, one(set(goTimer, ms(17700)), freezewindow.CallSnapshot{})},
		{
			"3 frozen, the guest claims more than has passed", with(opened, ms(1500), freezewindow.GuestFrozen{Go: 7, Mode: "fs", Hold: 0, SinceGo: ms(9000)}),
			freezewindow.Frozen, one(set(goTimer, ms(18500)), freezewindow.CallSnapshot{}),
		},
		{
			"3 frozen, the guest claims an older hold than its GO", with(opened, ms(1500), freezewindow.GuestFrozen{Go: 7, Mode: "fs", Hold: ms(9000), SinceGo: ms(1000)}),
			freezewindow.Frozen, one(set(goTimer, ms(17000)), freezewindow.CallSnapshot{}),
		},
		{
			"3 frozen in io mode", with(start(func(r *freezewindow.Ready) { r.Mode = freezewindow.ModeIO }), ms(1500),
				freezewindow.GuestFrozen{Go: 7, Mode: "io", Hold: ms(300), SinceGo: ms(1000), IO: ms(100)}),
			freezewindow.Frozen, one(set(goTimer, ms(17700)), set(ioTimer, ms(8400)), freezewindow.CallSnapshot{}),
		},
		{
			"4 frozen too late", with(opened, ms(16501), freezewindow.GuestFrozen{Go: 7, Mode: "fs", Hold: ms(900), SinceGo: ms(900)}),
			freezewindow.Thawing, thawing(ms(16501), freezewindow.NoTime),
		},
		{
			"4 frozen too late in io mode", with(start(func(r *freezewindow.Ready) { r.Mode = freezewindow.ModeIO }), ms(8000),
				freezewindow.GuestFrozen{Go: 7, Mode: "io", Hold: ms(7000), SinceGo: ms(7900), IO: ms(7500)}),
			freezewindow.Thawing, thawingWithin(ms(8000), freezewindow.NoTime, 95*time.Second),
		},
		{
			"4 frozen in another mode than armed", with(opened, ms(1500), freezewindow.GuestFrozen{Go: 7, Mode: "writer"}),
			freezewindow.Thawing, thawing(ms(1500), freezewindow.Cancelled),
		},
		{"5 not frozen in time", with(opened, ms(17000), fired(goTimer)), freezewindow.Thawing, thawing(ms(17000), freezewindow.Deadline)},
		{"6 cancel while going", with(opened, ms(900), freezewindow.Cancel{}), freezewindow.Thawing, thawing(ms(900), freezewindow.Cancelled)},
		{"6 cancel while frozen", with(asked, ms(2000), freezewindow.Cancel{}), freezewindow.Thawing, thawing(ms(2000), freezewindow.Cancelled)},
		{"6 fatal error while going", with(opened, ms(900), freezewindow.GuestError{Code: "SF4001", Fatal: true}), freezewindow.Thawing, thawing(ms(900), freezewindow.Cancelled)},
		{"6 fatal error while frozen", with(asked, ms(2000), freezewindow.GuestError{Fatal: true}), freezewindow.Thawing, thawing(ms(2000), freezewindow.Cancelled)},
		{
			"7 thawed unasked while going", with(opened, ms(900), freezewindow.GuestThawed{Go: 7, Release: freezewindow.Release{Expired: true}}),
			freezewindow.Settling, all(thawing(ms(900), freezewindow.Cancelled), stops(ack, goTimer, ioTimer, beat)),
		},
		{
			"7 thawed unasked while frozen", with(asked, ms(2000), freezewindow.GuestThawed{Go: 7, Release: freezewindow.Release{Expired: true}}),
			freezewindow.Settling, all(thawing(ms(2000), freezewindow.Cancelled), stops(ack, goTimer, ioTimer, beat)),
		},
		{
			"8 link lost while going", with(opened, ms(900), freezewindow.LinkLost{Err: boom}),
			freezewindow.Settling, all(stops(goTimer, ioTimer, beat, ack), one(set(settle, ms(19500)), freezewindow.TryResume{})),
		},
		{"8 link lost while frozen", cut, freezewindow.Settling, all(stops(goTimer, ioTimer, beat, ack), one(set(settle, ms(20200)), freezewindow.TryResume{}))},
		{"8 link lost while thawing", with(done, ms(3100), freezewindow.LinkLost{Err: boom}), freezewindow.Settling, all(stops(goTimer, ioTimer, beat, ack), one(set(settle, ms(20200)), freezewindow.TryResume{}))},
		{"8 link lost while settling", with(freed, ms(3100), freezewindow.LinkLost{Err: boom}), freezewindow.Settling, all(stops(goTimer, ioTimer, beat, ack), one(set(settle, ms(38100)), freezewindow.TryResume{}))},
		{"9 task accepted", asked, freezewindow.Frozen, nil},
		{"10 snapshot done", done, freezewindow.Thawing, thawing(ms(3000), freezewindow.SnapshotDone)},
		{"11 snapshot failed", with(asked, ms(3000), freezewindow.SnapFailed{Code: "SF2302", Err: boom}), freezewindow.Thawing, thawing(ms(3000), freezewindow.SnapshotFailed)},
		{"12 snapshot unknown", with(asked, ms(3000), freezewindow.SnapUnknown{Err: boom}), freezewindow.Thawing, thawing(ms(3000), freezewindow.SnapshotUnknown)},
		{"13 hold limit while frozen", late, freezewindow.Thawing, thawing(ms(17700), freezewindow.Deadline)},
		{"13 io limit while frozen", with(asked, ms(7500), fired(ioTimer)), freezewindow.Thawing, thawing(ms(7500), freezewindow.Deadline)},
		{"14 thawed", freed, freezewindow.Settling, stops(ack, goTimer, ioTimer, beat)},
		{
			"14 thawed, at once the last word", with(done, ms(3050), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}),
			freezewindow.Done, all(stops(ack, goTimer, ioTimer, beat), one(freezewindow.Finish{})),
		},
		{"15 thaw not answered", with(late, ms(18700), fired(ack)), freezewindow.Thawing, one(freezewindow.SendThaw{Go: 7, Reason: freezewindow.Deadline}, set(ack, ms(19700)))},
		{"15 the fifth thaw", unheard, freezewindow.Thawing, one(freezewindow.SendThaw{Go: 7, Reason: freezewindow.SnapshotDone}, set(ack, ms(8000)))},
		{"16 the fifth thaw not answered", with(unheard, ms(8000), fired(ack)), freezewindow.Settling, all(stops(beat), one(set(settle, ms(20200)), freezewindow.TryResume{}))},
		{"17 late: done", with(late, ms(19000), freezewindow.SnapDone{}), freezewindow.Thawing, nil},
		{"17 late: failed", with(late, ms(19000), freezewindow.SnapFailed{Err: boom}), freezewindow.Thawing, nil},
		{"17 late: unknown", with(late, ms(19000), freezewindow.SnapUnknown{Err: boom}), freezewindow.Thawing, nil},
		{"17 after a lost link: done", with(cut, ms(3000), freezewindow.SnapDone{}), freezewindow.Settling, nil},
		{"17 after a lost link: accepted", with(held, ms(2000), freezewindow.LinkLost{}, ms(2100), freezewindow.SnapAccepted{Task: "task-1"}), freezewindow.Settling, nil},
		{
			"18 link back after THAW", with(done, ms(3100), freezewindow.LinkLost{}, ms(3300), freezewindow.LinkBack{}),
			freezewindow.Thawing, one(freezewindow.SendThaw{Go: 7, Reason: freezewindow.SnapshotDone}, set(ack, ms(4300)), set(settle, ms(38300))),
		},
		{"18 link back before any THAW", with(cut, ms(2500), freezewindow.LinkBack{}), freezewindow.Thawing, all(stops(goTimer, ioTimer),
			one(freezewindow.SendThaw{Go: 7, Reason: freezewindow.Cancelled}, set(ack, ms(3500)), set(settle, ms(37500))))},
		{"18 link not back yet", with(cut, ms(2500), freezewindow.ResumeFailed{Err: boom}), freezewindow.Settling, one(set(freezewindow.Reconnect, ms(4500)))},
		{"18 link tried again", with(cut, ms(2500), freezewindow.ResumeFailed{Err: boom}, ms(4500), fired(freezewindow.Reconnect)), freezewindow.Settling, one(freezewindow.TryResume{})},
		{
			"18 nobody there any more", with(cut, ms(2500), freezewindow.ResumeFailed{Gone: true, Err: boom}), freezewindow.Done,
			one(freezewindow.HandOver{Task: "task-1", Name: "stillframe-r-1"}, freezewindow.Finish{}),
		},
		{
			"19 the last word", with(freed, ms(3200), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}),
			freezewindow.Done, all(stops(ack, goTimer, ioTimer, beat), one(freezewindow.Finish{})),
		},
		{
			"19 the last word, the task still runs", with(late, ms(17800), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}),
			freezewindow.Done, all(stops(ack, goTimer, ioTimer, beat), one(freezewindow.HandOver{Task: "task-1", Name: "stillframe-r-1"}, freezewindow.Finish{})),
		},
		{
			"19 the last word, the call was never answered", with(held, ms(17700), fired(goTimer), ms(17800), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}),
			freezewindow.Done, all(stops(ack, goTimer, ioTimer, beat), one(freezewindow.HandOver{Name: "stillframe-r-1"}, freezewindow.Finish{})),
		},
		{
			"19 the last word, outcome unknown", with(asked, ms(3000), freezewindow.SnapUnknown{Err: boom}, ms(3100), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()}),
			freezewindow.Done, all(stops(ack, goTimer, ioTimer, beat), one(freezewindow.HandOver{Task: "task-1", Name: "stillframe-r-1"}, freezewindow.Finish{})),
		},
		{"20 no last word, thawed", with(freed, ms(38000), fired(settle)), freezewindow.Done, one(freezewindow.Finish{})},
		{
			"20 no last word, never answered", with(late, ms(52700), fired(settle)), freezewindow.Done,
			one(freezewindow.HandOver{Task: "task-1", Name: "stillframe-r-1"}, freezewindow.Finish{}),
		},
		{"21 beat while going", with(opened, ms(1000), fired(beat)), freezewindow.Going, one(freezewindow.SendBeat{}, set(beat, ms(2000)))},
		{"21 beat while frozen", with(asked, ms(2000), fired(beat)), freezewindow.Frozen, one(freezewindow.SendBeat{}, set(beat, ms(3000)))},
		{"21 beat while thawing", with(done, ms(3100), fired(beat)), freezewindow.Thawing, one(freezewindow.SendBeat{}, set(beat, ms(4100)))},
		{"21 no beat while settling", with(freed, ms(3100), fired(beat)), freezewindow.Settling, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, got := follow(freezewindow.DefaultBudget(), c.way)
			if s.Phase != c.phase {
				t.Errorf("phase is %v, want %v", s.Phase, c.phase)
			}
			if diff := cmp.Diff(sorted(c.want), sorted(got)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStepIgnores is row 22: nothing happens, and it is counted.
func TestStepIgnores(t *testing.T) {
	finished := with(done, ms(3050), freezewindow.GuestThawed{Go: 7, Final: true, Release: goodRelease()})
	cases := map[string][]happening{
		"FROZEN before start":             {{0, freezewindow.GuestFrozen{Go: 7, Mode: "fs"}}},
		"THAWED before start":             {{0, freezewindow.GuestThawed{Go: 0, Final: true}}},
		"link lost before start":          {{0, freezewindow.LinkLost{}}},
		"cancel before start":             {{0, freezewindow.Cancel{}}},
		"a timer before start":            {{0, fired(freezewindow.ThawBy)}},
		"start again":                     with(opened, ms(10), freezewindow.Start{Ready: stepReady()}),
		"FROZEN of another go":            with(opened, ms(10), freezewindow.GuestFrozen{Go: 8, Mode: "fs"}),
		"FROZEN twice":                    with(held, ms(1700), freezewindow.GuestFrozen{Go: 7, Mode: "fs"}),
		"FROZEN after THAW":               with(opened, ms(17000), fired(freezewindow.ThawBy), ms(17001), freezewindow.GuestFrozen{Go: 7, Mode: "fs"}),
		"THAWED of another go":            with(done, ms(3050), freezewindow.GuestThawed{Go: 6, Final: true, Release: goodRelease()}),
		"link lost twice":                 with(cut, ms(2001), freezewindow.LinkLost{}),
		"link back that was never lost":   with(freed, ms(3100), freezewindow.LinkBack{}),
		"resume failed, never asked for":  with(asked, ms(3100), freezewindow.ResumeFailed{Gone: true}),
		"snapshot done, never asked for":  with(opened, ms(10), freezewindow.SnapDone{}),
		"snapshot done twice":             with(done, ms(3001), freezewindow.SnapDone{}),
		"snapshot failed after done":      with(done, ms(3001), freezewindow.SnapFailed{}),
		"cancel while thawing":            with(done, ms(3001), freezewindow.Cancel{}),
		"the hold limit while thawing":    with(done, ms(17700), fired(freezewindow.ThawBy)),
		"no answer, but it was answered":  with(freed, ms(4000), fired(freezewindow.ThawAck)),
		"an error that is not fatal":      with(asked, ms(2000), freezewindow.GuestError{Code: "SF4022"}),
		"a fatal error after THAW":        with(done, ms(3100), freezewindow.GuestError{Code: "SF4001", Fatal: true}),
		"anything after the end: THAWED":  with(finished, ms(4000), freezewindow.GuestThawed{Go: 7, Final: true}),
		"anything after the end: a timer": with(finished, ms(4000), fired(freezewindow.SettleBy)),
		"anything after the end: cancel":  with(finished, ms(4000), freezewindow.Cancel{}),
	}
	for name, way := range cases {
		t.Run(name, func(t *testing.T) {
			before, _ := follow(freezewindow.DefaultBudget(), way[:len(way)-1])
			s, got := follow(freezewindow.DefaultBudget(), way)
			if len(got) > 0 || s.Phase != before.Phase || s.Held != before.Held || s.Snap != before.Snap {
				t.Errorf("%+v: phase %v, held %v, snapshot %v with %v, want it ignored in phase %v",
					way[len(way)-1].event, s.Phase, s.Held, s.Snap, got, before.Phase)
			}
			if s.Ignored != before.Ignored+1 {
				t.Errorf("Ignored is %d, want %d", s.Ignored, before.Ignored+1)
			}
		})
	}
}

func TestStepKnowledge(t *testing.T) {
	cases := map[string]struct {
		way   []happening
		held  freezewindow.HeldState
		snap  freezewindow.SnapState
		cause freezewindow.Cause
		late  bool
	}{
		"good":                    {freed, freezewindow.Released, freezewindow.SnapSucceeded, freezewindow.CauseNone, false},
		"not frozen in time":      {with(opened, ms(17000), fired(freezewindow.ThawBy)), freezewindow.NotYet, freezewindow.SnapNone, freezewindow.CauseFreezeSlow, false},
		"no time left":            {with(opened, ms(16900), freezewindow.GuestFrozen{Go: 7, Mode: "fs"}), freezewindow.Holding, freezewindow.SnapNone, freezewindow.CauseNoTime, false},
		"late snapshot":           {with(late, ms(19000), freezewindow.SnapDone{}), freezewindow.Holding, freezewindow.SnapSucceeded, freezewindow.CauseSnapshotSlow, true},
		"same instant as THAW":    {with(late, ms(17700), freezewindow.SnapDone{}), freezewindow.Holding, freezewindow.SnapSucceeded, freezewindow.CauseSnapshotSlow, true},
		"accepted late is no end": {with(held, ms(17700), fired(freezewindow.ThawBy), ms(17800), freezewindow.SnapAccepted{Task: "task-1"}), freezewindow.Holding, freezewindow.SnapTaken, freezewindow.CauseSnapshotSlow, false},
		"link lost while frozen":  {cut, freezewindow.HeldUnknown, freezewindow.SnapTaken, freezewindow.CauseLinkLost, false},
		"done after link lost":    {with(cut, ms(3000), freezewindow.SnapDone{}), freezewindow.HeldUnknown, freezewindow.SnapSucceeded, freezewindow.CauseLinkLost, true},
		"link lost after THAWED":  {with(freed, ms(3100), freezewindow.LinkLost{}), freezewindow.Released, freezewindow.SnapSucceeded, freezewindow.CauseNone, false},
		"dead-man":                {with(asked, ms(2000), freezewindow.GuestThawed{Go: 7, Release: freezewindow.Release{Expired: true, ExpiredBy: "deadman"}}), freezewindow.Expired, freezewindow.SnapTaken, freezewindow.CauseDeadman, false},
		"never answered":          {with(late, ms(52700), fired(freezewindow.SettleBy)), freezewindow.HeldUnknown, freezewindow.SnapTaken, freezewindow.CauseSnapshotSlow, false},
		"the first cause stays":   {with(opened, ms(900), freezewindow.Cancel{}, ms(950), freezewindow.LinkLost{}), freezewindow.HeldUnknown, freezewindow.SnapNone, freezewindow.CauseCancelled, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := follow(freezewindow.DefaultBudget(), c.way)
			if s.Held != c.held || s.Snap != c.snap || s.Cause != c.cause || s.Late != c.late {
				t.Errorf("held %v, snapshot %v, cause %q, late %t, want %v, %v, %q, %t", s.Held, s.Snap, s.Cause, s.Late, c.held, c.snap, c.cause, c.late)
			}
		})
	}
}

func TestStepRaisesTime(t *testing.T) {
	s, got := follow(freezewindow.DefaultBudget(), with(asked, ms(100), freezewindow.SnapDone{}))
	if diff := cmp.Diff(sorted(thawing(ms(1600), freezewindow.SnapshotDone)), sorted(got)); diff != "" {
		t.Errorf("an event from before the last one (-want +got):\n%s", diff)
	}
	if s.TaskEndAt != ms(1600) {
		t.Errorf("TaskEndAt = %v, want 1.6s", s.TaskEndAt)
	}
}

func TestStepRefusesBrokenBudget(t *testing.T) {
	s, got := follow(freezewindow.Budget{}, opened)
	if s.Phase != freezewindow.Done || s.Cause != freezewindow.CauseNotReady || len(got) != 1 {
		t.Errorf("the zero budget: phase %v, cause %q, %v, want the window to end before GO", s.Phase, s.Cause, got)
	}
}
