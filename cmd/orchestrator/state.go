package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// systemState is where root's runs remember.
const systemState = "/var/lib/stillframe/state"

func stateFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state-dir", "", "folder of what lasts from run to run (default STILLFRAME_STATE_DIR, else "+systemState+", or XDG_STATE_HOME/stillframe for other users than root)")
}

// store opens the state folder.
func (c *cli) store(dir string) (*statefile.Store, error) {
	dir, err := c.stateDir(dir)
	if err != nil {
		return nil, err
	}
	return statefile.Open(dir, statefile.Options{Now: c.now})
}

// deafen ends the listening for agents.
func (c *cli) deafen(r reach) {
	if err := r.leave(); err != nil {
		say(c.stderr, "warning: stop listening for agents: "+err.Error())
	}
}

// book opens the folder of persistent agents: agents in the state folder, but beside it for the system's, where the daemon has it
// too.
func (c *cli) book(dir string) (*enrolment.Book, error) {
	dir, err := c.stateDir(dir)
	if err != nil {
		return nil, err
	}
	if dir == systemState {
		dir = filepath.Dir(dir)
	}
	return enrolment.Open(filepath.Join(dir, agentsFolder))
}

// agentsFolder is the folder of persistent agents, in the daemon's state_dir and in other state folders.
const agentsFolder = "agents"

// stateDir names the state folder: the flag, STILLFRAME_STATE_DIR, the system's for root, else the user's own.
func (c *cli) stateDir(dir string) (string, error) {
	dir = first(dir, c.getenv("STILLFRAME_STATE_DIR"))
	switch own := first(c.getenv("XDG_STATE_HOME"), filepath.Join(c.getenv("HOME"), ".local", "state")); {
	case dir != "":
	case os.Geteuid() == 0:
		dir = systemState
	case filepath.IsAbs(own):
		dir = filepath.Join(own, "stillframe")
	default:
		return "", missing("no state folder: give --state-dir or set STILLFRAME_STATE_DIR")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", invalid("state folder: %v", err)
	}
	return dir, nil
}

// breaker remembers passwords that were refused, satisfied by *statefile.Store and by the daemon's *catalog.Catalog.
type breaker interface {
	Tried(ctx context.Context, credential, secret string) error
	Refuse(ctx context.Context, credential, secret, why string) error
}

// notes keep what is known of guests.
type notes interface {
	Note(ctx context.Context, kind statefile.NoteKind, key string) (json.RawMessage, error)
	Keep(ctx context.Context, kind statefile.NoteKind, key string, text json.RawMessage) error
}

// records are both.
type records interface {
	breaker
	notes
}

// notebook also remembers what is made outside.
type notebook interface {
	records
	backup.Journal
}

// connect logs in to vCenter. A password that it refused a short time ago is not tried again.
func connect(ctx context.Context, o vsphere.Options, store breaker) (*vsphere.Endpoint, error) {
	account, err := o.Login(ctx)
	if err != nil {
		return nil, err
	}
	var endpoint *vsphere.Endpoint
	err = once(ctx, store, "vCenter account "+account.Username()+" on "+o.URL.Host, account, []string{"SF2001"}, func() (err error) {
		endpoint, err = vsphere.Open(ctx, o)
		return err
	})
	return endpoint, err
}

// once tries a password unless this very one was refused in the last 15 min, and remembers it when try fails with one of the
// codes refused.
func once(ctx context.Context, store breaker, credential string, account *url.Userinfo, refused []string, try func() error) error {
	password, _ := account.Password()
	if err := store.Tried(ctx, credential, password); err != nil {
		return err
	}
	err := try()
	if code := guest.CodeOf(err); slices.Contains(refused, code) {
		return errors.Join(err, store.Refuse(context.WithoutCancel(ctx), credential, password, code))
	}
	return err
}
