package backup

import "testing"

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
