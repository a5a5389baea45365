package fsfreeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Flushing before the freeze. FIFREEZE blocks writers first and then writes all dirty data, and it cannot be
// interrupted: what is dirty then is time held. So the data is written before, while nobody waits.
const (
	// flushPasses is how often a file system is flushed at most in Prepare, until a pass is quick.
	flushPasses = 6
	// flushQuick is a pass that leaves little for FIFREEZE to write; twice that still keeps within its 5 s.
	flushQuick = 2 * time.Second
	// flushLimit bounds one pass in Prepare.
	flushLimit = 90 * time.Second
)

// flush writes the dirty data of a file system until a pass is quick. One that is dirtied faster than it can be
// written is refused: its freeze would hold the guest for as long as that takes.
func flush(ctx context.Context, dir *os.File, point string) error {
	var took time.Duration
	for range flushPasses {
		begin := time.Now()
		if err := syncWithin(ctx, dir, flushLimit); err != nil {
			return flushError(point, err)
		}
		if took = time.Since(begin); took <= flushQuick {
			return nil
		}
	}
	return coded(codeFlush, "flush %s: after %d passes one still takes %v: it is written to faster than its disk can take", point, flushPasses, took.Round(time.Millisecond))
}

// flushOnce is the last flush, right before the hold; it must be quick.
func flushOnce(ctx context.Context, dir *os.File, point string) error {
	if err := syncWithin(ctx, dir, flushQuick); err != nil {
		return flushError(point, err)
	}
	return nil
}

func flushError(point string, err error) error {
	if errors.Is(err, errLate) {
		return coded(codeFlush, "flush %s: %w", point, err)
	}
	return coded(freezeCode(err), "flush %s: %w", point, err)
}

// syncWithin is syncfs(2) with a limit; a late call goes on in its goroutine and holds nobody.
func syncWithin(ctx context.Context, dir *os.File, limit time.Duration) error {
	fd := int(dir.Fd()) // a late call has its file already: closing dir meanwhile does not disturb it
	_, err := within(ctx.Done(), limit, func() (struct{}, error) {
		defer runtime.KeepAlive(dir)
		if err := unix.Syncfs(fd); err != nil {
			return struct{}{}, fmt.Errorf("syncfs: %w", err)
		}
		return struct{}{}, nil
	})
	return err
}
