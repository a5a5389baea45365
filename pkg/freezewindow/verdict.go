package freezewindow

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Level is what a window proved of the snapshot. The zero value is read as Unproved.
type Level string

// The levels, the strongest first.
const (
	// Application: applications and file systems were held for the whole of the snapshot.
	Application Level = "application"
	// ApplicationWriter: applications were held, file systems are as after a crash.
	ApplicationWriter Level = "application-writer"
	// Filesystem: file systems were held and clean, applications were not told.
	Filesystem Level = "filesystem"
	// Crash: the snapshot exists, nothing more is proved.
	Crash Level = "crash"
	// Unproved: not even the snapshot is proved.
	Unproved Level = "unproved"
)

// Consistent says whether the level is above crash.
func (l Level) Consistent() bool {
	return l == Application || l == ApplicationWriter || l == Filesystem
}

// Below says whether the level is lower than the other one.
func (l Level) Below(other Level) bool { return l.rank() < other.rank() }

// rank orders the levels; what is none of them proves nothing.
func (l Level) rank() int {
	return slices.Index([]Level{Crash, Filesystem, ApplicationWriter, Application}, l)
}

// Cause is what first kept a window from being perfect, out of a closed set.
type Cause string

// The causes.
const (
	CauseNone           Cause = ""
	CauseNotReady       Cause = "not_ready"
	CauseNoTime         Cause = "no_time"
	CauseFreezeSlow     Cause = "freeze_slow"
	CauseSnapshotSlow   Cause = "snapshot_slow"
	CauseSnapshotFailed Cause = "snapshot_failed"
	CauseHoldTimeout    Cause = "hold_timeout"
	CauseWriterFailed   Cause = "writer_failed"
	CauseDeadman        Cause = "deadman"
	CauseLinkLost       Cause = "link_lost"
	CauseGuestError     Cause = "guest_error"
	CauseCancelled      Cause = "cancelled"
	CauseForeignThaw    Cause = "foreign_thaw"
	CauseStalled        Cause = "orchestrator_stalled"
	CauseHookFailed     Cause = "hook_failed"
	CauseWitness        Cause = "witness_disagrees"
	CauseBug            Cause = "bug"
	CauseUnknown        Cause = "unknown"
)

// expiredCause turns the guest's reason for releasing itself into a cause.
func expiredCause(by string) Cause {
	switch by {
	case "deadman", "io_deadman":
		return CauseDeadman
	case "link_lost":
		return CauseLinkLost
	case "system":
		return CauseHoldTimeout
	}
	return CauseGuestError
}

// setCause turns the result of a shadow copy set that did not end well into a cause.
func setCause(result string) Cause {
	if result == "80042314" { // VSS_E_HOLD_WRITES_TIMEOUT: Windows let go of the writes
		return CauseHoldTimeout
	}
	return CauseGuestError
}

// NotKnown begins the reason of a verdict on a snapshot whose outcome is open; it is void once the outcome is known.
const NotKnown = "it is not known whether there is a snapshot"

// Verdict is what a window proved, with the reasons in an order that an operator can read.
type Verdict struct {
	Level   Level
	Cause   Cause
	Reasons []string
}

// Judge reads the verdict from the final state; it is pure. A level above crash needs every proof: the snapshot
// exists, it was asked for after FROZEN, its success was seen before THAW was sent, the guest was still held when THAW
// arrived, it did not release itself, and every volume was released by our own thaw.
func Judge(s State) Verdict {
	v := Verdict{Level: Unproved, Cause: s.Cause}
	switch s.Snap {
	case SnapSucceeded:
	case SnapNone:
		v.Reasons = []string{"no snapshot was asked for: " + s.whyNoSnapshot()}
		return v
	case SnapErrored:
		v.Reasons = []string{"there is no snapshot: " + s.SnapErr}
		return v
	default:
		v.Reasons = append([]string{NotKnown + colon(s.SnapErr)}, s.missing()...)
		return v
	}
	v.Level = Crash
	v.Reasons = s.missing()
	if len(v.Reasons) > 0 {
		return v
	}
	if failed := s.failedWriters(); len(failed) > 0 {
		v.Cause = CauseWriterFailed
		v.Reasons = failed
		return v
	}
	if against := s.Contradictions(); len(against) > 0 {
		v.Cause = CauseWitness
		v.Reasons = against
		return v
	}
	switch s.Ready.Mode {
	case ModeIO:
		v.Level = Application
	case ModeWriter:
		v.Level = ApplicationWriter
	case ModeFS:
		v.Level = Filesystem
	}
	v.Reasons = []string{fmt.Sprintf("the whole snapshot task lay inside the hold: frozen %s, done %s, thaw sent %s after GO",
		seconds(s.FrozenAt), seconds(s.TaskEndAt), seconds(s.ThawSentAt))}
	if s.Ready.Mode == ModeFS {
		v.addHooks(s.Release.Hooks)
	}
	return v
}

// addHooks lifts the level when every required holding hook held, and there was one.
func (v *Verdict) addHooks(hooks []Hook) {
	var held, tolerated, missed, bad []string
	for _, h := range hooks {
		switch {
		case !h.Holds:
		case h.OK && h.Required:
			held = append(held, h.Name)
		case h.OK:
			tolerated = append(tolerated, h.Name)
		case h.Required:
			bad = append(bad, fmt.Sprintf("required hook %s did not hold its application until the thaw: %s", h.Name, h.Error))
		default:
			missed = append(missed, h.Name)
		}
	}
	switch {
	case len(bad) > 0:
		v.Cause = CauseHookFailed
		v.Reasons = append(v.Reasons, bad...)
	case len(held) > 0:
		v.Level = Application
		v.Reasons = append(v.Reasons, "applications were held by their hooks from before the first file system was to after the last one was released: "+list(held))
	case len(tolerated) > 0:
		v.Reasons = append(v.Reasons, "hooks that are not required held their applications, which proves no level: "+list(tolerated))
	case len(missed) > 0:
		v.Reasons = append(v.Reasons, "hooks that are not required did not hold their applications until the thaw: "+list(missed))
	default:
		v.Reasons = append(v.Reasons, "no application hook was asked for, so applications were not told: file systems are clean, databases recover as after a power cut")
	}
}

func (s State) whyNoSnapshot() string {
	switch {
	case s.GuestErr != "":
		return "the agent refused: " + s.GuestErr
	case s.Cause == CauseNoTime:
		return "the guest was held so late that no time was left for one"
	case s.Cause == CauseFreezeSlow:
		return fmt.Sprintf("the guest did not report FROZEN within %s", seconds(s.Budget.ThawBy()))
	case s.Cause == CauseNone:
		return "the window did not begin"
	}
	return string(s.Cause)
}

// missing names each proof that a level above crash lacks.
func (s State) missing() []string {
	var r []string
	add := func(bad bool, format string, a ...any) {
		if bad {
			r = append(r, fmt.Sprintf(format, a...))
		}
	}
	add(s.FrozenAt == 0 || s.CallAt < s.FrozenAt, "the snapshot was not asked for after FROZEN")
	add(s.Late && s.Losses > 0, "the snapshot ended %s after GO, when the guest was no longer known to be held", seconds(s.TaskEndAt))
	add(s.Late && s.Losses == 0, "the snapshot ended %s after GO, later than the thaw at %s", seconds(s.TaskEndAt), seconds(s.ThawSentAt))
	if s.Held != Released && s.Held != Expired {
		return append(r, "the guest never said how its hold ended")
	}
	add(s.Held == Expired || s.Release.Expired, "the guest released itself (%s) after %s", s.Release.ExpiredBy, seconds(s.Release.Held))
	add(!s.Release.WasHeld && !s.Release.Expired, "the guest was not held any more when THAW arrived")
	for _, volume := range slices.Sorted(maps.Keys(s.Release.Failed)) {
		r = append(r, fmt.Sprintf("%s was not released by us: %s", volume, s.Release.Failed[volume]))
	}
	add(s.Ready.Mode == ModeFS && len(s.Ready.Volumes) == 0, "nothing was to be held")
	thawed := slices.Sorted(slices.Values(s.Release.Thawed))
	add(s.Ready.Mode == ModeFS && len(s.Release.Failed) == 0 && !slices.Equal(thawed, slices.Sorted(slices.Values(s.Ready.Volumes))),
		"what was released (%s) is not what was to be held (%s)", list(s.Release.Thawed), list(s.Ready.Volumes))
	if !s.Release.Finished && len(r) == 0 && s.Release.SetResult == "" {
		add(s.Final || s.Ready.Mode == ModeFS, "the guest did not finish the freeze cleanly")
		add(!s.Final && s.Ready.Mode != ModeFS, "the guest never said how its shadow copy set ended")
	}
	add(!s.Release.Finished && s.Release.SetResult != "", "the shadow copy set ended with 0x%s", s.Release.SetResult)
	add(s.Release.Held > s.Budget.Hold, "the guest was held for %s, longer than %s", seconds(s.Release.Held), seconds(s.Budget.Hold))
	return r
}

// failedWriters names the required writers that are not stable in our own session; without the guest's last word none
// of them is known to be.
func (s State) failedWriters() []string {
	if s.Ready.Mode == ModeFS {
		return nil
	}
	if !s.Final {
		return []string{"the writers' states after the freeze are not known"}
	}
	var r []string
	for _, id := range s.Ready.Writers {
		i := slices.IndexFunc(s.Release.Writers, func(w Writer) bool { return w.ClassID == id })
		if i < 0 {
			r = append(r, fmt.Sprintf("required writer %s is not among the writers after the freeze", id))
		}
	}
	for _, w := range s.Release.Writers {
		if w.Required && w.Failed() {
			r = append(r, fmt.Sprintf("required writer %s is in state %d with 0x%s", w.Name, w.State, w.Failure))
		}
	}
	return r
}

// witnessSlack is how much earlier than we know it a witness may say that the hold ended: its log counts in whole
// seconds at worst.
const witnessSlack = time.Second

// Contradictions says what independent witnesses in the guest have against the hold that it tells of; none when they
// agree or have seen nothing.
func (s State) Contradictions() []string {
	if s.Ready.Mode == ModeFS {
		return nil
	}
	w, r := s.Release.Witness, []string{}
	if w.HoldRanOut && s.Ready.Mode == ModeIO {
		r = append(r, "Windows logged that it let go of the writes by itself (volsnap event 8), although the set ended well")
	}
	if w.FlushRanOut {
		r = append(r, "Windows logged that the flush before the hold took too long (volsnap event 9), although the set ended well")
	}
	// From FROZEN, when everything was held, to the arrival of THAW.
	if held := s.Release.ThawArrived - s.Frozen.Hold; w.SQLHeld > 0 && w.SQLHeld+witnessSlack < held {
		r = append(r, fmt.Sprintf("SQL Server logged that its I/O was frozen for %s (events 3197, 3198), the agent held for %s", seconds(w.SQLHeld), seconds(held)))
	}
	return r
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

func list(s []string) string {
	if len(s) == 0 {
		return "nothing"
	}
	return strings.Join(s, ", ")
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
