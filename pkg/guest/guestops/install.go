package guestops

import (
	"context"
	"fmt"

	"github.com/stillframe/stillframe/pkg/guest"
)

var _ guest.Installer = (*Access)(nil)

// ready is where a persistent agent says what it has to say at its start.
func (h home) ready() string { return h.join(h.join(h.folder, "persistent"), "ready") }

// Install runs the agent's "install", which is over when the agent is ready, or says why not.
func (a *Access) Install(ctx context.Context, r guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	exit, err := a.run(ctx, r.Exe, "install", b.Words()...)
	if err != nil {
		return guest.Identity{}, err
	}
	line, readErr := a.ops.Fetch(ctx, a.home.ready(), maxReadyFile)
	if readErr != nil {
		return guest.Identity{}, &guest.Error{SF: "SF3703", Op: "install the agent", Err: fmt.Errorf("its install ended with exit code %d: %w", exit, readErr)}
	}
	return guest.ParseReady(string(line), true)
}

// Uninstall runs the agent's "uninstall".
func (a *Access) Uninstall(ctx context.Context, r guest.Remote) error {
	exit, err := a.run(ctx, r.Exe, "uninstall")
	if err == nil && exit != 0 {
		err = fmt.Errorf("the agent's uninstall ended with exit code %d", exit)
	}
	return err
}
