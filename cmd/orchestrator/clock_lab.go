//go:build lab

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// wallClock is this machine's clock, off by what the file that STILLFRAME_LAB_CLOCK names says at that moment, such as -1h.
// So a test steps the clock of this process, also inside a window, without touching the machine's. It has no monotonic
// reading, as no stamp of another run has. A file that cannot be read ends the process: a lab that believes in a step
// that did not happen proves nothing.
func wallClock(getenv func(string) string) func() time.Time {
	path := getenv("STILLFRAME_LAB_CLOCK")
	if path == "" {
		return time.Now
	}
	return func() time.Time {
		text, err := os.ReadFile(path)
		if err != nil {
			panic(fmt.Sprintf("read the lab's clock: %v", err))
		}
		off, err := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil {
			panic(fmt.Sprintf("read the lab's clock %s: %v", path, err))
		}
		return time.Now().Round(0).Add(off)
	}
}
