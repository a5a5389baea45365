package fsfreeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
)

// The test binary plays the other processes too: no test touches a frozen file system itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "watchdog":
			os.Exit(Watchdog(os.Args[2:], os.Stderr))
		case "play-agent":
			os.Exit(playAgent(os.Args[2], os.Args[3], os.Args[4]))
		case "play-writer":
			os.Exit(playWriter(os.Args[2]))
		case "play-holder":
			os.Exit(playHolder(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

// playAgent freezes one mount and then does nothing any more.
func playAgent(point, runDir, deadman string) int {
	limit, err := time.ParseDuration(deadman)
	if err != nil {
		return 2
	}
	f := New(Options{Bound: Bound{OnlyMount: []string{point}}, RunDir: runDir})
	if _, err := f.Prepare(context.Background(), agent.PrepareRequest{Mode: mode, SecondNet: limit}); err != nil {
		fmt.Println("error", err)
		return 1
	}
	if err := f.freeze(context.Background(), func() {}); err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("frozen")
	select {}
}

// playWriter appends and syncs a record every few milliseconds and says so.
func playWriter(path string) int {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for n := 0; ; n++ {
		if _, err := fmt.Fprintln(file, n); err != nil {
			return 1
		}
		if err := file.Sync(); err != nil {
			return 1
		}
		if _, err := fmt.Println("record", n); err != nil {
			return 0
		}
		time.Sleep(5 * time.Millisecond) // this is a process of its own, not a test
	}
}

// playHolder has the mounts open, and thaws them when its input ends, on the word thaw, and after 30 s whatever happens.
// On the word freeze it is somebody else who freezes the first one.
func playHolder(points []string) int {
	var dirs []*os.File
	for _, p := range points {
		dir, err := os.Open(p)
		if err != nil {
			fmt.Println("error", err)
			return 1
		}
		dirs = append(dirs, dir)
	}
	words := make(chan string)
	go func() {
		defer close(words)
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			words <- s.Text()
		}
	}()
	fmt.Println("open")
	limit := time.After(30 * time.Second)
	for {
		select {
		case word, ok := <-words:
			switch {
			case !ok:
				return playThaw(dirs)
			case word == "freeze":
				fmt.Println("freeze", freeze(dirs[0]))
			case word == "thaw":
				fmt.Println("thaw", thaw(dirs[0]))
			}
		case <-limit:
			return playThaw(dirs)
		}
	}
}

func playThaw(dirs []*os.File) int {
	status := 0
	for _, dir := range dirs {
		if thaw(dir) == nil {
			status = 3
		}
	}
	return status
}

// child is another process with a line on its output for everything it did.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	done  chan struct{}
}

func play(t *testing.T, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command("/proc/self/exe", args...), lines: make(chan string, 100000), done: make(chan struct{})}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.in, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
		close(c.lines)
		if err := c.cmd.Wait(); err != nil {
			close(c.done)
			return
		}
		close(c.done)
	}()
	return c
}

// line waits for the next line.
func (c *child) line(limit time.Duration) (string, bool) {
	select {
	case l, ok := <-c.lines:
		return l, ok
	case <-time.After(limit):
		return "", false
	}
}

// want fails the test unless the next line is this one.
func (c *child) want(line string) {
	c.t.Helper()
	if got, _ := c.line(10 * time.Second); got != line {
		c.t.Fatalf("%v said %q, want %q", c.cmd.Args, got, line)
	}
}

func (c *child) say(word, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, word+"\n"); err != nil {
		c.t.Fatal(err)
	}
	c.want(want)
}

// wait waits for the end of the process.
func (c *child) wait(limit time.Duration) error {
	select {
	case <-c.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%v does not end", c.cmd.Args)
	}
}

// blocked tells that the writer stands still for 300 ms: what it did before is drained first, for at most 0.6 s.
func (c *child) blocked() bool {
	for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); {
		if _, ok := c.line(300 * time.Millisecond); !ok {
			return true
		}
	}
	return false
}

// guest is a real ext4 on a loop device, with a writer on it and a process that thaws it at the end.
type guest struct {
	point, runDir  string
	writer, holder *child
}

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

// mountImage makes an image file of 64 MiB in dir and mounts it below dir. What it made goes away with the test.
func mountImage(t *testing.T, dir string) string {
	t.Helper()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mount point")
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20), os.Mkdir(point, 0o700))
	if err != nil {
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
	return point
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{point: mountImage(t, t.TempDir()), runDir: t.TempDir()}
	g.hold(t, g.point)
	g.writer = g.write(t)
	return g
}

// hold starts the process that thaws at the end of the test, or of the test binary.
func (g *guest) hold(t *testing.T, points ...string) {
	t.Helper()
	g.holder = play(t, append([]string{"play-holder"}, points...)...)
	g.holder.want("open")
	t.Cleanup(func() {
		if err := errors.Join(g.holder.in.Close(), g.holder.wait(35*time.Second)); err != nil {
			t.Error(err)
		}
		if status := g.holder.cmd.ProcessState.ExitCode(); status != 0 {
			t.Errorf("the test left a file system frozen: the holder ended with %d", status)
		}
	})
}

func (g *guest) write(t *testing.T) *child {
	t.Helper()
	w := play(t, "play-writer", filepath.Join(g.point, "records"))
	w.want("record 0")
	t.Cleanup(func() {
		if err := errors.Join(g.thawed(w), w.cmd.Process.Kill(), w.wait(10*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return w
}

// thawed makes sure that the writer can be ended: a process that is blocked by a freeze cannot.
func (g *guest) thawed(w *child) error {
	if !w.blocked() {
		return nil
	}
	if _, err := io.WriteString(g.holder.in, "thaw\n"); err != nil {
		return err
	}
	if l, _ := g.holder.line(5 * time.Second); l == "thaw <nil>" {
		return errors.New("the test left a file system frozen")
	}
	return nil
}

func (g *guest) freezer() *Freezer {
	return New(Options{Bound: Bound{OnlyMount: []string{g.point}}, RunDir: g.runDir})
}

// running demands that the writer writes again within the limit.
func (g *guest) running(t *testing.T, limit time.Duration) {
	t.Helper()
	if _, ok := g.writer.line(limit); !ok {
		t.Fatalf("no record within %v of the thaw", limit)
	}
}

// processGone waits until a process has ended or is a zombie of somebody else.
func processGone(pid int, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return true
		}
		_, _ = unix.Poll(nil, 20) //nolint:errcheck // a bounded wait for a real process
	}
	return false
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
