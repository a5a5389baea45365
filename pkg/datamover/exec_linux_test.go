package datamover

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/stillframe/stillframe/pkg/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "p\"w\nCANARY-0123" // with what JSON has to quote

// job is a job whose run nobody else has.
func job(t *testing.T) Job {
	t.Helper()
	u, err := url.Parse("https://vc.example:8443/sdk")
	if err != nil {
		t.Fatal(err)
	}
	return Job{
		RunID: uuid.NewString(), Level: "application",
		VM:       inventory.VM{Name: "db\x001", Path: "/DC0/vm/db1", Moref: "vm-42", InstanceUUID: "5013-i"},
		Snapshot: inventory.Snapshot{Name: "stillframe-r-1", Moref: "snapshot-7", VM: "vm-42"},
		Origin: Origin{
			URL: u, Thumbprint: "ab12",
			Login: func(context.Context) (*url.Userinfo, error) {
				return url.UserPassword("mover@vsphere.local", secret), nil
			},
			Disks: []inventory.Disk{
				{Key: 2000, Label: "Hard disk 1", File: "[ds1] db1/db1.vmdk", UUID: "6000C29e", CapacityBytes: 1 << 40, ChangeID: "52 de/7"},
				{Key: 2016, Label: "Hard disk 2", File: "[ds1] db1/db1_1.vmdk", CapacityBytes: 64},
			},
		},
	}
}

// program writes a shell program; dir is where it may write, as its first argument.
func program(t *testing.T, body string) (x *Exec, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "mover")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Exec{Command: path, Args: []string{dir}, Limit: time.Minute, Home: "/nowhere", termGrace: 300 * time.Millisecond, reapLimit: 20 * time.Second}, dir
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return ""
}

func TestMove(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		change  func(*Exec)
		cancel  time.Duration
		want    Report
		code    string
		atMost  time.Duration // of the whole move
		atLeast time.Duration
	}{
		"all stored": {
			body: `echo hello; echo '{"progress":0.4,"bytes_read":7}'; printf '{"progress":2,"bytes_read":-1,"bytes_stored":8,"text":"disk \\u001b[2J2000","more":1}\n'; exit 0`,
			want: Report{Stored: StoredAll, Last: Progress{Fraction: 1, BytesStored: 8, Text: "disk [2J2000"}},
		},
		"a part":         {body: `exit 3`, want: Report{Stored: StoredPartial, ExitStatus: 3}, code: "SF5203"},
		"nothing":        {body: `printf 'no \033[31mspace\a\r\nleft' >&2; exit 1`, want: Report{ExitStatus: 1, Said: "no [31mspace\nleft"}, code: "SF5202"},
		"killed":         {body: `kill -9 $$`, want: Report{ExitStatus: -1, Signal: "killed"}, code: "SF5202"},
		"broken program": {body: "exit 0", change: func(x *Exec) { x.Command = filepath.Join(filepath.Dir(x.Command), "..") }, want: Report{ExitStatus: -1}, code: "SF5201"},
		"no program":     {body: "exit 0", change: func(x *Exec) { x.Command += "s" }, want: Report{ExitStatus: -1}, code: "SF5201"},
		"no interpreter": {body: "exit 0", change: func(x *Exec) { mustWrite(x.Command, "#!/no/such\n") }, want: Report{ExitStatus: -1}, code: "SF5201"},
		"hangs":          {body: "sleep 1000", change: func(x *Exec) { x.Limit = 200 * time.Millisecond }, want: Report{ExitStatus: -1, Signal: "terminated"}, code: "SF5204", atLeast: 200 * time.Millisecond},
		"hangs, and will not end": {
			body: "trap '' TERM; sleep 1000", change: func(x *Exec) { x.Limit = 200 * time.Millisecond },
			want: Report{ExitStatus: -1, Signal: "killed"}, code: "SF5204", atLeast: 500 * time.Millisecond,
		},
		"says that all is well when it is stopped": {
			body: "trap 'exit 0' TERM; sleep 1000 & wait", change: func(x *Exec) { x.Limit = 200 * time.Millisecond },
			want: Report{}, code: "SF5204",
		},
		"silent": {body: "sleep 1000", change: func(x *Exec) { x.Silence = 200 * time.Millisecond }, want: Report{ExitStatus: -1, Signal: "terminated"}, code: "SF5205"},
		"silent but for chatter": {
			body: "while :; do echo x; sleep 0.05; done", change: func(x *Exec) { x.Silence = 300 * time.Millisecond },
			want: Report{ExitStatus: -1, Signal: "terminated"}, code: "SF5205",
		},
		"slow but not silent": {
			body:   `for i in 1 2 3 4 5 6; do echo '{"progress":0.5}'; sleep 0.2; done`,
			change: func(x *Exec) { x.Silence = 900 * time.Millisecond },
			want:   Report{Stored: StoredAll, Last: Progress{Fraction: 0.5}}, atLeast: 1200 * time.Millisecond,
		},
		"interrupted": {body: "sleep 1000", cancel: 200 * time.Millisecond, want: Report{ExitStatus: -1, Signal: "terminated"}, code: "SF5206"},
		"leaves a child that keeps the output open": {
			body: `setsid sh -c 'echo $$ >"$1/pid"; exec sleep 1000' - "$1" & while ! [ -s "$1/pid" ]; do sleep 0.01; done; exit 0`,
			want: Report{Stored: StoredAll}, atLeast: drainLimit,
		},
		"leaves a child in its group": {
			body: `sleep 1000 & echo $! >"$1/pid"; exit 0`, want: Report{Stored: StoredAll}, atMost: drainLimit,
		},
		"floods": {
			body: `yes "$(head -c 9000 /dev/zero | tr '\0' x)" & yes >&2 & sleep 0.5; exit 3`,
			want: Report{Stored: StoredPartial, ExitStatus: 3, Said: "..." + strings.TrimSpace(strings.Repeat("y\n", maxTail/2))}, code: "SF5203",
		},
		"floods with progress": {
			body:   `yes '{"progress":0.25}' & sleep 1.5; exit 0`,
			change: func(x *Exec) { x.Silence = 1200 * time.Millisecond },
			want:   Report{Stored: StoredAll, Last: Progress{Fraction: 0.25}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, dir := program(t, c.body)
			if c.change != nil {
				c.change(x)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.cancel > 0 {
				defer time.AfterFunc(c.cancel, cancel).Stop()
			}
			begin := time.Now()
			told := 0
			got, err := x.Move(ctx, job(t), func(Progress) { told++ })
			took := time.Since(begin)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if codeOf(err) != c.code || (err == nil) != (c.code == "") {
				t.Errorf("error %v with code %q, want %q", err, codeOf(err), c.code)
			}
			if c.atMost == 0 {
				c.atMost = 15 * time.Second // of a busy machine
			}
			if took < c.atLeast || took > c.atMost {
				t.Errorf("took %v, want from %v to %v", took, c.atLeast, c.atMost)
			}
			if most := 1 + int(took/progressEvery); told > most {
				t.Errorf("progress was told %d times in %v, want at most %d", told, took, most)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
				gone(t, strings.TrimSpace(string(text)), !strings.Contains(c.body, "setsid"))
			}
		})
	}
}

func mustWrite(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		panic(err)
	}
}

// gone wants a child of the program to be gone, or to be alive, and then ends it.
func gone(t *testing.T, text string, want bool) {
	t.Helper()
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	left := func() bool { return syscall.Kill(pid, 0) == nil && !zombie(pid) }
	for limit := time.Now().Add(5 * time.Second); want && left() && time.Now().Before(limit); { // a signal takes its time
		runtime.Gosched()
	}
	if left() == want {
		t.Errorf("child %d is alive: %t, want %t", pid, !want, want)
	}
	if !want {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// TestEnvironment wants exactly what is documented, and the account only through its descriptor.
func TestEnvironment(t *testing.T) {
	t.Setenv("GOVC_PASSWORD", "CANARY-environment")
	x, dir := program(t, `tr '\0' '\n' </proc/$$/environ >"$1/env"; tr '\0' '\n' </proc/$$/cmdline >"$1/args"; eval "cat <&$STILLFRAME_CREDENTIALS_FD" >"$1/account"; pwd >"$1/pwd"; ls -l /proc/self/fd >"$1/fds"; cat >"$1/stdin"`)
	x.Args = append(x.Args, "a b", "$HOME")
	j := job(t)
	if r, err := x.Move(t.Context(), j, nil); err != nil || r.Stored != StoredAll {
		t.Fatalf("%+v, %v", r, err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := []string{
		"HOME=/nowhere", "PATH=" + searchPath, "STILLFRAME_CREDENTIALS_FD=3", "STILLFRAME_DISKS=2",
		"STILLFRAME_DISK_0_CAPACITY_BYTES=1099511627776", "STILLFRAME_DISK_0_CHANGE_ID=52 de/7", "STILLFRAME_DISK_0_FILE=[ds1] db1/db1.vmdk",
		"STILLFRAME_DISK_0_KEY=2000", "STILLFRAME_DISK_0_LABEL=Hard disk 1", "STILLFRAME_DISK_0_UUID=6000C29e",
		"STILLFRAME_DISK_1_CAPACITY_BYTES=64", "STILLFRAME_DISK_1_CHANGE_ID=", "STILLFRAME_DISK_1_FILE=[ds1] db1/db1_1.vmdk",
		"STILLFRAME_DISK_1_KEY=2016", "STILLFRAME_DISK_1_LABEL=Hard disk 2", "STILLFRAME_DISK_1_UUID=",
		"STILLFRAME_ENDPOINT_THUMBPRINT=ab12", "STILLFRAME_ENDPOINT_URL=https://vc.example:8443/sdk", "STILLFRAME_LEVEL=application",
		"STILLFRAME_RUN_ID=" + j.RunID, "STILLFRAME_SNAPSHOT_MOREF=snapshot-7", "STILLFRAME_SNAPSHOT_NAME=stillframe-r-1",
		"STILLFRAME_VM_INSTANCE_UUID=5013-i", "STILLFRAME_VM_MOREF=vm-42", "STILLFRAME_VM_NAME=db1", "STILLFRAME_VM_PATH=/DC0/vm/db1",
	}
	got := strings.Split(strings.TrimSpace(read("env")), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if account := read("account"); account != `{"username":"mover@vsphere.local","password":"p\"w\nCANARY-0123"}`+"\n" {
		t.Errorf("the account is %q", account)
	}
	if both := read("env") + read("args"); strings.Contains(both, "CANARY") || !strings.HasSuffix(both, "a b\n$HOME\n") {
		t.Errorf("arguments and environment show a secret, or the arguments are not as given:\n%s", both)
	}
	if pwd, stdin := read("pwd"), read("stdin"); pwd != "/\n" || stdin != "" {
		t.Errorf("it runs in %q with %q as input, want / and nothing", pwd, stdin)
	}
	if open := strings.Count(read("fds"), "pipe:"); open != 2 || strings.Contains(read("fds"), "socket:") {
		t.Errorf("%d pipes are open, want only standard error and the account:\n%s", open, read("fds"))
	}
}

func TestCheck(t *testing.T) {
	x, _ := program(t, "exit 0")
	if err := x.Check(); err != nil {
		t.Errorf("Check() = %v, want it usable", err)
	}
	for what, change := range map[string]func(*Exec){
		"not absolute":   func(x *Exec) { x.Command = "mover" },
		"not positive":   func(x *Exec) { x.Limit = 0 },
		"negative":       func(x *Exec) { x.Silence = -1 },
		"no such file":   func(x *Exec) { x.Command = "/no/such/mover" },
		"it is no file":  func(x *Exec) { x.Command = "/" },
		"not executable": func(x *Exec) { x.Command = "/etc/passwd" },
	} {
		bad := *x
		change(&bad)
		if err := bad.Check(); codeOf(err) != "SF5201" || !strings.Contains(err.Error(), what) {
			t.Errorf("Check() = %v, want SF5201 with %q", err, what)
		}
	}
}

// TestAccountThatCannotBeRead starts nothing.
func TestAccountThatCannotBeRead(t *testing.T) {
	for want, login := range map[string]func(context.Context) (*url.Userinfo, error){
		"no vault": func(context.Context) (*url.Userinfo, error) { return nil, errors.New("no vault") },
		"more than 4096": func(context.Context) (*url.Userinfo, error) {
			return url.UserPassword("u", strings.Repeat("x", 5000)), nil
		},
	} {
		x, dir := program(t, `touch "$1/started"`)
		j := job(t)
		j.Origin.Login = login
		_, err := x.Move(t.Context(), j, nil)
		if _, there := os.Stat(filepath.Join(dir, "started")); codeOf(err) != "SF5201" || !strings.Contains(err.Error(), want) || there == nil {
			t.Errorf("Move = %v, want SF5201 with %q and nothing started", err, want)
		}
	}
}

// TestEndLeft ends every process of one run, whatever it does to stay, and nothing else.
func TestEndLeft(t *testing.T) {
	x, dir := program(t, `setsid sh -c 'trap "" TERM; echo $$ >"$1/pid"; while :; do sleep 0.1; done' - "$1" >/dev/null 2>&1 & while ! [ -s "$1/pid" ]; do sleep 0.01; done`)
	ours, other := job(t), job(t)
	pids := map[string]string{}
	for _, j := range []Job{ours, other} {
		if _, err := x.Move(t.Context(), j, nil); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err := errors.Join(err, os.Remove(filepath.Join(dir, "pid"))); err != nil {
			t.Fatal(err)
		}
		pids[j.RunID] = strings.TrimSpace(string(text))
	}
	if err := endLeft(t.Context(), ours.RunID, 200*time.Millisecond); err != nil {
		t.Error(err)
	}
	gone(t, pids[ours.RunID], true)
	gone(t, pids[other.RunID], false)
	if err := EndLeft(t.Context(), ours.RunID); err != nil {
		t.Errorf("again: %v, want nothing to end", err)
	}
	if EndLeft(t.Context(), "") == nil {
		t.Error("no run is named, want an error")
	}
}

// FuzzLines holds what is read from a program within its bounds, however it is cut into pieces.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"progress\":0.5}\nchatter\n{\"progress\":1e999}\n{}"), 3)
	f.Add([]byte(`{"progress":0.1,"text":"`+strings.Repeat("x", maxLine)+"\"}\n"), 4096)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		l, e := newLines(), &tail{}
		for piece := range slices.Chunk(text, min(max(size, 1), 1<<16)) {
			if n, err := l.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			if n, err := e.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		if len(l.line) > maxLine || len(e.kept) > maxTail || strings.ContainsAny(e.tail(), "\x1b\r\x00") {
			t.Errorf("%d bytes of a line, %d of the end, %q", len(l.line), len(e.kept), e.tail())
		}
		select {
		case p := <-l.progress:
			if p.Fraction < 0 || p.Fraction > 1 || p.BytesRead < 0 || len([]rune(p.Text)) > maxText {
				t.Errorf("progress %+v", p)
			}
		default:
		}
	})
}
