//go:build !windows

package provider

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

const (
	volumeC = `\\?\Volume{0000000c-0000-0000-0000-000000000000}\`
	volumeD = `\\?\Volume{0000000d-0000-0000-0000-000000000000}\`
	ok      = vsscode.S_OK
	veto    = vsscode.VSS_E_PROVIDER_VETO
)

var (
	ours   = com.MustGUID("00000000-0000-0000-0000-0000000000aa")
	theirs = com.MustGUID("00000000-0000-0000-0000-0000000000bb")
)

func order(mode Mode) Order {
	return Order{
		Set: ours, Volumes: []string{volumeC, volumeD}, Mode: mode, Deadman: 18 * time.Second, IODeadman: 8500 * time.Millisecond,
		Flush: func(<-chan struct{}) string { return "full" },
	}
}

// armed gives a provider with a set into which both volumes were taken.
func armed(t *testing.T, o Order) (*Provider, *Set) {
	t.Helper()
	p := New()
	if err := p.Warm(); err != nil {
		t.Fatal(err)
	}
	s, err := p.Arm(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range o.Volumes {
		if !p.supports(v) {
			t.Errorf("%s is not supported", v)
		}
		if hr := p.beginPrepare(ours, v); hr != ok {
			t.Errorf("BeginPrepareSnapshot of %s = %v", v, hr)
		}
	}
	p.Shut()
	return p, s
}

func want(t *testing.T, got, want vsscode.HRESULT) {
	t.Helper()
	if got != want {
		t.Errorf("answered %v, want %v", got, want)
	}
}

// started calls f beside and gives its result when it has one.
func started(f func() vsscode.HRESULT) <-chan vsscode.HRESULT {
	result := make(chan vsscode.HRESULT, 1)
	go func() { result <- f() }()
	return result
}

func TestHoldEndsOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   Mode
		end    func(*Set) error
		after  time.Duration
		hr     vsscode.HRESULT
		phase  Phase
		held   time.Duration
		commit vsscode.HRESULT // of the Commit after a hold in PreCommit
	}{
		{"io, thawed", IO, thawed, 3 * time.Second, ok, Thawed, 3 * time.Second, 0},
		{"writer, thawed", Writer, thawed, 17 * time.Second, ok, Thawed, 17 * time.Second, ok},
		{"io, nobody thaws", IO, nil, 0, veto, IODeadman, 8500 * time.Millisecond, 0},
		{"writer, nobody thaws", Writer, nil, 0, veto, Deadman, 18 * time.Second, veto},
		{"io, system gives up", IO, func(s *Set) error { s.Abandon(); return nil }, time.Second, veto, System, time.Second, 0},
		{"io, aborted by us", IO, func(s *Set) error { s.Veto(); return nil }, time.Second, veto, Vetoed, time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := armed(t, order(c.mode))
				if hr := s.endPrepare(); hr != ok {
					t.Fatalf("EndPrepareSnapshots = %v", hr)
				}
				hold := s.commit
				if c.mode == Writer {
					hold = s.preCommit
				} else if hr := s.preCommit(); hr != ok {
					t.Errorf("PreCommitSnapshots = %v", hr)
				}
				result := started(hold)
				<-s.Entered()
				if c.end != nil {
					time.Sleep(c.after)
					if err := c.end(s); err != nil {
						t.Error(err)
					}
				}
				<-s.Left()
				if hr := <-result; hr != c.hr || s.Phase() != c.phase {
					t.Errorf("the hold ended with %v in phase %d, want %v in %d", hr, s.Phase(), c.hr, c.phase)
				}
				if phase, err := s.Thaw(); phase != c.phase || err != nil {
					t.Errorf("a later Thaw says %d, %v, want %d", phase, err, c.phase)
				}
				if f := s.Facts(); f.Held != c.held {
					t.Errorf("held for %v, want %v", f.Held, c.held)
				}
				if c.mode == Writer {
					if hr := s.commit(); hr != c.commit {
						t.Errorf("CommitSnapshots = %v, want %v", hr, c.commit)
					}
				}
				if err := p.Disarm(s); err != nil {
					t.Error(err)
				}
				if p.supports(volumeC) {
					t.Error("a volume is supported after the set was disarmed")
				}
			})
		})
	}
}

func thawed(s *Set) error {
	_, err := s.Thaw()
	return err
}

// TestEarlierDeadlineWins has the whole hold's dead-man come before that of the volumes.
func TestEarlierDeadlineWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := armed(t, order(IO))
		want(t, s.endPrepare(), ok)
		time.Sleep(12 * time.Second) // slow writers
		want(t, s.preCommit(), ok)
		if hr := s.commit(); hr != veto || s.Phase() != Deadman {
			t.Errorf("Commit = %v in phase %d, want a veto by the dead-man", hr, s.Phase())
		}
		if f := s.Facts(); f.Held != 6*time.Second || time.Since(f.Entered).Round(time.Second) != 6*time.Second {
			t.Errorf("held for %v from %v on, want the last 6s", f.Held, f.Entered)
		}
	})
}

func TestHoldThatIsNotEntered(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  Mode
		end   func(*Set)
		phase Phase
	}{
		{"thaw before the hold", IO, func(s *Set) {
			if phase, err := s.Thaw(); phase != Vetoed || err != nil {
				t.Errorf("Thaw = %d, %v", phase, err)
			}
		}, Vetoed},
		{"thaw before the hold, writer", Writer, func(s *Set) {
			if _, err := s.Thaw(); err != nil {
				t.Error(err)
			}
		}, Vetoed},
		{"dead-man before the hold", IO, func(*Set) { time.Sleep(18 * time.Second) }, Deadman},
		{"dead-man before the hold, writer", Writer, func(*Set) { time.Sleep(18 * time.Second) }, Deadman},
		{"aborted before the hold", IO, func(s *Set) {
			if hr := s.abort(); hr != ok {
				t.Errorf("AbortSnapshots = %v", hr)
			}
		}, System},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := armed(t, order(c.mode))
				want(t, s.endPrepare(), ok)
				c.end(s)
				if hr := s.preCommit(); hr != veto {
					t.Errorf("PreCommitSnapshots = %v, want a veto", hr)
				}
				if hr := s.commit(); hr != veto {
					t.Errorf("CommitSnapshots = %v, want a veto", hr)
				}
				if s.Phase() != c.phase {
					t.Errorf("phase %d, want %d", s.Phase(), c.phase)
				}
				select {
				case <-s.Entered():
					t.Error("the hold was entered")
				default:
				}
				if err := p.Disarm(s); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := armed(t, order(IO))
		time.Sleep(time.Minute)
		if s.Overdue() {
			t.Error("overdue before the clock started")
		}
		want(t, s.endPrepare(), ok)
		time.Sleep(18*time.Second - time.Nanosecond)
		if s.Overdue() {
			t.Error("overdue before the dead-man")
		}
		time.Sleep(time.Nanosecond)
		if !s.Overdue() || s.Phase() != Deadman {
			t.Errorf("not overdue at the dead-man, phase %d", s.Phase())
		}
	})
}

// TestThawStopsTheFlush has Thaw come while PreCommitSnapshots flushes.
func TestThawStopsTheFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(Writer)
		o.Flush = func(stop <-chan struct{}) string {
			<-stop
			return "partial"
		}
		_, s := armed(t, o)
		want(t, s.endPrepare(), ok)
		result := started(s.preCommit)
		synctest.Wait()
		if phase, err := s.Thaw(); phase != Vetoed || err != nil {
			t.Errorf("Thaw = %d, %v", phase, err)
		}
		if hr := <-result; hr != veto {
			t.Errorf("PreCommitSnapshots = %v, want a veto", hr)
		}
		if f := s.Facts(); f.Flush != "partial" || f.Held != 0 {
			t.Errorf("facts %+v", f)
		}
	})
}

func TestForeignSets(t *testing.T) {
	p := New()
	if p.supports(volumeC) {
		t.Error("a volume is supported while nothing is armed")
	}
	if hr := p.beginPrepare(theirs, volumeC); hr != vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER {
		t.Errorf("BeginPrepareSnapshot of a foreign set = %v", hr)
	}
	p, s := armed(t, order(IO))
	if p.supports(volumeC) {
		t.Error("a volume is supported after Shut")
	}
	if hr := p.inSet(theirs, "CommitSnapshots", (*Set).commit); hr != vsscode.VSS_E_OBJECT_NOT_FOUND {
		t.Errorf("CommitSnapshots of a foreign set = %v", hr)
	}
	if s.Phase() != Waiting {
		t.Errorf("phase %d after a foreign commit, want Waiting", s.Phase())
	}
	if hr := p.beginPrepare(ours, `\\?\Volume{0000000e-0000-0000-0000-000000000000}\`); hr != vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER {
		t.Errorf("BeginPrepareSnapshot of a volume outside the set = %v", hr)
	}
	if hr := p.beginPrepare(theirs, volumeC); hr != vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER || s.Phase() != System {
		t.Errorf("a new set's BeginPrepareSnapshot = %v, ours is in phase %d, want it reset", hr, s.Phase())
	}
	if hr := p.inSet(ours, "EndPrepareSnapshots", (*Set).endPrepare); hr != veto {
		t.Errorf("EndPrepareSnapshots after the reset = %v", hr)
	}
}

func TestVolumesCompareAsWindowsDoes(t *testing.T) {
	p := New()
	o := order(IO)
	o.Volumes = []string{volumeC}
	if _, err := p.Arm(o); err != nil {
		t.Fatal(err)
	}
	for volume, want := range map[string]bool{
		volumeC: true, `\\?\VOLUME{0000000C-0000-0000-0000-000000000000}`: true, volumeD: false, "": false, `C:\`: false,
	} {
		if got := p.supports(volume); got != want {
			t.Errorf("supports(%s) = %t", volume, got)
		}
	}
}

func TestOneSetAtATime(t *testing.T) {
	p, s := armed(t, order(IO))
	if _, err := p.Arm(order(IO)); err == nil {
		t.Error("a second set is armed beside the first")
	}
	if err := p.Disarm(s); err != nil {
		t.Fatal(err)
	}
	again, err := p.Arm(order(Writer))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Disarm(s); err != nil { // late, and of another set
		t.Error(err)
	}
	if !p.supports(volumeC) || again.Phase() != Waiting {
		t.Error("a late Disarm ended another set")
	}
}

func TestOrders(t *testing.T) {
	for name, spoil := range map[string]func(*Order){
		"no mode":        func(o *Order) { o.Mode = 0 },
		"no volume":      func(o *Order) { o.Volumes = nil },
		"no dead-man":    func(o *Order) { o.Deadman = 0 },
		"no io dead-man": func(o *Order) { o.IODeadman = 0 },
		"no flush":       func(o *Order) { o.Mode, o.Flush = Writer, nil },
	} {
		o := order(IO)
		spoil(&o)
		if _, err := New().Arm(o); err == nil {
			t.Errorf("%s: armed", name)
		}
	}
}

func TestFactsAndTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := armed(t, order(IO))
		want(t, p.inSet(ours, "EndPrepareSnapshots", (*Set).endPrepare), ok)
		<-s.Prepared()
		want(t, p.inSet(ours, "PreCommitSnapshots", (*Set).preCommit), ok)
		result := started(func() vsscode.HRESULT { return p.inSet(ours, "CommitSnapshots", (*Set).commit) })
		<-s.Entered()
		if phase, err := s.Thaw(); phase != Thawed || err != nil {
			t.Errorf("Thaw = %d, %v", phase, err)
		}
		<-result
		want(t, p.inSet(ours, "PostCommitSnapshots", func(s *Set) vsscode.HRESULT { return s.postCommit(2) }), ok)
		want := Facts{Served: []string{volumeC, volumeD}, Flush: "full", Committed: 2}
		got := s.Facts()
		if got.Prepared.IsZero() || got.Entered.Before(got.Prepared) {
			t.Errorf("prepared at %v, entered at %v", got.Prepared, got.Entered)
		}
		got.Prepared, got.Entered, got.Held = time.Time{}, time.Time{}, 0
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		var whats []string
		for _, l := range p.Trace() {
			whats = append(whats, l.What)
		}
		if d := cmp.Diff([]string{
			"hold", "IsVolumeSupported: yes", "BeginPrepareSnapshot", "IsVolumeSupported: yes", "BeginPrepareSnapshot",
			"EndPrepareSnapshots", "PreCommitSnapshots", "hold", "CommitSnapshots", "PostCommitSnapshots",
		}, whats); d != "" {
			t.Error(d)
		}
	})
}

func TestRingForgetsTheOldest(t *testing.T) {
	var r ring
	for i := range ringLines + 3 {
		r.note(time.Duration(i), "line", ok)
	}
	lines := r.lines()
	if len(lines) != ringLines || lines[0].At != 3 || lines[ringLines-1].At != ringLines+2 {
		t.Errorf("%d lines from %d to %d", len(lines), lines[0].At, lines[len(lines)-1].At)
	}
}

// TestThawOrDeadline has Thaw come at the very deadline, many times: one of the two wins, and both say which.
func TestThawOrDeadline(t *testing.T) {
	wins := map[Phase]int{}
	for range 300 {
		p := New()
		o := order(IO)
		o.IODeadman = time.Millisecond
		s, err := p.Arm(o)
		if err != nil {
			t.Fatal(err)
		}
		want(t, s.endPrepare(), ok)
		result := started(s.commit)
		<-s.Entered()
		for end := time.Now().Add(950 * time.Microsecond); time.Now().Before(end); {
		}
		phase, err := s.Thaw()
		if err != nil {
			t.Fatal(err)
		}
		<-s.Left()
		if hr := <-result; (hr == ok) != (phase == Thawed) || s.Phase() != phase {
			t.Fatalf("Thaw says %d, the hold %v in phase %d", phase, hr, s.Phase())
		}
		wins[phase]++
		if err := p.Disarm(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("thawed %d, dead-man %d", wins[Thawed], wins[IODeadman])
}
