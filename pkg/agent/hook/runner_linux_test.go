package hook

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const holding = "point=pre-freeze\nholds=true\n"

// at runs a point and fails the test when the whole of it fails.
func at(t *testing.T, r *Runner, p agent.Point) agent.HookOutcome {
	t.Helper()
	o := r.Run(t.Context(), agent.HookRequest{Point: p, Run: "run-1", Mode: "fs", OK: true, Deadman: time.Minute}, func() {})
	if o.Err != nil {
		t.Fatalf("%s: %v", p, o.Err)
	}
	return o
}

// one is the only row.
func one(t *testing.T, rows []protocol.Hook) protocol.Hook {
	t.Helper()
	if len(rows) != 1 {
		t.Fatalf("rows %+v, want one", rows)
	}
	return rows[0]
}

func TestGoodHooks(t *testing.T) {
	dir := folder(t, map[string][2]string{
		"10-app": {
			`echo "$STILLFRAME_RUN $STILLFRAME_POINT $STILLFRAME_MODE $STILLFRAME_OK $COLOUR ${HOME:-none}" >>"${0%/*}/.said"
[ "$STILLFRAME_POINT" = pre-freeze ] || exit 0
echo noise; echo HELD; while read -r line; do :; done; echo ended >>"${0%/*}/.said"`,
			"point=prepare,pre-freeze,post-thaw\nholds=true\nenv.COLOUR=blue\n",
		},
	})
	r := runner(t, dir)
	prepared := at(t, r, agent.PointPrepare)
	if row := one(t, prepared.Results); !row.OK || row.Holds || prepared.Holding != 1 || len(row.SHA256) != 64 {
		t.Errorf("prepare: %+v, %d hold", row, prepared.Holding)
	}
	started := 0
	if o := r.Run(t.Context(), agent.HookRequest{Point: agent.PointPreFreeze, Run: "run-1", Mode: "fs"}, func() { started++ }); o.Err != nil || started != 1 {
		t.Errorf("pre-freeze: %v, started %d times, want once", o.Err, started)
	}
	row := one(t, r.End(time.Now().Add(5*time.Second)))
	if !row.OK || !row.Holds || !row.Required || row.HeldUS == 0 || row.Error != "" {
		t.Errorf("held: %+v", row)
	}
	if rows := r.End(time.Now()); len(rows) != 0 {
		t.Errorf("a second End = %+v, want nothing", rows)
	}
	at(t, r, agent.PointPostThaw)
	said, err := os.ReadFile(filepath.Join(dir, ".said"))
	want := "run-1 prepare fs 1 blue none\nrun-1 pre-freeze fs 0 blue none\nended\nrun-1 post-thaw fs 1 blue none\n"
	if err != nil || string(said) != want {
		t.Errorf("the hook said %q, %v, want %q", said, err, want)
	}
}

// Each of these hooks does not do as it should; none of its processes outlives its part.
func TestBadHooks(t *testing.T) {
	for name, c := range map[string]struct {
		program, description string
		refused              string // the error of pre-freeze; empty when it holds
		row                  string // part of the row's error
	}{
		"fails":             {"echo broken >&2; exit 3", holding, "exit status 3: broken", ""},
		"ends without HELD": {"echo HELD-not", holding, "without HELD", ""},
		"hangs":             {"sleep 600 & sleep 600", holding + "limit=200ms\n", "did not say HELD", ""},

		"dies":       {`echo HELD; kill -9 $$`, holding, "", "before it was let go"},
		"leaves":     {`echo HELD; exit 0`, holding, "", "before it was let go"},
		"stays":      {`trap "" TERM HUP; echo HELD; sleep 600 & sleep 600`, holding, "", "was killed"},
		"ends badly": {`echo HELD; while read -r line; do :; done; echo "no unlock" >&2; exit 4`, holding, "", "exit status 4: no unlock"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string][2]string{"10-bad": {c.program, c.description}})
			r := runner(t, dir)
			at(t, r, agent.PointPrepare)
			o := r.Run(t.Context(), agent.HookRequest{Point: agent.PointPreFreeze}, func() {})
			if (o.Err != nil) != (c.refused != "") || o.Err != nil && !strings.Contains(o.Err.Error(), c.refused) {
				t.Fatalf("pre-freeze = %v, want %q", o.Err, c.refused)
			}
			var coded *agent.CodedError
			if o.Err != nil && (!errors.As(o.Err, &coded) || coded.Code != "SF4019") {
				t.Errorf("%v has no code SF4019", o.Err)
			}
			if strings.Contains(c.row, "before") {
				eventually(t, "the hook ends", func() bool { return r.held[0].gone() })
			}
			row := one(t, r.End(time.Now().Add(300*time.Millisecond)))
			if row.OK || !strings.Contains(row.Error, c.row) {
				t.Errorf("row %+v, want an error with %q", row, c.row)
			}
			if left := living(t, dir); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// living lists processes with the folder in their command line, or that were started by one: sleep 600.
func living(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), dir+"/") && !strings.Contains(string(text), "play-agent") {
			out = append(out, f+" "+string(text))
		}
	}
	return out
}

// A tolerated failure lets the others go on; a required one ends the point.
func TestToleratedHook(t *testing.T) {
	dir := folder(t, map[string][2]string{
		"10-may-fail": {"exit 1", holding + "required=false"},
		"20-good":     {"echo HELD; while read -r line; do :; done", holding},
		"30-prepare":  {"exit 1", "point=prepare\nrequired=false"},
	})
	r := runner(t, dir)
	if row := one(t, at(t, r, agent.PointPrepare).Results); row.OK || row.Required {
		t.Errorf("prepare: %+v", row)
	}
	at(t, r, agent.PointPreFreeze)
	rows := r.End(time.Now().Add(5 * time.Second))
	if len(rows) != 2 || rows[0].OK || !rows[1].OK {
		t.Errorf("rows %+v, want a failed and a good one", rows)
	}
}

// The hooks of post-thaw run side by side, each within its limit, also after End.
func TestPostThaw(t *testing.T) {
	dir := folder(t, map[string][2]string{
		"10-hangs": {"sleep 600", "point=post-thaw\nlimit=300ms"},
		"20-too":   {"sleep 600", "point=post-thaw\nlimit=400ms"},
		"30-good":  {"sleep 600 & exit 0", "point=post-thaw"},
	})
	r := runner(t, dir)
	at(t, r, agent.PointPrepare)
	r.End(time.Now())
	begin := time.Now()
	rows := at(t, r, agent.PointPostThaw).Results
	if len(rows) != 3 || rows[0].OK || rows[1].OK || !rows[2].OK || !strings.Contains(rows[0].Error, "was killed") {
		t.Errorf("rows %+v, want two that were killed and a good one", rows)
	}
	if took := time.Since(begin); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v, want about 400 ms", took)
	}
}

// End comes in the middle of the way, or before it.
func TestEndEarly(t *testing.T) {
	dir := folder(t, map[string][2]string{"10-slow": {"sleep 600", "point=prepare,pre-freeze,post-thaw\nholds=true\nlimit=1m"}})
	r := runner(t, dir)
	outcome := make(chan agent.HookOutcome, 1)
	go func() {
		outcome <- r.Run(t.Context(), agent.HookRequest{Point: agent.PointPrepare, Deadman: time.Minute}, func() {})
	}()
	eventually(t, "the hook runs", func() bool { return len(living(t, dir)) > 0 })
	begin := time.Now()
	r.End(time.Now())
	if o := <-outcome; o.Err == nil || !strings.Contains(o.Err.Error(), "the session ended") || time.Since(begin) > 3*time.Second {
		t.Errorf("prepare = %v after %v", o.Err, time.Since(begin))
	}
	if o := r.Run(t.Context(), agent.HookRequest{Point: agent.PointPreFreeze}, func() {}); o.Err == nil {
		t.Error("pre-freeze was run after the end")
	}
	if left := living(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestUntrusted is everything in and above the folder that somebody else could change.
func TestUntrusted(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"writable program":      {func(dir string) error { return os.Chmod(filepath.Join(dir, "10-a"), 0o775) }, "can be written"},
		"writable description":  {func(dir string) error { return os.Chmod(filepath.Join(dir, "10-a.conf"), 0o646) }, "can be written"},
		"writable folder":       {func(dir string) error { return os.Chmod(dir, 0o775) }, "can be written"},
		"sticky folder":         {func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "can be written"},
		"writable folder above": {func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) }, "can be written"},
		"link": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "10-a"), filepath.Join(dir, ".b")), os.Symlink(".b", filepath.Join(dir, "10-a")))
		}, "no plain file"},
		"not executable":   {func(dir string) error { return os.Chmod(filepath.Join(dir, "10-a"), 0o644) }, "not executable"},
		"no description":   {func(dir string) error { return os.Remove(filepath.Join(dir, "10-a.conf")) }, "no description"},
		"no program":       {func(dir string) error { return os.Remove(filepath.Join(dir, "10-a")) }, "describes no hook"},
		"bad description":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "10-a.conf"), []byte("point=x"), 0o600) }, `point "x"`},
		"large one":        {func(dir string) error { return os.Truncate(filepath.Join(dir, "10-a.conf"), 1<<20) }, "larger than"},
		"somebody else's":  {func(dir string) error { return os.Chown(filepath.Join(dir, "10-a"), 65534, 65534) }, "belongs to user 65534"},
		"somebody's above": {func(dir string) error { return os.Chown(filepath.Dir(dir), 65534, 65534) }, "belongs to user 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "somebody") && os.Geteuid() != 0 {
				return // only root can give files away
			}
			dir := filepath.Join(folder(t, nil), "hooks.d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "10-a"), "#!/bin/sh\n", 0o755)
			write(t, filepath.Join(dir, "10-a.conf"), "point=prepare", 0o644)
			at(t, runner(t, dir), agent.PointPrepare)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			o := runner(t, dir).Run(t.Context(), agent.HookRequest{Point: agent.PointPrepare, Deadman: time.Minute}, func() {})
			if o.Err == nil || !strings.Contains(o.Err.Error(), c.want) || len(o.Results) > 0 {
				t.Errorf("prepare = %v, want an error with %q, and nothing run", o.Err, c.want)
			}
		})
	}
	if o := at(t, runner(t, filepath.Join(t.TempDir(), "none")), agent.PointPrepare); len(o.Installed) != 0 {
		t.Errorf("no folder has %d hooks", len(o.Installed))
	}
}

// The agent dies or stands still while hooks hold: one of them ends with its standard input, the other has to be killed.
func TestAgentGone(t *testing.T) {
	for name, c := range map[string]struct {
		signal      syscall.Signal
		obey, stays time.Duration // longest time for a hook that ends with its input, and for one that does not
	}{
		"killed": {syscall.SIGKILL, time.Second, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string][2]string{
				"10-obeys": {"echo HELD; while read -r line; do :; done", holding},
				"20-stays": {`trap "" TERM HUP; echo HELD; sleep 600 & sleep 600`, holding},
			})
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "play-agent", dir)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || line != "held\n" {
				t.Fatalf("the agent says %q, %v", line, err)
			}
			begin := time.Now()
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			has := func(name string) bool { return strings.Contains(strings.Join(living(t, dir), " "), name) }
			eventually(t, "the obedient hook ends", func() bool { return !has("10-obeys") })
			if took := time.Since(begin); took > c.obey {
				t.Errorf("it took %v, want at most %v: somebody else holds its standard input open", took, c.obey)
			}
			eventually(t, "the other hook ends", func() bool { return !has("20-stays") })
			if took := time.Since(begin); took > c.stays {
				t.Errorf("the other hook lived for %v, want at most %v", took, c.stays)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the agent was not killed")
			}
		})
	}
}

// TestWatchdogDeadline is an agent that stands still: nobody tells the watchdog anything, and nothing ends.
func TestWatchdogDeadline(t *testing.T) {
	d, err := startWatchdog(t.Context(), 300*time.Millisecond, nil)
	if err != nil {
		t.Fatal(err)
	}
	hook := exec.Command("/bin/sh", "-c", `trap "" TERM; sleep 600 & sleep 600`)
	hook.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := hook.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := d.watch(hook.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := hook.Wait(); err == nil {
		t.Error("the hook was not killed")
	}
	if took := time.Since(begin); took < 300*time.Millisecond || took > 2*time.Second {
		t.Errorf("killed after %v, want 300 ms", took)
	}
	late := exec.Command("/bin/sleep", "600") // the agent goes on, and starts one more
	late.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := errors.Join(d.forget(hook.Process.Pid), late.Start()); err != nil {
		t.Fatal(err)
	}
	if err := d.watch(late.Process.Pid); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if err := late.Wait(); err == nil || time.Since(begin) > time.Second {
		t.Errorf("a late hook ended with %v after %v, want it killed at once", err, time.Since(begin))
	}
	if err := errors.Join(d.forget(late.Process.Pid), d.leave()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(d.cmd.Process.Pid)); err == nil {
		t.Error("the watchdog lives")
	}
}
