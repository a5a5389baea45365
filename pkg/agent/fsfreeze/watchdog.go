package fsfreeze

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The words of the pipe from the agent to its watchdog, one byte each. End of file without wordDone means that the
// agent is gone.
const (
	wordArm  = 'A' // the deadline starts now; the first FIFREEZE follows
	wordDone = 'D' // nothing is held any more: leave
)

// The file descriptors that the watchdog inherits: words, its acknowledgement, then the mounts in the order of freezing.
const (
	fdWords  = 3
	fdAck    = 4
	fdMounts = 5
)

// The exit status of the watchdog.
const (
	watchdogIdle   = 0 // nothing had to be done
	watchdogBroken = 2 // started wrongly
	watchdogThawed = 3 // it thawed, because the agent was gone or late
)

// Limits of the watchdog's arguments.
const (
	maxDeadman = time.Minute
	maxMounts  = 1024
)

var errWatchdogUsage = errors.New("usage: watchdog DEADLINE MOUNTS, started by the agent only")

// watchdogArgs are the arguments for a deadline and a number of mounts.
func watchdogArgs(deadman time.Duration, mounts int) []string {
	return []string{deadman.String(), strconv.Itoa(mounts)}
}

// parseWatchdogArgs is the inverse of watchdogArgs.
func parseWatchdogArgs(args []string) (deadman time.Duration, mounts int, err error) {
	if len(args) != 2 {
		return 0, 0, errWatchdogUsage
	}
	if deadman, err = time.ParseDuration(args[0]); err != nil || deadman <= 0 || deadman > maxDeadman {
		return 0, 0, fmt.Errorf("%w: deadline %q", errWatchdogUsage, args[0])
	}
	if mounts, err = strconv.Atoi(args[1]); err != nil || mounts < 1 || mounts > maxMounts {
		return 0, 0, fmt.Errorf("%w: mounts %q", errWatchdogUsage, args[1])
	}
	return deadman, mounts, nil
}
