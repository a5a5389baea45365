package main

import (
	"crypto/sha256"
	"os"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	orchestrator "github.com/stillframe/stillframe/pkg/guest"
)

// An agent that dials listens nowhere, proves itself to its orchestrator only, and dials again when the link is lost.
func TestRunDialsOut(t *testing.T) {
	exe := build(t, nil, "lab")
	own, fingerprint := identity(t)
	reverser, err := orchestrator.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reverser.Close(); err != nil {
			t.Error(err)
		}
	})
	caller, err := reverser.Expect("d1")
	if err != nil {
		t.Fatal(err)
	}
	script := listenScript(t)
	p := launchWith(t, exe, fingerprint, []string{"--dial", reverser.Addr().String()}, "STILLFRAME_LAB_FREEZER=unix:"+script.path)
	if p.address != "127.0.0.1:0" {
		t.Errorf("READY has the port of %s, want 0", p.address)
	}
	caller.Prove(own, p.fingerprint)
	sum, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	s, err := orchestrator.Connect(t.Context(), orchestrator.Peer{
		Await: caller.Await, Own: own, Fingerprint: p.fingerprint, Deployment: "d1", VMUUID: testUUID, SHA256: sha256.Sum256(sum), Run: "r1", Epoch: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Arm(t.Context(), orchestrator.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()}); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Hold: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	said[freezewindow.GuestFrozen](t, s)
	if err := s.Resume(t.Context()); err != nil { // which cuts the link
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), freezewindow.Word{Go: 7, Thaw: freezewindow.Deadline}); err != nil {
		t.Fatal(err)
	}
	if told := said[freezewindow.GuestThawed](t, s); told.Release.ExpiredBy != "link_lost" {
		t.Errorf("the guest was released by %q, want link_lost", told.Release.ExpiredBy)
	}
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	p.ended(t, 15*time.Second)
}

// said waits for what the guest says.
func said[E freezewindow.Event](t *testing.T, s *orchestrator.Session) E {
	t.Helper()
	for {
		select {
		case e := <-s.Events():
			if got, ok := e.Event.(E); ok {
				return got
			}
		case <-time.After(20 * time.Second):
			var none E
			t.Fatalf("%T did not come", none)
			return none
		}
	}
}
