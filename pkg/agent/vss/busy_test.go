package vss

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// TestWaitForOthers: a set in progress is waited for, five tries in all; nothing else is.
func TestWaitForOthers(t *testing.T) {
	busy := fmt.Errorf("start a set: %w", vsscode.VSS_E_SNAPSHOT_SET_IN_PROGRESS)
	for name, c := range map[string]struct {
		fails int
		err   error
		tries int
	}{
		"free at once":        {0, busy, 1},
		"busy twice":          {2, busy, 3},
		"busy for ever":       {9, busy, 5},
		"another error stays": {9, vsscode.VSS_E_BAD_STATE, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries, begun := 0, time.Now()
			err := waitForOthers(t.Context(), busyPause, func() error {
				if tries++; tries <= c.fails {
					return c.err
				}
				return nil
			})
			took, waits := time.Since(begun), time.Duration(c.tries-1)
			if tries != c.tries || (err != nil) != (c.fails >= c.tries) || took < waits*30*time.Second || took > waits*60*time.Second {
				t.Errorf("%s: %v after %d tries and %v", name, err, tries, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		err := waitForOthers(ctx, busyPause, func() error { return busy })
		if !errors.Is(err, vsscode.VSS_E_SNAPSHOT_SET_IN_PROGRESS) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 10*time.Second {
			t.Errorf("cancelled while it waited: %v after %v", err, time.Since(begun))
		}
	})
}
