package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Gate bounds how many windows there are at once where things are shared. Each function waits until there is room or ctx ends;
// leave is called once. Nothing of it is called between GO and THAWED. The zero Gate lets everybody in.
type Gate struct {
	// Logon is asked before the agent is brought into the guest, Arm before the guest prepares, Window when it is ready, and
	// Remove before the snapshot is removed.
	Logon, Arm, Window, Remove func(ctx context.Context) (leave func(), err error)
	// Thawed is told when no guest is held by this run any more, which may be long before its window's place is free: a snapshot
	// that is still being made keeps it.
	Thawed func()
	// Wait bounds the wait of a guest that is ready, which does not stay so for ever (60 s, freeze protocol).
	Wait time.Duration
}

// pass goes through one function of a gate.
func pass(ctx context.Context, enter func(context.Context) (func(), error)) (leave func(), err error) {
	if enter == nil {
		return func() {}, nil
	}
	if leave, err = enter(ctx); err != nil {
		return nil, &Refusal{"SF1912", err}
	}
	return leave, nil
}

// remove waits for room to remove a snapshot. When there is none, it is removed all the same: it grows.
func (g Gate) remove(ctx context.Context) (leave func()) {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	leave, err := pass(ctx, g.Remove)
	if err != nil {
		return func() {}
	}
	return leave
}

// window also counts the wait against the guest's readiness.
func (g Gate) window(ctx context.Context, ready *freezewindow.Ready) (leave func(), err error) {
	begun := time.Now()
	if g.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, g.Wait, fmt.Errorf("no window was free within %v", g.Wait))
		defer cancel()
	}
	if leave, err = pass(ctx, g.Window); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	ready.Left -= time.Since(begun)
	return leave, nil
}
