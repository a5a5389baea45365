package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

// TestCanary plants one password wherever a command takes one, lets everything go well and wrong, and searches all that was
// printed and all that was left behind.
func TestCanary(t *testing.T) {
	c := canary.New()
	root := t.TempDir()
	state, public := filepath.Join(root, "state"), t.TempDir()
	planted := filepath.Join(root, "planted")
	if err := os.WriteFile(planted, []byte(c.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"STILLFRAME_STATE_DIR=" + state, "CREDENTIALS_DIRECTORY=" + root, "PLANTED=" + c.String(),
		"GOVC_USERNAME=operator", "GOVC_PASSWORD=" + c.String(), "GOVC_GUEST_LOGIN=root:" + c.String(),
	}
	const dead = "GOVC_URL=https://127.0.0.1:1/sdk"
	var all bytes.Buffer
	for _, step := range []struct {
		line   string
		url    string
		status int
	}{
		{"creds add vc --password-stdin --user operator", "", exitOK},
		{"creds add other --password-stdin -o json", "", exitOK},
		{"creds add vc --password-stdin", "", exitFailed},
		{"creds list", "", exitOK},
		{"creds list -o json", "", exitOK},
		{"creds test", "", exitOK},
		{"creds test -o json", "", exitOK},
		{"creds test env:PLANTED -o json", "", exitOK},
		{"creds test cred:planted", "", exitOK},
		{"creds test file:" + planted, "", exitOK},
		{"creds list --store-key env:PLANTED", "", exitOK},
		{"creds test vc --store-key env:PLANTED", "", exitWrongKey},
		{"creds test vc --store-key " + c.String(), "", exitConfig},
		{"creds test " + c.String() + "! -o json", "", exitConfig},
		{"creds rotate vc --password-stdin", "", exitOK},
		{"creds rotate-key", "", exitOK},
		{"creds rotate-key --recovery", "", exitOK},
		{"creds rotate-key --next file:" + filepath.Join(root, "key"), "", exitOK},
		{"creds rotate-key --next " + c.String(), "", exitConfig},
		{"creds add third " + c.String(), "", exitUsage},
		{"creds add third --password=" + c.String(), "", exitUsage},
		{"creds rm other", "", exitOK},
		{"creds add third", "", exitUsage},
		{"run --window-only --vm x --metrics-out " + filepath.Join(public, "m"), dead, exitFailed},
		{"run --window-only --vm x -o json", dead, exitFailed},
		{"run --window-only --vm x", "GOVC_URL=https://operator:" + c.String() + "@127.0.0.1:1/sdk", exitFailed},
		{"run --window-only --vm x", "GOVC_URL=https://operator:" + c.String() + "/x@127.0.0.1:1", exitUsage},
		{"run --window-only --vm x", "GOVC_URL=https://operator:" + c.String() + "%zz@127.0.0.1", exitUsage},
		{"doctor --vm x", dead, exitPreflight},
		{"doctor --vm x -o json", dead, exitPreflight},
		{"recover", dead, exitOK},
		{"vsphere check", dead, exitFailed},
	} {
		args := strings.Fields(step.line)
		if args[0] == "run" || args[0] == "doctor" {
			args = append(args, "--agent", binaries.agent)
		}
		cmd := exec.CommandContext(t.Context(), binaries.stillframe, args...)
		cmd.Env = append(slices.Clone(env), step.url)
		cmd.Stdin = strings.NewReader(c.String() + "\n")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if status := cmd.ProcessState.ExitCode(); status != step.status {
			t.Errorf("%s ended with %d, want %d: %v\n%s", step.line, status, step.status, err, &out)
		}
		if found := c.Find(out.Bytes()); found != nil {
			t.Errorf("%s prints the password as %q:\n%s", step.line, found, &out)
		}
		all.Write(out.Bytes())
	}
	for _, dir := range []string{state, public} {
		if found, err := c.Tree(dir); err != nil || found != nil {
			t.Errorf("%s holds the password: %q, %v", dir, found, err)
		}
	}
	t.Logf("searched %d bytes of output", all.Len())
}

// terminal is a real one: the program has its slave as standard input, the test types at its master.
func pseudoTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// TestPasswordFromATerminal types at a real terminal: nothing is echoed, two different passwords are refused, an interrupt leaves the
// terminal as it was.
func TestPasswordFromATerminal(t *testing.T) {
	c, other := canary.New(), canary.New()
	for name, day := range map[string]struct {
		typed     []string
		interrupt bool
		status    int
	}{
		"twice the same": {[]string{c.String(), c.String()}, false, exitOK},
		"two different":  {[]string{c.String(), other.String()}, false, exitUsage},
		"interrupted":    {[]string{c.String()}, true, exitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			master, slave := pseudoTerminal(t)
			state := t.TempDir()
			prompts, stderr, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer prompts.Close()
			cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binaries.stillframe, "creds", "add", "vc", "--state-dir", state)
			cmd.Stdin, cmd.Stderr = slave, stderr
			cmd.Env = []string{}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stderr.Close()
			var said bytes.Buffer
			chunk := make([]byte, 4096)
			for i, text := range day.typed {
				for strings.Count(said.String(), ": ") <= i { // the prompt
					n, err := prompts.Read(chunk)
					if err != nil {
						t.Fatalf("%v after %q", err, said.String())
					}
					said.Write(chunk[:n])
				}
				for echoes(t, slave) { // the prompt comes first; a person takes longer than this
					if err := unix.Kill(cmd.Process.Pid, 0); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := master.WriteString(text + "\n"); err != nil {
					t.Fatal(err)
				}
			}
			if day.interrupt {
				for !strings.Contains(said.String(), "once more: ") {
					n, err := prompts.Read(chunk)
					if err != nil {
						t.Fatalf("%v after %q", err, said.String())
					}
					said.Write(chunk[:n])
				}
				if err := cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := said.ReadFrom(prompts); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			if status := cmd.ProcessState.ExitCode(); status != day.status {
				t.Fatalf("ended with %d, want %d: %v\n%s", status, day.status, err, &said)
			}
			if !echoes(t, slave) {
				t.Error("the terminal is left without echo")
			}
			fd := int(master.Fd()) // it makes the file block, so it is asked for once
			if err := unix.SetNonblock(fd, true); err != nil {
				t.Fatal(err)
			}
			shown := make([]byte, 4096)
			n, err := unix.Read(fd, shown)
			if err != nil && err != unix.EAGAIN { //nolint:errorlint // the number of a plain system call
				t.Fatal(err)
			}
			if found := c.Find(append(shown[:max(n, 0)], said.Bytes()...)); found != nil {
				t.Errorf("the terminal shows the password as %q", found)
			}
			_, err = os.Stat(filepath.Join(state, "creds", "vc.age"))
			if stored := err == nil; stored != (day.status == exitOK) {
				t.Errorf("the secret is there: %v", stored)
			}
		})
	}
}
