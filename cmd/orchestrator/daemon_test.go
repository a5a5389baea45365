package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/lab"
)

// station is a daemon's place in a world: its configuration and its folder.
type station struct {
	*world
	t   *testing.T
	env map[string]string
	// program is the daemon's.
	program string
}

// station writes a configuration with jobs, which are YAML.
func (w *world) station(t *testing.T, vm, jobs string) *station {
	t.Helper()
	dir, err := os.MkdirTemp("", "sf") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	env := w.environment(vm)
	user, password, _ := strings.Cut(env["GOVC_GUEST_LOGIN"], ":")
	s := &station{w, t, map[string]string{
		"PATH": env["PATH"], "LAB_PASSWORD": w.Password, "GUEST_PASSWORD": password,
		"STILLFRAME_SOCKET": filepath.Join(dir, "api.sock"), "STILLFRAME_CONFIG": filepath.Join(dir, "stillframe.yaml"),
	}, binaries.stillframe}
	s.configure(fmt.Sprintf(`vcenters:
  - {name: lab, url: %q, username: %q, password: "env:LAB_PASSWORD", ca: %q}
guests:
  defaults: {username: %q, password: "env:GUEST_PASSWORD", agent: %q}
store: {state_dir: %q}
listen: {socket: %q}
jobs:
`, w.VCenter, w.User, w.CAFile, user, binaries.agent, filepath.Join(dir, "state"), s.env["STILLFRAME_SOCKET"]) + jobs)
	return s
}

func (s *station) configure(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.env["STILLFRAME_CONFIG"], []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *station) configuration() string {
	s.t.Helper()
	text, err := os.ReadFile(s.env["STILLFRAME_CONFIG"])
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// daemonProcess is one daemon's process.
type daemonProcess struct {
	*exec.Cmd
	log    *safeLog
	exited chan error
}

// safeLog is written by a process and read by a test.
type safeLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// begin starts the daemon, which the test's end kills if nothing else ended it.
func (s *station) begin() *daemonProcess {
	s.t.Helper()
	r := &daemonProcess{exec.CommandContext(context.WithoutCancel(s.t.Context()), s.program, "daemon"), &safeLog{}, make(chan error, 1)}
	for k, v := range s.env {
		r.Env = append(r.Env, k+"="+v)
	}
	r.Stdout, r.Stderr = r.log, r.log
	if err := r.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { r.exited <- r.Wait() }()
	s.t.Cleanup(func() {
		if r.ProcessState == nil {
			_ = r.Process.Kill() //nolint:errcheck // it may have ended by now
			<-r.exited
		}
		s.t.Logf("the daemon wrote\n%s", r.log)
	})
	return r
}

// end waits for the daemon's exit status.
func (r *daemonProcess) end(t *testing.T) int {
	t.Helper()
	select {
	case <-r.exited:
		return r.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		t.Fatal("the daemon does not end")
		return -1
	}
}

// do runs one verb against the daemon.
func (s *station) do(args ...string) outcome {
	s.t.Helper()
	return operate(s.t, s.env, nil, args...)
}

// runs lists the runs that the daemon knows.
func (s *station) runs() []api.Run {
	s.t.Helper()
	var list struct {
		Runs []api.Run `json:"runs"`
	}
	if o := s.do("runs", "list", "-o=json"); o.exit != exitOK || json.Unmarshal([]byte(o.stdout), &list) != nil {
		return nil
	}
	return list.Runs
}

// awaitRun waits until the one run there is has come to an end.
func (s *station) awaitRun() api.Run {
	s.t.Helper()
	var last api.Run
	await(s.t, "the end of the run", func() bool {
		all := s.runs()
		if len(all) != 1 {
			return false
		}
		last = all[0]
		return last.FinishedAt != nil
	})
	return last
}

func (s *station) ready() {
	s.t.Helper()
	await(s.t, "the daemon to see its VMs", func() bool {
		o := s.do("vms", "list", "-o=json")
		return o.exit == exitOK && strings.Contains(o.stdout, `"name"`)
	})
}

// TestDaemonKilled kills the daemon with SIGKILL while a real file system is frozen. The next one frees the guest, takes away what
// is left, and does the run again: one run, no snapshot, nobody held. All other points of a run are TestCrashMatrix's.
func TestDaemonKilled(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "recover-killed")
	s := w.station(t, "frozen", "  - {name: job, select: {vms: [frozen]}}\n")
	first := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	await(t, "the window", func() bool { return w.heldNow(t, "frozen") && w.count(t, "CreateSnapshotEx_Task") > 0 })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.end(t)
	second := s.begin()
	r := s.awaitRun()
	if r.State != "done" || r.Attempt != 2 || r.Level != "filesystem" {
		t.Errorf("the run is %s at attempt %d with level %s, want done at 2 with filesystem", r.State, r.Attempt, r.Level)
	}
	free(t, w, "frozen", 10*time.Second)
	clean(t, w, "frozen")
	if o := s.do("audit", "verify", filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state", "audit.jsonl")); o.exit != exitOK {
		t.Errorf("the audit log is not whole: exit status %d", o.exit)
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := second.end(t); exit != exitOK {
		t.Errorf("SIGTERM: exit status %d", exit)
	}
}

// TestDaemonEnds sends SIGTERM into an open window: the run comes to its end first.
func TestDaemonEnds(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "recover-killed")
	s := w.station(t, "frozen", "  - {name: job, select: {vms: [frozen]}}\n")
	d := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	await(t, "the window", func() bool { return w.heldNow(t, "frozen") })
	if o := s.do("window", "top", "-o=json"); o.exit != exitOK || !strings.Contains(o.stdout, `"frozen"`) {
		t.Errorf("window top: exit status %d, want the open window", o.exit)
	}
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := d.end(t); exit != exitOK {
		t.Errorf("exit status %d, want 0", exit)
	}
	clean(t, w, "frozen")
	s.begin()
	if r := s.awaitRun(); r.State != "done" || r.Attempt != 1 {
		t.Errorf("the run is %s at attempt %d, want done at 1", r.State, r.Attempt)
	}
}

// TestDaemonConfiguration changes the configuration of a running daemon, for the better and for the worse.
func TestDaemonConfiguration(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	s := w.station(t, "vm", "  - {name: one, select: {vms: [vm]}}\n")
	good := s.configuration()

	s.configure(good + "  - {name: two, selekt: {vms: [vm]}}\n")
	d := s.begin()
	if exit := d.end(t); exit != exitConfig || !strings.Contains(d.log.String(), "jobs[1].selekt: there is no such key") {
		t.Errorf("a first start with a mistake: exit status %d, want %d and the mistake", exit, exitConfig)
	}
	s.configure(good)
	d = s.begin()
	s.ready()
	other := s.begin()
	if exit := other.end(t); exit != exitLocked {
		t.Errorf("a second daemon in the folder: exit status %d, want %d", exit, exitLocked)
	}
	s.configure(good + "  - {name: two, selekt: {vms: [vm]}}\n")
	if o := s.do("config", "reload"); o.exit != exitConfig {
		t.Errorf("a reload with a mistake: exit status %d, want %d", o.exit, exitConfig)
	}
	if o := s.do("jobs", "list"); o.exit != exitOK || !strings.Contains(o.stdout, "one") || strings.Contains(o.stdout, "two") {
		t.Errorf("after a reload with a mistake: exit status %d, jobs\n%s", o.exit, o.stdout)
	}
	s.configure(good + "  - {name: two, select: {vms: [vm]}}\n")
	if err := d.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "the new job", func() bool { return strings.Contains(s.do("jobs", "list").stdout, "two") })
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := d.end(t); exit != exitOK {
		t.Errorf("SIGTERM: exit status %d", exit)
	}
	if o := s.do("jobs", "list"); o.exit != exitUnreachable {
		t.Errorf("without a daemon: exit status %d, want %d", o.exit, exitUnreachable)
	}

	// A start with a mistake goes on by the last good configuration: something may have to be undone.
	s.env["STILLFRAME_STATE_DIR"] = filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state")
	s.configure("vcenters: 7\n")
	s.begin()
	await(t, "the last good configuration", func() bool { return strings.Contains(s.do("jobs", "list").stdout, "two") })
}
