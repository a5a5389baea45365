package hook

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// said reads what the hooks of a folder left in .said.
func said(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, ".said"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// TestUndo kills an agent whose hooks hold: post-thaw is run later, once, and not before the holding hooks have ended.
func TestUndo(t *testing.T) {
	dir := folder(t, map[string][2]string{
		"10-stays": {`trap "" HUP; trap 'echo trapped >>"${0%/*}/.said"; exit' TERM; echo HELD; while :; do sleep 0.1; done`, holding},
		"90-undo":  {`echo "$STILLFRAME_RUN $STILLFRAME_POINT $STILLFRAME_OK" >>"${0%/*}/.said"`, "point=post-thaw"},
	})
	o := Options{Dir: dir, Owner: uint32(os.Getuid()), RunDir: t.TempDir()}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "play-agent", dir, o.RunDir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the agent says %q, %v", line, err)
	}
	if m, err := tryMark(filepath.Join(o.RunDir, markName), 0); !errors.Is(err, ErrHeldByAnother) {
		t.Fatalf("the mark of an agent that lives = %v, %v, want ErrHeldByAnother", m, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the agent was not killed")
	}
	rows, err := Undo(t.Context(), o)
	if err != nil || !one(t, rows).OK {
		t.Errorf("undo = %+v, %v", rows, err)
	}
	if rows, err := Undo(t.Context(), o); err != nil || len(rows) > 0 {
		t.Errorf("a second undo = %+v, %v, want nothing", rows, err)
	}
	if got := said(t, dir); got != "trapped\nr post-thaw 0\n" {
		t.Errorf("the hooks said %q, want the trap, then post-thaw", got)
	}
}

// TestMarkOfASession is there from the first hook to the end of post-thaw, and is left when the agent leaves before.
func TestMarkOfASession(t *testing.T) {
	o := Options{Dir: folder(t, map[string][2]string{
		"10-app": {`echo "$STILLFRAME_POINT" >>"${0%/*}/.said"; [ -e "$MARK" ]`, "point=prepare,post-thaw\n"},
	}), Owner: uint32(os.Getuid()), RunDir: filepath.Join(t.TempDir(), "run")}
	path := filepath.Join(o.RunDir, markName)
	write(t, filepath.Join(o.Dir, "10-app.conf"), "point=prepare,post-thaw\nenv.MARK="+path, 0o644)
	for _, whole := range []bool{true, false} {
		r := New(o)
		if row := one(t, at(t, r, agent.PointPrepare).Results); !row.OK {
			t.Errorf("prepare: %+v, want the mark to be there", row)
		}
		r.End(time.Now())
		if whole {
			if row := one(t, at(t, r, agent.PointPostThaw).Results); !row.OK {
				t.Errorf("post-thaw: %+v, want the mark to be there", row)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); (err == nil) == whole {
			t.Errorf("the mark: %v after a session with post-thaw = %t", err, whole)
		}
	}
	write(t, filepath.Join(o.Dir, "10-app"), "#!/bin/sh\nexit 1\n", 0o755)
	if _, err := Undo(t.Context(), o); err == nil || !strings.Contains(err.Error(), "10-app") {
		t.Errorf("undo = %v, want the failed hook", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the mark after undo: %v", err)
	}
}

// TestNothingStartsAfterEnd has a second hook at both points that must not be started once End was called.
func TestNothingStartsAfterEnd(t *testing.T) {
	for _, p := range []agent.Point{agent.PointPrepare, agent.PointPreFreeze} {
		description := "required=false\npoint=" + string(p)
		if p == agent.PointPreFreeze {
			description += "\nholds=true"
		}
		dir := folder(t, map[string][2]string{
			"10-slow": {"sleep 600", description}, "20-next": {`echo next >>"${0%/*}/.said"`, description},
		})
		r := runner(t, dir)
		if p == agent.PointPreFreeze {
			at(t, r, agent.PointPrepare)
		}
		outcome := make(chan agent.HookOutcome, 1)
		go func() {
			outcome <- r.Run(t.Context(), agent.HookRequest{Point: p, Deadman: time.Minute}, func() {})
		}()
		eventually(t, "the hook runs", func() bool { return len(living(t, dir)) > 0 })
		r.End(time.Now())
		if o := <-outcome; o.Err == nil || said(t, dir) != "" {
			t.Errorf("%s = %v, the next hook said %q, want an error and nothing", p, o.Err, said(t, dir))
		}
	}
}
