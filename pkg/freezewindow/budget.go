// Package freezewindow holds one guest for one snapshot within one budget.
package freezewindow

import (
	"errors"
	"fmt"
	"time"
)

// Outside limits that no configuration moves.
const (
	// ExchangeLimit is how long the Exchange writer stays frozen before it gives up by itself (Veeam KB1680,
	// VSS_WS_FAILED_AT_FREEZE 0x800423f2). It is the promise of the product for every guest.
	ExchangeLimit = 20 * time.Second
	// FlushHoldLimit is how long Windows holds file-system writes inside CommitSnapshots before it lets go (Microsoft,
	// "VSS_E_HOLD_WRITES_TIMEOUT" 0x80042314).
	FlushHoldLimit = 10 * time.Second
	// MinReserve is the least time kept back for the thaw to reach the guest.
	MinReserve = 2500 * time.Millisecond
)

// Budget bounds one window. The zero Budget is refused: it never means "no limit". No two of the limits may be equal,
// because at a tie either side wins.
type Budget struct {
	// Hold is the longest time that any writer may be held, at most ExchangeLimit.
	Hold time.Duration
	// Reserve is kept back from Hold for the thaw: THAW is sent when the hold may be Hold-Reserve old.
	Reserve time.Duration
	// Deadman is the age of the hold at which the guest thaws by itself.
	Deadman time.Duration
	// IOThaw and IODeadman are the same two limits for the time inside CommitSnapshots (mode io).
	IOThaw, IODeadman time.Duration
}

// DefaultBudget is the budget of every run; configuration may lower its limits, never raise them.
func DefaultBudget() Budget {
	return Budget{
		Hold:      ExchangeLimit,
		Reserve:   3 * time.Second,
		Deadman:   18 * time.Second,
		IOThaw:    7500 * time.Millisecond,
		IODeadman: 8500 * time.Millisecond,
	}
}

// ErrBudget is wrapped by every refusal of Check.
var ErrBudget = errors.New("the budget does not hold together")

// ThawBy is the age of the hold at which THAW is sent whatever vSphere does.
func (b Budget) ThawBy() time.Duration { return b.Hold - b.Reserve }

// Check asserts the lattice of limits for a channel whose round trip takes at most rtt:
// IOThaw < IODeadman < 10 s, Hold-Reserve < Deadman < Hold <= 20 s, Reserve > (Hold-Deadman) + rtt.
func (b Budget) Check(rtt time.Duration) error {
	refuse := func(format string, a ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrBudget}, a...)...)
	}
	switch {
	case b.Hold <= 0 || b.Hold > ExchangeLimit:
		return refuse("hold %v is outside 0..%v", b.Hold, ExchangeLimit)
	case b.Reserve < MinReserve:
		return refuse("reserve %v is below %v", b.Reserve, MinReserve)
	case b.ThawBy() <= 0:
		return refuse("hold %v leaves nothing beside the reserve %v", b.Hold, b.Reserve)
	case b.ThawBy() >= b.Deadman:
		return refuse("thaw at %v is not before the dead-man at %v", b.ThawBy(), b.Deadman)
	case b.Deadman >= b.Hold:
		return refuse("dead-man %v is not before the hold limit %v", b.Deadman, b.Hold)
	case b.Reserve <= b.Hold-b.Deadman+rtt:
		return refuse("reserve %v does not cover hold minus dead-man %v plus the round trip %v", b.Reserve, b.Hold-b.Deadman, rtt)
	case b.IOThaw <= 0 || b.IOThaw >= b.IODeadman:
		return refuse("io thaw %v is not between 0 and the io dead-man %v", b.IOThaw, b.IODeadman)
	case b.IODeadman >= FlushHoldLimit:
		return refuse("io dead-man %v is not before the limit of Windows, %v", b.IODeadman, FlushHoldLimit)
	}
	return nil
}
