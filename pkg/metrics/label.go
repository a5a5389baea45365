package metrics

import (
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/statefile"
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
		freezewindow.CauseHookFailed, freezewindow.CauseWitness, freezewindow.CauseStalled, freezewindow.CauseBug, freezewindow.CauseUnknown,
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

func limits() []string { return []string{"writer", "provider", "config", "soft"} }

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

// roads are how the agent gets into a guest, stages the steps on the way.
func roads() []string { return []string{"persistent", "adminshare", "guestops", other} }

// ways are the roads with what starts the agent on each.
func ways() []guest.Way {
	return []guest.Way{guest.WayPersistent, guest.WaySCM, guest.WayWinRM, guest.WayGuestOps}
}

// starts are what starts the agent.
func starts() []string {
	list := []string{other}
	for _, w := range ways() {
		list = append(list, string(w.Start))
	}
	return list
}

// classes are what followed from an attempt: ok, or the class of its error.
func classes() []string {
	list := []string{"ok"}
	for _, c := range guest.Classes() {
		list = append(list, string(c))
	}
	return list // other is one of them
}

func stages() []string { return []string{"push", "start", "hello", "cleanup", other} }

// endpoints are whom a snapshot is asked of.
func endpoints() []string {
	return []string{string(admission.ThroughVCenter), string(admission.ThroughHost), other}
}

// jobResults are how runs of jobs end; skipped ones never began.
func jobResults() []string { return append(results(), "skipped") }

// levels are what a point can have proved.
func levels() []string {
	return []string{
		string(freezewindow.Application), string(freezewindow.ApplicationWriter), string(freezewindow.Filesystem), string(freezewindow.Crash), other,
	}
}

// protections are the states of a VM.
func protections() []string { return []string{"protected", "unprotected", "excluded", "overdue"} }

// actions are what is taken away after a dead run, as the kinds of its intents.
func actions() []string {
	return []string{string(statefile.Snapshot), string(statefile.Folder), string(statefile.Process), other}
}

// tasks are vCenter's; their stages are queued and running.
func tasks() []string {
	return []string{"create_snapshot", "remove_snapshot", "consolidate_disks", other}
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

// leakCode is the finding of writer sessions that were never ended (event 12289).
const leakCode advice.Code = "SF4021"

// writer is the name of a known writer, state and result what it said, each out of the catalogue.
func writer(w backup.Writer) string {
	if known := advice.WriterOf(w.ClassID, ""); known.Name != "" {
		return known.Name
	}
	return other
}

func state(w backup.Writer) string {
	if w.StateName == "" {
		return other
	}
	return strings.ToLower(strings.TrimPrefix(w.StateName, "VSS_WS_"))
}

func result(w backup.Writer) string {
	if w.Failure == "" {
		return other
	}
	return "0x" + strings.ToLower(w.FailureHR)
}

func providerBuckets() []float64 {
	return []float64{.1, .25, .5, 1, 2, 3, 5, 7, 8, 9, 9.5, 10, 12}
}

func windowBuckets() []float64 {
	return []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 19, 20, 25, 30, 60}
}

func rttBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
}

func taskBuckets() []float64 {
	return []float64{.1, .25, .5, 1, 2, 4, 8, 10, 15, 20, 30, 60, 300}
}

func jobBuckets() []float64 {
	return []float64{30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400}
}
