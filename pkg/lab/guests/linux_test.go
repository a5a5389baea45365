package guests_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/disks"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/judge"
)

func linux(t *testing.T) (*guests.Linux, *disks.Store) {
	t.Helper()
	lab.Need(t, lab.Root, lab.Loop)
	g, err := guests.StartLinux(t.Context(), guests.LinuxOptions{Name: "lnx", Dir: t.TempDir(), SizeBytes: 64 << 20, Self: self(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, err := disks.New(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	s.Attach(g.Name(), g.Disk())
	return g, s
}

// freeze freezes the mount by another program than the product's.
func freeze(t *testing.T, g *guests.Linux) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "fsfreeze", "--freeze", g.Mount()).CombinedOutput(); err != nil {
		t.Fatalf("fsfreeze: %v: %s", err, out)
	}
}

// until polls for at most 20 s.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

func TestFrozenImageIsCleanUnfrozenIsNot(t *testing.T) {
	g, s := linux(t)
	until(t, "400 records", func() bool { return g.Acknowledged() >= 400 })

	before := g.Acknowledged()
	control, err := s.Control(t.Context(), "lnx", "control")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := judge.Journal(t.Context(), control.Path); err != nil || v.OK {
		t.Errorf("journal of the control image = %v, %v, want one to be recovered", v.OK, err)
	}
	if v, err := judge.Fsck(t.Context(), control.Path); err != nil || v.OK {
		t.Errorf("e2fsck of the control image is content (%v): %s", err, v.Output)
	}
	got, err := g.Count(t.Context(), control.Path)
	if err != nil {
		t.Error(err)
	}
	t.Logf("records of the control image without replay: %+v, of %d acknowledged", got, before)

	from := time.Now()
	freeze(t, g)
	if err := s.Cut(t.Context(), "lnx", "frozen"); err != nil {
		t.Fatal(err)
	}
	until(t, "the lab sees the hold", func() bool { return len(g.Holds()) > 0 })
	acknowledged := g.AcknowledgedBefore(time.Now()) // while it is still held
	if held, err := g.Thaw(); err != nil || !held {
		t.Fatalf("Thaw = %v, %v, want true", held, err)
	}
	to := time.Now()
	until(t, "the end of the hold", func() bool { return !g.Holds()[0].To.IsZero() })

	im := s.Images("lnx")[1]
	for name, ask := range map[string]func(context.Context, string) (judge.Verdict, error){"fsck": judge.Fsck, "journal": judge.Journal} {
		if v, err := ask(t.Context(), im.Path); err != nil || !v.OK {
			t.Errorf("%s of the frozen image = %v: %s", name, err, v.Output)
		}
	}
	got, err = g.Count(t.Context(), im.Path)
	if err != nil || got.Torn != 0 || got.Contiguous < acknowledged {
		t.Errorf("records of the frozen image = %+v, %v, want all %d acknowledged ones", got, err, acknowledged)
	}
	hold, ok := g.Between(from, to)
	if !ok || hold.Seen == 0 || hold.To.Sub(hold.From) > g.LongestStall() {
		t.Errorf("hold = %+v (longest stall %s), want one within the longest stall", hold, g.LongestStall())
	}
	if n := len(g.Holds()); n != 1 {
		t.Errorf("%d holds seen, want 1: %+v", n, g.Holds())
	}
	if r := g.Rescues(); len(r) != 0 {
		t.Errorf("the lab had to thaw at %v", r)
	}
}

func TestCloseWhileFrozen(t *testing.T) {
	g, _ := linux(t)
	freeze(t, g)
	until(t, "the lab sees the hold", func() bool { return len(g.Holds()) > 0 })
	for range 2 {
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRescue freezes, then leaves the guest alone.
func TestRescue(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	g, err := guests.StartLinux(t.Context(), guests.LinuxOptions{
		Name: "lnx", Dir: t.TempDir(), SizeBytes: 64 << 20, Self: self(t), Rescue: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	freeze(t, g)
	until(t, "the lab thaws", func() bool { return len(g.Rescues()) == 1 })
	until(t, "the end of the hold", func() bool { h := g.Holds(); return len(h) == 1 && !h[0].To.IsZero() })
	if h := g.Holds()[0]; h.Length(time.Now()) < 900*time.Millisecond {
		t.Errorf("hold = %+v, want one of about 1 s", h)
	}
}

func TestHalfBuiltGuestLeavesNothing(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	dir := t.TempDir()
	_, err := guests.StartLinux(t.Context(), guests.LinuxOptions{Name: "lnx", Dir: dir, SizeBytes: 64 << 20, Self: []string{"/bin/false"}})
	if err == nil {
		t.Fatal("a guest without a writer started")
	}
	if left := leftovers(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := guests.StartLinux(t.Context(), guests.LinuxOptions{Name: "lnx", Dir: dir, Self: self(t)}); err == nil {
		t.Error("a guest with a disk of 0 bytes started")
	}
}

// TestLabKilledLeavesNothing kills the lab's process while the guest is frozen: the thawer has to do the rest.
func TestLabKilledLeavesNothing(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), self(t)[0], "-test.run=^TestLabToKill$")
	cmd.Env = append(os.Environ(), "STILLFRAME_TEST_LAB_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 7)
	if _, err := out.Read(word); err != nil || string(word) != "frozen\n" {
		t.Errorf("the lab said %q, %v", word, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the killed lab ended well")
	}
	until(t, "nothing left of a killed lab", func() bool { return len(leftovers(dir)) == 0 })
}

// TestLabToKill is the process that TestLabKilledLeavesNothing kills.
func TestLabToKill(t *testing.T) {
	dir := os.Getenv("STILLFRAME_TEST_LAB_DIR")
	if dir == "" {
		return
	}
	g, err := guests.StartLinux(t.Context(), guests.LinuxOptions{Name: "lnx", Dir: dir, SizeBytes: 64 << 20, Self: self(t)})
	if err != nil {
		t.Fatal(err)
	}
	freeze(t, g)
	until(t, "the lab sees the hold", func() bool { return len(g.Holds()) > 0 })
	if _, err := os.Stdout.WriteString("frozen\n"); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done()
	select {} // until killed
}
