package freezewindow_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const exchangeWriter = "{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}"

// proved is a final state with every proof there is, for each mode.
func proved(mode freezewindow.Mode) freezewindow.State {
	s := freezewindow.State{
		Phase: freezewindow.Done, Budget: freezewindow.DefaultBudget(), Ready: stepReady(), Linked: true,
		Snap: freezewindow.SnapSucceeded, Snapshot: inventory.Snapshot{Moref: "snapshot-1"}, Held: freezewindow.Released,
		FrozenAt: ms(1500), CallAt: ms(1500), TaskEndAt: ms(3000), ThawSentAt: ms(3000), ReleasedAt: ms(3050), EndAt: ms(3100),
		HoldFrom: ms(700), Release: goodRelease(), Final: true,
	}
	s.Ready.Mode = mode
	if mode != freezewindow.ModeFS {
		s.Ready.Writers = []string{exchangeWriter}
		s.Release.Thawed = nil
		s.Release.Writers = []freezewindow.Writer{
			{Name: "Microsoft Exchange Writer", ClassID: exchangeWriter, State: 5, Failure: "00000000", Required: true},
			{Name: "WMI Writer", ClassID: "{a6ad56c2-b509-4e6c-bb19-49d8f43532f0}", State: 11, Failure: "800423f4"},
		}
	}
	return s
}

var everyMode = []freezewindow.Mode{freezewindow.ModeIO, freezewindow.ModeWriter, freezewindow.ModeFS}

// level judges s and checks that its reasons can be read.
func level(t *testing.T, s freezewindow.State) freezewindow.Level {
	t.Helper()
	v := freezewindow.Judge(s)
	if len(v.Reasons) == 0 {
		t.Error("the verdict has no reason")
	}
	for _, r := range v.Reasons {
		if strings.TrimSpace(r) == "" || strings.Contains(r, "%!") || strings.HasSuffix(r, ": ") || strings.Contains(r, "()") || strings.Contains(r, "  ") {
			t.Errorf("reason %q cannot be read", r)
		}
	}
	return v.Level
}

// TestVerdictOfProvedWindows is each hold mode with every proof, without holding hooks (hook_test.go has those).
func TestVerdictOfProvedWindows(t *testing.T) {
	want := map[freezewindow.Mode]freezewindow.Level{
		freezewindow.ModeIO:     freezewindow.Application,
		freezewindow.ModeWriter: freezewindow.ApplicationWriter,
		freezewindow.ModeFS:     freezewindow.Filesystem,
		"":                      freezewindow.Crash, // a mode that nobody knows proves nothing
		"turbo":                 freezewindow.Crash,
	}
	for mode, want := range want {
		if got := level(t, proved(mode)); got != want {
			t.Errorf("mode %q: level %s, want %s", mode, got, want)
		}
	}
}

// TestVerdictNeedsEveryProof takes one proof away at a time.
func TestVerdictNeedsEveryProof(t *testing.T) {
	cases := map[string]struct {
		spoil  func(*freezewindow.State)
		modes  []freezewindow.Mode
		want   freezewindow.Level
		reason string
	}{
		"S: no snapshot asked for":         {func(s *freezewindow.State) { s.Snap = freezewindow.SnapNone }, everyMode, freezewindow.Unproved, "no snapshot was asked for"},
		"S: the task failed":               {func(s *freezewindow.State) { s.Snap, s.SnapErr = freezewindow.SnapErrored, "disk full" }, everyMode, freezewindow.Unproved, "disk full"},
		"S: the call is unanswered":        {func(s *freezewindow.State) { s.Snap = freezewindow.SnapCalled }, everyMode, freezewindow.Unproved, "not known whether there is a snapshot"},
		"S: the task still runs":           {func(s *freezewindow.State) { s.Snap = freezewindow.SnapTaken }, everyMode, freezewindow.Unproved, "not known whether there is a snapshot"},
		"S: outcome unknown":               {func(s *freezewindow.State) { s.Snap, s.SnapErr = freezewindow.SnapLost, "connection reset" }, everyMode, freezewindow.Unproved, "connection reset"},
		"B: called before FROZEN":          {func(s *freezewindow.State) { s.CallAt = s.FrozenAt - 1 }, everyMode, freezewindow.Crash, "after FROZEN"},
		"B: never FROZEN":                  {func(s *freezewindow.State) { s.FrozenAt = 0 }, everyMode, freezewindow.Crash, "after FROZEN"},
		"A: success seen after THAW":       {func(s *freezewindow.State) { s.Late, s.TaskEndAt = true, ms(3001) }, everyMode, freezewindow.Crash, "later than the thaw"},
		"A: success at the same time":      {func(s *freezewindow.State) { s.Late = true }, everyMode, freezewindow.Crash, "later than the thaw"},
		"A: success after the link":        {func(s *freezewindow.State) { s.Late, s.Losses = true, 1 }, everyMode, freezewindow.Crash, "no longer known to be held"},
		"H: not held as THAW came":         {func(s *freezewindow.State) { s.Release.WasHeld = false }, everyMode, freezewindow.Crash, "not held any more"},
		"X: expired":                       {func(s *freezewindow.State) { s.Release.Expired, s.Release.ExpiredBy = true, "deadman" }, everyMode, freezewindow.Crash, "released itself (deadman)"},
		"X: expired, remembered elsewhere": {func(s *freezewindow.State) { s.Held, s.Release.ExpiredBy = freezewindow.Expired, "link_lost" }, everyMode, freezewindow.Crash, "released itself (link_lost)"},
		"F: not finished":                  {func(s *freezewindow.State) { s.Release.Finished = false }, everyMode, freezewindow.Crash, "did not finish"},
		"F: somebody else thawed":          {func(s *freezewindow.State) { s.Release.Failed = map[string]string{"/data": "EINVAL"} }, everyMode, freezewindow.Crash, "/data was not released by us: EINVAL"},
		"F: fewer thawed than to be held":  {func(s *freezewindow.State) { s.Ready.Volumes = []string{"/data", "/log"} }, everyMode[2:], freezewindow.Crash, "what was released"},
		"F: nothing thawed":                {func(s *freezewindow.State) { s.Release.Thawed = nil }, everyMode[2:], freezewindow.Crash, "nothing"},
		"F: another one thawed":            {func(s *freezewindow.State) { s.Release.Thawed = []string{"/other"} }, everyMode[2:], freezewindow.Crash, "/other"},
		"F: one thawed twice":              {func(s *freezewindow.State) { s.Release.Thawed = []string{"/data", "/data"} }, everyMode[2:], freezewindow.Crash, "what was released"},
		"no THAWED: never held":            {func(s *freezewindow.State) { s.Held = freezewindow.NotYet }, everyMode, freezewindow.Crash, "never said"},
		"no THAWED: still holding":         {func(s *freezewindow.State) { s.Held = freezewindow.Holding }, everyMode, freezewindow.Crash, "never said"},
		"no THAWED: unknown":               {func(s *freezewindow.State) { s.Held = freezewindow.HeldUnknown }, everyMode, freezewindow.Crash, "never said"},
		"held longer than the promise":     {func(s *freezewindow.State) { s.Release.Held = 20*time.Second + 1 }, everyMode, freezewindow.Crash, "longer than 20.000 s"},
		"W: no last word":                  {func(s *freezewindow.State) { s.Final = false }, everyMode[:2], freezewindow.Crash, "not known"},
		"W: failed at freeze":              {func(s *freezewindow.State) { s.Release.Writers[0].State, s.Release.Writers[0].Failure = 9, "800423f2" }, everyMode[:2], freezewindow.Crash, "state 9 with 0x800423f2"},
		"W: failed, state says stable":     {func(s *freezewindow.State) { s.Release.Writers[0].Failure = "800423f3" }, everyMode[:2], freezewindow.Crash, "0x800423f3"},
		"W: failed state without code":     {func(s *freezewindow.State) { s.Release.Writers[0].State = 7 }, everyMode[:2], freezewindow.Crash, "state 7"},
		"a witness: Windows let go":        {func(s *freezewindow.State) { s.Release.Witness.HoldRanOut = true }, everyMode[:1], freezewindow.Crash, "volsnap event 8"},
		"a witness: the flush ran out":     {func(s *freezewindow.State) { s.Release.Witness.FlushRanOut = true }, everyMode[:2], freezewindow.Crash, "volsnap event 9"},
		"a witness: SQL went on":           {func(s *freezewindow.State) { s.Release.ThawArrived, s.Release.Witness.SQLHeld = ms(2300), ms(400) }, everyMode[:2], freezewindow.Crash, "SQL Server logged"},
		"F: the set failed":                {func(s *freezewindow.State) { s.Release.Finished, s.Release.SetResult = false, "80042314" }, everyMode[:2], freezewindow.Crash, "ended with 0x80042314"},
		"W: required, but not there":       {func(s *freezewindow.State) { s.Release.Writers = s.Release.Writers[1:] }, everyMode[:2], freezewindow.Crash, exchangeWriter},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, mode := range c.modes {
				s := proved(mode)
				c.spoil(&s)
				if got := level(t, s); got != c.want {
					t.Errorf("mode %s: level %s, want %s", mode, got, c.want)
				}
				if got := strings.Join(freezewindow.Judge(s).Reasons, "; "); !strings.Contains(got, c.reason) {
					t.Errorf("mode %s: reasons %q, want one with %q", mode, got, c.reason)
				}
			}
		})
	}
}

// TestWitnessesThatAgree: what a witness saw only counts against the hold when it could not have been so.
func TestWitnessesThatAgree(t *testing.T) {
	for name, spoil := range map[string]func(*freezewindow.State){
		"nothing was seen":      func(*freezewindow.State) {},
		"SQL held as long":      func(s *freezewindow.State) { s.Release.ThawArrived, s.Release.Witness.SQLHeld = ms(2300), ms(2200) },
		"SQL counts in seconds": func(s *freezewindow.State) { s.Release.ThawArrived, s.Release.Witness.SQLHeld = ms(2300), ms(1300) },
		"no write was held at all": func(s *freezewindow.State) {
			s.Ready.Mode, s.Release.Witness.HoldRanOut = freezewindow.ModeWriter, true
		},
	} {
		s := proved(freezewindow.ModeIO)
		spoil(&s)
		if got := level(t, s); !got.Consistent() {
			t.Errorf("%s: level %s", name, got)
		}
	}
}

func TestVerdictTolerates(t *testing.T) {
	cases := map[string]struct {
		change func(*freezewindow.State)
		mode   freezewindow.Mode
		want   freezewindow.Level
	}{
		"a tolerated writer failed": {func(*freezewindow.State) {}, freezewindow.ModeIO, freezewindow.Application},
		"a stable required writer":  {func(s *freezewindow.State) { s.Release.Writers[0].State = 1 }, freezewindow.ModeIO, freezewindow.Application},
		"the volumes in another order": {func(s *freezewindow.State) {
			s.Ready.Volumes, s.Release.Thawed = []string{"/b", "/a"}, []string{"/a", "/b"}
		}, freezewindow.ModeFS, freezewindow.Filesystem},
		"a hold of exactly the promise":          {func(s *freezewindow.State) { s.Release.Held = 20 * time.Second }, freezewindow.ModeFS, freezewindow.Filesystem},
		"a link lost after THAWED, no last word": {func(s *freezewindow.State) { s.Losses, s.Final = 1, false }, freezewindow.ModeFS, freezewindow.Filesystem},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := proved(c.mode)
			c.change(&s)
			if got := level(t, s); got != c.want {
				t.Errorf("level %s, want %s", got, c.want)
			}
		})
	}
}

func TestVerdictOfNothing(t *testing.T) {
	if got := level(t, freezewindow.State{}); got != freezewindow.Unproved {
		t.Errorf("an empty state: level %s, want unproved", got)
	}
	if (freezewindow.Verdict{}).Level.Consistent() || freezewindow.Crash.Consistent() || freezewindow.Unproved.Consistent() {
		t.Error("the zero level, crash and unproved are not consistent")
	}
	for _, l := range []freezewindow.Level{freezewindow.Application, freezewindow.ApplicationWriter, freezewindow.Filesystem} {
		if !l.Consistent() {
			t.Errorf("%s is consistent", l)
		}
	}
}

// TestVerdictNamesWhy reads why no snapshot was asked for, over the reducer itself.
func TestVerdictNamesWhy(t *testing.T) {
	cases := map[string]struct {
		way  []happening
		want string
	}{
		"not ready":       {[]happening{{0, freezewindow.Start{}}}, "not_ready"},
		"freeze slow":     {with(opened, ms(17000), fired(freezewindow.ThawBy)), "within 17.000 s"},
		"no time":         {with(opened, ms(16900), freezewindow.GuestFrozen{Go: 7, Mode: "fs"}), "no time was left"},
		"agent's refusal": {with(opened, ms(900), freezewindow.GuestError{Code: "SF4001", Text: "EBUSY", Fatal: true}), "EBUSY"},
		"cancelled":       {with(opened, ms(900), freezewindow.Cancel{}), "cancelled"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := follow(freezewindow.DefaultBudget(), c.way)
			if got := level(t, s); got != freezewindow.Unproved {
				t.Errorf("level %s, want unproved", got)
			}
			if got := freezewindow.Judge(s).Reasons[0]; !strings.Contains(got, c.want) {
				t.Errorf("reason %q, want one with %q", got, c.want)
			}
		})
	}
}
