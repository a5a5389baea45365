package backup

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// theSet is the snapshot set of the guest's agent.
const theSet = "6b1f0000-1111-2222-3333-444455556666"

// ledger notes the sessions that are opened, or refuses them.
type ledger struct {
	opened  []string
	refuses int // the so manieth call; 0 is none
}

func (l *ledger) Opening(_ context.Context, boot, session, set string) error {
	l.opened = append(l.opened, strings.Join([]string{boot, session, set}, " "))
	if len(l.opened) == l.refuses {
		return codedError{code: "SF1902"}
	}
	return nil
}

// A session with writers is written down before it is opened, and with its set before it is used; one that cannot be is not opened,
// or ended. A guest without writers has none.
func TestSessionIsWrittenDownFirst(t *testing.T) {
	windows := func(b *bench) {
		b.h.vm.GuestFamily = "windowsGuest"
		b.reboot(osWindows)
	}
	well := &ledger{}
	play(t, func(b *bench) { windows(b); b.sessions = well }, func(t *testing.T, _ *bench, r Result, _ error) {
		t.Helper()
		if s := r.Guest.Session; s == nil || !slices.Equal(well.opened, []string{"b " + s.ID + " ", "b " + s.ID + " " + theSet}) || s.SetID != theSet {
			t.Errorf("written down is %q of session %+v, want it with its boot, then with its set", well.opened, s)
		}
	})
	for _, n := range []int{1, 2} {
		full := &ledger{refuses: n}
		play(t, func(b *bench) { windows(b); b.sessions = full }, func(t *testing.T, b *bench, r Result, err error) {
			t.Helper()
			if guest.CodeOf(err) != "SF1902" || b.m.holds != 0 || r.Verdict.Level != freezewindow.Unproved || len(full.opened) != n {
				t.Errorf("error %v, %d holds, written down %q, want it refused with SF1902", err, b.m.holds, full.opened)
			}
			if s := r.Guest.Session; s == nil || s.State != SessionClosed { // it may have been written all the same
				t.Errorf("the session is told as %+v, want it closed", s)
			}
		})
	}
	linux := &ledger{}
	play(t, func(b *bench) { b.sessions = linux }, func(t *testing.T, _ *bench, _ Result, err error) {
		t.Helper()
		if err != nil || len(linux.opened) > 0 {
			t.Errorf("a Linux guest opened %q, %v", linux.opened, err)
		}
	})
}

// TestLostSet reads the set that was overwritten, whatever the language of the guest.
func TestLostSet(t *testing.T) {
	for text, want := range map[string]string{
		"Active sessions: 64\r\n New snaphot set: {1FF4BAFB-1CAD-4364-8592-221443E14EF6}\r\n Old: {4D80892C-e1ff-4c94-842d-f0acb266c0ec}\r\n {b2014c9e-8711-4c5c-a5a9-3cf384484757}": "4d80892c-e1ff-4c94-842d-f0acb266c0ec",
		"cut off {1FF4BAFB-1CAD-4364-8592-221443E14EF6} {4D80892C-": "",
		"max 64": "",
	} {
		if got := lostSet(text); got != want {
			t.Errorf("lostSet(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestParseSnapshotName(t *testing.T) {
	p := Plan{RunID: "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", Epoch: 1700000000000}
	if run, epoch, ok := ParseSnapshotName(p.SnapshotName()); !ok || run != p.RunID || epoch != int64(p.Epoch) {
		t.Errorf("ParseSnapshotName(%q) = %q, %d, %v", p.SnapshotName(), run, epoch, ok)
	}
	for _, name := range []string{"", "stillframe-notes", p.SnapshotName() + "0000000", p.SnapshotName() + " ", "x" + p.SnapshotName(), "stillframe-" + p.RunID + "-0"} {
		if _, _, ok := ParseSnapshotName(name); ok {
			t.Errorf("%q passes for a name of ours", name)
		}
	}
}
