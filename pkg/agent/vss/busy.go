package vss

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// Another requestor's set is in progress (VSS_E_SNAPSHOT_SET_IN_PROGRESS 0x80042316): one is made at a time. Microsoft gives
// no figure; a set takes up to a minute to freeze, so that the wait is 30 to 60 s, at most busyTries-1 times.
const (
	busyPause = 45 * time.Second
	busyTries = 5
)

// waitForOthers does try again while another set is in progress, after pause give or take a third.
func waitForOthers(ctx context.Context, pause time.Duration, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		switch {
		case !errors.Is(err, vsscode.VSS_E_SNAPSHOT_SET_IN_PROGRESS):
			return err
		case n == busyTries:
			return fmt.Errorf("another requestor made a shadow copy at each of %d tries: %w", busyTries, err)
		}
		timer := time.NewTimer(pause*2/3 + rand.N(pause*2/3+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for another requestor's shadow copy: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}
