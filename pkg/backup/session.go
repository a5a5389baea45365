package backup

import (
	"context"
	"regexp"
	"strings"
)

// WriterSession is the session between VSS and the writers of a Windows guest that a run opened, or may have.
type WriterSession struct {
	ID string `json:"id"`
	// SetID is its snapshot set, in lower case without braces; empty when the guest did not come so far.
	SetID string       `json:"snapshot_set_id"`
	State SessionState `json:"state"`
}

// SessionState is how far a session with writers came.
type SessionState string

// The states. Only SessionClosed is proved to have ended, by the agent's own word.
const (
	SessionOpen         SessionState = "open"
	SessionFrozen       SessionState = "frozen"
	SessionThawed       SessionState = "thawed"
	SessionCompleteSent SessionState = "complete_sent"
	SessionExpired      SessionState = "expired"
	SessionClosed       SessionState = "closed"
)

// Sessions keeps a ledger of sessions with writers.
type Sessions interface {
	// Opening is told of a session before it is opened, and in which boot of the guest, so that the session of a run that is
	// killed is not forgotten: once without a snapshot set, and once more with the set when there is one, by which the
	// guest's own log names it. With an error none is opened, or it is ended.
	Opening(ctx context.Context, boot, session, set string) error
}

// opening writes down the session that the guest's agent is about to open with its writers, or has opened.
func (x *run) opening(ctx context.Context) error {
	if x.Sessions == nil || !x.windows() {
		return nil
	}
	set := ""
	if r := x.guest.Session.Ready; r != nil {
		set = setID(r.SetID)
	}
	return x.Sessions.Opening(ctx, x.result.Guest.BootID, x.guest.Session.ID(), set)
}

// session tells how far the session with the guest's writers came, before the guest is left. No other guest than a Windows
// one has one.
func (x *run) session() {
	if !x.armed || x.guest.Session == nil || x.guest.Session.Hello.OS.Family != osWindows {
		return
	}
	s := &WriterSession{ID: x.guest.Session.ID(), State: SessionOpen}
	if r := x.guest.Session.Ready; r != nil {
		s.SetID = setID(r.SetID)
	}
	if len(x.result.Window.Phases) > 0 {
		s.State = SessionFrozen
	}
	if x.result.Window.HeldByGuestSeconds != nil || x.result.Window.HeldAtMostSeconds != nil {
		s.State = SessionThawed
	}
	if m := x.result.Mover; m != nil && m.Told != ToldNothing {
		if s.State = SessionCompleteSent; m.Told == ToldExpired {
			s.State = SessionExpired
		}
	}
	if x.guest.Session.Closed {
		s.State = SessionClosed
	}
	x.result.Guest.Session = s
}

// setID is a snapshot-set id as it is compared.
func setID(id string) string { return strings.ToLower(strings.Trim(id, "{}")) }

var setIDs = regexp.MustCompile(`\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}`)

// lostSet is the snapshot set of the session that was overwritten, by the text of event 12289: it names the set that came,
// then the older one, in words of the guest's language (Microsoft Learn, askcorejp, "VSS 12289"). Empty when it does not.
func lostSet(text string) string {
	if all := setIDs.FindAllString(text, 2); len(all) == 2 {
		return setID(all[1])
	}
	return ""
}
