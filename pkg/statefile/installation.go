package statefile

import (
	"context"

	"github.com/google/uuid"
)

// Installation names this installation at one moment.
type Installation struct {
	// ID is made once; it tells our snapshots from those of another installation on the same vCenter.
	ID string
	// Epoch is higher than every one that was given before.
	Epoch uint64
}

// Begin gives the installation with a new epoch: the wall clock in milliseconds, or one more than the last, so that it rises
// whatever the clock does. A clock before 1970 counts as 1970.
func (s *Store) Begin(ctx context.Context) (Installation, error) {
	var out Installation
	err := s.update(ctx, "begin a run", func(now *state) error {
		if now.Installation == "" {
			id, err := uuid.NewRandom()
			if err != nil {
				return err
			}
			now.Installation = id.String()
		}
		now.LastEpoch = max(now.LastEpoch+1, uint64(max(s.now().UnixMilli(), 0)))
		out = Installation{now.Installation, now.LastEpoch}
		return nil
	})
	return out, err
}
