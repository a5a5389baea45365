package agent

import "time"

// Limits compiled into the agent; an orchestrator may ask for less, never for more. No two of a kind are equal.
const (
	// Hold is the promise: no writer is held longer (Exchange gives up after 20 s, Veeam KB1680).
	Hold = 20 * time.Second
	// Deadman is the age of the hold at which the agent thaws by itself.
	Deadman = 18 * time.Second
	// SecondNet is when what watches the agent from outside thaws in its place.
	SecondNet = 18500 * time.Millisecond
	// IODeadman is the dead-man inside CommitSnapshots (Windows lets go after 10 s).
	IODeadman = 8500 * time.Millisecond

	// GoesPerHour bounds how often an impersonator could freeze the guest.
	GoesPerHour = 12

	idleLimit    = 60 * time.Second
	armLimit     = 10 * time.Minute
	readyLimit   = 60 * time.Second
	preholdLimit = 30 * time.Second
	silenceLimit = 31 * time.Second
	thawingLimit = 29 * time.Second
	openLimit    = 24 * time.Hour
	resumeLimit  = 15 * time.Minute
	fetchLimit   = 2 * time.Minute
	leaveAfter   = 10 * time.Second
	// settleLimit is 30 s for the end of a shadow copy set, 60 s for its writers and a little more; closeLimit as much as
	// an abort or a completion may take.
	settleLimit   = 96 * time.Second
	closeLimit    = 7 * time.Minute
	ringEntries   = 256
	usedGoEntries = 64
)

// secondNetAfter is how much later than the dead-man the second net acts.
const secondNetAfter = SecondNet - Deadman
