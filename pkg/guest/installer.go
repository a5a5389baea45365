package guest

import "context"

// Installer is a way by which an agent comes into a guest to stay there, satisfied by *guestops.Access and
// *adminshare.Access.
type Installer interface {
	Access
	// Install makes the agent that Put left in r the guest's persistent one, in the place of an older one, and returns when
	// it is ready. The agent lets in b.Peer only.
	Install(ctx context.Context, r Remote, b Bootstrap) (Identity, error)
	// Uninstall takes out whatever Install made, whichever program of ours it runs; r is another one. It may be repeated.
	Uninstall(ctx context.Context, r Remote) error
}
