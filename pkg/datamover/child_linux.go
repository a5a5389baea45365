package datamover

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainLimit is how long the program's output is read on after its end, when something that it left keeps it open.
const drainLimit = time.Second

// child is the running program. It leads a process group, which ends with it.
type child struct {
	cmd    *exec.Cmd
	pid    int
	exited chan struct{} // closed when it has ended; reap then frees its number
	out    *lines
	errs   *tail
	pipes  [2]*os.File // our ends
	over   chan struct{}
	group  sync.WaitGroup // the readers
}

// start runs the program. Its standard input is empty.
func (x *Exec) start(ctx context.Context, j Job) (*child, error) {
	refuse := func(err error) error { return &Error{"SF5201", fmt.Errorf("start the mover %s: %w", x.Command, err)} }
	account, err := credentials(ctx, j)
	if err != nil {
		return nil, refuse(err)
	}
	c := &child{exited: make(chan struct{}), out: newLines(), errs: &tail{}, over: make(chan struct{})}
	var theirs [2]*os.File
	for i := range theirs {
		if c.pipes[i], theirs[i], err = os.Pipe(); err != nil {
			return nil, refuse(errors.Join(err, closeAll(account, c.pipes[0], theirs[0])))
		}
	}
	c.cmd = &exec.Cmd{
		Path: x.Command, Args: append([]string{x.Command}, x.Args...), Dir: "/", Env: x.environment(j),
		Stdout: theirs[0], Stderr: theirs[1], ExtraFiles: []*os.File{account},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}
	// What this process itself was started with, such as a descriptor of a shell, must not go on to the program.
	if err := unix.CloseRange(credentialsFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, refuse(errors.Join(err, closeAll(account, theirs[0], theirs[1]), closeAll(c.pipes[:]...)))
	}
	err = c.cmd.Start()
	if left := closeAll(account, theirs[0], theirs[1]); err != nil || left != nil {
		if c.cmd.Process != nil {
			c.pid = c.cmd.Process.Pid
			c.signal(syscall.SIGKILL)
			left = errors.Join(left, c.cmd.Wait())
		}
		return nil, refuse(errors.Join(err, left, closeAll(c.pipes[:]...)))
	}
	c.pid = c.cmd.Process.Pid
	c.group.Go(func() { pump(c.pipes[0], c.out, c.over) })
	c.group.Go(func() { pump(c.pipes[1], c.errs, c.over) })
	go c.await()
	return c, nil
}

// closeAll closes the files that there are.
func closeAll(files ...*os.File) error {
	var all error
	for _, f := range files {
		if f != nil {
			all = errors.Join(all, f.Close())
		}
	}
	return all
}

// await waits for the program's end and leaves it a zombie: so its number, which is that of the group too, cannot be
// another's when the group is ended. It outlives the move only when the program does.
func (c *child) await() {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			close(c.exited)
			return
		}
	}
}

// signal sends to the whole group. What has gone needs none.
func (c *child) signal(s syscall.Signal) {
	if err := syscall.Kill(-c.pid, s); err != nil {
		return
	}
}

// reap ends what the program left in its group, and frees its number.
func (c *child) reap() {
	c.signal(syscall.SIGKILL)
	if err := c.cmd.Wait(); err != nil && c.cmd.ProcessState == nil { // else the status says what there is to say
		c.errs.Write([]byte("\n" + err.Error())) //nolint:errcheck // memory of ours never fails
	}
	c.drain()
}

// drain reads on until the output ends, for the drainLimit; then the pipes are closed.
func (c *child) drain() {
	read := make(chan struct{})
	go func() {
		c.group.Wait()
		close(read)
	}()
	select {
	case <-read:
	case <-time.After(drainLimit):
	}
	c.abandon()
	<-read
}

// abandon closes our ends, which ends the readers.
func (c *child) abandon() {
	close(c.over)
	if closeAll(c.pipes[:]...) != nil { // a pipe that only we hold: nobody could do anything with it
		return
	}
}
