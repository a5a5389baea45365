//go:build !linux

package main

import (
	"fmt"
	"io"
	"runtime"
)

// noFreezer is SF4910 of the catalogue: without a freeze a snapshot is crash-consistent.
const noFreezer = "SF4910 there is no freezer for %s yet: snapshots of this guest are crash-consistent\n"

func runAgent(args []string, _, stderr io.Writer) int {
	if _, err := parseSettings(args); err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("run: %v\n", err))
	}
	return say(stderr, exitFailed, fmt.Sprintf(noFreezer, runtime.GOOS))
}

func runWatchdog(_ []string, stderr io.Writer) int {
	return say(stderr, exitFailed, fmt.Sprintf(noFreezer, runtime.GOOS))
}

func runHookWatchdog(_ []string, stderr io.Writer) int {
	return say(stderr, exitFailed, fmt.Sprintf(noFreezer, runtime.GOOS))
}

func runThaw(_ []string, _, stderr io.Writer) int {
	return say(stderr, exitFailed, fmt.Sprintf(noFreezer, runtime.GOOS))
}
