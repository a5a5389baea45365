package daemon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/selection"
)

const (
	we  = "11111111-2222-4333-8444-555555555555"
	one = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
)

// TestMark reads what is written, and nothing that only looks like it.
func TestMark(t *testing.T) {
	for _, m := range []Mark{{we, one, 7, 0}, {we, one, 1700000000000, 36 * time.Hour}} {
		if got, ok := ReadMark(m.String() + " job=a keep=1 inst=x host=h"); !ok || got != m {
			t.Errorf("ReadMark of %q = %+v, %v", m, got, ok)
		}
	}
	for _, text := range []string{
		"", "before the upgrade", "stillframe inst=" + we, "see stillframe inst=" + we + " run=" + one + " epoch=7",
		"stillframe inst=" + we + " run=" + one + " epoch=0", "stillframe inst=" + we + " run=" + one + " epoch=99999999999999999999",
		"stillframe inst=" + we + " run=" + one + " epoch=7x", "stillframe inst= run=" + one + " epoch=7",
	} {
		if m, ok := ReadMark(text); ok {
			t.Errorf("ReadMark of %q = %+v, want none", text, m)
		}
	}
}

// TestSeenVMs believes a mark only when it agrees with the name, and looks at names of our form only.
func TestSeenVMs(t *testing.T) {
	name, mark := "stillframe-"+one+"-7", Mark{we, one, 7, time.Hour}
	listed := func(name, description string) inventory.Listed {
		return inventory.Listed{Name: name, Moref: "s", Description: description}
	}
	got := seenVMs([]inventory.Member{{Moref: "vm-1", ConsolidationNeeded: true, Snapshots: []inventory.Listed{
		listed(name, mark.String()+" job=a"), listed(name, Mark{we, one, 8, 0}.String()), listed(name, ""), listed("stillframe-notes", mark.String()),
		listed(name+"-2", mark.String()), listed("stillframe-"+one+"-0", mark.String()),
	}}}, []catalog.VM{{ID: "a"}})
	seen := catalog.SeenSnapshot{Name: name, Moref: "s", RunID: one, Epoch: 7}
	marked := seen
	marked.Installation, marked.Keep = we, time.Hour
	want := []catalog.SeenVM{{ID: "a", Moref: "vm-1", ConsolidationNeeded: true, Snapshots: []catalog.SeenSnapshot{marked, seen, seen}}}
	if cmp.Diff(want, got) != "" {
		t.Errorf("seenVMs differs:\n%s", cmp.Diff(want, got))
	}
}

// TestExcluded counts a VM as excluded only when no job takes it.
func TestExcluded(t *testing.T) {
	e := inventory.Estate{Members: []inventory.Member{
		{Name: "a", Path: "/a", InstanceUUID: "u-a"}, {Name: "b", Path: "/b", InstanceUUID: "u-b"}, {Name: "c", Path: "/c", InstanceUUID: "u-c"},
	}}
	names := func(all ...string) selection.Rules { return selection.Rules{Names: all} }
	jobs := []selector{
		{selection.Selector{Rules: names("*"), Exclude: names("a", "b")}, "first"}, {selection.Selector{Rules: names("b")}, "second"},
	}
	got := excluded(e, jobs, []catalog.VM{{ID: "1", InstanceUUID: "u-a"}, {ID: "2", InstanceUUID: "u-b"}, {ID: "3", InstanceUUID: "u-c"}})
	if want := map[string]string{"1": "first"}; cmp.Diff(want, got) != "" {
		t.Errorf("excluded = %v, want %v", got, want)
	}
}
