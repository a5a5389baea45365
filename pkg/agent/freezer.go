package agent

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Freezer holds the writers of this guest: fsfreeze.Freezer on Linux, a scripted one in the lab. The session calls
// Prepare, Freeze, Thaw and Close in that order, one session at a time; only Thaw may come while another call runs.
type Freezer interface {
	// Volumes lists the guest's file systems, whether each would be frozen, and why not. It blocks for at most 5 s.
	Volumes(ctx context.Context) ([]protocol.Volume, error)
	// Prepare does everything slow: it chooses the volumes, opens them and starts what thaws when this process dies.
	// Nothing is held yet. It returns what Freeze will hold.
	Prepare(ctx context.Context, r PrepareRequest) (Prepared, error)
	// Freeze holds everything that Prepare chose and returns nil once all of it is held. It calls started once, right
	// before the first hold. With an error nothing is held any more, or will be let go the moment a late system call
	// returns. It ends when ctx ends, but a system call in flight cannot be interrupted.
	Freeze(ctx context.Context, started func()) error
	// Thaw releases everything, the last frozen first, and says how each release went. It is idempotent: what is not
	// held any more gives no row a second time. It does no file, log or network work before all is released.
	Thaw(ctx context.Context) []protocol.ThawResult
	// Close ends what Prepare opened; it thaws first if anything is held. It is idempotent.
	Close() error
}

// PrepareRequest is what one ARM asks of a Freezer.
type PrepareRequest struct {
	// Volumes are the ids or mount points to freeze; empty means all that are supported.
	Volumes []string
	// Deadman is the time from the start of the hold after which the Freezer's own second net, outside this process,
	// must have released everything. It is longer than the session's own dead-man, so that at most one of them acts.
	Deadman time.Duration
	// Broken is called, at most once and in a goroutine of its own, when that second net is gone while anything is
	// held. Nil means that nobody wants to know.
	Broken func()
}

// Prepared is what Freeze will hold.
type Prepared struct {
	Volumes []protocol.Volume
}

// CodedError is an error that carries its code of the error catalogue.
type CodedError struct {
	// Code is the stable code, such as SF4008.
	Code string
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }

func (e *CodedError) Unwrap() error { return e.Err }
