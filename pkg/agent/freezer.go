package agent

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Freezer holds the writers of this guest: fsfreeze.Freezer on Linux, vss.Freezer on Windows, a scripted one in the lab.
// The session calls Prepare, Freeze, Thaw and Close in that order, one session at a time; only Thaw may come while another
// call runs.
type Freezer interface {
	// Volumes lists the guest's file systems, whether each would be frozen, and why not. It blocks for at most 5 s.
	Volumes(ctx context.Context) ([]protocol.Volume, error)
	// Prepare does everything slow: it chooses the volumes, opens them and starts what thaws when this process dies.
	// Nothing is held yet. It returns what Freeze will hold.
	Prepare(ctx context.Context, r PrepareRequest) (Prepared, error)
	// Freeze holds everything that Prepare chose and returns nil once all of it is held. It calls started once, right
	// before the first hold; a Freezer that learns of the first hold from the system calls it right after, and tells the
	// moment in Held. With an error nothing is held any more, or will be let go the moment a late system call
	// returns. It ends when ctx ends, but a system call in flight cannot be interrupted.
	Freeze(ctx context.Context, started func()) (Held, error)
	// Thaw releases everything, the last frozen first, and says how each release went. It is idempotent: what is not
	// held any more gives no row a second time. It does no file, log or network work before all is released.
	Thaw(ctx context.Context) Release
	// Close ends what Prepare opened; it thaws first if anything is held. It is idempotent.
	Close() error
}

// Settler is a Freezer whose release has an aftermath: a shadow copy set that has to end, and writers that have to be
// asked and to be told how the backup went. Settle comes after Thaw, Complete after Settle, Close last; Close without a
// Complete tells the writers that there is no backup.
type Settler interface {
	Freezer
	// Veto comes before a Thaw that nobody asked for, so that what the hold was for fails: a shadow copy set whose hold
	// ended by itself must not look well. It does not block.
	Veto()
	// Settle waits for the end of what Freeze began, at most 30 s, and reads how the writers are, at most 60 s.
	Settle(ctx context.Context) Settled
	// Complete tells the writers how the backup went and ends their session; it blocks for at most 6 min.
	Complete(ctx context.Context, c Completion) Completed
}

// PrepareRequest is what one ARM asks of a Freezer.
type PrepareRequest struct {
	// Volumes are the ids or mount points to freeze; empty means all that are supported.
	Volumes []string
	// Mode is where the hold waits: fs, io or writer (protocol.Arm). A Freezer refuses what it does not have.
	Mode string
	// BackupType is copy or full, Writers whose failure counts (Windows).
	BackupType string
	Writers    protocol.WriterPolicy
	// Deadman is the time from the start of the hold, IODeadman that from the entry into CommitSnapshots (mode io), after
	// which a Freezer that can ends its hold in the very thread that holds, without this session.
	Deadman, IODeadman time.Duration
	// SecondNet is the time from the start of the hold after which the Freezer's own second net, outside this process,
	// must have released everything. It is longer than Deadman, so that at most one of them acts.
	SecondNet time.Duration
	// Broken is called, at most once and in a goroutine of its own, when that second net is gone while anything is
	// held. Nil means that nobody wants to know.
	Broken func()
	// Expired is called, at most once and without blocking the caller, when the hold ended without Thaw. Nil means that
	// nobody wants to know.
	Expired func(by ExpiredBy)
}

// Prepared is what Freeze will hold.
type Prepared struct {
	Volumes []protocol.Volume
	// SetID, Provider and Writers are those of the shadow copy set (Windows).
	SetID    string
	Provider protocol.Provider
	Writers  []protocol.Writer
	// Phases says how long the parts of the preparation took.
	Phases map[string]time.Duration
}

// Held is how the hold was reached, or how far it came before an error.
type Held struct {
	// Since is when the clock of the hold started where that may be before started was called, else zero.
	Since time.Time
	// IOSince is when CommitSnapshots was entered (mode io), else zero.
	IOSince time.Time
	// Flush says how much of the volumes' caches was written before the hold: full, partial or none; empty is full.
	Flush string
	// Phases says how long the parts of the freeze took.
	Phases map[string]time.Duration
}

// Release is how a hold ended.
type Release struct {
	// Results has a row for each file system that this call released.
	Results []protocol.ThawResult
	// Expired says who ended the hold before any Thaw could; empty when a Thaw did, or nothing was held.
	Expired ExpiredBy
	// IO is how long writes were held inside CommitSnapshots (mode io).
	IO time.Duration
}

// Settled is what is known of a shadow copy set after its release.
type Settled struct {
	// Result is the HRESULT of the set in 8 hexadecimal digits.
	Result string
	// Finished is true when the set ended well: on every volume, by our provider, without an abort.
	Finished bool
	// Writers are the writers' states in our own session.
	Writers []protocol.Writer
	// Witness is what independent parts of the guest said of the hold, Events what its logs have from around it.
	Witness map[string]string
	Events  []protocol.Event
}

// Completion is how the backup went.
type Completion struct {
	// OK is all, none or list; Components are the ones of the list.
	OK         string
	Components []string
	// Truncate allows the applications to truncate their logs. It needs a full backup type.
	Truncate bool
}

// Completed is how a session with the writers ended.
type Completed struct {
	Result  string
	Writers []protocol.Writer
	// Closed is true when the session is over: completed or aborted, its status read, its object released.
	Closed bool
	Err    error
}

// CodedError is an error that carries its code of the error catalogue.
type CodedError struct {
	// Code is the stable code, such as SF4008.
	Code string
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }

func (e *CodedError) Unwrap() error { return e.Err }
