// Package filelock waits for the lock of a file that several processes change.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrHeld says that another process has held the lock for all of the wait.
var ErrHeld = errors.New("another process holds the lock")

// pause is between two looks: flock has no wait with an end.
const pause = 5 * time.Millisecond

// Wait takes the exclusive lock (flock(2)) of an open file, which is let go when the file is closed, or when the process
// ends. It waits at most limit; its error is then ErrHeld, or the cause of the end of ctx.
func Wait(ctx context.Context, file *os.File, limit time.Duration) error {
	end := time.NewTimer(limit)
	defer end.Stop()
	look := time.NewTicker(pause)
	defer look.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
		select {
		case <-look.C:
		case <-end.C:
			return fmt.Errorf("lock: %w, for %v", ErrHeld, limit)
		case <-ctx.Done():
			return fmt.Errorf("lock: %w", context.Cause(ctx))
		}
	}
}
