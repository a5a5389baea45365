package vcenter_test

import (
	"context"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

func TestOutage(t *testing.T) {
	s := start(t, vcenter.Options{User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	now := func() error { _, err := methods.GetCurrentTime(t.Context(), c.Client); return err }
	if err := now(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := now(); err == nil {
		t.Error("a vCenter that has gone answered")
	}
	before := s.Thumbprint()
	if err := s.Restart(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := now(); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("after a restart the session gave %v, want NotAuthenticated", err)
	}
	if err := c.Login(t.Context(), s.URL().User); err == nil {
		t.Error("a login without a name worked")
	}
	if s.Thumbprint() != before {
		t.Error("the certificate changed by itself")
	}
	if err := s.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if s.Thumbprint() == before {
		t.Error("the certificate did not change")
	}
	connect(t, s)
}

func TestSilence(t *testing.T) {
	s := start(t, vcenter.Options{User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	s.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := methods.GetCurrentTime(ctx, c.Client); err == nil {
		t.Error("a silent vCenter answered")
	}
	s.Speak()
	if _, err := methods.GetCurrentTime(t.Context(), c.Client); err != nil {
		t.Errorf("after the silence: %v", err)
	}
}

// TestSessionDroppedDuringWait: the long poll ends in NotAuthenticated, and a new login works.
func TestSessionDroppedDuringWait(t *testing.T) {
	s := start(t, vcenter.Options{User: "u", Password: "p", VMs: []vcenter.VM{{Name: "a"}}})
	c := connect(t, s)
	w := newWatcher(t, c)
	ended := make(chan error, 1)
	go func() {
		for version := ""; ; {
			set, err := w.wait(t.Context(), version)
			if err != nil {
				ended <- err
				return
			}
			version = set.Version
		}
	}()
	eventually(t, "the wait", func() bool { return count(s.Calls(), "WaitForUpdatesEx") > 0 })
	s.DropSessions()
	select {
	case err := <-ended:
		if !fault.Is(err, &types.NotAuthenticated{}) {
			t.Errorf("the wait ended in %v, want NotAuthenticated", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the wait did not end")
	}
	connect(t, s)
}

// TestTasksThatHangAndQueue: a task that hangs keeps the only slot until it is ended.
func TestTasksThatHangAndQueue(t *testing.T) {
	plan := vcenter.TaskPlan{Run: 20 * time.Millisecond, Hang: true}
	s := start(t, vcenter.Options{User: "u", Password: "p", TaskSlots: 1, VMs: []vcenter.VM{{Name: "a", Create: plan}, {Name: "b"}}})
	c := connect(t, s)
	first, err := machine(t, c, "a").CreateSnapshot(t.Context(), "one", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	second, err := machine(t, c, "b").CreateSnapshot(t.Context(), "two", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := first.Wait(ctx); err == nil {
		t.Error("a task that hangs ended")
	}
	if names := append(s.SnapshotNames("a"), s.SnapshotNames("b")...); len(names) != 0 {
		t.Errorf("snapshots %v, want none: one hangs, the other waits for its slot", names)
	}
	if err := s.EndTasks("a"); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
