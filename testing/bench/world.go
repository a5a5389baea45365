package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// machine is the one VM of the scenario.
const machine = "bench"

// programLimit bounds one run of a program.
const programLimit = 2 * time.Minute

// freezeProgram and thawProgram are the guest's own programs of the script. Each says when it was frozen, or is about to
// thaw, so that the script is charged only for the time in which the guest was really held.
const (
	freezeProgram = "#!/bin/sh\nfsfreeze -f \"$1\" && date +%s.%N\n"
	thawProgram   = "#!/bin/sh\ndate +%s.%N\nfsfreeze -u \"$1\"\n"
)

// world is the lab with both rivals.
type world struct {
	options
	*lab.World
	env   []string
	mount string
	// freezer and thawer are the paths of the script's programs.
	freezer, thawer string
	// scripted counts the windows of the script: each snapshot has a name of its own.
	scripted int

	mu sync.Mutex
	// queued and done are the stations of the last snapshot task, by the lab's own clock.
	queued, done time.Time
	// running is called when a snapshot task runs.
	running func()
}

// open starts the world with a file system and the script's programs in it.
func open(ctx context.Context, o options) (*world, error) {
	w, err := begin(ctx, o, o.scenario, "world")
	if err != nil {
		return nil, err
	}
	guest, _ := w.Guest(machine)
	linux, ok := guest.(*guests.Linux)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the scenario has no linux guest %q", machine), w.close(ctx))
	}
	dir := filepath.Join(o.out, "world")
	w.mount, w.freezer, w.thawer = linux.Mount(), filepath.Join(dir, "freeze"), filepath.Join(dir, "thaw")
	for path, text := range map[string]string{w.freezer: freezeProgram, w.thawer: thawProgram} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			return nil, errors.Join(err, w.close(ctx))
		}
	}
	return w, nil
}

// begin starts a world in a folder of its own, and has its snapshot tasks noted.
func begin(ctx context.Context, o options, file, name string) (*world, error) {
	scenario, err := lab.ReadScenario(file)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.out, name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "home"), 0o700)); err != nil {
		return nil, fmt.Errorf("clear the world of an earlier run: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	started, err := lab.Start(ctx, scenario, lab.Options{Dir: dir, Self: []string{self}, Programs: o.programs})
	if err != nil {
		return nil, err
	}
	w := &world{options: o, World: started}
	r := started.Ready()
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "GOVC_URL=" + r.VCenter, "GOVC_USERNAME=" + r.User,
		"GOVC_PASSWORD=" + r.Password, "GOVC_TLS_CA_CERTS=" + r.CAFile, "GOVC_VM=" + machine,
		"GOVC_GUEST_LOGIN=" + r.Guests[0].User + ":" + r.Guests[0].Password,
		"STILLFRAME_STATE_DIR=" + filepath.Join(dir, "state"),
	}
	started.VCenter().OnTask(w.station)
	return w, nil
}

func (w *world) close(ctx context.Context) error { return w.World.Close(ctx) }

// station notes when a snapshot task passes its stations.
func (w *world) station(_, method, stage string) {
	if !strings.HasPrefix(method, "CreateSnapshot") {
		return
	}
	now := time.Now()
	w.mu.Lock()
	running := w.running
	switch stage {
	case "queued":
		w.queued = now
	case "done":
		w.done = now
	}
	w.mu.Unlock()
	if stage == "running" && running != nil {
		running()
	}
}

// task is the last snapshot task's own time, as the lab saw it.
func (w *world) task() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done.Sub(w.queued)
}

// program runs one of the rivals and gives what it wrote to standard output.
func (w *world) program(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = w.env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("run %s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said.String())
	}
	return out.Bytes(), nil
}

// ours does one window by stillframe, with more flags if any.
func (w *world) ours(ctx context.Context, flags ...string) (backup.Result, error) {
	var r backup.Result
	out, err := w.program(ctx, w.stillframe, append([]string{"run", "--window-only", "--agent", w.agent, "-o", "json"}, flags...)...)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("read what stillframe printed: %w", err)
	}
	if r.Outcome != backup.OK {
		return r, fmt.Errorf("a window ended %s at level %s: %s", r.Outcome, r.Verdict.Level, r.Verdict.Cause)
	}
	return r, nil
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
