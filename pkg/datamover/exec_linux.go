package datamover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
)

// DefaultLimit bounds a move unless the operator says otherwise. The guest's own session lasts as long.
const DefaultLimit = 24 * time.Hour

// Limits of the program's end.
const (
	// termGrace is what the program has between SIGTERM and SIGKILL.
	termGrace = 10 * time.Second
	// reapLimit is how long after SIGKILL the kernel may take to end it: one that waits for a dead disk does not end at all.
	reapLimit = 30 * time.Second
	// progressEvery is how often the caller hears of progress at most.
	progressEvery = 500 * time.Millisecond
)

// partialStatus is the exit status with which a program says that it stored a part.
const partialStatus = 3

// Exec is the mover that runs a program of the operator's own (docs/mover.md). It holds nothing between two moves, and
// may do many at once.
type Exec struct {
	// Command is the program's absolute path. It is run by itself, never by a shell.
	Command string
	Args    []string
	// Limit bounds the whole move; it must be positive.
	Limit time.Duration
	// Silence is how long the program may go without a line of progress; 0 asks for none.
	Silence time.Duration
	// Home is the program's HOME.
	Home string
	// termGrace and reapLimit are the constants of that name, unless a test lowers them.
	termGrace, reapLimit time.Duration
}

var _ Mover = (*Exec)(nil)

// Check implements Mover: the program must be there, executable, and its limits must be usable.
func (x *Exec) Check() error {
	refuse := func(format string, a ...any) error {
		return &Error{"SF5201", fmt.Errorf("use the mover "+x.Command+": "+format, a...)}
	}
	switch {
	case !filepath.IsAbs(x.Command):
		return refuse("its path is not absolute")
	case x.Limit <= 0:
		return refuse("its limit %v is not positive", x.Limit)
	case x.Silence < 0:
		return refuse("its limit without progress %v is negative", x.Silence)
	}
	info, err := os.Stat(x.Command)
	switch {
	case err != nil:
		return refuse("%w", err)
	case !info.Mode().IsRegular():
		return refuse("it is no file")
	case info.Mode().Perm()&0o111 == 0:
		return refuse("it is not executable")
	}
	return nil
}

// Why a program was stopped.
var (
	errLimit   = errors.New("the limit of the whole move was over")
	errSilence = errors.New("there was no line of progress for too long")
)

// Move implements Mover.
func (x *Exec) Move(ctx context.Context, j Job, progress func(Progress)) (Report, error) {
	r := Report{ExitStatus: -1}
	if err := x.Check(); err != nil {
		return r, err
	}
	// The kernel ends the program with the thread that started it, so that one must live as long as the move (PR_SET_PDEATHSIG
	// of prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	limit := time.NewTimer(x.Limit)
	defer limit.Stop()
	failpoint.Before("mover", "start")
	c, err := x.start(ctx, j)
	failpoint.After("mover", "start")
	if err != nil {
		return r, err
	}
	failpoint.Before("mover", "end")
	why := x.follow(ctx, c, &r, limit.C, progress)
	failpoint.After("mover", "end")
	r.Said = c.errs.tail()
	return x.judge(r, c, why)
}

// follow waits for the program's end; why is what it was stopped for, nil when it ended by itself.
func (x *Exec) follow(ctx context.Context, c *child, r *Report, limit <-chan time.Time, progress func(Progress)) (why error) {
	silence := time.NewTimer(x.Silence)
	defer silence.Stop()
	if x.Silence == 0 {
		silence.Stop()
	}
	over, told := ctx.Done(), time.Time{}
	var kill, lost <-chan time.Time
	stop := func(cause error) {
		why, over, limit = cause, nil, nil
		silence.Stop()
		c.signal(syscall.SIGTERM)
		kill = time.After(orElse(x.termGrace, termGrace))
	}
	heard := func(p Progress) {
		r.Last = p
		if why == nil && x.Silence > 0 {
			silence.Reset(x.Silence)
		}
		if progress != nil && time.Since(told) >= progressEvery {
			told = time.Now()
			progress(p)
		}
	}
	for {
		select {
		case p := <-c.out.progress:
			heard(p)
		case <-over:
			stop(context.Cause(ctx))
		case <-limit:
			stop(fmt.Errorf("%w (%v)", errLimit, x.Limit))
		case <-silence.C:
			stop(fmt.Errorf("%w (%v)", errSilence, x.Silence))
		case <-kill:
			c.signal(syscall.SIGKILL)
			lost = time.After(orElse(x.reapLimit, reapLimit))
		case <-lost:
			c.abandon()
			c.group.Wait()
			return why
		case <-c.exited:
			c.reap()
			select {
			case p := <-c.out.progress:
				heard(p)
			default:
			}
			return why
		}
	}
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// judge reads from the program's end what is stored. One that was stopped has stored nothing, whatever its status: many a
// script ends with 0 when it is told to stop.
func (x *Exec) judge(r Report, c *child, why error) (Report, error) {
	status := c.cmd.ProcessState
	if status == nil {
		return r, &Error{"SF5204", fmt.Errorf("stop the mover %s: %w; its process %d does not end even by SIGKILL", x.Command, why, c.pid)}
	}
	r.ExitStatus = status.ExitCode()
	if s, ok := status.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		r.Signal = s.Signal().String()
	}
	switch {
	case errors.Is(why, errLimit):
		return r, &Error{"SF5204", fmt.Errorf("stop the mover %s: %w", x.Command, why)}
	case errors.Is(why, errSilence):
		return r, &Error{"SF5205", fmt.Errorf("stop the mover %s: %w", x.Command, why)}
	case why != nil:
		return r, &Error{"SF5206", fmt.Errorf("stop the mover %s: %w", x.Command, why)}
	case r.Signal != "":
		return r, &Error{"SF5202", fmt.Errorf("run the mover %s: it was ended by a signal: %s", x.Command, r.Signal)}
	case r.ExitStatus == partialStatus:
		r.Stored = StoredPartial
		return r, &Error{"SF5203", fmt.Errorf("run the mover %s: it ended with status %d, a part is stored", x.Command, partialStatus)}
	case r.ExitStatus != 0:
		return r, &Error{"SF5202", fmt.Errorf("run the mover %s: it ended with status %d", x.Command, r.ExitStatus)}
	}
	r.Stored = StoredAll
	return r, nil
}
