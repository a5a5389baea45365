package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
)

var update = flag.Bool("update", false, "rewrite the unit of the packages")

const unitOfPackages = "../../deploy/agent/stillframe-agent.service"

func TestUnitOfThePackages(t *testing.T) {
	want := unit("/usr/bin/stillframe-agent", nil)
	if *update {
		if err := os.WriteFile(unitOfPackages, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(unitOfPackages)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("deploy has another unit than install writes, go test -update rewrites it (-install +deploy):\n%s", diff)
	}
	if head, _, _ := strings.Cut(want, "[Service]"); !strings.Contains(head, "\nStartLimitIntervalSec=0\n") {
		t.Error("systemd would give up an agent that fails five times in 10 s, as it does while another has its port")
	}
	for _, private := range []string{"PrivateMounts", "PrivateTmp", "PrivateDevices", "ProtectSystem", "ProtectHome", "ReadOnlyPaths", "MountFlags", "ProtectKernel", "RuntimeDirectory"} {
		if strings.Contains(want, private+"=") || strings.Contains(want, private+"T") {
			t.Errorf("%s would give the agent mounts of its own, or take its list of frozen ones away", private)
		}
	}
}

// TestUnitIsUnderstood has systemd's own reader look at the unit, with a path that has to be quoted.
func TestUnitIsUnderstood(t *testing.T) {
	lab.Need(t, lab.Systemd)
	dir := filepath.Join(t.TempDir(), "50% of $HOME")
	exe, file := filepath.Join(dir, "stillframe-agent"), filepath.Join(dir, unitName)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(exe, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"ours":     {unit(exe, []string{"--port", "6465"}), true},
		"unquoted": {strings.ReplaceAll(unit(exe, nil), `"`, ""), false},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if complained := err != nil || strings.Contains(string(out), unitName); complained == c.good {
			t.Errorf("%s: systemd-analyze says %v, %s, want it understood: %t", name, err, out, c.good)
		}
	}
}

// systemctlDouble stands for systemd, which cannot run beside the init of a container: it starts what ExecStart of the unit
// says, stops it as systemd does, runs ExecStopPost, and keeps what it was asked in calls.
const systemctlDouble = `#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/calls"
unit=$dir/units/stillframe-agent.service
stop() {
  [ -f "$dir/pid" ] || return 0
  kill -TERM "$(cat "$dir/pid")"
  while kill -0 "$(cat "$dir/pid")" 2>/dev/null; do sleep 0.05; done
  rm "$dir/pid"
  eval "$(sed -n 's/^ExecStopPost=//p' "$unit")"
}
case $1 in
daemon-reload | enable) ;;
start)
  eval "$(sed -n 's/^ExecStart=//p' "$unit") >/dev/null 2>&1 &"
  echo $! >"$dir/pid"
  ;;
stop) stop ;;
disable)
  [ "$2" = --now ] || exit 1
  stop
  ;;
*) exit 1 ;;
esac
`

// installWithoutRoom has install write nothing into the new unit, and demands that the one before stays.
func (s *station) installWithoutRoom(unit string, args ...string) {
	s.t.Helper()
	before, err := os.ReadFile(unit)
	if err != nil {
		s.t.Fatal(err)
	}
	cut := exec.Command("sh", append([]string{"-c", `ulimit -f 0; exec "$0" install "$@"`, s.exe}, args...)...)
	cut.Env = s.env
	if out, err := cut.CombinedOutput(); err == nil {
		s.t.Errorf("install says %q, although it has no room for its unit", out)
	}
	if after, err := os.ReadFile(unit); err != nil || string(after) != string(before) {
		s.t.Errorf("install without room left the unit %q, %v, want the one before", after, err)
	}
}

// TestInstall goes through the life of an installation, with a double in place of systemd.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	double := filepath.Join(dir, "systemctl")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "units"), 0o755), os.WriteFile(double, []byte(systemctlDouble), 0o755)); err != nil {
		t.Fatal(err)
	}
	own, pin := identity(t)
	next, nextPin := identity(t)
	st := newStation(t, "STILLFRAME_LAB_FREEZER=unix:"+listenScript(t).path, "PATH="+os.Getenv("PATH"))
	without := st.agent(exitFailed, "install", "--peer", pin.String(), "--port", "0")
	if !strings.HasPrefix(without, "ERROR SF3724 systemd does not run here: ") {
		t.Errorf("install without systemd says %q, want SF3724", without)
	}
	p := st.serve("--port", "0") // another supervisor starts it
	part(t, meet(t, peerOf(own, p)))
	if out := st.agent(exitFailed, "uninstall"); !strings.Contains(out, "serves from") {
		t.Errorf("uninstall beside an agent that serves says %q", out)
	}
	st.stop(p, exitOK)

	st.env = append(st.env, "STILLFRAME_LAB_SYSTEMD="+dir)
	t.Cleanup(func() { // of a test that failed
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		pid, numberErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && numberErr == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			t.Errorf("the agent %d was left", pid)
		}
	})
	ready := func(args ...string) *process {
		t.Helper()
		line := st.agent(exitOK, append([]string{"install"}, args...)...)
		match := readyForm.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if match == nil || match[1] != p.fingerprint.String() {
			t.Fatalf("install says %q, want READY of %v", line, p.fingerprint)
		}
		return &process{fingerprint: p.fingerprint, address: "127.0.0.1:" + match[2]}
	}
	s := meet(t, peerOf(own, ready("--peer", pin.String(), "--port", "0")))
	if _, err := s.Rotate(t.Context(), nextPin); err != nil {
		t.Fatal(err)
	}
	part(t, s)
	st.installWithoutRoom(filepath.Join(dir, "units", unitName), "--peer", pin.String(), "--port", "0")
	again := ready("--port=0", "--peer="+pin.String()) // an update, told what the first installation was told
	part(t, meet(t, peerOf(next, again)))
	for range 2 {
		st.agent(exitOK, "uninstall")
	}
	if names, err := os.ReadDir(filepath.Join(dir, "units")); err != nil || len(names) > 0 {
		t.Errorf("units are left: %v, %v", names, err)
	}
	if _, err := os.Stat(st.home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home is left: %v", err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	const installs = "daemon-reload\nenable stillframe-agent.service\nstop stillframe-agent.service\nstart stillframe-agent.service\n"
	if want := installs + installs + "disable --now stillframe-agent.service\ndaemon-reload\n"; err != nil || string(calls) != want {
		t.Errorf("systemd was asked %q, %v, want %q", calls, err, want)
	}
}
