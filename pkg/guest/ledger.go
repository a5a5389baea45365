package guest

import "context"

// Ledger writes down what is put into a guest, so that a later process can take it away when this one dies. It is never
// called inside a freeze window.
type Ledger interface {
	// Intend is called before the folder r.Dir is made (StagePush) and before the agent in it is started (StageStart).
	// With an error it is not made.
	Intend(ctx context.Context, stage Stage, r Remote) error
	// Settle is called when the guest is proved to be free of r: the process has ended, the folder is gone.
	Settle(ctx context.Context, r Remote) error
}
