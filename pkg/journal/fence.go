// Package journal writes down an outside effect before it is made, so that whatever dies can be undone.
package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/stillframe/stillframe/pkg/store"
)

// Fence is by what right something is written about a run: the run's epoch rises with each takeover and each new attempt,
// and who has an older one writes nothing more.
type Fence struct {
	RunID string
	Epoch int64
}

// ErrFenced is what a *FencedError is.
var ErrFenced = errors.New("the run was taken over or begun anew")

// FencedError says that a run is another's by now. Who gets it stops, writes nothing more, and touches nothing outside but
// a thaw that is already due.
type FencedError struct{ Fence }

func (e *FencedError) Error() string {
	return fmt.Sprintf("run %s with epoch %d: %v", e.RunID, e.Epoch, ErrFenced)
}

// Is makes errors.Is(err, ErrFenced) true.
func (e *FencedError) Is(target error) bool { return target == ErrFenced }

// Code is the code of the error catalogue.
func (e *FencedError) Code() string { return "SF1904" }

// Held keeps the run this fence's until the transaction ends, or gives a *FencedError.
func (f Fence) Held(ctx context.Context, tx store.Tx) error {
	var epoch int64
	err := tx.One(ctx, []any{&epoch}, "SELECT epoch FROM runs WHERE id = $1"+tx.Lock(), f.RunID)
	if errors.Is(err, sql.ErrNoRows) || err == nil && epoch != f.Epoch {
		return &FencedError{f}
	}
	return err
}
