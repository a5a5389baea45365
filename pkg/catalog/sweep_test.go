package catalog_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// testOrphans shows the ledger one inventory after the other.
func (w *world) testOrphans(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "orphans", 3)
	vm, gone := vms[0], vms[2]
	o := w.lease(t, "orphans", 1)
	live, ended := w.order(t, vms[1]), w.order(t, vm)
	if _, err := w.journal.Intend(ctx, journal.Intent{RunID: ended.ID, Epoch: ended.Epoch, Step: journal.Snapshot, Subject: "written"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(ctx, ended.Fence(), catalog.End{State: catalog.Failed}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Minute)
	created := w.now.Add(-time.Hour)
	seen := func(name, run string, epoch int64, installation string) catalog.SeenSnapshot {
		return catalog.SeenSnapshot{Name: name, Moref: "moref of " + name, RunID: run, Epoch: epoch, Installation: installation, Created: created}
	}
	kept := seen("kept", "lost", 7, "we")
	kept.Keep = 24 * time.Hour
	all := []catalog.SeenSnapshot{
		seen("written", ended.ID, ended.Epoch, ""), seen("ended", ended.ID, ended.Epoch-1, "we"), seen("unknown", "lost", 7, "we"), kept,
		seen("theirs", "other", 7, "they"), seen("nobody's", "other", 7, ""), seen("later", "lost", math.MaxInt64, "we"),
	}
	look := func(mine []catalog.SeenSnapshot, more ...catalog.SeenVM) catalog.Taken {
		t.Helper()
		w.now = w.now.Add(time.Second)
		vms := append([]catalog.SeenVM{{ID: vm.ID, Moref: vm.Moref, Snapshots: mine}}, more...)
		taken, err := w.TakeIn(ctx, o, catalog.Inventory{At: w.now, Installation: "we", Before: 6, Epoch: math.MaxInt64 - 1, VMs: vms})
		if err != nil {
			t.Fatal(err)
		}
		return taken
	}
	ledger := func() map[string]catalog.SnapshotState {
		t.Helper()
		rows, err := w.Snapshots(ctx, catalog.SnapshotFilter{VCenter: "orphans"})
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]catalog.SnapshotState{}
		for _, r := range rows {
			states[r.Name] = r.State
		}
		return states
	}
	others := []catalog.SeenVM{
		{ID: vms[1].ID, Snapshots: []catalog.SeenSnapshot{seen("live", live.ID, live.Epoch, "we")}},
		{ID: gone.ID, Snapshots: []catalog.SeenSnapshot{seen("elsewhere", "other", 7, "they")}},
	}
	want := map[string]catalog.SnapshotState{
		"written": catalog.Orphan, "ended": catalog.Orphan, "unknown": catalog.Orphan, "kept": catalog.SnapshotInUse,
		"theirs": catalog.Foreign, "nobody's": catalog.Foreign, "later": catalog.Foreign, "elsewhere": catalog.Foreign,
	}
	taken := look(all, others...)
	if len(taken.New) != len(want) || taken.Behind != "unknown" {
		t.Errorf("TakeIn = %+v, want %d new ones and the unknown one to prove that the database is old", taken, len(want))
	}
	if r, err := w.Reconciliation(ctx); err != nil || r.Why == "" {
		t.Errorf("Reconciliation = %+v, %v, want one", r, err)
	}
	if taken := look(all, others...); len(taken.New) != 0 || taken.Gone != 0 || taken.Behind != "" {
		t.Errorf("the same again = %+v, want nothing", taken)
	}
	if got := ledger(); cmp.Diff(want, got) != "" {
		t.Errorf("the ledger differs:\n%s", cmp.Diff(want, got))
	}
	rows := map[string]catalog.Snapshot{}
	unneeded, err := w.Snapshots(ctx, catalog.SnapshotFilter{VCenter: "orphans", Unneeded: true})
	if err != nil || len(unneeded) != 7 {
		t.Errorf("%d unneeded, %v, want the 3 orphans and the 4 foreign ones", len(unneeded), err)
	}
	for _, r := range unneeded {
		rows[r.Name] = r
	}
	// A person may have nobody's removed, but not what another installation sees to.
	if err := w.RequestRemoval(ctx, rows["theirs"].ID); !errors.Is(err, catalog.ErrState) {
		t.Errorf("RequestRemoval of another installation's = %v, want ErrState", err)
	}
	if err := w.RequestRemoval(ctx, rows["nobody's"].ID); err != nil {
		t.Error(err)
	}
	if err := w.Removed(ctx, o, rows["unknown"].ID, catalog.Removal{Gone: "removed"}); err != nil {
		t.Fatal(err)
	}
	// Of two VMs nothing is seen any more, one snapshot is there again, one was taken away by somebody.
	if taken := look(all[1:]); len(taken.New) != 1 || taken.New[0].Name != "unknown" || taken.Gone != 2 {
		t.Errorf("TakeIn = %+v, want the unknown one back, two gone", taken)
	}
	delete(want, "written")
	delete(want, "elsewhere") // it is judged anew when it is seen again
	want["nobody's"] = catalog.RemoveRequested
	if got := ledger(); cmp.Diff(want, got) != "" {
		t.Errorf("the ledger differs:\n%s", cmp.Diff(want, got))
	}
	w.now = w.now.Add(23 * time.Hour)
	due, err := w.Snapshots(ctx, catalog.SnapshotFilter{VCenter: "orphans", Due: true})
	if err != nil || len(due) != 4 { // ended, unknown, nobody's, and the kept one after its day
		t.Errorf("%d are due, %v, want 4", len(due), err)
	}
	if _, err := w.Compared(ctx, o, []string{"orphans"}); err != nil { // for the other tests
		t.Fatal(err)
	}
}

func (w *world) testConsolidation(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "disks", 2)
	o := w.lease(t, "disks", 1)
	seen := func(needed ...bool) {
		t.Helper()
		in := catalog.Inventory{At: w.now, Installation: "we", Before: 1}
		for n, v := range vms {
			in.VMs = append(in.VMs, catalog.SeenVM{ID: v.ID, ConsolidationNeeded: needed[n]})
		}
		if _, err := w.TakeIn(ctx, o, in); err != nil {
			t.Fatal(err)
		}
	}
	list := func(due bool) []catalog.Consolidation {
		t.Helper()
		all, err := w.Consolidations(ctx, "disks", due)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	seen(true, true)
	w.now = w.now.Add(time.Hour)
	if all := list(false); len(all) != 2 || all[0].Ours || len(list(true)) != 0 {
		t.Errorf("Consolidations = %+v, want two of others, none due", all)
	}
	in := catalog.Inventory{At: w.now, Installation: "we", Before: 1, Epoch: 1, VMs: []catalog.SeenVM{{ID: vms[0].ID, ConsolidationNeeded: true, Snapshots: []catalog.SeenSnapshot{{Name: "disks", RunID: "lost", Epoch: 1, Installation: "we"}}}}}
	if _, err := w.TakeIn(ctx, o, in); err != nil { // the other VM is not seen any more
		t.Fatal(err)
	}
	rows, err := w.Snapshots(ctx, catalog.SnapshotFilter{VCenter: "disks"})
	if err != nil || len(rows) != 1 {
		t.Fatalf("the ledger is %+v, %v", rows, err)
	}
	if err := w.Removed(ctx, o, rows[0].ID, catalog.Removal{Gone: "removed", Unmerged: true}); err != nil {
		t.Fatal(err)
	}
	if due := list(true); len(due) != 1 || due[0].VMID != vms[0].ID || !due[0].Ours || len(list(false)) != 1 {
		t.Fatalf("after a removal of ours due is %+v, want its VM", due)
	}
	if err := w.Consolidated(ctx, o, vms[0].ID, "locked", w.now.Add(5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if all := list(false); len(list(true)) != 0 || all[0].Attempts != 1 || all[0].LastError != "locked" {
		t.Errorf("after an attempt it is %+v", all)
	}
	seen(true, true) // the second one since an hour in which we removed nothing there
	if err := w.Consolidated(ctx, o, vms[0].ID, "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	seen(true, false) // a minute after our removal it is needed anew, whoever sees it
	if all := list(false); len(all) != 1 || !all[0].Ours {
		t.Errorf("Consolidations = %+v, want one that we left", all)
	}
}

func (w *world) testReconcile(t *testing.T) {
	ctx := t.Context()
	a, b := w.lease(t, "rec-a", 1), w.lease(t, "rec-b", 1)
	both := []string{"rec-a", "rec-b"}
	if r, err := w.Reconciliation(ctx); err != nil || r.Why != "" || len(r.Open(both...)) != 0 {
		t.Fatalf("Reconciliation = %+v, %v, want none", r, err)
	}
	if err := w.store.Update(ctx, "test", func(tx store.Tx) error { return tx.Reconcile(ctx, "it was lost") }); err != nil {
		t.Fatal(err)
	}
	if done, err := w.Compared(ctx, a, both); err != nil || done {
		t.Errorf("Settled = %v, %v, want more to do", done, err)
	}
	if r, err := w.Reconciliation(ctx); err != nil || r.Why != "it was lost" || cmp.Diff([]string{"rec-b"}, r.Open(both...)) != "" {
		t.Errorf("Reconciliation = %+v, %v, want one vCenter open", r, err)
	}
	if done, err := w.Compared(ctx, b, both); err != nil || !done {
		t.Errorf("Settled = %v, %v, want it done", done, err)
	}
	if r, err := w.Reconciliation(ctx); err != nil || r.Why != "" || len(r.Settled) != 0 {
		t.Errorf("Reconciliation = %+v, %v, want none", r, err)
	}
}

func (w *world) testExcluded(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "excluded", 3)
	o := w.lease(t, "excluded", 1)
	for _, by := range []map[string]string{
		{vms[0].ID: "nightly", vms[1].ID: "nightly"},
		{vms[0].ID: "nightly", vms[1].ID: "weekly", vms[2].ID: "nightly"},
		{vms[1].ID: "weekly"},
	} {
		if err := w.Exclude(ctx, o, by); err != nil {
			t.Fatal(err)
		}
		for _, v := range vms {
			if got, err := w.VM(ctx, v.ID); err != nil || got.ExcludedBy != by[v.ID] {
				t.Errorf("VM %s is excluded by %q, %v, want %q", v.Name, got.ExcludedBy, err, by[v.ID])
			}
		}
	}
}
