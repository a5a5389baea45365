package hook

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stillframe/stillframe/pkg/agent"
)

// The test binary plays the watchdog, and an agent that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case Command:
			os.Exit(Watchdog(os.Args[2:], os.Stderr))
		case "play-agent":
			os.Exit(playAgent(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

// playAgent holds the hooks of a folder, with its mark in a second one, and does nothing any more.
func playAgent(dirs []string) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // as the agent does: a hook may write when nobody reads any more
	o := Options{Dir: dirs[0], Owner: uint32(os.Getuid())}
	if len(dirs) > 1 {
		o.RunDir = dirs[1]
	}
	r := New(o)
	for _, p := range []agent.Point{agent.PointPrepare, agent.PointPreFreeze} {
		if o := r.Run(context.Background(), agent.HookRequest{Point: p, Run: "r", Deadman: time.Minute}, func() {}); o.Err != nil {
			fmt.Println(o.Err)
			return 1
		}
	}
	fmt.Println("held")
	select {}
}

// folder is a folder of hooks: pairs of a name's program and description.
func folder(t *testing.T, hooks map[string][2]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, h := range hooks {
		write(t, filepath.Join(dir, name), "#!/bin/sh\n"+h[0]+"\n", 0o755)
		write(t, filepath.Join(dir, name+suffix), h[1], 0o644)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func runner(t *testing.T, dir string) *Runner {
	t.Helper()
	r := New(Options{Dir: dir, Owner: uint32(os.Getuid())})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// eventually polls until ok or 10 s have passed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
