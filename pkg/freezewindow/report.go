package freezewindow

import (
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Report is the truth about one window.
type Report struct {
	Verdict Verdict
	Mode    Mode
	Budget  Budget
	// Phases are in their order; their durations add up to the time from GO to the end.
	Phases []PhaseTime
	// HeldAtMost is an upper bound of the hold by our own clock: from the earliest moment at which it can have begun to
	// THAWED received. It is valid only when HeldAtMostKnown, that is when the guest said that it is free.
	HeldAtMost      time.Duration
	HeldAtMostKnown bool
	// HeldByGuest is the hold by the guest's clock, valid only when HeldByGuestKnown: when the agent itself released all.
	HeldByGuest      time.Duration
	HeldByGuestKnown bool
	// SelfReleased is true when the guest let go by itself, or did not say after GO that it is free, so that only its own
	// dead-man can have released it.
	SelfReleased bool
	// LinkLosses counts connections to the agent that were lost before it had said that it is free.
	LinkLosses int

	Snapshot inventory.Snapshot
	Timing   inventory.Timing
	Snap     SnapState
	// Late is true when the snapshot's outcome came after THAW was sent.
	Late    bool
	Release Release
	// SnapCode and GuestCode are codes of the error catalogue for what vSphere or the agent reported.
	SnapCode, SnapErr   string
	GuestCode, GuestErr string
	Ignored             int
}

// PhaseTime is one phase of the window; Start counts from the moment before GO was written.
type PhaseTime struct {
	Name            string
	Start, Duration time.Duration
}

// OverrunByStun says whether our bound passed the limit while the guest's own clock did not: creating a snapshot stuns
// the VM, its clock with it.
func (r Report) OverrunByStun() bool {
	return r.HeldAtMostKnown && r.HeldByGuestKnown && r.HeldAtMost > r.Budget.Hold && r.HeldByGuest <= r.Budget.Hold
}

// OverBudget says whether the hold was, or cannot be excluded to have been, longer than the budget.
func (r Report) OverBudget() bool {
	return r.HeldByGuestKnown && r.HeldByGuest > r.Budget.Hold ||
		!r.HeldByGuestKnown && r.HeldAtMostKnown && r.HeldAtMost > r.Budget.Hold
}

// Conclude reads the report from the final state; it is pure, so the same events give the same report.
func Conclude(s State) Report {
	released := (s.Held == Released || s.Held == Expired) && !s.Release.mayHold()
	r := Report{
		Verdict:  Judge(s),
		Mode:     s.Ready.Mode,
		Budget:   s.Budget,
		Phases:   phases(s),
		Snapshot: s.Snapshot, Timing: s.Timing, Snap: s.Snap, Late: s.Late,
		Release:  s.Release,
		SnapCode: s.SnapCode, SnapErr: s.SnapErr, GuestCode: s.GuestCode, GuestErr: s.GuestErr,
		SelfReleased: s.Held == Expired || s.Held == HeldUnknown || s.Release.mayHold(),
		LinkLosses:   s.Losses,
		Ignored:      s.Ignored,
	}
	if released {
		r.HeldAtMost, r.HeldAtMostKnown = s.ReleasedAt-s.HoldFrom, true
		// What somebody else released, a foreign thaw or the guest's second net, was free before the agent could tell.
		r.HeldByGuest, r.HeldByGuestKnown = s.Release.Held, len(s.Release.Failed) == 0
	}
	return r
}

// phases cuts the time from GO to the end at the marks that were reached. A window that was thawed before a snapshot was
// asked for has only its freeze before the thaw; one whose link was lost before THAW was sent has a reconnect.
func phases(s State) []PhaseTime {
	type mark struct {
		name string
		end  time.Duration
	}
	marks := []mark{{"freeze", s.FrozenAt}}
	if s.CallAt == 0 {
		marks = []mark{{"freeze", s.ThawSentAt}}
	} else if s.LostAt > 0 && (s.ThawSentAt == 0 || s.LostAt < s.ThawSentAt) {
		marks = append(marks, mark{"snapshot_create", s.LostAt}, mark{"reconnect", s.ThawSentAt})
	} else {
		marks = append(marks, mark{"snapshot_create", s.ThawSentAt})
	}
	last := "verify"
	if s.ReleasedAt == 0 {
		last = "unheard" // the guest's last word did not come
	}
	marks = append(marks, mark{"thaw", s.ReleasedAt}, mark{last, s.EndAt})
	var out []PhaseTime
	var from time.Duration
	for _, m := range marks {
		if m.end > 0 && m.end >= from {
			out = append(out, PhaseTime{m.name, from, m.end - from})
			from = m.end
		}
	}
	return out
}
