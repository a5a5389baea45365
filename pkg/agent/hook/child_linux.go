package hook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// searchPath is the PATH of hooks.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// drainLimit is how long a hook's output is waited for after its end, when something that it left keeps it open.
const drainLimit = 200 * time.Millisecond

// heldLine is what a holding hook says once its application is quiet.
const heldLine = "HELD"

// output keeps the first bytes that were written, and closes held at the line HELD.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	line  []byte
	found bool
	held  chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p[:min(len(p), maxOutput-o.text.Len())])
	if o.held == nil || o.found {
		return len(p), nil
	}
	for _, b := range p {
		if b != '\n' {
			if len(o.line) <= len(heldLine)+1 {
				o.line = append(o.line, b)
			}
			continue
		}
		if string(bytes.TrimRight(o.line, "\r")) == heldLine {
			o.found = true
			close(o.held)
			break
		}
		o.line = o.line[:0]
	}
	return len(p), nil
}

// tail is the end of what was written, on one line.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.Join(strings.Fields(strings.ToValidUTF8(o.text.String(), "?")), " ")
	if len(text) > maxError {
		text = "..." + strings.ToValidUTF8(text[len(text)-maxError:], "")
	}
	return text
}

// child is one running hook. It leads a process group, which ends with it.
type child struct {
	hook
	point  agent.Point
	cmd    *exec.Cmd
	stdin  io.WriteCloser // of a holding hook: its end is what lets it go
	out    *output
	errs   *output
	began  time.Time
	exited chan struct{} // closed when it was reaped; err and ended are valid then
	mu     sync.Mutex
	reaped bool // its number may be somebody else's
	err    error
	ended  time.Time
}

// start runs a hook, under the watchdog if dog is not nil. The write end of its standard input is open in this process only (O_CLOEXEC), so it ends with it.
func start(h hook, r agent.HookRequest, dog *watchdog) (*child, error) {
	ok := "0"
	if r.OK {
		ok = "1"
	}
	c := &child{hook: h, point: r.Point, out: &output{}, errs: &output{}, exited: make(chan struct{})}
	c.cmd = &exec.Cmd{
		Path: h.path, Args: []string{h.path}, Dir: "/", Stdout: c.out, Stderr: c.errs, WaitDelay: drainLimit,
		Env: append([]string{
			"PATH=" + searchPath, "STILLFRAME_RUN=" + r.Run, "STILLFRAME_POINT=" + string(r.Point), "STILLFRAME_MODE=" + r.Mode,
			"STILLFRAME_OK=" + ok,
		}, h.env...),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if r.Point == agent.PointPreFreeze {
		c.out.held = make(chan struct{})
		stdin, err := c.cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		c.stdin = stdin
	}
	c.began = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := spare(c.cmd.Process.Pid); err != nil {
		c.errs.Write([]byte(err.Error())) //nolint:errcheck // it has ended already, or is spared by mistake: no reason to fail
	}
	var watched error
	if dog != nil {
		watched = dog.watch(c.cmd.Process.Pid)
	}
	go c.reap(dog)
	if watched != nil {
		watched = errors.Join(watched, c.kill())
		<-c.exited
		return nil, watched
	}
	return c, nil
}

// reap waits for the hook's end. The number of its group stays its own until the group is killed and forgotten.
func (c *child) reap(dog *watchdog) {
	pid := c.cmd.Process.Pid
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break // an error means that it cannot be waited for, which Wait tells
		}
	}
	c.ended = time.Now()
	left := c.kill()
	if dog != nil {
		left = errors.Join(left, dog.forget(pid))
	}
	c.mu.Lock()
	c.reaped = true
	c.mu.Unlock()
	err := c.cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well; what keeps its output open has left its group
		err = nil
	}
	c.err = errors.Join(err, left)
	close(c.exited)
}

// spare takes back what the agent did for itself: a hook is no reason to end anything else when memory is short.
func spare(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}

// kill ends the whole process group; one that has gone is no error.
func (c *child) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return nil
	}
	if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill the hook's process group: %w", err)
	}
	return nil
}

// gone asks the kernel whether the process has ended, reaped or not.
func (c *child) gone() bool {
	select {
	case <-c.exited:
		return true
	default:
	}
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD) || err == nil && info.Signo != 0
}

// finish waits until the hook has ended, and kills it at by or when stop is closed. It says what went wrong.
func (c *child) finish(by time.Time, stop <-chan struct{}) error {
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	var why error
	select {
	case <-c.exited:
	case <-timer.C:
		why = errors.Join(fmt.Errorf("it had not ended after %.1f s and was killed", time.Since(c.began).Seconds()), c.kill())
	case <-stop:
		why = errors.Join(errors.New("it was killed because the session ended"), c.kill())
	}
	<-c.exited
	if why != nil {
		return why
	}
	return c.err
}

// awaitHeld waits for HELD, for the hook's end, or for the limit.
func (c *child) awaitHeld(by time.Time, stop <-chan struct{}) error {
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	var why error
	select {
	case <-c.out.held:
		return nil
	case <-c.exited:
		return errors.Join(errors.New("it ended without "+heldLine), c.err)
	case <-timer.C:
		why = fmt.Errorf("it did not say %s within %.1f s and was killed", heldLine, time.Since(c.began).Seconds())
	case <-stop:
		why = errors.New("it was killed because the session ended before it said " + heldLine)
	}
	why = errors.Join(why, c.kill())
	<-c.exited
	return why
}

// letGo ends a hook that holds: by the end of its standard input, and at by with force. One that had ended before held
// nothing any more.
func (c *child) letGo(by time.Time) error {
	if c.gone() {
		<-c.exited
		return errors.Join(fmt.Errorf("it ended by itself after %.1f s, before it was let go", c.ended.Sub(c.began).Seconds()), c.err)
	}
	closed := c.stdin.Close()
	return errors.Join(c.finish(by, nil), closed)
}

// row is the result of the hook; it has ended.
func (c *child) row(err error) protocol.Hook {
	row := rowOf(c.hook, c.point, err)
	if c.stdin != nil {
		row.HeldUS = c.ended.Sub(c.began).Microseconds()
	}
	if tail := c.errs.tail(); err != nil && tail != "" {
		row.Error += ": " + tail
	}
	return row
}

func rowOf(h hook, p agent.Point, err error) protocol.Hook {
	row := protocol.Hook{
		Name: h.name, Point: string(p), OK: err == nil, Required: h.required, Holds: p == agent.PointPreFreeze, SHA256: h.sha256,
	}
	if err != nil {
		row.Error = strings.ReplaceAll(err.Error(), "\n", ": ")
	}
	return row
}
