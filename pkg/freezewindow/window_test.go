package freezewindow_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// scriptedGuest answers words as a script says. Its delays are odd, so that no two events fall on one instant.
type scriptedGuest struct {
	events chan freezewindow.GuestEvent
	onGo   func(*scriptedGuest)
	onThaw func(*scriptedGuest, int) // with the number of the THAW
	resume func(*scriptedGuest, int) error

	mu      sync.Mutex
	start   time.Time
	words   []string // kind and time of each word but heartbeats
	thaws   int
	beats   int
	resumes int
}

func newGuest() *scriptedGuest {
	return &scriptedGuest{
		events: make(chan freezewindow.GuestEvent, 64), start: time.Now(),
		onGo:   func(g *scriptedGuest) { g.after(1003*time.Millisecond, freeze()) },
		onThaw: func(g *scriptedGuest, _ int) { g.after(21*time.Millisecond, thaw(goodRelease())) },
		resume: func(*scriptedGuest, int) error { return nil },
	}
}

func freeze() freezewindow.Event {
	return freezewindow.GuestFrozen{Go: 7, Mode: freezewindow.ModeFS, Hold: ms(403), SinceGo: ms(1003), Left: ms(17597)}
}

func thaw(r freezewindow.Release) freezewindow.Event {
	return freezewindow.GuestThawed{Go: 7, Final: true, Release: r}
}

func (g *scriptedGuest) after(d time.Duration, e freezewindow.Event) {
	time.AfterFunc(d, func() { g.events <- freezewindow.GuestEvent{Received: time.Now(), Event: e} })
}

func (g *scriptedGuest) Send(_ context.Context, w freezewindow.Word) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := time.Since(g.start).String()
	switch {
	case w.Hold > 0:
		g.words = append(g.words, "go "+at)
		if g.onGo == nil {
			g.after(1, freezewindow.LinkLost{Err: errBroken})
			return errBroken
		}
		g.onGo(g)
	case w.Thaw != "":
		g.thaws++
		g.words = append(g.words, "thaw "+string(w.Thaw)+" "+at)
		g.onThaw(g, g.thaws)
	default:
		g.beats++
	}
	return nil
}

func (g *scriptedGuest) Events() <-chan freezewindow.GuestEvent { return g.events }

func (g *scriptedGuest) Resume(context.Context) error {
	time.Sleep(5 * time.Millisecond)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resumes++
	return g.resume(g, g.resumes)
}

// snapshotter takes its time over the snapshot, and listens to its context or does not.
type snapshotter struct {
	takes     time.Duration
	err       error
	deaf      bool
	cancelled chan struct{}
}

func newSnapshotter(takes time.Duration) *snapshotter {
	return &snapshotter{takes: takes, cancelled: make(chan struct{})}
}

func (s *snapshotter) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	time.Sleep(31 * time.Millisecond)
	accepted("task-1")
	wait := time.NewTimer(s.takes - 31*time.Millisecond)
	defer wait.Stop()
	listen := ctx.Done()
	if s.deaf {
		listen = nil
	}
	select {
	case <-wait.C:
		return inventory.Snapshot{Name: "stillframe-r-1", Moref: "snapshot-1"}, inventory.Timing{}, s.err
	case <-listen:
		close(s.cancelled)
		return inventory.Snapshot{}, inventory.Timing{}, context.Cause(ctx)
	}
}

var errBroken = errors.New("broken pipe")

// vsphereError is what *vsphere.Error looks like to the window.
type vsphereError struct{ unknown bool }

func (vsphereError) Error() string          { return "the datastore is full" }
func (vsphereError) Code() string           { return "SF2206" }
func (e vsphereError) OutcomeUnknown() bool { return e.unknown }

type goneError struct{}

func (goneError) Error() string { return "connection refused" }
func (goneError) Gone() bool    { return true }

// window runs one window; its words and what it found are compared by the caller. A goroutine that it leaves behind makes
// the bubble fail.
func window(ctx context.Context, g *scriptedGuest, s freezewindow.Snapshotter) (freezewindow.Report, *freezewindow.Pending) {
	return freezewindow.Run(ctx, freezewindow.DefaultBudget(), stepReady(), g, s)
}

func (g *scriptedGuest) said(t *testing.T, want ...string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if diff := cmp.Diff(want, g.words); diff != "" {
		t.Errorf("words to the guest (-want +got):\n%s", diff)
	}
}

func verdict(t *testing.T, r freezewindow.Report, level freezewindow.Level, cause freezewindow.Cause) {
	t.Helper()
	if r.Verdict.Level != level || r.Verdict.Cause != cause {
		t.Errorf("verdict %s because of %q, want %s because of %q: %q", r.Verdict.Level, r.Verdict.Cause, level, cause, r.Verdict.Reasons)
	}
}

func TestRunGoodWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		r, pending := window(t.Context(), g, newSnapshotter(2001*time.Millisecond))
		verdict(t, r, freezewindow.Filesystem, freezewindow.CauseNone)
		g.said(t, "go 0s", "thaw snapshot_done 3.004s")
		if pending != nil {
			t.Error("a snapshot that is known is handed over")
		}
		if g.beats != 3 {
			t.Errorf("%d heartbeats in 3 s, want 3", g.beats)
		}
		// The hold began at most 600 ms after GO, THAWED came at 3.025 s.
		if !r.HeldAtMostKnown || r.HeldAtMost != 2425*time.Millisecond {
			t.Errorf("held at most %v, want 2.425s", r.HeldAtMost)
		}
	})
}

// The thaw never waits for vSphere: the task takes a minute, THAW is sent 17 s after the hold can have begun.
func TestRunLateSnapshot(t *testing.T) {
	for name, deaf := range map[string]bool{"snapshotter listens": false, "snapshotter ignores its context": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, s := newGuest(), newSnapshotter(60*time.Second)
				s.deaf = deaf
				r, pending := window(t.Context(), g, s)
				verdict(t, r, freezewindow.Unproved, freezewindow.CauseSnapshotSlow)
				g.said(t, "go 0s", "thaw deadline 17.6s")
				if took := time.Since(g.start); took != 17621*time.Millisecond {
					t.Errorf("the window took %v, want 17.621s", took)
				}
				if pending == nil {
					t.Fatal("the running task was dropped")
				}
				if pending.Task != "task-1" || pending.Name != "stillframe-r-1" {
					t.Errorf("handed over are task %q and name %q, want task-1 and stillframe-r-1", pending.Task, pending.Name)
				}
				soon, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, _, err := pending.Wait(soon); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Wait of a second = %v, want it to end with its context", err)
				}
				snapshot, _, err := pending.Wait(t.Context())
				if err != nil || snapshot.Moref != "snapshot-1" {
					t.Errorf("Wait = %v, %v, want the late snapshot", snapshot, err)
				}
				if at := time.Since(g.start); at != 61003*time.Millisecond {
					t.Errorf("Wait returned after %v, want 1m1.003s", at)
				}
				pending.Stop()
			})
		})
	}
}

func TestRunStopsALateSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSnapshotter(time.Hour)
		_, pending := window(t.Context(), newGuest(), s)
		select {
		case <-s.cancelled:
			t.Error("the task's context ended with the window")
		default:
		}
		pending.Stop()
		<-s.cancelled
		if _, _, err := pending.Wait(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait after Stop = %v, want context canceled", err)
		}
	})
}

func TestRunCancelThawsFirst(t *testing.T) {
	cases := map[string]struct {
		after time.Duration
		words []string
		took  time.Duration
	}{
		"before anything is held": {500 * time.Millisecond, []string{"go 0s", "thaw cancelled 500ms"}, 521 * time.Millisecond},
		"while frozen":            {2 * time.Second, []string{"go 0s", "thaw cancelled 2s"}, 2021 * time.Millisecond},
		"before it began":         {0, []string{"go 0s", "thaw cancelled 0s"}, 21 * time.Millisecond},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				if c.after == 0 {
					cancel()
				}
				defer time.AfterFunc(c.after, cancel).Stop()
				g := newGuest()
				r, pending := window(ctx, g, newSnapshotter(10*time.Second))
				g.said(t, c.words...)
				verdict(t, r, freezewindow.Unproved, freezewindow.CauseCancelled)
				if took := time.Since(g.start); took != c.took {
					t.Errorf("the window took %v, want %v", took, c.took)
				}
				if pending != nil { // the task goes on: the cancelled run still has to remove what it makes
					if _, _, err := pending.Wait(t.Context()); err != nil {
						t.Errorf("Wait = %v, want the snapshot that the cancelled run asked for", err)
					}
					pending.Stop()
				}
				if held := c.after > time.Second; held != (pending != nil) {
					t.Errorf("handed over: %t, want %t", pending != nil, held)
				}
				time.Sleep(2 * time.Second) // a FROZEN that comes too late finds nobody
			})
		})
	}
}

func TestRunSnapshotFails(t *testing.T) {
	cases := map[string]struct {
		err     error
		words   string
		pending bool
		code    string
	}{
		"failed":          {vsphereError{}, "thaw snapshot_failed 1.304s", false, "SF2206"},
		"outcome unknown": {vsphereError{unknown: true}, "thaw snapshot_unknown 1.304s", true, "SF2206"},
		"without a code":  {errBroken, "thaw snapshot_failed 1.304s", false, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, s := newGuest(), newSnapshotter(301*time.Millisecond)
				s.err = c.err
				r, pending := window(t.Context(), g, s)
				g.said(t, "go 0s", c.words)
				verdict(t, r, freezewindow.Unproved, freezewindow.CauseSnapshotFailed)
				if r.SnapCode != c.code || r.SnapErr != c.err.Error() {
					t.Errorf("code %q, text %q, want %q, %q", r.SnapCode, r.SnapErr, c.code, c.err)
				}
				if c.pending != (pending != nil) {
					t.Fatalf("handed over: %t, want %t", pending != nil, c.pending)
				}
				if pending != nil {
					if _, _, err := pending.Wait(t.Context()); !errors.Is(err, c.err) {
						t.Errorf("Wait = %v, want %v", err, c.err)
					}
					pending.Stop()
				}
			})
		})
	}
}

func TestRunLinkLost(t *testing.T) {
	expired := freezewindow.Release{Held: ms(1703), Expired: true, ExpiredBy: "link_lost", Finished: true, Thawed: []string{"/data"}}
	cases := map[string]struct {
		resume  func(*scriptedGuest, int) error
		words   []string
		resumes int
		known   bool
	}{
		"back at once":              {func(*scriptedGuest, int) error { return nil }, []string{"go 0s", "thaw cancelled 2.008s"}, 1, true},
		"back at the third attempt": {failResume(2, errBroken), []string{"go 0s", "thaw cancelled 6.018s"}, 3, true},
		"nobody there any more":     {failResume(1, goneError{}), []string{"go 0s"}, 1, false},
		"never back":                {failResume(1000, errBroken), []string{"go 0s"}, 10, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuest()
				g.onGo = func(g *scriptedGuest) {
					g.after(1003*time.Millisecond, freeze())
					g.after(2003*time.Millisecond, freezewindow.LinkLost{Err: errBroken})
				}
				g.onThaw = func(g *scriptedGuest, _ int) { g.after(21*time.Millisecond, thaw(expired)) }
				g.resume = c.resume
				r, pending := window(t.Context(), g, newSnapshotter(90*time.Second))
				g.said(t, c.words...)
				verdict(t, r, freezewindow.Unproved, freezewindow.CauseLinkLost)
				if g.resumes != c.resumes || r.LinkLosses != 1 {
					t.Errorf("%d attempts to resume, %d losses, want %d and 1", g.resumes, r.LinkLosses, c.resumes)
				}
				if !r.SelfReleased || r.HeldByGuestKnown != c.known {
					t.Errorf("released itself %t, hold known %t, want true and %t", r.SelfReleased, r.HeldByGuestKnown, c.known)
				}
				if pending == nil {
					t.Fatal("the running task was dropped")
				}
				pending.Stop()
			})
		})
	}
}

// failResume fails n times.
func failResume(n int, err error) func(*scriptedGuest, int) error {
	return func(_ *scriptedGuest, try int) error {
		if try <= n {
			return err
		}
		return nil
	}
}

// A snapshot that succeeds after the link was lost proves nothing, although THAW was not sent yet.
func TestRunSnapshotAfterLinkLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		g.onGo = func(g *scriptedGuest) {
			g.after(1003*time.Millisecond, freeze())
			g.after(2003*time.Millisecond, freezewindow.LinkLost{Err: errBroken})
		}
		g.resume = failResume(1, errBroken)
		r, pending := window(t.Context(), g, newSnapshotter(1501*time.Millisecond)) // done at 2.504 s
		verdict(t, r, freezewindow.Crash, freezewindow.CauseLinkLost)
		if !r.Late || pending != nil {
			t.Errorf("late %t, handed over %t, want true and false", r.Late, pending != nil)
		}
	})
}

func TestRunGoCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		g.onGo = nil // Send fails, the session says LinkLost
		g.resume = failResume(1, goneError{})
		r, pending := window(t.Context(), g, newSnapshotter(time.Second))
		g.said(t, "go 0s")
		verdict(t, r, freezewindow.Unproved, freezewindow.CauseLinkLost)
		if pending != nil || r.Snap != freezewindow.SnapNone {
			t.Errorf("snapshot %v, want none asked for", r.Snap)
		}
	})
}

// A guest that says nothing gets THAW at its time, five times, and then on a new connection, and is waited for in vain.
func TestRunSilentGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		g.onGo = func(*scriptedGuest) {}
		g.onThaw = func(*scriptedGuest, int) {}
		g.resume = failResume(1000, errBroken)
		r, pending := window(t.Context(), g, newSnapshotter(time.Second))
		g.said(t, "go 0s", "thaw deadline 17s", "thaw deadline 18s", "thaw deadline 19s", "thaw deadline 20s", "thaw deadline 21s")
		verdict(t, r, freezewindow.Unproved, freezewindow.CauseFreezeSlow)
		if took := time.Since(g.start); took != 28*time.Second {
			t.Errorf("the window took %v, want 28s", took)
		}
		if pending != nil || r.HeldByGuestKnown || !r.SelfReleased {
			t.Errorf("handed over %t, hold known %t, released itself %t, want false, false, true", pending != nil, r.HeldByGuestKnown, r.SelfReleased)
		}
	})
}

func TestRunThawAnsweredLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		g.onThaw = func(g *scriptedGuest, n int) {
			if n == 3 {
				g.after(21*time.Millisecond, thaw(goodRelease()))
			}
		}
		r, _ := window(t.Context(), g, newSnapshotter(2001*time.Millisecond))
		g.said(t, "go 0s", "thaw snapshot_done 3.004s", "thaw snapshot_done 4.004s", "thaw snapshot_done 5.004s")
		verdict(t, r, freezewindow.Filesystem, freezewindow.CauseNone)
	})
}

func TestRunGuestReleasesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		g.onGo = func(g *scriptedGuest) {
			g.after(1003*time.Millisecond, freeze())
			g.after(1503*time.Millisecond, thaw(freezewindow.Release{Held: ms(903), Expired: true, ExpiredBy: "service_stop", Finished: true, Thawed: []string{"/data"}}))
		}
		r, pending := window(t.Context(), g, newSnapshotter(10*time.Second))
		g.said(t, "go 0s", "thaw cancelled 1.503s")
		verdict(t, r, freezewindow.Unproved, freezewindow.CauseGuestError)
		if pending == nil || !r.SelfReleased {
			t.Fatalf("handed over %t, released itself %t, want both", pending != nil, r.SelfReleased)
		}
		pending.Stop()
	})
}

func TestRunNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuest()
		ready := stepReady()
		ready.Armed = false
		r, pending := freezewindow.Run(t.Context(), freezewindow.DefaultBudget(), ready, g, newSnapshotter(time.Second))
		g.said(t)
		verdict(t, r, freezewindow.Unproved, freezewindow.CauseNotReady)
		if pending != nil || r.SelfReleased || r.HeldAtMostKnown {
			t.Error("a window that did not begin held nothing")
		}
	})
}
