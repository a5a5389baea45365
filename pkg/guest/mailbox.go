package guest

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/mailbox"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// Limits of a mailbox.
const (
	// mailboxReserve is what is kept back for THAW: two texts of 0.3 to 1 s each (unverified), and room.
	mailboxReserve = 5 * time.Second
	// mailboxClose bounds how long what was said last is waited for.
	mailboxClose = 6 * time.Second
)

// boxOptions are how our side behaves: an acknowledgement alone is a task of vCenter, which the next word saves.
var boxOptions = mailbox.Options{AckAfter: 250 * time.Millisecond, RepeatAfter: 10 * time.Second}

// Box is where a VM and its guest write to each other, satisfied by *vsphere.Mailbox.
type Box interface {
	mailbox.Box
	// Close empties both texts. It is idempotent.
	Close(ctx context.Context) error
}

// Mailbox carries the words of one deployment through the VM's own configuration, for a guest without any network to us.
type Mailbox struct {
	line *mailbox.Line
	box  Box
}

// OpenMailbox takes over the box, until Close.
func OpenMailbox(ctx context.Context, box Box, deployment string) *Mailbox {
	return &Mailbox{line: mailbox.Open(ctx, box, deployment, boxOptions), box: box}
}

// Dial opens a stream to the agent. It does not say whether the agent is there.
func (m *Mailbox) Dial(context.Context) (net.Conn, error) { return m.line.Dial() }

// Around makes snapshots as s does, and holds all words back meanwhile: a VM may refuse to be reconfigured while its snapshot
// is made, or make it later for that (unverified; simulators do not show it). A THAW that is held back for too long finds a
// guest that has released itself.
func (m *Mailbox) Around(s freezewindow.Snapshotter) freezewindow.Snapshotter {
	return &silenced{s, m.line}
}

type silenced struct {
	snapshotter freezewindow.Snapshotter
	line        *mailbox.Line
}

func (s *silenced) Create(ctx context.Context, accepted func(task string)) (inventory.Snapshot, inventory.Timing, error) {
	s.line.Hold(true)
	defer s.line.Hold(false)
	return s.snapshotter.Create(ctx, accepted)
}

// Budget is b with room for a THAW that takes its time.
func (m *Mailbox) Budget(b freezewindow.Budget) freezewindow.Budget {
	b.Reserve = max(b.Reserve, mailboxReserve)
	return b
}

// Close ends all streams and empties both texts, whatever became of ctx. It blocks for at most 6 s besides the box.
func (m *Mailbox) Close(ctx context.Context) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), mailboxClose)
	defer cancel()
	m.line.Hold(false)
	err := m.line.Close()
	m.line.Wait(limit)
	return errors.Join(err, m.box.Close(context.WithoutCancel(ctx)))
}

// mailboxMode is how a guest can be held for which a THAW may take seconds: never inside CommitSnapshots, where Windows lets
// go after 10 s. No mode chooses.
func mailboxMode(asked freezewindow.Mode, family string) (freezewindow.Mode, error) {
	switch {
	case asked == freezewindow.ModeIO:
		return "", &Error{SF: "SF4010", Op: "arm the agent", Err: errors.New("the mode io cannot be held over the mailbox, whose words take seconds; use the mode writer, or another channel")}
	case asked == "" && family == "windows":
		return freezewindow.ModeWriter, nil
	case asked == "":
		return freezewindow.ModeFS, nil
	}
	return asked, nil
}
