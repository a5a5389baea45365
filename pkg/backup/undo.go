package backup

import (
	"context"
	"errors"
	"fmt"
)

// undo is the stack of what a run has to take back, whatever happens.
type undo struct{ steps []step }

type step struct {
	what string
	do   func(context.Context) error
}

// push adds a step; the last one pushed is the first one done.
func (u *undo) push(what string, do func(context.Context) error) {
	u.steps = append(u.steps, step{what, do})
}

// run does all steps, also when one fails or ctx has ended; each has a limit of its own.
func (u *undo) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var all error
	for len(u.steps) > 0 {
		last := u.steps[len(u.steps)-1]
		u.steps = u.steps[:len(u.steps)-1]
		if err := last.do(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", last.what, err))
		}
	}
	return all
}
