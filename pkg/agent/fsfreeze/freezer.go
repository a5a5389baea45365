// Package fsfreeze holds and releases the file systems of a Linux guest.
package fsfreeze

import (
	"errors"
	"time"
)

// Options are what a Freezer is made of.
type Options struct {
	// Bound says what may ever be frozen; its zero value allows nothing.
	Bound Bound
	// RunDir holds the list of armed mounts and belongs to root. It must not lie on a file system that is frozen; on
	// real guests it is /run/stillframe on a tmpfs, which a reboot empties together with the freezes.
	RunDir string
}

// ErrHeldByAnother is returned by ThawListed while another living agent has the list: its hold is not ours to end.
var ErrHeldByAnother = errors.New("another agent is alive and owns the list of frozen mounts")

// limits are the Freezer's own. FIFREEZE cannot be interrupted: a limit ends the waiting, and the late call thaws itself.
type limits struct {
	open, each, all, thaw time.Duration
}

// defaultLimits are those of the design. No two of one path are equal.
func defaultLimits() limits {
	return limits{open: 5 * time.Second, each: 5 * time.Second, all: 10 * time.Second, thaw: 4 * time.Second}
}
