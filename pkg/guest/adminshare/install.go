package adminshare

import (
	"context"
	"fmt"

	"github.com/stillframe/stillframe/pkg/guest"
)

var _ guest.Installer = (*Access)(nil)

// persistentReady is where a persistent agent says what it has to say at its start.
const persistentReady = windows + home + `\persistent\ready`

// Install runs the agent's "install", which is over when the agent is ready, or says why not.
func (a *Access) Install(ctx context.Context, r guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	defer a.drop(ctx)
	exit, err := a.starter.once(ctx, r, "install", b.Words()...)
	if err != nil {
		return guest.Identity{}, fmt.Errorf("install the agent: %w", err)
	}
	var line string
	err = a.with(ctx, "read "+persistentReady, func(s *session) (err error) {
		line, err = readLine(ctx, s.admin, below(persistentReady))
		return err
	})
	if err != nil {
		return guest.Identity{}, &guest.Error{SF: "SF3703", Op: "install the agent", Err: fmt.Errorf("its install ended with exit code %d: %w", exit, err)}
	}
	return guest.ParseReady(line, true)
}

// Uninstall runs the agent's "uninstall".
func (a *Access) Uninstall(ctx context.Context, r guest.Remote) error {
	defer a.drop(ctx)
	exit, err := a.starter.once(ctx, r, "uninstall")
	if err == nil && exit != 0 {
		err = fmt.Errorf("the agent's uninstall ended with exit code %d", exit)
	}
	return err
}
