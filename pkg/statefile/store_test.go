package statefile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/admission"
)

// childEnv makes this test binary a process of its own, which works in the folder that it names.
const childEnv = "STATEFILE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what, dir, is := strings.Cut(os.Getenv(childEnv), " "); is {
		if err := child(context.Background(), what, dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child intends and settles without end, telling each word that was kept; or acquires a VM and waits.
func child(ctx context.Context, what, dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	if what == "acquire" {
		if err := s.Acquire(ctx, "vm", "child"); err != nil {
			return err
		}
		fmt.Println("acquired")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	for {
		begun, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		i := Intent{Kind: Snapshot, Subject: fmt.Sprint(begun.Epoch), VM: "vm"}
		if err := s.Intend(ctx, i); err != nil {
			return err
		}
		fmt.Println("intended", begun.Epoch)
		if begun.Epoch%2 == 0 {
			continue
		}
		fmt.Println("settling", begun.Epoch)
		if err := s.Settle(ctx, i); err != nil {
			return err
		}
	}
}

func start(t *testing.T, what, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what+" "+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	ended(t, cmd)
}

// ended waits for a killed child; it closes what is still unread of its output.
func ended(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var status *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &status) {
		t.Error(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func code(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}

// TestKilledAtAnyPoint kills a writing process again and again: the file is always whole, and keeps every word that was
// said to be kept.
func TestKilledAtAnyPoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	want, maybe := map[string]bool{}, map[string]bool{}
	var last uint64
	for round := range 40 {
		cmd, out := start(t, "write", dir)
		for n := 0; ; n++ {
			line, err := out.ReadString('\n')
			if err != nil {
				break // it was killed, and everything that it said is read
			}
			var epoch uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(line), "intended %d", &epoch); err == nil {
				if epoch <= last {
					t.Errorf("epoch %d came after %d", epoch, last)
				}
				last, want[fmt.Sprint(epoch)] = epoch, true
			} else if _, err := fmt.Sscanf(strings.TrimSpace(line), "settling %d", &epoch); err == nil {
				maybe[fmt.Sprint(epoch)] = true
			} else {
				t.Fatalf("the child says %q", line)
			}
			if n == round%7 {
				pause := time.NewTimer(time.Duration(round) * 97 * time.Microsecond)
				<-pause.C
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		ended(t, cmd)
		intents, err := s.Intents(t.Context(), "vm")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		have := map[string]bool{}
		for _, i := range intents {
			have[i.Subject] = true
		}
		for subject := range want {
			if !have[subject] && !maybe[subject] {
				t.Errorf("round %d: intent %s was kept and is lost", round, subject)
			}
		}
		for subject := range have {
			want[subject] = true // intended, killed before it could say so
		}
	}
	if len(want) < 40 {
		t.Errorf("only %d intents in 40 rounds", len(want))
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) > 3 {
		t.Errorf("the folder has %v, %v, want the file, the lock and at most one new file", names, err)
	}
}

func TestManyAtOnceLoseNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			s, err := Open(dir, Options{})
			for i := range 5 {
				err = errors.Join(err, s.Intend(t.Context(), Intent{Kind: Folder, Subject: fmt.Sprint(n, i), VM: fmt.Sprint(n)}))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	all, err := open(t, dir).Intents(t.Context(), "")
	if err != nil || len(all) != 40 {
		t.Errorf("%d intents, %v, want 40", len(all), err)
	}
	mine, err := open(t, dir).Intents(t.Context(), "3")
	if err != nil || len(mine) != 5 {
		t.Errorf("%d intents of VM 3, %v, want 5", len(mine), err)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	if _, err := open(t, dir).Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600, filepath.Join(dir, lockName): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %04o", path, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); code(err) != "SF1101" {
		t.Errorf("Open of a folder that others write to = %v, want SF1101", err)
	}
}

func TestUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "relative", file, filepath.Join(file, "below")} {
		if _, err := Open(dir, Options{}); code(err) != "SF1101" {
			t.Errorf("Open(%q, Options{}) = %v, want SF1101", dir, err)
		}
	}
}

// TestOfAnother wants a folder that another user owns refused: a made one where the test may give it away, else the root.
func TestOfAnother(t *testing.T) {
	dir := "/"
	if os.Geteuid() == 0 {
		dir = filepath.Join(t.TempDir(), "state")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{}); code(err) != "SF1101" || !strings.Contains(err.Error(), "another user") {
		t.Errorf("Open of another's folder = %v, want SF1101", err)
	}
}

// TestActive tells the living owner of a VM, and neither a dead one nor another VM's.
func TestActive(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state"))
	ask := func(vm, run string) {
		t.Helper()
		if owner, works, err := s.Active(t.Context(), vm); err != nil || works != (run != "") || works && owner.Run != run {
			t.Errorf("Active(%q) = %+v, %t, %v, want run %q", vm, owner, works, err, run)
		}
	}
	ask("vm", "")
	if err := s.Acquire(t.Context(), "vm", "run"); err != nil {
		t.Fatal(err)
	}
	ask("vm", "run")
	ask("other", "")
	err := s.update(t.Context(), "age the boot", func(now *state) error {
		owner := now.Runs["vm"]
		owner.BootID = "an earlier one"
		now.Runs["vm"] = owner
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ask("vm", "")
}

// TestFailedWriteKeepsTheOld puts a folder in the way of the new file, as a stand-in for a full disk.
func TestFailedWriteKeepsTheOld(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	kept := Intent{Kind: Snapshot, Subject: "kept", VM: "vm", Run: "r", Epoch: 7, At: time.Now().UTC()}
	if err := s.Intend(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, newName, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context(), kept); code(err) != "SF1101" {
		t.Errorf("Settle = %v, want SF1101", err)
	}
	got, err := s.Intents(t.Context(), "vm")
	if diff := cmp.Diff([]Intent{kept}, got); diff != "" || err != nil {
		t.Errorf("after a failed write (-want +got), %v:\n%s", err, diff)
	}
}

func TestDamagedFileIsNeverEmptied(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":        func([]byte) []byte { return []byte{} },
		"cut":          func(b []byte) []byte { return b[:len(b)/2] },
		"one bit":      func(b []byte) []byte { b[len(b)-20] ^= 1; return b },
		"other file":   func([]byte) []byte { return []byte("PNG\n") },
		"newer":        func(b []byte) []byte { return []byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1)) },
		"header alone": func(b []byte) []byte { head, _, _ := strings.Cut(string(b), "\n"); return []byte(head) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := open(t, dir)
			if err := s.Intend(t.Context(), Intent{Kind: Snapshot, Subject: "x", VM: "vm"}); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, fileName)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := spoil(content)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it is refused until somebody has looked, not once
				if _, err := s.Begin(t.Context()); code(err) != "SF1102" {
					t.Errorf("Begin = %v, want SF1102", err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != string(bad) {
				t.Errorf("the file changed: %q, %v", got, err)
			}
			asides, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(asides) != 1 {
				t.Fatalf("copies aside: %v, %v, want one", asides, err)
			}
			if got, err := os.ReadFile(asides[0]); err != nil || string(got) != string(bad) {
				t.Errorf("the copy aside has %q, %v", got, err)
			}
		})
	}
}

// A copy that a full disk cut short is no copy: the next look makes it whole, and says where it is.
func TestDamagedCopyIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, []byte("not a state file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context()); code(err) != "SF1102" {
		t.Fatalf("Begin = %v, want SF1102", err)
	}
	asides, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(asides) != 1 {
		t.Fatalf("copies aside: %v, %v, want one", asides, err)
	}
	if err := os.Truncate(asides[0], 3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context()); code(err) != "SF1102" || !strings.Contains(err.Error(), asides[0]) {
		t.Errorf("Begin = %v, want SF1102 that names the copy", err)
	}
	if got, err := os.ReadFile(asides[0]); err != nil || string(got) != "not a state file" {
		t.Errorf("the copy aside has %q, %v", got, err)
	}
}

func TestEpochAlwaysRises(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state"))
	first, err := s.Begin(t.Context())
	if err != nil || first.Epoch < uint64(time.Now().Add(-time.Minute).UnixMilli()) {
		t.Fatalf("Begin = %+v, %v, want an epoch of now", first, err)
	}
	ahead := first.Epoch + uint64(time.Hour.Milliseconds())
	if err := s.update(t.Context(), "step the clock back", func(now *state) error { now.LastEpoch = ahead; return nil }); err != nil {
		t.Fatal(err)
	}
	second, err := s.Begin(t.Context())
	if err != nil || second.Epoch != ahead+1 || second.ID != first.ID || len(first.ID) != 36 {
		t.Errorf("Begin = %+v, %v, want epoch %d of installation %s", second, err, ahead+1, first.ID)
	}
}

func TestOneRunOfAVM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	cmd, out := start(t, "acquire", dir)
	if line, err := out.ReadString('\n'); err != nil || line != "acquired\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	var active *ActiveError
	err := s.Acquire(t.Context(), "vm", "mine")
	if !errors.As(err, &active) || code(err) != "SF1103" || active.Owner.PID != cmd.Process.Pid || active.Owner.Run != "child" {
		t.Errorf("Acquire = %v, want SF1103 of process %d", err, cmd.Process.Pid)
	}
	if err := s.Acquire(t.Context(), "other", "mine"); err != nil {
		t.Errorf("Acquire of another VM = %v", err)
	}
	if err := s.Release(t.Context(), "vm", "mine"); err != nil {
		t.Error(err)
	}
	if err := s.Acquire(t.Context(), "vm", "mine"); code(err) != "SF1103" {
		t.Errorf("Acquire after another's Release = %v, want SF1103", err)
	}
	kill(t, cmd)
	if err := s.Acquire(t.Context(), "vm", "mine"); err != nil {
		t.Errorf("Acquire of a dead process's VM = %v", err)
	}
	if err := s.Acquire(t.Context(), "vm", "second"); code(err) != "SF1103" {
		t.Errorf("a second run of the same process = %v, want SF1103", err)
	}
	if err := errors.Join(s.Release(t.Context(), "vm", "mine"), s.Acquire(t.Context(), "vm", "second")); err != nil {
		t.Error(err)
	}
}

func TestStaleOwners(t *testing.T) {
	own, err := self("r")
	if err != nil || !own.alive(own.BootID) {
		t.Fatalf("this process is not alive: %+v, %v", own, err)
	}
	for name, change := range map[string]func(*Owner){
		"another boot":        func(o *Owner) { o.BootID = "x" },
		"the pid is reused":   func(o *Owner) { o.StartTicks++ },
		"there is no process": func(o *Owner) { o.PID = 1 << 30 },
	} {
		o := own
		change(&o)
		if o.alive(own.BootID) {
			t.Errorf("%s: alive", name)
		}
	}
}

func TestRefusedSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	ctx := t.Context()
	if err := s.Tried(ctx, "root", "hunter2"); err != nil {
		t.Errorf("Tried of an unknown one = %v", err)
	}
	if err := s.Refuse(ctx, "root", "hunter2", "SF3001"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tried(ctx, "root", "hunter2"); code(err) != "SF1104" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Tried of the refused one = %v, want SF1104", err)
	}
	for credential, secret := range map[string]string{"root": "hunter3", "admin": "hunter2"} {
		if err := s.Tried(ctx, credential, secret); err != nil {
			t.Errorf("Tried(%s, %s) = %v", credential, secret, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil || strings.Contains(string(content), "hunter") {
		t.Errorf("the file has the secret: %v", err)
	}
	age := func(d time.Duration) {
		err := s.update(ctx, "let time pass", func(now *state) error {
			r := now.Refusals["root"]
			r.At = time.Now().Add(-d)
			now.Refusals["root"] = r
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	age(breakerFor - time.Minute)
	if err := s.Tried(ctx, "root", "hunter2"); code(err) != "SF1104" {
		t.Errorf("Tried after 14 min = %v, want SF1104", err)
	}
	age(breakerFor)
	if err := s.Tried(ctx, "root", "hunter2"); err != nil {
		t.Errorf("Tried after 15 min = %v", err)
	}
}

func TestWindows(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state"))
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var want []admission.Sample
	for n := range admission.Keep + 3 {
		w := admission.Sample{
			At: at.Add(time.Duration(n) * time.Hour), Freeze: 120 * time.Millisecond, Snapshot: time.Duration(n) * time.Second,
			Thaw: 15 * time.Millisecond, Late: n%2 == 0, Road: "guestops", Channel: "direct", Via: admission.ThroughHost,
		}
		want = append(want, w)
		if err := s.Record(t.Context(), "vm", w); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Windows(t.Context(), "vm")
	if diff := cmp.Diff(want[3:], got); diff != "" || err != nil {
		t.Errorf("Windows (-want +got), %v:\n%s", err, diff)
	}
	if got, err := s.Windows(t.Context(), "other"); len(got) != 0 || err != nil {
		t.Errorf("Windows of an unknown VM = %v, %v", got, err)
	}
}

func TestLockedForTooLong(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state"))
	err := s.locked(t.Context(), "hold", func() error {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		_, err := s.Begin(ctx)
		return err
	})
	if code(err) != "SF1101" || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Begin under another's lock = %v, want SF1101 with the cause", err)
	}
}
