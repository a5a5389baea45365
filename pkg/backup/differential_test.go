package backup

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

func TestDiagnose(t *testing.T) {
	ok := func(freeze, snapshot float64) Trial {
		return Trial{OK: true, FreezeSeconds: freeze, SnapshotSeconds: snapshot, ThawSeconds: 0.1}
	}
	bad := func(freeze, snapshot float64, cause freezewindow.Cause, code string) Trial {
		return Trial{FreezeSeconds: freeze, SnapshotSeconds: snapshot, Cause: cause, Code: code, Reason: "the reason"}
	}
	for name, c := range map[string]struct {
		freeze, snapshot, both Trial
		mode                   freezewindow.Mode
		culprit                Culprit
		code                   string
		says                   string // in the evidence
	}{
		"well":                                  {ok(0.2, 1), ok(0, 1), ok(0.2, 1.2), "fs", CulpritNone, "", "alone they add up to 1.200 s of at most 17.000 s"},
		"well, though slow":                     {ok(9, 1), ok(0, 7), ok(9, 7.5), "fs", CulpritNone, "", "add up to 16.000 s"},
		"the guest is slow":                     {bad(17, 0, freezewindow.CauseFreezeSlow, "SF4001"), ok(0, 1), bad(17, 0, freezewindow.CauseFreezeSlow, "SF4001"), "fs", CulpritGuestSlow, "SF4920", "freeze alone: failed, freeze 17.000 s"},
		"the guest leaves no time":              {bad(16.8, 0, freezewindow.CauseNoTime, "SF4017"), ok(0, 1), bad(16.8, 0, freezewindow.CauseNoTime, "SF4017"), "fs", CulpritGuestSlow, "SF4920", ""},
		"the guest freezes at the very last":    {ok(16.7, 0.1), ok(0, 1), bad(16.7, 0, freezewindow.CauseNoTime, "SF4017"), "fs", CulpritGuestSlow, "SF4920", ""},
		"the guest frees itself":                {bad(1, 1, freezewindow.CauseDeadman, "SF4002"), ok(0, 1), bad(1, 1, freezewindow.CauseDeadman, "SF4002"), "fs", CulpritGuestSlow, "SF4920", ""},
		"the guest fails":                       {bad(0.1, 0, freezewindow.CauseGuestError, "SF4019"), ok(0, 1), bad(0.1, 0, freezewindow.CauseGuestError, "SF4019"), "fs", CulpritGuestFails, "SF4019", "the reason"},
		"the guest fails, the snapshot is slow": {bad(0.1, 0, freezewindow.CauseHookFailed, "SF4019"), ok(0, 30), bad(0.1, 0, freezewindow.CauseHookFailed, "SF4019"), "fs", CulpritGuestFails, "SF4019", ""},
		"the snapshot is slow":                  {ok(0.2, 1), ok(0, 25), bad(0.2, 16.8, freezewindow.CauseSnapshotSlow, "SF4014"), "fs", CulpritSnapshotSlow, "SF4921", "snapshot alone: well, 25.000 s"},
		"the snapshot is slow for held writes":  {ok(0.2, 1), ok(0, 9), bad(0.2, 7.3, freezewindow.CauseSnapshotSlow, "SF4014"), "io", CulpritSnapshotSlow, "SF4921", "may take 7.500 s"},
		"but not where only applications are":   {ok(0.2, 1), ok(0, 9), ok(0.2, 9.5), "writer", CulpritNone, "", ""},
		"the snapshot fails":                    {ok(0.2, 1), bad(0, 0.3, "", "SF2206"), bad(0.2, 0.3, freezewindow.CauseSnapshotFailed, "SF4015"), "fs", CulpritSnapshotFails, "SF2206", "snapshot alone: failed, 0.300 s: the reason"},
		"both are slow":                         {bad(17, 0, freezewindow.CauseFreezeSlow, "SF4001"), ok(0, 25), bad(17, 0, freezewindow.CauseFreezeSlow, "SF4001"), "fs", CulpritBothSlow, "SF4920", ""},
		"only the sum is too long":              {ok(9, 1), ok(0, 9), bad(9, 8, freezewindow.CauseSnapshotSlow, "SF4014"), "fs", CulpritTogether, "SF4922", "add up to 18.000 s"},
		"the hold slows the snapshot down":      {ok(0.5, 1), ok(0, 2), bad(0.6, 16.4, freezewindow.CauseSnapshotSlow, "SF4014"), "fs", CulpritTogether, "SF4922", "the snapshot took 8.2 times as long together: 16.400 s in place of 2.000 s"},
		"only together, but not for time":       {ok(0.5, 1), ok(0, 2), bad(0.6, 1, freezewindow.CauseLinkLost, "SF4009"), "fs", CulpritTogether, "SF4009", ""},
	} {
		t.Run(name, func(t *testing.T) {
			trials := NewTrials(freezewindow.DefaultBudget(), c.mode)
			trials.FreezeOnly, trials.SnapshotOnly, trials.Both = c.freeze, c.snapshot, c.both
			d := trials.Diagnose()
			if d.Culprit != c.culprit || d.Code != c.code {
				t.Errorf("culprit %s, code %q, want %s, %q", d.Culprit, d.Code, c.culprit, c.code)
			}
			if evidence := strings.Join(d.Evidence, "\n"); !strings.Contains(evidence, c.says) || len(d.Evidence) < 4 {
				t.Errorf("evidence is\n%s\nwant %q in it", evidence, c.says)
			}
			if d.Remedy == nil || len(d.Remedy) > 0 != (c.code != "") {
				t.Errorf("remedy %q", d.Remedy)
			}
		})
	}
}

// TestBare takes a snapshot of a guest that nothing goes into.
func TestBare(t *testing.T) {
	whole := []string{"find", "acquire", "intents", "intend", "prepare", "ready", "create", "remove", "close", "settle", "release"}
	without := func(drop ...string) []string {
		return slices.DeleteFunc(slices.Clone(whole), func(c string) bool { return slices.Contains(drop, c) })
	}
	for name, c := range map[string]struct {
		change  func(*bench)
		outcome Outcome
		code    string // of the error, "-" for none
		calls   []string
		trial   Trial
		open    bool
	}{
		"well":   {func(*bench) {}, OK, "-", whole, Trial{OK: true, SnapshotSeconds: 2.003}, false},
		"slowly": {func(b *bench) { b.h.takes = 25 * time.Second }, OK, "-", whole, Trial{OK: true, SnapshotSeconds: 25}, false},
		"fails": {
			func(b *bench) { b.h.fail["create"] = codedError{code: "SF2206"} }, Failed, "SF2206", without("remove"),
			Trial{Code: "SF2206", Reason: "take the snapshot alone: vCenter says SF2206"},
			false,
		},
		"powered off": {
			func(b *bench) { b.h.vm.PowerState = "poweredOff" }, Failed, "SF2112",
			[]string{"find"},
			Trial{Code: "SF2112", Reason: "/DC0/vm/db1: it is poweredOff, there is no guest to hold"},
			false,
		},
		"never ends": {
			func(b *bench) { b.h.takes = time.Hour }, Failed, "SF2304",
			[]string{"find", "acquire", "intents", "intend", "prepare", "ready", "create", "tasks", "look", "close", "release"},
			Trial{SnapshotSeconds: 600, Code: "SF2304"},
			true,
		},
		"not removed": {
			func(b *bench) { b.h.fail["remove"] = codedError{code: "SF2301"} }, Failed, "SF2301",
			without("settle"),
			Trial{SnapshotSeconds: 2.003, Reason: "nothing was held", Code: "SF2301"},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(b *bench) {
				c.change(b)
				b.bare = &notebook{h: b.h}
			}, func(t *testing.T, b *bench, r Result, err error) {
				t.Helper()
				if r.Outcome != c.outcome || guest.CodeOf(err) != c.code && c.code != "-" || (err == nil) != (c.code == "-") {
					t.Errorf("outcome %s, error %v, want %s and %s", r.Outcome, err, c.outcome, c.code)
				}
				if diff := cmp.Diff(c.calls, slices.Compact(slices.Clone(b.h.calls))); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				got := TrialOf(r)
				if c.open {
					got.Reason, c.trial.Reason = "", ""
				}
				if diff := cmp.Diff(c.trial, got); diff != "" {
					t.Errorf("trial (-want +got):\n%s", diff)
				}
				if open := len(b.bare.open) > 0; open != c.open || b.m.holds > 0 {
					t.Errorf("the snapshot stays written down: %t, want %t; %d holds", open, c.open, b.m.holds)
				}
				wellFormed(t, r)
			})
		})
	}
}
