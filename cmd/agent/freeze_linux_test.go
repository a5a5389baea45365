package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// needRoot skips, or fails when everything is demanded.
func needRoot(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprintf("needs root and loop devices: %v", err)
	if os.Getenv("STILLFRAME_REQUIRE") == "all" {
		t.Fatal(text)
	}
	t.Skip(text)
}

func tool(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// mountImage mounts a new ext4 of 64 MiB. A process of its own thaws it before it is unmounted, when the test or the
// whole test binary has ended.
func mountImage(t *testing.T) string {
	t.Helper()
	image, point := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := tool("mkfs.ext4", "-q", "-F", image); err != nil {
		needRoot(t, err)
	}
	device, err := tool("losetup", "--find", "--show", image)
	if err != nil {
		needRoot(t, err)
	}
	t.Cleanup(func() {
		if _, err := tool("losetup", "--detach", device); err != nil {
			t.Error(err)
		}
	})
	if _, err := tool("mount", device, point); err != nil {
		needRoot(t, err)
	}
	t.Cleanup(func() {
		if _, err := tool("umount", point); err != nil {
			t.Error(err)
		}
	})
	holder := exec.Command("sh", "-c", `exec 3<"$0"; read -r end; ! fsfreeze --unfreeze "$0" 2>/dev/null`, point)
	in, err := holder.StdinPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), holder.Wait()); err != nil {
			t.Errorf("the test left the file system frozen: %v", err)
		}
	})
	return point
}

// The pushed program itself holds a real file system; it is killed, and its watchdog thaws.
func TestKilledWhileARealFileSystemIsFrozen(t *testing.T) {
	point := mountImage(t)
	own, fingerprint := identity(t)
	p := launch(t, build(t, nil, "lab"), fingerprint, "STILLFRAME_LAB_ONLY_MOUNT="+point)
	conn, err := dial(t.Context(), t, own, p, p.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: conn}
	s.ask(hello(), protocol.WordHello, protocol.WordHello)
	ready := s.ask(&protocol.Arm{Mode: "fs", BackupType: "copy"}, protocol.WordArm, protocol.WordReady).(*protocol.Ready)
	if len(ready.Volumes) != 1 || ready.Volumes[0].Mounts[0] != point {
		t.Fatalf("READY = %+v, want only %s", ready, point)
	}
	frozen := s.ask(&protocol.Go{Go: 7, HoldMS: 20000}, protocol.WordGo, protocol.WordFrozen).(*protocol.Frozen)
	t.Logf("FROZEN after %d us, held for %d us", frozen.SinceGoUS, frozen.HoldUS)
	writer := exec.Command("touch", filepath.Join(point, "file"))
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- writer.Wait() }()
	select {
	case err := <-wrote:
		t.Errorf("a write on the frozen file system ended: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	begin := time.Now()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-wrote:
		if err != nil {
			t.Error(err)
		}
		t.Logf("written %v after the kill", time.Since(begin))
	case <-time.After(3 * time.Second):
		t.Error("still frozen 3 s after the kill of the agent")
	}
}
