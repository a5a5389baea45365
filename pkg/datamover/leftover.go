package datamover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// leftPause is between two looks at what was told to end.
const leftPause = 100 * time.Millisecond

// killGrace is what the kernel has to end what was sent SIGKILL.
const killGrace = 5 * time.Second

// EndLeft ends what the mover of a run left on this machine when its orchestrator was killed: every process that has the
// run in its environment, first by SIGTERM, after 10 s by SIGKILL. The mover would go on to read a snapshot that is about to
// be removed. Only a run of which no orchestrator lives any more may be named.
func EndLeft(ctx context.Context, run string) error { return endLeft(ctx, run, termGrace) }

func endLeft(ctx context.Context, run string, grace time.Duration) error {
	if run == "" {
		return errors.New("end what a mover left: no run is named")
	}
	begin := time.Now()
	for _, step := range []struct {
		signal syscall.Signal
		until  time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, grace + killGrace}} {
		for {
			left, err := marked(run)
			if err != nil || len(left) == 0 {
				return err
			}
			for _, pid := range left {
				if err := end(pid, run, step.signal); err != nil {
					return err
				}
			}
			if time.Since(begin) >= step.until {
				break
			}
			select {
			case <-time.After(leftPause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	left, err := marked(run)
	if err != nil || len(left) == 0 {
		return err
	}
	return &Error{"SF5204", fmt.Errorf("end what the mover of run %s left: its processes %v do not end even by SIGKILL", run, left)}
}

// marked lists the processes that have the run in their environment and have not ended.
func marked(run string) ([]int, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, folder := range folders {
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err == nil && pid != os.Getpid() && belongs(pid, run) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// belongs looks into the environment that the process was started with; that of a zombie is empty, and that of another
// user's process cannot be read.
func belongs(pid int, run string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	mark := []byte(runVariable + "=" + run)
	for variable := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(variable, mark) {
			return true
		}
	}
	return false
}

// end signals one process. The handle is taken before the look, so that the number cannot have become another's.
func end(pid int, run string, s syscall.Signal) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("end process %d of run %s: %w", pid, run, err)
	}
	defer process.Release() //nolint:errcheck // a handle that is not needed any more
	if !belongs(pid, run) {
		return nil
	}
	if err := process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end process %d of run %s: %w", pid, run, err)
	}
	return nil
}
