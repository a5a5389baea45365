package fsfreeze

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const testDeadman = 15 * time.Second

func prepare(t *testing.T, f *Freezer, volumes ...string) agent.Prepared {
	t.Helper()
	p, err := f.Prepare(t.Context(), agent.PrepareRequest{Mode: mode, Volumes: volumes, SecondNet: testDeadman})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var e *agent.CodedError
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error = %v, want code %s", err, code)
	}
}

func listed(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, listName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func TestFreezeHoldsWritersAndThawReleasesThem(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	p := prepare(t, f)
	if len(p.Volumes) != 1 || p.Volumes[0].Mounts[0] != g.point || p.Volumes[0].FS != "ext4" || p.Volumes[0].Size < 32<<20 {
		t.Errorf("Prepare = %+v", p)
	}
	if got := listed(t, g.runDir); got != escape(g.point)+"\n" {
		t.Errorf("the list is %q", got)
	}
	if got, err := ThawListed(t.Context(), g.runDir); !errors.Is(err, ErrHeldByAnother) {
		t.Errorf("ThawListed beside a living agent = %v, %v, want ErrHeldByAnother", got, err)
	}
	started := 0
	begin := time.Now()
	if err := f.freeze(t.Context(), func() { started++ }); err != nil {
		t.Fatal(err)
	}
	froze := time.Since(begin)
	if !g.writer.blocked() {
		t.Error("the writer writes on a frozen file system")
	}
	begin = time.Now()
	rows := f.Thaw(t.Context()).Results
	t.Logf("freeze %v, thaw %v, notes %v", froze, time.Since(begin), f.Notes())
	if want := []protocol.ThawResult{{Mount: g.point, OK: true}}; !slices.Equal(rows, want) || started != 1 {
		t.Errorf("Thaw = %v, want %v; started %d times", rows, want, started)
	}
	g.running(t, time.Second)
	if rows := f.Thaw(t.Context()).Results; rows != nil {
		t.Errorf("a second Thaw = %v, want nothing", rows)
	}
	if got := listed(t, g.runDir); got != "" {
		t.Errorf("after the thaw the list is %q", got)
	}
	wantCode(t, f.freeze(t.Context(), func() {}), codeFailed)
	pid := f.dog.cmd.Process.Pid
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the watchdog was not reaped: %v", err)
	}
	prepare(t, f) // sessions follow one another
}

func TestNestedIsFrozenBeforeItsHolder(t *testing.T) {
	outer := newGuest(t)
	inner := &guest{point: mountImage(t, outer.point)}
	inner.hold(t, inner.point, outer.point)
	inner.writer = inner.write(t)
	f := New(Options{Bound: Bound{OnlyMount: []string{outer.point, inner.point}}, RunDir: outer.runDir})
	p := prepare(t, f)
	if len(p.Volumes) != 2 || p.Volumes[0].Mounts[0] != inner.point {
		t.Fatalf("Prepare = %+v, want the inner one first", p)
	}
	if err := f.freeze(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if !inner.writer.blocked() || !outer.writer.blocked() {
		t.Error("a writer is not held")
	}
	rows := f.Thaw(t.Context()).Results
	if want := []protocol.ThawResult{{Mount: outer.point, OK: true}, {Mount: inner.point, OK: true}}; !slices.Equal(rows, want) {
		t.Errorf("Thaw = %v, want %v", rows, want)
	}
	inner.running(t, time.Second)
	outer.running(t, time.Second)
}

// awaitFreezing waits until a system call is under way.
func (f *Freezer) awaitFreezing() {
	for {
		f.state.Lock()
		under := slices.ContainsFunc(f.targets, func(t *target) bool { return t.state == freezing })
		f.state.Unlock()
		if under {
			return
		}
		_, _ = unix.Poll(nil, 1) //nolint:errcheck // a bounded wait for a real system call
	}
}

// The outer file system is frozen by somebody else, so FIFREEZE of the inner one cannot write and does not return.
func TestLateFreezeThawsItself(t *testing.T) {
	for _, how := range []string{"limit", "thaw", "context"} {
		t.Run(how, func(t *testing.T) {
			outer := newGuest(t)
			inner := &guest{point: mountImage(t, outer.point)}
			inner.hold(t, outer.point, inner.point)
			inner.writer = inner.write(t)
			f := New(Options{Bound: Bound{OnlyMount: []string{inner.point}}, RunDir: outer.runDir})
			f.limits.each, f.limits.thaw = time.Hour, 200*time.Millisecond
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			prepare(t, f)
			row := protocol.ThawResult{Mount: inner.point, Error: "still freezing: it is thawed when the system call returns"}
			rows := make(chan []protocol.ThawResult, 1)
			switch how {
			case "limit":
				f.limits.each = 300 * time.Millisecond
			case "thaw":
				go func() {
					f.awaitFreezing()
					rows <- f.Thaw(t.Context()).Results
				}()
			case "context":
				go func() {
					f.awaitFreezing()
					cancel()
				}()
			}
			wantCode(t, f.freeze(ctx, func() { inner.holder.say("freeze", "freeze <nil>") }), codeNotReached)
			if how != "thaw" {
				rows <- f.Thaw(t.Context()).Results
			}
			if got := <-rows; !slices.Equal(got, []protocol.ThawResult{row}) {
				t.Errorf("Thaw during a late call = %v, want %v", got, row)
			}
			inner.holder.say("thaw", "thaw <nil>")
			inner.running(t, 2*time.Second)
			f.limits.thaw = 4 * time.Second
			if rows := f.Thaw(t.Context()).Results; !slices.Equal(rows, []protocol.ThawResult{{Mount: inner.point, OK: true}}) {
				t.Errorf("Thaw after the late call = %v", rows)
			}
			if got := listed(t, outer.runDir); got != "" {
				t.Errorf("after the thaw the list is %q", got)
			}
		})
	}
}

// What cannot be flushed in time is refused before anything is held.
func TestSlowFlushHoldsNothing(t *testing.T) {
	outer := newGuest(t)
	inner := &guest{point: mountImage(t, outer.point)}
	inner.hold(t, outer.point, inner.point)
	inner.writer = inner.write(t)
	f := New(Options{Bound: Bound{OnlyMount: []string{inner.point}}, RunDir: outer.runDir})
	prepare(t, f)
	inner.holder.say("freeze", "freeze <nil>")
	wantCode(t, f.freeze(t.Context(), func() { t.Error("the hold began") }), codeFlush)
	inner.holder.say("thaw", "thaw <nil>")
	inner.running(t, 2*time.Second)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestSomebodyElsesFreezeIsAnErrorAndStays(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	prepare(t, f)
	g.holder.say("freeze", "freeze <nil>")
	err := f.freeze(t.Context(), func() {})
	wantCode(t, err, codeFrozen)
	if !g.writer.blocked() {
		t.Error("we thawed what somebody else had frozen")
	}
	if rows := f.Thaw(t.Context()).Results; rows != nil {
		t.Errorf("Thaw = %v, want nothing: nothing of ours is held", rows)
	}
	g.holder.say("thaw", "thaw <nil>")
	g.running(t, time.Second)
}

func TestSomebodyElsesThawIsReported(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	prepare(t, f)
	if err := f.freeze(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	g.holder.say("thaw", "thaw <nil>")
	rows := f.Thaw(t.Context()).Results
	if len(rows) != 1 || rows[0].OK || !strings.HasPrefix(rows[0].Error, "EINVAL") {
		t.Errorf("Thaw = %v, want EINVAL", rows)
	}
	g.running(t, time.Second)
}

func TestThawBeforeFreezeForbidsIt(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	prepare(t, f)
	if rows := f.Thaw(t.Context()).Results; rows != nil {
		t.Errorf("Thaw = %v, want nothing", rows)
	}
	wantCode(t, f.freeze(t.Context(), func() {}), codeFailed)
	g.running(t, time.Second)
}

// A watchdog that dies while it should watch is told, so that the agent lets go.
func TestDeadWatchdogIsTold(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	broken := make(chan struct{})
	if _, err := f.Prepare(t.Context(), agent.PrepareRequest{Mode: mode, SecondNet: testDeadman, Broken: func() { close(broken) }}); err != nil {
		t.Fatal(err)
	}
	if err := f.freeze(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if err := f.dog.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-broken
	if rows := f.Thaw(t.Context()).Results; len(rows) != 1 || !rows[0].OK {
		t.Errorf("Thaw = %v, want one released file system", rows)
	}
	g.running(t, time.Second)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeadWatchdogForbidsTheFreeze(t *testing.T) {
	g := newGuest(t)
	f := g.freezer()
	prepare(t, f)
	if err := f.dog.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-f.dog.exited
	wantCode(t, f.freeze(t.Context(), func() { t.Error("started without a watchdog") }), codeFailed)
	g.running(t, time.Second)
}

func TestWatchdogThawsWhenTheAgentIsKilled(t *testing.T) {
	g := newGuest(t)
	a := play(t, "play-agent", g.point, g.runDir, testDeadman.String())
	a.want("frozen")
	if !g.writer.blocked() {
		t.Fatal("the writer is not held")
	}
	begin := time.Now()
	if err := unix.Kill(-a.cmd.Process.Pid, unix.SIGKILL); err != nil { // the whole group
		t.Fatal(err)
	}
	g.running(t, 2*time.Second)
	t.Logf("first record %v after the kill", time.Since(begin))
	if err := a.wait(5 * time.Second); err != nil {
		t.Error(err)
	}
	if got := listed(t, g.runDir); got == "" {
		t.Error("a killed agent cannot remove its list, and yet it is gone")
	}
	rows, err := ThawListed(t.Context(), g.runDir)
	if err != nil || len(rows) != 1 || rows[0].OK {
		t.Errorf("ThawListed = %v, %v, want one row with EINVAL", rows, err)
	}
	if got := listed(t, g.runDir); got != "" {
		t.Errorf("after ThawListed the list is %q", got)
	}
}

func TestWatchdogThawsAtItsDeadlineWhenTheAgentHangs(t *testing.T) {
	g := newGuest(t)
	const deadman = 2 * time.Second
	begin := time.Now()
	a := play(t, "play-agent", g.point, g.runDir, deadman.String())
	a.want("frozen")
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !g.writer.blocked() {
		t.Fatal("the writer is not held")
	}
	g.running(t, deadman+time.Second)
	if took := time.Since(begin); took < deadman-100*time.Millisecond {
		t.Errorf("thawed after %v, want not before %v", took, deadman)
	} else {
		t.Logf("first record %v after the start of the agent", took)
	}
	if err := errors.Join(a.cmd.Process.Kill(), a.wait(5*time.Second)); err != nil {
		t.Error(err)
	}
}

// Agent and watchdog are both killed: the list is the last net.
func TestThawListed(t *testing.T) {
	g := newGuest(t)
	a := play(t, "play-agent", g.point, g.runDir, testDeadman.String())
	a.want("frozen")
	dog := childrenOf(t, a.cmd.Process.Pid)
	if len(dog) != 1 {
		t.Fatalf("the agent has the children %v, want one watchdog", dog)
	}
	if sid, err := unix.Getsid(dog[0]); err != nil || sid != dog[0] {
		t.Errorf("session of the watchdog = %d, %v, want its own", sid, err)
	}
	if err := errors.Join(unix.Kill(dog[0], unix.SIGKILL), a.cmd.Process.Kill(), a.wait(5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if !processGone(dog[0], 5*time.Second) || !g.writer.blocked() {
		t.Fatal("the writer is not held")
	}
	rows, err := ThawListed(t.Context(), g.runDir)
	if want := []protocol.ThawResult{{Mount: g.point, OK: true}}; err != nil || !slices.Equal(rows, want) {
		t.Errorf("ThawListed = %v, %v, want %v", rows, err, want)
	}
	g.running(t, time.Second)
	if rows, err := ThawListed(t.Context(), g.runDir); rows != nil || err != nil {
		t.Errorf("ThawListed without a list = %v, %v, want nothing", rows, err)
	}
}

// The machine that runs the tests must never be frozen: nothing here may choose its root.
func TestRootOfThisMachineIsNeverFrozen(t *testing.T) {
	g := newGuest(t)
	request := agent.PrepareRequest{Mode: mode, SecondNet: testDeadman}
	root := agent.PrepareRequest{Mode: mode, SecondNet: testDeadman, Volumes: []string{"/"}}
	rootDevice := deviceOf(t, "/")
	f := g.freezer()
	volumes, err := f.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes {
		if v.Supported != (v.Mounts[0] == g.point) {
			t.Errorf("volume %+v is supported beside the allow-list", v)
		}
	}
	for _, volume := range []string{"/", "/.", "//", rootDevice} {
		p, err := f.Prepare(t.Context(), agent.PrepareRequest{Mode: mode, SecondNet: testDeadman, Volumes: []string{g.point, volume}})
		if err == nil {
			t.Errorf("Prepare of %q = %+v, want a refusal", volume, p)
		} else {
			wantCode(t, err, codeCannot)
		}
	}
	p := prepare(t, f)
	for _, v := range p.Volumes {
		if v.ID == rootDevice || slices.Contains(v.Mounts, "/") {
			t.Errorf("the root is in the set: %+v", v)
		}
	}
	empty, bind := t.TempDir(), t.TempDir() // never "/" itself: the clean-up of a test deletes what it finds there
	if _, err := tool("mount", "--bind", empty, bind); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := tool("umount", bind); err != nil {
			t.Error(err)
		}
	})
	for name, bound := range map[string]Bound{
		"no allow-list in the lab": {},
		"a bind mount of the root": {OnlyMount: []string{bind}},
		"a directory of the root":  {OnlyMount: []string{empty}},
		"a missing mount point":    {OnlyMount: []string{"/nowhere"}, AllMounts: true},
	} {
		f := New(Options{Bound: bound, RunDir: t.TempDir()})
		for _, r := range []agent.PrepareRequest{request, root} {
			p, err := f.Prepare(t.Context(), r)
			if err == nil {
				t.Errorf("%s: Prepare(%v) = %+v, want a refusal", name, r.Volumes, p)
			} else {
				wantCode(t, err, codeCannot)
			}
		}
		if err := f.freeze(t.Context(), func() { t.Error("a hold began") }); err == nil {
			t.Errorf("%s: Freeze froze something", name)
		}
	}
}

func TestRunDirOnTheSetIsRefused(t *testing.T) {
	g := newGuest(t)
	f := New(Options{Bound: Bound{OnlyMount: []string{g.point}}, RunDir: filepath.Join(g.point, "run")})
	p, err := f.Prepare(t.Context(), agent.PrepareRequest{Mode: mode, SecondNet: testDeadman})
	if err == nil {
		t.Fatalf("Prepare = %+v, want a refusal", p)
	}
	wantCode(t, err, codeFailed)
}

func deviceOf(t *testing.T, point string) string {
	t.Helper()
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	return holder(mounts, point)
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var children []int
	for _, e := range entries {
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == itoa(pid) {
			children = append(children, atoi(t, e.Name()))
		}
	}
	return children
}
