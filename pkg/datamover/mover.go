// Package datamover moves what a snapshot holds to where it is kept.
package datamover

import (
	"context"
	"net/url"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Mover stores the disks of one snapshot while that exists. The guest runs meanwhile; nothing is held.
type Mover interface {
	// Move blocks until everything is stored, or nothing more will be. Its Report is always filled in as far as it came;
	// without an error all is stored. When ctx ends, it ends soon, and what was not stored by then is not. progress, which
	// may be nil, is called now and then and must not block.
	Move(ctx context.Context, j Job, progress func(Progress)) (Report, error)
	// Check says, before anything is touched, why the mover could not do its work.
	Check() error
}

// Job is one snapshot to be moved.
type Job struct {
	RunID string
	// Level is what the window proved of the snapshot, such as application.
	Level    string
	VM       inventory.VM
	Snapshot inventory.Snapshot
	Origin   Origin
}

// Origin is where the data of a snapshot lies.
type Origin struct {
	// URL is the SDK's address of the vCenter or ESXi host, without an account; Thumbprint is the SHA-256 of its
	// certificate in hex, as it was accepted under the operator's trust.
	URL        *url.URL
	Thumbprint string
	// Login gives the account. It is asked once, when the move begins.
	Login func(context.Context) (*url.Userinfo, error)
	Disks []inventory.Disk
}

// Stored is how much of a snapshot is stored. Its zero value is nothing.
type Stored string

// The amounts. Partial is less than the restore of the VM needs: it counts as nothing for the guest's applications.
const (
	StoredNone    Stored = ""
	StoredPartial Stored = "partial"
	StoredAll     Stored = "all"
)

// Progress is how far a move has come, as the mover says.
type Progress struct {
	// Fraction is from 0 to 1.
	Fraction float64
	// BytesRead and BytesStored are 0 when the mover does not count them.
	BytesRead, BytesStored int64
	Text                   string
}

// Report is how a move went.
type Report struct {
	Stored Stored
	// Last is the last progress that was told.
	Last Progress
	// ExitStatus is the program's, negative when it has none: it was not started, or ended by a signal, which Signal names.
	ExitStatus int
	Signal     string
	// Said is the end of what the program wrote to standard error, without control characters.
	Said string
}

// Error is why not everything is stored.
type Error struct {
	// SF is the code of the error catalogue.
	SF  string
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }
