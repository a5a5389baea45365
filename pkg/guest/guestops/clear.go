package guestops

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Processes finds programs in the guest, satisfied by *vsphere.GuestOps.
type Processes interface {
	// Programs lists the processes that run exe with the first argument word and have not ended.
	Programs(ctx context.Context, exe, word string) ([]int64, error)
}

// Clear takes away what a dead orchestrator left in the guest: it ends the agents of the folder dir, and when one may have
// been started has the agent thaw whatever is still held, then removes the folder. The folder stays when the thaw failed,
// because the next try needs the agent. A dir that is none of ours is refused.
func (a *Access) Clear(ctx context.Context, p Processes, dir string, started bool) error {
	r := guest.Remote{Deployment: a.home.base(dir), Dir: dir, Exe: a.home.join(dir, a.home.exe), Started: started}
	if id, err := hex.DecodeString(r.Deployment); err != nil || len(id) != 16 || dir != a.home.join(a.home.folder, r.Deployment) {
		return &guest.Error{SF: "SF3950", Op: "clear the guest", Err: fmt.Errorf("%q is no folder of ours", dir)}
	}
	if err := a.ops.Validate(ctx); err != nil {
		return fmt.Errorf("log on to the guest: %w", err)
	}
	if !a.home.service {
		if err := a.endAll(ctx, p, r.Exe); err != nil {
			return err
		}
	}
	names, err := a.ops.List(ctx, r.Dir)
	switch {
	case guest.CodeOf(err) == codeNotThere:
		return a.settle(ctx, r)
	case err != nil:
		return fmt.Errorf("look into the agent's folder: %w", err)
	}
	if started && slices.Contains(a.home.names(names), a.home.exe) {
		if _, err := a.Rescue(ctx, r); err != nil {
			return err
		}
		r.Greeted = true // nothing of it is registered any more
	}
	return a.Remove(ctx, r)
}

// endAll ends the agents that serve: a watchdog is left alone, because it thaws when its agent has ended.
func (a *Access) endAll(ctx context.Context, p Processes, exe string) error {
	pids, err := p.Programs(ctx, exe, "run")
	if err != nil {
		return fmt.Errorf("look for the agent's process: %w", err)
	}
	for _, pid := range pids {
		_, endErr := a.end(ctx, pid, 0)
		err = errors.Join(err, endErr)
	}
	if err != nil {
		return fmt.Errorf("end the agent: %w", err)
	}
	return nil
}

// intend tells the ledger what comes next.
func (a *Access) intend(ctx context.Context, stage guest.Stage, r guest.Remote) error {
	if a.ledger == nil {
		return nil
	}
	return a.ledger.Intend(ctx, stage, r)
}

// settle tells the ledger what is gone.
func (a *Access) settle(ctx context.Context, r guest.Remote) error {
	if a.ledger == nil {
		return nil
	}
	return a.ledger.Settle(ctx, r)
}
