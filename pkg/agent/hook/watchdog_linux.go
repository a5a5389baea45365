package hook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Limits of the two sides of the watchdog.
const (
	ackLimit   = 5 * time.Second // from its start to its acknowledgement
	leaveLimit = 5 * time.Second // from the end of its input to its end
	// orphanLimit is what hooks get to end by themselves when the agent has died: their standard input has ended too.
	orphanLimit = time.Second
	// termLimit is what they get to end after SIGTERM, so that their traps run, before SIGKILL.
	termLimit  = 500 * time.Millisecond
	orphanLook = 20 * time.Millisecond
	// fdWords and fdAck are the files that the watchdog is started with.
	fdWords, fdAck = 3, 4
)

// watchdog is the agent's side: a child that kills holding hooks when the agent dies or hangs. An agent that is stopped
// keeps their standard input open, and a hook may not care for its end.
type watchdog struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	words  *os.File
	exited chan struct{}
}

// startWatchdog starts the child and waits for its acknowledgement, at most 5 s. The child keeps begun, the mark, open, so
// that nobody takes the mark's lock before the holding hooks have ended; nil for none.
func startWatchdog(ctx context.Context, deadman time.Duration, begun *os.File) (*watchdog, error) {
	theirs, words, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the watchdog of the hooks: %w", err)
	}
	ack, ackTheirs, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog of the hooks: %w", err), theirs.Close(), words.Close())
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"stillframe-agent", Command, deadman.String()}, Env: []string{}, Dir: "/",
		ExtraFiles: []*os.File{theirs, ackTheirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if begun != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, begun)
	}
	err = errors.Join(cmd.Start(), theirs.Close(), ackTheirs.Close())
	if cmd.Process == nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog of the hooks: %w", err), words.Close(), ack.Close())
	}
	d := &watchdog{cmd: cmd, words: words, exited: make(chan struct{})}
	go func() {
		defer close(d.exited)
		if err := cmd.Wait(); err != nil {
			return // what it had to do is seen by the hooks
		}
	}()
	said, ackErr := readAck(ctx, ack)
	if ackErr == nil && said != "ok\n" {
		ackErr = fmt.Errorf("it said %q", said)
	}
	if err = errors.Join(err, ackErr, ack.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog of the hooks: %w", err), d.leave())
	}
	return d, nil
}

func readAck(ctx context.Context, ack *os.File) (string, error) {
	if err := ack.SetReadDeadline(time.Now().Add(ackLimit)); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() {
		if err := ack.SetReadDeadline(time.Now()); err != nil {
			return // it was read and closed meanwhile
		}
	})()
	said, err := io.ReadAll(io.LimitReader(ack, 16))
	return string(said), err
}

// watch puts a process group under the watchdog; the first one starts its clock.
func (d *watchdog) watch(group int) error { return d.say("+%d\n", group) }

// forget takes a group that has ended out again.
func (d *watchdog) forget(group int) error { return d.say("-%d\n", group) }

// say writes a line; it does not block, because the lines of all hooks fit into a pipe.
func (d *watchdog) say(format string, group int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintf(d.words, format, group); err != nil {
		return fmt.Errorf("tell the watchdog of the hooks: %w", err)
	}
	return nil
}

// leave ends the watchdog, which kills what it still knows of.
func (d *watchdog) leave() error {
	d.mu.Lock()
	err := d.words.Close()
	d.mu.Unlock()
	timer := time.NewTimer(leaveLimit)
	defer timer.Stop()
	select {
	case <-d.exited:
	case <-timer.C:
		err = errors.Join(err, errors.New("the watchdog of the hooks did not leave"), d.cmd.Process.Kill())
		<-d.exited
	}
	return err
}

// Watchdog is the child's whole life; it returns the exit status. It is started by the agent only and touches no disk.
// It ends the groups that it was told of when its argument, the time since the first of them, is over, and shortly after
// the agent has gone: by SIGTERM, and by SIGKILL one second later.
func Watchdog(args []string, stderr io.Writer) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	if len(args) != 1 {
		return 2
	}
	deadman, err := time.ParseDuration(args[0])
	if err == nil {
		ack := os.NewFile(fdAck, "acknowledgement")
		_, err = io.WriteString(ack, "ok\n")
		err = errors.Join(err, ack.Close())
	}
	if err == nil {
		err = guard(os.NewFile(fdWords, "words"), deadman)
	}
	if err != nil {
		if _, err := fmt.Fprintln(stderr, err); err != nil {
			return 1
		}
		return 1
	}
	return 0
}

// guard follows the agent's words until their end.
func guard(words io.Reader, deadman time.Duration) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(words); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	groups := map[int]bool{}
	var over <-chan time.Time
	late := false
	for {
		select {
		case line, ok := <-lines:
			if !ok && late {
				return signalAll(groups, syscall.SIGKILL)
			}
			if !ok {
				return orphans(groups)
			}
			if len(line) < 2 {
				continue
			}
			group, err := strconv.Atoi(line[1:])
			if err != nil || group < 2 {
				continue
			}
			if line[0] == '-' {
				delete(groups, group)
				continue
			}
			groups[group] = true
			switch {
			case over == nil && late: // an agent that was stopped in the middle of starting it
				over = time.After(orphanLook)
			case over == nil:
				over = time.After(deadman)
			}
		case <-over:
			how, again := syscall.SIGKILL, orphanLook*5
			if !late {
				how, again = syscall.SIGTERM, termLimit
			}
			late, over = true, nil
			if err := signalAll(groups, how); err != nil {
				return err
			}
			if len(groups) > 0 {
				over = time.After(again)
			}
		}
	}
}

// orphans gives the groups a moment to end by themselves, and another one after SIGTERM.
func orphans(groups map[int]bool) error {
	if await(groups, orphanLimit) {
		return nil
	}
	if err := signalAll(groups, syscall.SIGTERM); err != nil {
		return errors.Join(err, signalAll(groups, syscall.SIGKILL))
	}
	if await(groups, termLimit) {
		return nil
	}
	return signalAll(groups, syscall.SIGKILL)
}

// await forgets the groups that end within the limit, and says whether all did.
func await(groups map[int]bool, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(orphanLook) {
		for group := range groups {
			if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
				delete(groups, group)
			}
		}
		if len(groups) == 0 {
			return true
		}
	}
	return false
}

func signalAll(groups map[int]bool, s syscall.Signal) error {
	var all error
	for group := range groups {
		if err := syscall.Kill(-group, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			all = errors.Join(all, fmt.Errorf("end the process group %d of a hook: %w", group, err))
		}
	}
	return all
}
