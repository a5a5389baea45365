package fsfreeze

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Harden keeps this process in memory and away from the out-of-memory killer, so that it can thaw whatever happens. A
// missing right is no error: it comes back as a note. Without MCL_ONFAULT a Go process would grow to over 100 MB.
func Harden() []string {
	var notes []string
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		notes = append(notes, fmt.Sprintf("memory is not locked: %v", err))
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		notes = append(notes, fmt.Sprintf("the out-of-memory killer may end this process: %v", err))
	}
	return notes
}
