package freezewindow_test

import (
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// TestJudgeHooks is the part of hooks in the verdict of an otherwise perfect window.
func TestJudgeHooks(t *testing.T) {
	hook := func(name string, ok, required, holds bool) freezewindow.Hook {
		h := freezewindow.Hook{Name: name, Point: "pre-freeze", OK: ok, Required: required, Holds: holds}
		if !ok {
			h.Error = "it broke"
		}
		return h
	}
	for name, c := range map[string]struct {
		hooks []freezewindow.Hook
		level freezewindow.Level
		cause freezewindow.Cause
		says  string
	}{
		"none":                          {nil, "filesystem", "", "no application hook"},
		"one held":                      {[]freezewindow.Hook{hook("a", true, true, true)}, "application", "", "released: a"},
		"two held":                      {[]freezewindow.Hook{hook("a", true, true, true), hook("b", true, true, true)}, "application", "", "released: a, b"},
		"one of two failed":             {[]freezewindow.Hook{hook("a", true, true, true), hook("b", false, true, true)}, "filesystem", "hook_failed", "hook b did not hold"},
		"held, but not required":        {[]freezewindow.Hook{hook("a", true, false, true)}, "filesystem", "", "proves no level: a"},
		"not required, failed":          {[]freezewindow.Hook{hook("a", false, false, true)}, "filesystem", "", "did not hold their applications until the thaw: a"},
		"held, another not required":    {[]freezewindow.Hook{hook("a", true, true, true), hook("b", false, false, true)}, "application", "", "released: a"},
		"held, post-thaw failed":        {[]freezewindow.Hook{hook("a", true, true, true), hook("b", false, true, false)}, "application", "", "released: a"},
		"only hooks that hold nothing":  {[]freezewindow.Hook{hook("a", true, true, false)}, "filesystem", "", "no application hook"},
		"prepare of a hook is no proof": {[]freezewindow.Hook{hook("a", true, true, false), hook("a", false, true, true)}, "filesystem", "hook_failed", "it broke"},
	} {
		s := proved(freezewindow.ModeFS)
		s.Release.Hooks = c.hooks
		v := freezewindow.Judge(s)
		if v.Level != c.level || v.Cause != c.cause || !strings.Contains(strings.Join(v.Reasons, "\n"), c.says) {
			t.Errorf("%s: %+v, want %s, %q and a reason with %q", name, v, c.level, c.cause, c.says)
		}
		// A hook never lifts what the window itself did not prove.
		s.Release.WasHeld = false
		if v := freezewindow.Judge(s); v.Level != freezewindow.Crash {
			t.Errorf("%s, not held: level %s, want crash", name, v.Level)
		}
	}
}
