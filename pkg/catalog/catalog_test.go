package catalog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

var _ backup.Memory = catalog.Memory{}

func codeOf(err error) string {
	var known interface{ Code() string }
	if errors.As(err, &known) {
		return known.Code()
	}
	return ""
}

// TestOnDatabases runs every test of a catalog on each database. A database takes a while to make, so they share one and
// keep to VMs of their own.
func TestOnDatabases(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			w := on(t)
			t.Run("jobs", w.testJobs)
			t.Run("tick", w.testTick)
			t.Run("states", w.testStates)
			t.Run("list", w.testList)
			t.Run("one run of a VM", w.testOneRun)
			t.Run("VM", w.testVM)
			t.Run("memory", w.testMemory)
			t.Run("journal", w.testJournal)
			t.Run("history", w.testHistory)
			t.Run("ledger", w.testLedger)
			t.Run("sessions", w.testSessions)
			t.Run("orphans", w.testOrphans)
			t.Run("consolidation", w.testConsolidation)
			t.Run("reconcile", w.testReconcile)
			t.Run("excluded", w.testExcluded)
			t.Run("tokens", w.testTokens)
			t.Run("owed", w.testOwed)
			t.Run("requests", w.testRequests)
			t.Run("refusals", w.testRefusals)
			t.Run("notes", w.testNotes)
			t.Run("prune", w.testPrune)
		})
	}
}

func (w *world) testJobs(t *testing.T) {
	ctx := t.Context()
	j := w.job(t, "nightly")
	same := j
	same.Next = w.now.Add(2 * time.Hour)
	if got, err := w.PutJob(ctx, same); err != nil || got.Revision != 1 || !got.Next.Equal(j.Next) {
		t.Errorf("the same job again = %+v, %v, want revision 1 and its next tick kept", got, err)
	}
	changed := same
	changed.Spec = []byte(`{"a":2}`)
	if got, err := w.PutJob(ctx, changed); err != nil || got.Revision != 2 || got.ID != j.ID || !got.Next.Equal(same.Next) {
		t.Errorf("a changed job = %+v, %v, want revision 2 and the new tick", got, err)
	}
	changed.Origin = catalog.FromAPI
	if _, err := w.PutJob(ctx, changed); !errors.Is(err, catalog.ErrReadOnly) {
		t.Errorf("a change by the API = %v, want ErrReadOnly", err)
	}
	if err := w.RemoveJob(ctx, "nightly", catalog.FromAPI); !errors.Is(err, catalog.ErrReadOnly) {
		t.Errorf("a removal by the API = %v, want ErrReadOnly", err)
	}
	if all, err := w.Jobs(ctx); err != nil || len(all) != 1 || string(all[0].Spec) != `{"a":2}` {
		t.Errorf("Jobs = %+v, %v", all, err)
	}
	if due, _, err := w.DueJobs(ctx); err != nil || len(due) != 0 {
		t.Errorf("DueJobs = %+v, %v, want none", due, err)
	}
	if err := w.RemoveJob(ctx, j.ID, catalog.FromFile); err != nil {
		t.Error(err)
	}
	if _, err := w.Job(ctx, "nightly"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Job = %v, want ErrNotFound", err)
	}
}

func (w *world) testTick(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "tick", 120)
	busy := w.order(t, vms[7])
	j, err := w.PutJob(ctx, catalog.Job{Name: "tick", Origin: catalog.FromAPI, Enabled: true, Spec: []byte("{}"), Priority: 3, Next: w.now.Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	due, _, err := w.DueJobs(ctx)
	if err != nil || len(due) != 1 || due[0].ID != j.ID {
		t.Fatalf("DueJobs = %+v, %v, want the one", due, err)
	}
	before := w.deliveries(t)
	tick := catalog.Tick{Job: j, For: j.Next, Next: j.Next.Add(24 * time.Hour), Trigger: catalog.Scheduled, Targets: targets(vms)}
	// Repeated by whoever is restarted, also at the same time on two nodes: one does it.
	done := make([]catalog.Ticked, 4)
	var g errgroup.Group
	for n := range done {
		g.Go(func() (err error) {
			done[n], err = w.Tick(ctx, tick)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var sum catalog.Ticked
	repeated := 0
	for _, d := range done {
		sum.Queued, sum.Skipped = sum.Queued+d.Queued, sum.Skipped+d.Skipped
		if d.Repeated {
			repeated++
		}
	}
	if sum.Queued != 119 || sum.Skipped != 1 || repeated != 3 {
		t.Errorf("four times the same tick: %+v, want 119 queued, 1 skipped, 3 repeated", done)
	}
	if n := w.deliveries(t) - before; n != 119 {
		t.Errorf("%d deliveries, want 119", n)
	}
	runs, err := w.Runs(ctx, catalog.RunFilter{JobID: j.ID, Limit: 1000})
	if err != nil || len(runs) != 120 {
		t.Fatalf("%d runs, %v, want 120", len(runs), err)
	}
	for _, r := range runs {
		want := catalog.Queued
		if r.VMID == vms[7].ID {
			want = catalog.Skipped
		}
		if r.State != want || !r.ScheduledFor.Equal(j.Next) || r.Trigger != catalog.Scheduled {
			t.Errorf("run %+v, want it %s for %v", r, want, j.Next)
		}
	}
	// The next one while all are still at work, and one that was missed.
	again, err := w.Job(ctx, "tick")
	if err != nil || !again.Next.Equal(tick.Next) || !again.LastFired.Equal(tick.For) {
		t.Fatalf("the job is %+v, %v", again, err)
	}
	second := catalog.Tick{Job: again, For: again.Next, Next: again.Next.Add(24 * time.Hour), Trigger: catalog.Scheduled, Targets: targets(vms)}
	if got, err := w.Tick(ctx, second); err != nil || got.Skipped != 120 {
		t.Errorf("a tick while all are busy = %+v, %v, want 120 skipped", got, err)
	}
	third := catalog.Tick{Job: again, For: second.Next, Next: second.Next.Add(24 * time.Hour), Trigger: catalog.Scheduled, Targets: targets(vms[:3]), Skip: "missed"}
	if got, err := w.Tick(ctx, third); err != nil || got.Queued != 0 || got.Skipped != 3 {
		t.Errorf("a missed tick = %+v, %v, want 3 skipped", got, err)
	}
	changed := again
	changed.Enabled = false
	if _, err := w.PutJob(ctx, changed); err != nil {
		t.Fatal(err)
	}
	fourth := catalog.Tick{Job: again, For: third.Next, Next: third.Next.Add(time.Hour), Trigger: catalog.Scheduled, Targets: targets(vms)}
	if got, err := w.Tick(ctx, fourth); err != nil || !got.Repeated {
		t.Errorf("a tick of a job that was changed = %+v, %v, want nothing done", got, err)
	}
	if r, err := w.Run(ctx, busy.ID); err != nil || r.State != catalog.Queued {
		t.Errorf("the busy run is %+v, %v", r, err)
	}
}

func (w *world) testStates(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "states", 1)
	r := w.order(t, vms[0])
	f := r.Fence()
	old := journal.Fence{RunID: r.ID, Epoch: r.Epoch - 1}
	if _, err := w.Start(ctx, old); !errors.Is(err, journal.ErrFenced) || codeOf(err) != "SF1904" {
		t.Errorf("Start with an old epoch = %v, want ErrFenced", err)
	}
	if err := w.Advance(ctx, f, "window"); !errors.Is(err, catalog.ErrState) {
		t.Errorf("Advance of a queued run = %v, want ErrState", err)
	}
	if got, err := w.Start(ctx, f); err != nil || got.State != catalog.Running || !got.Started.Equal(w.now) {
		t.Errorf("Start = %+v, %v", got, err)
	}
	if _, err := w.Start(ctx, f); !errors.Is(err, catalog.ErrState) {
		t.Errorf("a second Start = %v, want ErrState", err)
	}
	if err := w.Advance(ctx, f, "window"); err != nil {
		t.Error(err)
	}
	events := []catalog.Event{{Mono: 5 * time.Microsecond, At: w.now, Side: "guest", Kind: "frozen"}, {Mono: time.Second, At: w.now, Side: "vcenter", Kind: "task", Detail: "done"}}
	if err := w.AddEvents(ctx, f, events[:1]); err != nil {
		t.Error(err)
	}
	if epoch, err := w.Epoch(ctx, f); err != nil || int64(epoch) <= f.Epoch {
		t.Errorf("Epoch = %d, %v, want one above the run's %d", epoch, err, f.Epoch)
	}
	later := w.now.Add(10 * time.Minute)
	r, err := w.Again(ctx, f, catalog.Retry{NotBefore: later, Priority: 2, Cause: "freeze_slow", Code: "SF4001"})
	if err != nil || r.State != catalog.Queued || r.Attempt != 2 || r.Epoch <= f.Epoch || !r.NextAttempt.Equal(later) || r.Priority != 2 {
		t.Fatalf("Again = %+v, %v", r, err)
	}
	// Everything that the old epoch still has to say is lost, and nothing of it is written.
	for name, write := range map[string]func() error{
		"Start":      func() error { _, err := w.Start(ctx, f); return err },
		"Epoch":      func() error { _, err := w.Epoch(ctx, f); return err },
		"Advance":    func() error { return w.Advance(ctx, f, "x") },
		"Compensate": func() error { _, err := w.Compensate(ctx, f); return err },
		"Again":      func() error { _, err := w.Again(ctx, f, catalog.Retry{}); return err },
		"Finish":     func() error { _, err := w.Finish(ctx, f, catalog.End{State: catalog.Done}); return err },
		"AddEvents":  func() error { return w.AddEvents(ctx, f, events) },
		"Intend": func() error {
			_, err := w.journal.Intend(ctx, journal.Intent{RunID: f.RunID, Epoch: f.Epoch, Step: journal.Window, Subject: "s"})
			return err
		},
		"Memory.Intend": func() error {
			return w.Memory(f).Intend(ctx, statefile.Intent{Kind: statefile.Snapshot, Subject: "s", VM: vms[0].InstanceUUID})
		},
		"Memory.Settle":  func() error { return w.Memory(f).Settle(ctx) },
		"Memory.Record":  func() error { return w.Memory(f).Record(ctx, vms[0].InstanceUUID, admission.Sample{}) },
		"Memory.Acquire": func() error { return w.Memory(f).Acquire(ctx, vms[0].InstanceUUID, f.RunID) },
		"Hear":           func() error { return w.Hear(ctx, f, catalog.Heard{BootID: "boot"}) },
		"KeepSnapshot":   func() error { return w.KeepSnapshot(ctx, f, "s", "snapshot-1", later) },
	} {
		if err := write(); !errors.Is(err, journal.ErrFenced) {
			t.Errorf("%s with the old epoch = %v, want ErrFenced", name, err)
		}
	}
	if got, err := w.Run(ctx, r.ID); err != nil || cmp.Diff(r, got) != "" {
		t.Errorf("the run changed (-want +got), %v:\n%s", err, cmp.Diff(r, got))
	}
	f = r.Fence()
	put, err := w.Again(ctx, f, catalog.Retry{SameAttempt: true})
	if err != nil || put.Attempt != 2 || put.Priority != 2 {
		t.Errorf("put back = %+v, %v, want the same attempt", put, err)
	}
	f = put.Fence()
	if _, err := w.Start(ctx, f); err != nil {
		t.Fatal(err)
	}
	end := catalog.End{
		State: catalog.Done, Outcome: "ok", Level: freezewindow.Application, Mode: freezewindow.ModeIO, Report: []byte(`{"x":1}`), BytesRead: 5, BytesStored: 3,
		Events: events[1:], Road: "guestops", Point: w.now.Add(-time.Hour),
	}
	r, err = w.Finish(ctx, f, end)
	if err != nil || r.State != catalog.Done || !r.Finished.Equal(w.now) || string(r.Report) != `{"x":1}` || r.Level != freezewindow.Application {
		t.Errorf("Finish = %+v, %v", r, err)
	}
	if _, err := w.Finish(ctx, f, end); !errors.Is(err, catalog.ErrState) {
		t.Errorf("a second Finish = %v, want ErrState", err)
	}
	if got, err := w.Events(ctx, r.ID); err != nil || cmp.Diff(events, got) != "" {
		t.Errorf("Events (-want +got), %v:\n%s", err, cmp.Diff(events, got))
	}
	v, err := w.VM(ctx, vms[0].ID)
	days, known := v.DaysSinceApplication(w.now)
	if err != nil || v.LastOKRun != r.ID || v.Road != "guestops" || !known || math.Abs(days-1./24) > 1e-9 {
		t.Errorf("the VM is %+v, %v, %v days, %v", v, err, days, known)
	}
	// A worse run does not make the last good point younger.
	f = w.order(t, vms[0]).Fence()
	if _, err := w.Finish(ctx, f, catalog.End{State: catalog.Failed, Cause: "deadman"}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.VM(ctx, v.ID); err != nil || got.ConsecutiveFailures != 1 || got.LastOKRun != r.ID || !got.LastApplication.Equal(v.LastApplication) || got.Road != "guestops" {
		t.Errorf("after a failure the VM is %+v, %v", got, err)
	}
}

func (w *world) testList(t *testing.T) {
	ctx := t.Context()
	var want []string
	for _, vm := range w.vms(t, "list", 25) {
		want = append([]string{w.order(t, vm).ID}, want...)
	}
	var got []string
	f := catalog.RunFilter{VCenter: "list", Unfinished: true, Limit: 10}
	for {
		page, err := w.Runs(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			got = append(got, r.ID)
		}
		if len(page) < 10 {
			break
		}
		f.Before = page[len(page)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("three pages (-want +got):\n%s", diff)
	}
	if all, err := w.Runs(ctx, catalog.RunFilter{VCenter: "list", State: catalog.Done}); err != nil || len(all) != 0 {
		t.Errorf("Runs that are done = %d, %v, want none", len(all), err)
	}
}

func (w *world) testOneRun(t *testing.T) {
	ctx := t.Context()
	vm := w.vms(t, "one", 1)[0]
	r := w.order(t, vm)
	var busy *catalog.BusyError
	if _, err := w.Order(ctx, catalog.Order{Kind: catalog.Backup, VMID: vm.ID}); !errors.As(err, &busy) || busy.Run != r.ID || codeOf(err) != "SF1103" {
		t.Errorf("a second backup = %v, want SF1103 of run %s", err, r.ID)
	}
	if _, err := w.Order(ctx, catalog.Order{Kind: catalog.Restore, VMID: vm.ID}); err != nil {
		t.Errorf("a restore beside it = %v", err)
	}
	if _, err := w.Order(ctx, catalog.Order{Kind: catalog.Backup, VMID: "none"}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a backup of an unknown VM = %v, want ErrNotFound", err)
	}
	if _, err := w.Compensate(ctx, r.Fence()); err != nil {
		t.Error(err)
	}
	if _, err := w.Order(ctx, catalog.Order{Kind: catalog.Backup, VMID: vm.ID}); !errors.As(err, &busy) {
		t.Errorf("a backup while one is undone = %v, want SF1103", err)
	}
	// All at once: one gets it.
	if _, err := w.Finish(ctx, r.Fence(), catalog.End{State: catalog.Failed}); err != nil {
		t.Fatal(err)
	}
	got := make([]error, 8)
	var g errgroup.Group
	for n := range got {
		g.Go(func() error { _, got[n] = w.Order(ctx, catalog.Order{Kind: catalog.Backup, VMID: vm.ID}); return nil })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, err := range got {
		if err == nil {
			made++
		} else if !errors.As(err, &busy) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d of 8 orders were taken, want 1", made)
	}
}

func (w *world) testVM(t *testing.T) {
	ctx := t.Context()
	first := w.vms(t, "inventory", 5)
	w.now = w.now.Add(time.Minute)
	again := w.vms(t, "inventory", 6)
	for n, v := range again {
		if known := n < 5; known != v.FirstSeen.Before(v.Seen) || known && v.ID != first[n].ID {
			t.Errorf("VM %d is %+v", n, v)
		}
	}
	page, err := w.VMs(ctx, catalog.VMFilter{VCenter: "inventory", Limit: 4})
	if err != nil || len(page) != 4 {
		t.Fatalf("%d VMs, %v, want 4", len(page), err)
	}
	if rest, err := w.VMs(ctx, catalog.VMFilter{VCenter: "inventory", After: page[3]}); err != nil || len(rest) != 2 || rest[0].ID != again[4].ID {
		t.Errorf("the second page = %+v, %v", rest, err)
	}
	if one, err := w.VMs(ctx, catalog.VMFilter{InstanceUUID: "inventory-3"}); err != nil || len(one) != 1 {
		t.Errorf("by instance UUID: %+v, %v", one, err)
	}
	if _, err := w.VM(ctx, "none"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("VM = %v, want ErrNotFound", err)
	}
}

func (w *world) testMemory(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "memory", 2)
	uuid := vms[0].InstanceUUID
	r := w.order(t, vms[0])
	m := w.Memory(r.Fence())
	if err := m.Acquire(ctx, uuid, r.ID); err != nil {
		t.Errorf("Acquire = %v", err)
	}
	if err := m.Acquire(ctx, vms[1].InstanceUUID, r.ID); err == nil {
		t.Error("Acquire of another VM is allowed")
	}
	want := []statefile.Intent{
		{Kind: statefile.Snapshot, Subject: fmt.Sprintf("stillframe-%s-%d", r.ID, r.Epoch), Run: r.ID, Epoch: uint64(r.Epoch), VCenter: "vc.example", VM: uuid, Path: "/dc/vm/0", Moref: "vm-0", At: w.now},
		{Kind: statefile.Folder, Subject: "/var/lib/x", Run: r.ID, Epoch: uint64(r.Epoch), VCenter: "vc.example", VM: uuid, At: w.now},
		{Kind: statefile.Process, Subject: "/var/lib/x", Run: r.ID, Epoch: uint64(r.Epoch), VCenter: "vc.example", VM: uuid, At: w.now},
	}
	for _, i := range want {
		for range 2 {
			if err := m.Intend(ctx, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := m.Intents(ctx, uuid)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Intents (-want +got), %v:\n%s", err, diff)
	}
	if got, err := m.Intents(ctx, vms[1].InstanceUUID); err != nil || len(got) != 0 {
		t.Errorf("Intents of another VM = %v, %v", got, err)
	}
	if s, err := w.Snapshots(ctx, catalog.SnapshotFilter{RunID: r.ID}); err != nil || len(s) != 1 || s[0].Name != want[0].Subject || s[0].State != catalog.SnapshotIntent {
		t.Errorf("the ledger has %+v, %v", s, err)
	}
	// The owner dies; the new one cleans up by its own epoch.
	again, err := w.Again(ctx, r.Fence(), catalog.Retry{})
	if err != nil {
		t.Fatal(err)
	}
	m = w.Memory(again.Fence())
	if err := m.Settle(ctx, want[0], want[2]); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Intents(ctx, uuid); err != nil || cmp.Diff(want[1:2], got) != "" {
		t.Errorf("after the settling: %v, %v", got, err)
	}
	if s, err := w.Snapshots(ctx, catalog.SnapshotFilter{RunID: r.ID}); err != nil || len(s) != 0 {
		t.Errorf("the ledger has %+v, %v, want it removed", s, err)
	}
}

func (w *world) testJournal(t *testing.T) {
	ctx := t.Context()
	r := w.order(t, w.vms(t, "journal", 1)[0])
	var all []journal.Pending
	for n, step := range []journal.Step{journal.Window, journal.Snapshot, journal.Transfer} {
		p, err := w.journal.Intend(ctx, journal.Intent{RunID: r.ID, Epoch: r.Epoch, Step: step, Subject: fmt.Sprint("s", n), Detail: map[string]int{"n": n}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if _, err := w.journal.Intend(ctx, journal.Intent{RunID: r.ID, Epoch: r.Epoch, Step: journal.Window}); err == nil {
		t.Error("an intent without a subject is taken")
	}
	if err := all[0].Settled(ctx, journal.Done, nil); err != nil {
		t.Fatal(err)
	}
	if err := all[1].Settled(ctx, journal.Done, journal.Made{Moref: "snapshot-7", Task: "task-9"}); err != nil {
		t.Fatal(err)
	}
	if s, err := w.Snapshots(ctx, catalog.SnapshotFilter{RunID: r.ID}); err != nil || len(s) != 1 || s[0].Moref != "snapshot-7" || s[0].State != catalog.SnapshotCreated {
		t.Errorf("the ledger has %+v, %v", s, err)
	}
	open, err := w.journal.Open(ctx, "journal")
	if err != nil || len(open) != 1 || open[0].Subject != "s2" || open[0].Epoch != r.Epoch {
		t.Fatalf("Open = %+v, %v, want the transfer", open, err)
	}
	if detail, ok := open[0].Detail.(interface{ MarshalJSON() ([]byte, error) }); !ok {
		t.Errorf("the detail is %T", open[0].Detail)
	} else if text, err := detail.MarshalJSON(); err != nil || string(text) != `{"n":2}` {
		t.Errorf("the detail is %s, %v", text, err)
	}
	again, err := w.Again(ctx, r.Fence(), catalog.Retry{})
	if err != nil {
		t.Fatal(err)
	}
	if err := open[0].Settled(ctx, journal.Done, nil); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("Settled by the old owner = %v, want ErrFenced", err)
	}
	if open, err = w.journal.Open(ctx, "journal"); err != nil || len(open) != 1 || open[0].Epoch != r.Epoch {
		t.Fatalf("Open = %+v, %v, want the transfer with the epoch that it was begun with", open, err)
	}
	for range 2 {
		if err := open[0].Settled(ctx, journal.Compensated, nil); err != nil {
			t.Errorf("Settled by the owner of epoch %d = %v", again.Epoch, err)
		}
	}
	if open, err = w.journal.Open(ctx, ""); err != nil {
		t.Error(err)
	}
	for _, p := range open {
		if p.RunID == r.ID {
			t.Errorf("still open: %+v", p)
		}
	}
}

func (w *world) testHistory(t *testing.T) {
	ctx := t.Context()
	vm := w.vms(t, "history", 1)[0]
	m := w.Memory(w.order(t, vm).Fence())
	var want []admission.Sample
	for n := range admission.Keep + 3 {
		s := admission.Sample{
			At: w.now.Add(time.Duration(n-100) * time.Hour), Freeze: 120 * time.Millisecond, Snapshot: time.Duration(n) * time.Second, Thaw: 15 * time.Millisecond,
			Late: n%2 == 0, HoldTimeout: n%3 == 0, Mode: freezewindow.ModeIO, Road: "guestops", Channel: "direct",
		}
		want = append(want, s)
		if err := m.Record(ctx, vm.InstanceUUID, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.Windows(ctx, vm.InstanceUUID)
	if diff := cmp.Diff(want[3:], got); diff != "" || err != nil {
		t.Errorf("Windows (-want +got), %v:\n%s", err, diff)
	}
	if got, err := w.History(ctx, vm.ID); err != nil || len(got) != admission.Keep {
		t.Errorf("History has %d, %v", len(got), err)
	}
	if got, err := m.Windows(ctx, "other"); err != nil || len(got) != 0 {
		t.Errorf("Windows of another VM = %v, %v", got, err)
	}
	if err := m.Record(ctx, "other", want[0]); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Record of another VM = %v, want ErrNotFound", err)
	}
	// The clock is set back by a week: nothing lies in the future.
	now := w.now
	w.now = w.now.Add(-7 * 24 * time.Hour)
	got, err = m.Windows(ctx, vm.InstanceUUID)
	w.now = now
	for _, s := range got {
		if s.At.After(now.Add(-7 * 24 * time.Hour)) {
			t.Errorf("a window lies at %v, %v", s.At, err)
		}
	}
}

// lease makes the world the owner of a vCenter.
func (w *world) lease(t *testing.T, vcenter string, epoch int64) catalog.Owner {
	t.Helper()
	err := w.store.Update(t.Context(), "take", func(tx store.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO vcenter_leases (vcenter_id, owner_node, epoch, lease_until, updated_at) VALUES ($1, 'n', $2, 0, 0)
			ON CONFLICT (vcenter_id) DO UPDATE SET epoch = EXCLUDED.epoch`, vcenter, epoch)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Owner{VCenter: vcenter, Epoch: epoch}
}

func (w *world) testLedger(t *testing.T) {
	ctx := t.Context()
	vm := w.vms(t, "ledger", 1)[0]
	r := w.order(t, vm)
	zombie, owner := w.lease(t, "ledger", 1), w.lease(t, "ledger", 2)
	find := func(f catalog.SnapshotFilter) map[string]catalog.Snapshot {
		f.VCenter = "ledger"
		all, err := w.Snapshots(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]catalog.Snapshot{}
		for _, s := range all {
			by[s.Name] = s
		}
		return by
	}
	if _, err := w.journal.Intend(ctx, journal.Intent{RunID: r.ID, Epoch: r.Epoch, Step: journal.Snapshot, Subject: "kept"}); err != nil {
		t.Fatal(err)
	}
	if err := w.KeepSnapshot(ctx, r.Fence(), "kept", "snapshot-1", w.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := w.KeepSnapshot(ctx, r.Fence(), "none", "snapshot-1", w.now); !errors.Is(err, catalog.ErrState) {
		t.Errorf("KeepSnapshot of an unknown one = %v, want ErrState", err)
	}
	seen := catalog.Inventory{At: w.now, Installation: "we", Before: 1, Epoch: 1, VMs: []catalog.SeenVM{{ID: vm.ID, Moref: vm.Moref, Snapshots: []catalog.SeenSnapshot{
		{Name: "kept", RunID: r.ID, Epoch: r.Epoch, Installation: "we"},
		{Name: "orphan", Moref: "snapshot-2", RunID: "gone", Epoch: 1, Installation: "we", Created: w.now},
		{Name: "foreign", Moref: "snapshot-3", RunID: "gone", Epoch: 1, Installation: "they", Created: w.now},
	}}}}
	if _, err := w.TakeIn(ctx, zombie, seen); codeOf(err) != "SF1903" {
		t.Errorf("TakeIn by the old owner = %v, want SF1903", err)
	}
	for range 2 {
		if _, err := w.TakeIn(ctx, owner, seen); err != nil {
			t.Fatal(err)
		}
	}
	if got := find(catalog.SnapshotFilter{}); len(got) != 3 || got["kept"].State != catalog.SnapshotInUse || got["foreign"].State != catalog.Foreign {
		t.Errorf("the ledger is %+v", got)
	}
	if got := find(catalog.SnapshotFilter{Due: true}); len(got) != 1 || got["orphan"].Name == "" {
		t.Errorf("due is %+v, want the orphan", got)
	}
	w.now = w.now.Add(time.Hour)
	due := find(catalog.SnapshotFilter{Due: true})
	if len(due) != 2 || due["kept"].Name == "" {
		t.Errorf("an hour later due is %+v, want the kept one too", due)
	}
	if err := w.RequestRemoval(ctx, find(catalog.SnapshotFilter{})["foreign"].ID); !errors.Is(err, catalog.ErrState) {
		t.Errorf("RequestRemoval of a foreign one = %v, want ErrState", err)
	}
	id := due["orphan"].ID
	if err := w.Removed(ctx, owner, id, catalog.Removal{Err: "busy", Task: "task-1", Next: w.now.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if got := find(catalog.SnapshotFilter{Due: true}); len(got) != 1 {
		t.Errorf("right after an attempt due is %+v", got)
	}
	if got := find(catalog.SnapshotFilter{})["orphan"]; got.Attempts != 1 || got.LastError != "busy" || got.Task != "task-1" {
		t.Errorf("after an attempt it is %+v", got)
	}
	if err := w.Removed(ctx, zombie, id, catalog.Removal{Gone: "not listed"}); codeOf(err) != "SF1903" {
		t.Errorf("Removed by the old owner = %v, want SF1903", err)
	}
	if err := w.Removed(ctx, owner, id, catalog.Removal{Gone: "not listed"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Removed(ctx, owner, due["kept"].ID, catalog.Removal{Lost: true, Err: "the VM is gone"}); err != nil {
		t.Fatal(err)
	}
	if got := find(catalog.SnapshotFilter{}); len(got) != 2 || got["kept"].State != catalog.Lost {
		t.Errorf("the ledger is %+v, want the lost and the foreign one", got)
	}
}

func (w *world) testSessions(t *testing.T) {
	ctx := t.Context()
	vm := w.vms(t, "sessions", 1)[0]
	leaks := func() catalog.Leak {
		all, err := w.Leaks(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.VMID == vm.ID {
				return l
			}
		}
		return catalog.Leak{}
	}
	for n := range 4 {
		r := w.order(t, vm)
		h := catalog.Heard{BootID: "boot1", Session: fmt.Sprint("session", n), SetID: fmt.Sprint("set", n), State: catalog.SessionClosed, Opened: w.now}
		if n%2 != 0 {
			h.State = catalog.CompleteSent
		}
		if n == 3 { // its attempt is put back first, and says so again when the run has ended
			var err error
			if r, err = w.Again(ctx, r.Fence(), catalog.Retry{Heard: h}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Hear(ctx, r.Fence(), h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(ctx, r.Fence(), catalog.End{State: catalog.Done, Heard: h}); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Hour)
	}
	l := leaks()
	if l.Ours != 2 || l.Foreign != 0 || l.Runs != 3 {
		t.Errorf("leaks are %+v, want 2 of ours in 3 runs", l)
	}
	if left, ok := l.RunsLeft(); !ok || left != 93 { // 62 more, at 2 in 3 runs
		t.Errorf("RunsLeft = %d, %v, want 93", left, ok)
	}
	if l.VCenter != vm.VCenter {
		t.Errorf("the leak is at vCenter %q, want %q", l.VCenter, vm.VCenter)
	}
	tell := func(r catalog.Run, h catalog.Heard) catalog.Run {
		t.Helper()
		if err := w.Hear(ctx, r.Fence(), h); err != nil {
			t.Fatal(err)
		}
		return r
	}
	// The guest's log names sets whose sessions were overwritten: one of ours is in the ledger already.
	r := tell(w.order(t, vm), catalog.Heard{BootID: "boot1", LostSets: []string{"f1", "f2", "set1"}})
	if _, err := w.Finish(ctx, r.Fence(), catalog.End{State: catalog.Done, Heard: catalog.Heard{BootID: "boot1", LostSets: []string{"f2"}}}); err != nil {
		t.Fatal(err)
	}
	if l := leaks(); l.Ours != 2 || l.Foreign != 2 || cmp.Diff([]string{"f1", "f2"}, sorted(l.ForeignSets)) != "" {
		t.Errorf("leaks are %+v, want two of others", l)
	}
	if open, err := w.OpenSessions(ctx, vm.ID); err != nil || len(open) != 4 {
		t.Errorf("OpenSessions = %+v, %v, want 4", open, err)
	}
	// A new boot has none of them.
	last := tell(w.order(t, vm), catalog.Heard{BootID: "boot2", Session: "session9", SetID: "set9", State: catalog.SessionThawed, Opened: w.now})
	if open, err := w.OpenSessions(ctx, vm.ID); err != nil || len(open) != 1 || open[0].Session != "session9" {
		t.Errorf("after a reboot OpenSessions = %+v, %v, want the new one", open, err)
	}
	w.now = w.now.Add(time.Hour)
	if l := leaks(); l.Ours != 0 { // its run is at work
		t.Errorf("leaks are %+v, want none", l)
	}
	// A VM that is gone has none either.
	if err := w.Vanished(ctx, last.Fence()); err != nil {
		t.Fatal(err)
	}
	if open, err := w.OpenSessions(ctx, vm.ID); err != nil || len(open) != 0 {
		t.Errorf("OpenSessions of a VM that is gone = %+v, %v, want none", open, err)
	}
	if left, ok := (catalog.Leak{Ours: 70, Runs: 10}).RunsLeft(); !ok || left != 0 {
		t.Errorf("RunsLeft beyond the end = %d, %v", left, ok)
	}
}

func sorted(s []string) []string {
	if len(s) == 2 && s[0] > s[1] {
		return []string{s[1], s[0]}
	}
	return s
}

func (w *world) testTokens(t *testing.T) {
	ctx := t.Context()
	tok, err := w.AddToken(ctx, catalog.Token{Name: "ci", Scope: "viewer", CreatedBy: "uid 0", Expires: w.now.Add(time.Hour)}, "hash")
	if err != nil || tok.ID == "" {
		t.Fatalf("AddToken = %+v, %v", tok, err)
	}
	if _, err := w.AddToken(ctx, catalog.Token{Name: "ci"}, "other"); !errors.Is(err, catalog.ErrState) {
		t.Errorf("a second one of that name = %v, want ErrState", err)
	}
	if got, err := w.UseToken(ctx, "hash"); err != nil || got.Scope != "viewer" {
		t.Errorf("UseToken = %+v, %v", got, err)
	}
	if all, err := w.Tokens(ctx); err != nil || len(all) != 1 || !all[0].LastUsed.Equal(w.now) {
		t.Errorf("Tokens = %+v, %v", all, err)
	}
	if _, err := w.UseToken(ctx, "guess"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("UseToken of a guess = %v, want ErrNotFound", err)
	}
	now := w.now
	w.now = now.Add(time.Hour)
	if _, err := w.UseToken(ctx, "hash"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("UseToken of an expired one = %v, want ErrNotFound", err)
	}
	w.now = now
	if err := w.RevokeToken(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeToken(ctx, "ci"); !errors.Is(err, catalog.ErrState) {
		t.Errorf("a second RevokeToken = %v, want ErrState", err)
	}
	if _, err := w.UseToken(ctx, "hash"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("UseToken of a revoked one = %v, want ErrNotFound", err)
	}
}

// testOwed: what a vCenter owes is made once, and the next tick takes its place.
func (w *world) testOwed(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "owed", 2)
	j, err := w.PutJob(ctx, catalog.Job{Name: "owed", Origin: catalog.FromAPI, Enabled: true, Spec: []byte("{}"), Priority: 3, Next: w.now})
	if err != nil {
		t.Fatal(err)
	}
	tick := catalog.Tick{Job: j, For: w.now, Next: w.now.Add(time.Hour), Trigger: catalog.Scheduled, Owed: []string{"owed", "away"}}
	if done, err := w.Tick(ctx, tick); err != nil || done.Replaced != 0 || done.Queued != 0 {
		t.Fatalf("Tick = %+v, %v", done, err)
	}
	owed, _, err := w.Owed(ctx)
	if err != nil || len(owed) != 2 || owed[1].VCenter != "owed" || owed[1].Tick.Job.ID != j.ID || !owed[1].Tick.For.Equal(tick.For) {
		t.Fatalf("Owed = %+v, %v, want away and owed", owed, err)
	}
	if done, err := w.Paid(ctx, owed[1], targets(vms)); err != nil || done.Queued != 2 || done.Rest != 1 || done.Runs != 2 {
		t.Errorf("Paid = %+v, %v, want 2 queued and 1 vCenter left", done, err)
	}
	if done, err := w.Paid(ctx, owed[1], targets(vms)); err != nil || !done.Repeated {
		t.Errorf("Paid again = %+v, %v, want nothing done", done, err)
	}
	tick.For, tick.Next = tick.Next, tick.Next.Add(time.Hour)
	if done, err := w.Tick(ctx, tick); err != nil || done.Replaced != 1 {
		t.Errorf("the next Tick = %+v, %v, want 1 replaced", done, err)
	}
	if done, err := w.Paid(ctx, owed[0], nil); err != nil || !done.Repeated {
		t.Errorf("Paid of one that was replaced = %+v, %v, want nothing done", done, err)
	}
	if err := w.RemoveJob(ctx, j.ID, catalog.FromAPI); err != nil {
		t.Fatal(err)
	}
	if owed, _, err := w.Owed(ctx); err != nil || len(owed) != 0 {
		t.Errorf("Owed without the job = %+v, %v, want none", owed, err)
	}
}

func (w *world) testRequests(t *testing.T) {
	ctx := t.Context()
	r := catalog.Request{Principal: "uid 0", Key: "k", SHA256: "a"}
	for _, mine := range []string{"first", "second"} {
		if kept, err := w.Claim(ctx, r, mine); err != nil || kept != "first" {
			t.Errorf("Claim(%s) = %q, %v, want first", mine, kept, err)
		}
	}
	if _, err := w.Claim(ctx, catalog.Request{Principal: "uid 0", Key: "k", SHA256: "b"}, "other"); !errors.Is(err, catalog.ErrKeyReused) {
		t.Errorf("Claim for another request = %v, want ErrKeyReused", err)
	}
	now := w.now
	defer func() { w.now = now }()
	w.now = now.Add(25 * time.Hour)
	if kept, err := w.Claim(ctx, r, "later"); err != nil || kept != "later" {
		t.Errorf("Claim a day later = %q, %v, want later", kept, err)
	}
}

func (w *world) testRefusals(t *testing.T) {
	ctx := t.Context()
	if err := w.Tried(ctx, "root", "hunter2"); err != nil {
		t.Errorf("Tried of an unknown one = %v", err)
	}
	if err := w.Refuse(ctx, "root", "hunter2", "SF3001"); err != nil {
		t.Fatal(err)
	}
	if err := w.Tried(ctx, "root", "hunter2"); codeOf(err) != "SF1104" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Tried of the refused one = %v, want SF1104", err)
	}
	if err := w.Tried(ctx, "root", "hunter3"); err != nil {
		t.Errorf("Tried of a changed one = %v", err)
	}
	now := w.now
	for _, step := range []time.Duration{16 * time.Minute, -16 * time.Minute} {
		w.now = now.Add(step)
		if err := w.Tried(ctx, "root", "hunter2"); err != nil {
			t.Errorf("Tried after a step of %v = %v", step, err)
		}
	}
	w.now = now
}

// testPrune comes last: it forgets what the others have left.
func (w *world) testPrune(t *testing.T) {
	ctx := t.Context()
	vms := w.vms(t, "prune", 3)
	var ended []catalog.Run
	for n, vm := range vms {
		r := w.order(t, vm)
		if n == 2 {
			if _, err := w.journal.Intend(ctx, journal.Intent{RunID: r.ID, Epoch: r.Epoch, Step: journal.Folder, Subject: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		state := catalog.Failed
		if n == 1 {
			state = catalog.Done
		}
		if _, err := w.Finish(ctx, r.Fence(), catalog.End{State: state, Events: []catalog.Event{{Kind: "x"}}}); err != nil {
			t.Fatal(err)
		}
		ended = append(ended, r)
	}
	active := w.order(t, vms[0])
	if n, err := w.Prune(ctx, w.now.Add(time.Hour)); err != nil || n == 0 {
		t.Errorf("Prune = %d, %v", n, err)
	}
	for n, want := range []bool{false, true, true} { // the last good one and the one with an open intent stay
		if _, err := w.Run(ctx, ended[n].ID); (err == nil) != want {
			t.Errorf("run %d is there: %v, want %v", n, err == nil, want)
		}
	}
	if _, err := w.Run(ctx, active.ID); err != nil {
		t.Error(err)
	}
}

func (w *world) testNotes(t *testing.T) {
	ctx := t.Context()
	if text, err := w.Note(ctx, statefile.WaysNote, "a"); text != nil || err != nil {
		t.Errorf("Note of an unknown key = %s, %v", text, err)
	}
	for _, text := range []string{`{"n":1}`, `{"n":2}`} {
		if err := w.Keep(ctx, statefile.WaysNote, "a", json.RawMessage(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Keep(ctx, statefile.WaysNote, "b", json.RawMessage(`{}`)), w.Keep(ctx, statefile.NoteKind("other"), "a", json.RawMessage(`{"x":1}`))); err != nil {
		t.Fatal(err)
	}
	if text, err := w.Note(ctx, statefile.WaysNote, "a"); string(text) != `{"n":2}` || err != nil {
		t.Errorf("Note = %s, %v, want the last one", text, err)
	}
	if err := w.Keep(ctx, statefile.WaysNote, "b", nil); err != nil {
		t.Fatal(err)
	}
	notes, err := w.Notes(ctx, statefile.WaysNote)
	if len(notes) != 1 || string(notes["a"]) != `{"n":2}` || err != nil {
		t.Errorf("Notes = %s, %v, want the one of a", notes, err)
	}
}
