package winrm

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// outputWait is how long output may come after the end of its process, from others that hold its pipe (under Wine, all).
const outputWait = 150 * time.Millisecond

// killedStatus is the exit status of a process that was killed: Windows' STATUS_CONTROL_C_EXIT.
const killedStatus = 0xC000013A

func newID() string { return strings.ToUpper(uuid.NewString()) }

// shell has at most one command, as the product's client and the judge use it.
type shell struct {
	id, command string
	over        chan struct{} // closed when the shell was deleted
	waited      sync.WaitGroup

	mu             sync.Mutex
	changed        chan struct{} // closed and made again at each change
	stdout, stderr []byte
	stdin          io.WriteCloser
	process        *exec.Cmd
	cancel         context.CancelFunc
	done           bool
	exit           int
	closed         bool
}

// piece is what one reply has of a command.
type piece struct {
	stdout, stderr []byte
	done           bool
	exit           int
}

func newShell() *shell {
	return &shell{id: newID(), over: make(chan struct{}), changed: make(chan struct{})}
}

func (s *Server) shell(id string) (*shell, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, ok := s.shells[strings.ToUpper(id)]
	return sh, ok
}

func (s *Server) forget(sh *shell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shells, sh.id)
}

// change wakes who waits for output; mu is held.
func (sh *shell) change() {
	close(sh.changed)
	sh.changed = make(chan struct{})
}

// stream is one of the outputs.
type stream struct {
	sh *shell
	to *[]byte
}

func (s stream) Write(b []byte) (int, error) {
	s.sh.mu.Lock()
	defer s.sh.mu.Unlock()
	*s.to = append(*s.to, b...)
	s.sh.change()
	return len(b), nil
}

// start starts the process, which lives on when the request has ended.
func (sh *shell) start(ctx context.Context, line string, makeCommand func(context.Context, string) *exec.Cmd) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.process != nil || sh.closed {
		return errors.New("a shell of the double runs one command")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd := makeCommand(ctx, line)
	cmd.WaitDelay = outputWait
	cmd.Stdout, cmd.Stderr = stream{sh, &sh.stdout}, stream{sh, &sh.stderr}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return err
	}
	sh.command, sh.process, sh.stdin, sh.cancel = newID(), cmd, stdin, cancel
	sh.waited.Go(func() {
		err := cmd.Wait()
		cancel()
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.done, sh.exit = true, cmd.ProcessState.ExitCode()
		var exit *exec.ExitError
		if sh.exit < 0 || (err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay)) {
			sh.exit = killedStatus
		}
		sh.change()
	})
	return nil
}

// input hands data to the process. A process that has ended, or reads none, loses it, as on Windows.
func (sh *shell) input(data []byte, end bool) {
	sh.mu.Lock()
	stdin := sh.stdin
	sh.mu.Unlock()
	if stdin == nil {
		return
	}
	_, err := stdin.Write(data)
	if err != nil || end {
		stdin.Close() //nolint:errcheck // who no longer reads has nothing to be told
	}
}

// kill ends the process, not those that it started.
func (sh *shell) kill() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.process == nil || sh.done {
		return
	}
	sh.cancel()
	sh.process.Process.Kill() //nolint:errcheck // it may have ended by itself
}

// end closes the shell, kills the process and waits for it. It may be called more than once.
func (sh *shell) end() {
	sh.mu.Lock()
	if !sh.closed {
		sh.closed = true
		close(sh.over)
	}
	sh.mu.Unlock()
	sh.kill()
	sh.waited.Wait()
}

func (sh *shell) gone() bool {
	select {
	case <-sh.over:
		return true
	default:
		return false
	}
}

// piece waits until there is output, or the command has ended, for at most wait. It returns false when neither came.
func (sh *shell) piece(ctx context.Context, wait time.Duration) (piece, bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		p, ready, changed := sh.take()
		if ready && !sh.gone() {
			return p, true
		}
		select {
		case <-changed:
		case <-timer.C:
			return piece{}, false
		case <-sh.over:
			return piece{}, false
		case <-ctx.Done():
			return piece{}, false
		}
	}
}

func (sh *shell) take() (p piece, ready bool, changed <-chan struct{}) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	cut := func(from *[]byte) []byte {
		n := min(len(*from), pieceBytes)
		head := (*from)[:n]
		*from = (*from)[n:]
		return head
	}
	p = piece{stdout: cut(&sh.stdout), stderr: cut(&sh.stderr)}
	p.done = sh.done && len(sh.stdout) == 0 && len(sh.stderr) == 0
	p.exit = sh.exit
	return p, p.done || len(p.stdout) > 0 || len(p.stderr) > 0, sh.changed
}
