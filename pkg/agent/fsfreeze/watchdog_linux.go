package fsfreeze

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the two sides of the watchdog.
const (
	ackLimit   = 5 * time.Second        // from its start to its acknowledgement
	leaveLimit = 5 * time.Second        // from wordDone to its end; it is killed then, nothing is held any more
	passLimit  = 2 * time.Second        // for one FITHAW of the watchdog
	passPause  = 200 * time.Millisecond // between two passes after the deadline
	passes     = 300                    // of them at most, a minute
	maxAck     = 4096                   // bytes
)

// watchdog is the agent's side: the child that thaws when the agent dies or hangs. A SIGKILL of the agent does not
// thaw, because a freeze belongs to the file system.
type watchdog struct {
	cmd    *exec.Cmd
	words  *os.File
	exited chan struct{} // closed when it was reaped
}

// startWatchdog starts the child and waits for its acknowledgement, at most 5 s. It has a session of its own, so a
// signal to the agent's group does not reach it. The notes are rights that it misses.
func startWatchdog(ctx context.Context, deadman time.Duration, mounts []*os.File) (*watchdog, []string, error) {
	wordsRead, wordsWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start the watchdog: %w", err)
	}
	ackRead, ackWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), wordsRead.Close(), wordsWrite.Close())
	}
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{"stillframe-agent", "watchdog"}, watchdogArgs(deadman, len(mounts))...),
		Env:         []string{},
		Dir:         "/",
		ExtraFiles:  append([]*os.File{wordsRead, ackWrite}, mounts...),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	err = errors.Join(err, wordsRead.Close(), ackWrite.Close())
	if cmd.Process == nil {
		return nil, nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), wordsWrite.Close(), ackRead.Close())
	}
	d := &watchdog{cmd: cmd, words: wordsWrite, exited: make(chan struct{})}
	go func() {
		defer close(d.exited)
		if err := cmd.Wait(); err != nil {
			return // its status is in cmd.ProcessState
		}
	}()
	ack, ackErr := readAck(ctx, ackRead)
	if err = errors.Join(err, ackErr, ackRead.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), d.leave())
	}
	return d, ack, nil
}

// readAck reads the acknowledgement: a line "ok", then the notes, one a line.
func readAck(ctx context.Context, r *os.File) ([]string, error) {
	if err := r.SetReadDeadline(time.Now().Add(ackLimit)); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() {
		if err := r.SetReadDeadline(time.Now()); err != nil {
			return // it was read and closed meanwhile
		}
	})()
	text, err := io.ReadAll(io.LimitReader(r, maxAck))
	if err != nil {
		return nil, fmt.Errorf("wait for its acknowledgement: %w", errors.Join(err, context.Cause(ctx)))
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if lines[0] != "ok" {
		return nil, fmt.Errorf("it did not acknowledge: %q", text)
	}
	return lines[1:], nil
}

// send writes one word. It does not block: the pipe is empty or the watchdog is dead.
func (d *watchdog) send(word byte) error {
	if !d.alive() {
		return errors.New("the watchdog has ended")
	}
	_, err := d.words.Write([]byte{word})
	return err
}

func (d *watchdog) alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// leave tells the watchdog that nothing is held and waits for its end, at most 5 s; then it is killed.
func (d *watchdog) leave() error {
	var err error
	if d.alive() {
		if err = d.send(wordDone); errors.Is(err, syscall.EPIPE) {
			err = nil
		}
	}
	err = errors.Join(err, d.words.Close())
	timer := time.NewTimer(leaveLimit)
	defer timer.Stop()
	select {
	case <-d.exited:
	case <-timer.C:
		err = errors.Join(err, errors.New("the watchdog did not leave"), d.cmd.Process.Kill())
		<-d.exited
	}
	return err
}

// Watchdog is the child's whole life, the subcommand `watchdog`; it returns the exit status. It is started by the agent
// only, with open files and nothing else, and touches no disk.
func Watchdog(args []string, stderr io.Writer) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	w, err := newWatch(args)
	if err == nil {
		err = w.acknowledge(Harden())
	}
	if err != nil {
		if _, err := fmt.Fprintln(stderr, err); err != nil {
			return watchdogBroken
		}
		return watchdogBroken
	}
	return w.run()
}

// watch is the child's side.
type watch struct {
	deadman time.Duration
	timer   int        // a timerfd of CLOCK_BOOTTIME, which also runs while the guest is suspended
	pending []*os.File // what may be frozen, in the order of freezing
	armed   bool
	late    bool
}

func newWatch(args []string) (*watch, error) {
	deadman, mounts, err := parseWatchdogArgs(args)
	if err != nil {
		return nil, err
	}
	w := &watch{deadman: deadman}
	for fd := fdWords; fd < fdMounts+mounts; fd++ {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, fmt.Errorf("%w: file %d: %w", errWatchdogUsage, fd, err)
		}
		unix.CloseOnExec(fd)
		if fd >= fdMounts {
			w.pending = append(w.pending, os.NewFile(uintptr(fd), "mount"))
		}
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return w, nil
}

func (w *watch) acknowledge(notes []string) error {
	ack := os.NewFile(fdAck, "acknowledgement")
	_, err := ack.WriteString(strings.Join(append([]string{"ok"}, notes...), "\n") + "\n")
	return errors.Join(err, ack.Close())
}

// run waits for words, the end of the agent, and the deadline. After the deadline it tries again for what was not frozen
// yet: a FIFREEZE of a stopped agent may still be under way.
func (w *watch) run() int {
	for tries := 0; tries < passes; {
		fds := []unix.PollFd{{Fd: fdWords, Events: unix.POLLIN}, {Fd: int32(w.timer), Events: unix.POLLIN}}
		timeout := -1
		if w.late {
			fds, timeout = fds[:1], int(passPause.Milliseconds())
		}
		if _, err := unix.Poll(fds, timeout); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return w.end(true)
		}
		if fds[0].Revents != 0 {
			if done, gone := w.read(); done || gone {
				return w.end(gone)
			}
		}
		if !w.late && fds[1].Revents != 0 {
			w.late = true
		}
		if w.late {
			tries++
			if w.pass(); len(w.pending) == 0 {
				return watchdogThawed
			}
		}
	}
	return watchdogThawed
}

// end is the exit status, after a last pass when the agent is gone. What was never armed is not ours to thaw.
func (w *watch) end(gone bool) int {
	if gone && w.armed {
		w.pass()
		return watchdogThawed
	}
	if w.late {
		return watchdogThawed
	}
	return watchdogIdle
}

// read takes the words that have come: done is wordDone, gone the end of the agent.
func (w *watch) read() (done, gone bool) {
	var words [16]byte
	n, err := unix.Read(fdWords, words[:])
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return false, false
	}
	if err != nil || n <= 0 {
		return false, true
	}
	for _, word := range words[:n] {
		switch {
		case word == wordDone:
			return true, false
		case word == wordArm && !w.armed:
			w.armed = true
			at := unix.ItimerSpec{Value: unix.NsecToTimespec(w.deadman.Nanoseconds())}
			if err := unix.TimerfdSettime(w.timer, 0, &at, nil); err != nil {
				w.late = true // without a deadline nothing may be held
			}
		}
	}
	return false, false
}

// pass thaws what is pending, the last frozen first, and keeps what was not frozen, or did not answer.
func (w *watch) pass() {
	var left []*os.File
	for i := len(w.pending) - 1; i >= 0; i-- {
		err := thawWithin(w.pending[i], passLimit)
		if err != nil { // not frozen yet, or it may still be frozen
			left = append([]*os.File{w.pending[i]}, left...)
		}
	}
	w.pending = left
}
