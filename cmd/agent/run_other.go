//go:build !linux && !windows

package main

import (
	"fmt"
	"io"
	"runtime"
	"syscall"
)

const usage = "usage: stillframe-agent version\n"

// addressInUse is what a port that somebody else has is reported with.
const addressInUse = syscall.EADDRINUSE

func commands() map[string]command { return map[string]command{"run": runAgent} }

// begin has nothing to do before the command.
func begin(args []string) ([]string, error) { return args, nil }

// runAgent refuses with SF4910 of the catalogue: without a freeze a snapshot is crash-consistent.
func runAgent(_ []string, _, stderr io.Writer) int {
	return say(stderr, exitFailed, fmt.Sprintf("SF4910 there is no freezer for %s yet: snapshots of this guest are crash-consistent\n", runtime.GOOS))
}
