package statefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Owner is the process that works on a VM.
type Owner struct {
	Run string `json:"run_id"`
	PID int    `json:"pid"`
	// BootID and StartTicks tell the process from a later one with the same pid (/proc/sys/kernel/random/boot_id, and
	// field 22 of /proc/PID/stat, clock ticks since boot).
	BootID     string `json:"boot_id"`
	StartTicks uint64 `json:"start_ticks"`
	// At is when it began, by the wall clock, for people: it decides nothing.
	At time.Time `json:"at"`
}

// ActiveError says that another run works on the VM.
type ActiveError struct {
	VM    string
	Owner Owner
}

func (e *ActiveError) Error() string {
	return fmt.Sprintf("run %s of process %d works on this VM since %s", e.Owner.Run, e.Owner.PID, e.Owner.At.Format(time.RFC3339))
}

// Code is the code of the error catalogue.
func (e *ActiveError) Code() string { return "SF1103" }

// Acquire makes run the only one that works on the VM with this instance UUID, until Release or the end of the process.
// It never waits: an *ActiveError names the one that works there. What a dead process left is taken over.
func (s *Store) Acquire(ctx context.Context, vm, run string) error {
	own, err := self(run)
	own.At = s.now().UTC()
	if err != nil {
		return &Error{SF: "SF1101", Op: "name the own process", Err: err}
	}
	return s.update(ctx, "begin to work on a VM", func(now *state) error {
		for uuid, owner := range now.Runs {
			if !owner.alive(own.BootID) {
				delete(now.Runs, uuid)
			}
		}
		if owner, taken := now.Runs[vm]; taken {
			return &ActiveError{vm, owner}
		}
		now.Runs[vm] = own
		return nil
	})
}

// Release ends what Acquire began. It does nothing when the VM is another's.
func (s *Store) Release(ctx context.Context, vm, run string) error {
	return s.update(ctx, "end the work on a VM", func(now *state) error {
		if now.Runs[vm].Run == run {
			delete(now.Runs, vm)
		}
		return nil
	})
}

// Active tells the living process that works on the VM with this instance UUID; false when there is none.
func (s *Store) Active(ctx context.Context, vm string) (Owner, bool, error) {
	own, err := self("")
	if err != nil {
		return Owner{}, false, &Error{SF: "SF1101", Op: "name the own process", Err: err}
	}
	var owner Owner
	works := false
	err = s.view(ctx, "look who works on a VM", func(now *state) error {
		owner, works = now.Runs[vm]
		works = works && owner.alive(own.BootID)
		return nil
	})
	return owner, works, err
}

// self is this process.
func self(run string) (Owner, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Owner{}, err
	}
	ticks, _, err := startTicks(os.Getpid())
	return Owner{Run: run, PID: os.Getpid(), BootID: strings.TrimSpace(string(boot)), StartTicks: ticks}, err
}

// alive says whether the process still works. One that has ended and was not waited for does not.
func (o Owner) alive(boot string) bool {
	if o.BootID != boot {
		return false
	}
	ticks, ended, err := startTicks(o.PID)
	return err == nil && !ended && ticks == o.StartTicks
}

// startTicks reads when a process began, and whether it has ended (proc(5): state is field 3, starttime field 22).
func startTicks(pid int) (ticks uint64, ended bool, err error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The name in parentheses may hold anything, so the fields are counted from its end.
	end := strings.LastIndexByte(string(stat), ')')
	fields := strings.Fields(string(stat)[end+1:])
	if end < 0 || len(fields) < 20 {
		return 0, false, errors.New("/proc/PID/stat has too few fields")
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0] == "Z" || fields[0] == "X", err
}
