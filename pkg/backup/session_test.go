package backup

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// ledger notes the sessions that are opened, or refuses them.
type ledger struct {
	opened []string
	refuse error
}

func (l *ledger) Opening(_ context.Context, boot, session string) error {
	if l.refuse == nil {
		l.opened = append(l.opened, boot+" "+session)
	}
	return l.refuse
}

// A session with writers is written down before it is opened; one that cannot be is not opened. A guest without writers has none.
func TestSessionIsWrittenDownFirst(t *testing.T) {
	windows := func(b *bench) {
		b.h.vm.GuestFamily = "windowsGuest"
		b.reboot(osWindows)
	}
	well := &ledger{}
	play(t, func(b *bench) { windows(b); b.sessions = well }, func(t *testing.T, _ *bench, r Result, _ error) {
		t.Helper()
		if s := r.Guest.Session; s == nil || !slices.Equal(well.opened, []string{"b " + s.ID}) {
			t.Errorf("written down is %q of session %+v, want it with its boot", well.opened, s)
		}
	})
	full := &ledger{refuse: codedError{code: "SF1902"}}
	play(t, func(b *bench) { windows(b); b.sessions = full }, func(t *testing.T, b *bench, r Result, err error) {
		t.Helper()
		if guest.CodeOf(err) != "SF1902" || !errors.Is(err, full.refuse) || r.Guest.Session != nil || b.m.holds != 0 || r.Verdict.Level != freezewindow.Unproved {
			t.Errorf("error %v, session %+v, %d holds, want none of a session that could not be written down", err, r.Guest.Session, b.m.holds)
		}
	})
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
