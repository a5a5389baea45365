package adminshare

import (
	"context"
	"errors"
	"fmt"

	"github.com/stillframe/stillframe/pkg/guest"
)

// starter runs programs in the guest that were pushed by the share.
type starter interface {
	// start has the agent serve, with the words of its flags. began is false where for certain nothing was started and no
	// service was made.
	start(ctx context.Context, r guest.Remote, words []string) (began bool, err error)
	// running says whether the agent that was started still is; why says how it ended.
	running(ctx context.Context, r guest.Remote) (bool, error)
	why(ctx context.Context, r guest.Remote) error
	// once runs one command of the agent to its end: thaw, install or uninstall.
	once(ctx context.Context, r guest.Remote, command string, args ...string) (exit int, err error)
	// end sees the agent leave, or ends it, and takes its service out of the guest. there is false when its program is gone.
	end(ctx context.Context, r guest.Remote, there bool) error
}

// exitThawed is the exit status of the agent's thaw when something was still held and has been released.
const exitThawed = 9

// thaw runs the agent's "thaw", which ends every process of it, and says whether something was held until then.
func thaw(ctx context.Context, s starter, r guest.Remote) (released bool, err error) {
	exit, err := s.once(ctx, r, "thaw")
	if err != nil {
		return false, fmt.Errorf("run the agent's thaw: %w", err)
	}
	switch exit {
	case 0:
		return false, nil
	case exitThawed:
		return true, nil
	}
	return false, fmt.Errorf("the agent's thaw ended with exit code %d", exit)
}

// quoted is a path as one word of a command line of Windows. All names in it are ours.
func quoted(path string) string { return `"` + path + `"` }

// servicePrefix begins the names of the agents' services; the deployment follows. The agent gives itself the same name.
const servicePrefix = "Stillframe-"

var errStillThere = errors.New("it is still there")
