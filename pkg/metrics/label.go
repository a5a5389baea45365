package metrics

import (
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// other stands for every value that is not in a label's closed set.
const other = "other"

func results() []string {
	return []string{string(backup.OK), string(backup.Degraded), string(backup.Failed), string(backup.Aborted), other}
}

// causes are those of freezewindow, with none for a window in which nothing went wrong.
func causes() []string {
	list := []string{"none"}
	for _, c := range []freezewindow.Cause{
		freezewindow.CauseNotReady, freezewindow.CauseNoTime, freezewindow.CauseFreezeSlow, freezewindow.CauseSnapshotSlow,
		freezewindow.CauseSnapshotFailed, freezewindow.CauseHoldTimeout, freezewindow.CauseWriterFailed, freezewindow.CauseDeadman,
		freezewindow.CauseLinkLost, freezewindow.CauseGuestError, freezewindow.CauseCancelled, freezewindow.CauseForeignThaw,
		freezewindow.CauseHookFailed, freezewindow.CauseStalled, freezewindow.CauseBug, freezewindow.CauseUnknown,
	} {
		list = append(list, string(c))
	}
	return append(list, other)
}

func cause(c freezewindow.Cause) string {
	if c == freezewindow.CauseNone {
		return "none"
	}
	return known(causes(), string(c))
}

// phases are those of freezewindow.Report, with prepare before them.
func phases() []string {
	return []string{"prepare", "freeze", "snapshot_create", "reconnect", "thaw", "verify", "unheard", other}
}

func channels() []string { return []string{"direct", "reverse", "mailbox", other} }

func limits() []string { return []string{"writer", "config", "soft"} }

// reasons are why a guest released itself: the link was lost, the dead-man's deadline came while we were still heard,
// nothing had been heard of us for long, or the guest never said.
func reasons() []string { return []string{"link_lost", "deadline", "orchestrator_silent", other} }

// reason reads the guest's own word. A guest that was not heard of again has none.
func reason(r backup.Result) string {
	switch r.Window.ReleasedBy {
	case "link_lost":
		return "link_lost"
	case "deadman", "io_deadman":
		return "deadline"
	}
	return other
}

func dispositions() []string { return []string{"kept", "removed", "pending"} }

// decisions are the hold modes that can be admitted, and the two ways not to admit.
func decisions() []string {
	return []string{string(freezewindow.ModeFS), string(freezewindow.ModeIO), string(freezewindow.ModeWriter), "delay", "refuse", other}
}

// system is the guest's family out of what the agent said of itself.
func system(text string) string {
	switch {
	case text == "":
		return other
	case strings.Contains(text, "Windows"):
		return "windows"
	}
	return "linux"
}

// known is the value when it is in its label's closed set.
func known(set []string, value string) string {
	if slices.Contains(set, value) {
		return value
	}
	return other
}

// utf8 is a name that can be a label's value: others make the whole file unwritable.
func utf8(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

func windowBuckets() []float64 {
	return []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 19, 20, 25, 30, 60}
}

func rttBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
}
