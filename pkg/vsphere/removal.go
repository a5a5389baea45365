package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	taskPollFirst = 50 * time.Millisecond
	taskPollLast  = time.Second
)

// RemoveResult says what a removal left behind.
type RemoveResult struct {
	// Gone is true when the snapshot did not exist any more before we asked.
	Gone bool
	// ConsolidationNeeded is true when the disks still need consolidation after our tries: SF2302, to be tried again later.
	ConsolidationNeeded bool
	// ConsolidationErr is why the last consolidation, or the look whether one is needed, did not succeed.
	ConsolidationErr error
}

// Remove removes one snapshot of ours by its moref, never its children, then looks whether the disks need consolidation and
// tries that. A snapshot that is gone is success. It waits for the tasks, however long, until ctx ends; call it after the
// window. A snapshot whose name is not ours, there or here, is refused. Errors are about the snapshot itself;
// consolidation is told in the result.
func (s *Snapshotter) Remove(ctx context.Context, snap inventory.Snapshot) (RemoveResult, error) {
	var result RemoveResult
	wait := busyPause
	for try := 1; ; try++ {
		removed, err := s.removeOnce(ctx, snap)
		result.Gone = try == 1 && err == nil && !removed
		if err == nil {
			break
		}
		err = failure("remove snapshot", snap.Name, err)
		if try == removeTries || !removable(err) || !pause(ctx, wait) {
			return result, err
		}
		wait *= 2
	}
	result.ConsolidationNeeded, result.ConsolidationErr = s.consolidate(ctx, snap.VM)
	return result, nil
}

// removable says whether a removal that failed so may be tried again: the VM was busy, the answer was lost, or snapshot or
// task went away meanwhile. A second removal of the same moref is harmless.
func removable(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.SF {
	case "SF2004", "SF2006", "SF2201", "SF2205", "SF2207", "SF2301":
		return true
	}
	return false
}

// removeOnce removes the snapshot if it is there. It proves by the tree that the moref still carries our name.
func (s *Snapshotter) removeOnce(ctx context.Context, snap inventory.Snapshot) (removed bool, err error) {
	if !strings.HasPrefix(snap.Name, ourPrefix) {
		return false, fmt.Errorf("snapshot %q: %w", snap.Name, errNotOurs)
	}
	all, err := s.list(ctx, snap.VM)
	if isFault[*types.ManagedObjectNotFound](err) {
		return false, nil // the VM itself is gone
	}
	if err != nil {
		return false, err
	}
	there := false
	for _, have := range all {
		if have.Moref == snap.Moref && have.Name != snap.Name {
			return false, fmt.Errorf("snapshot %s is called %q now: %w", snap.Moref, have.Name, errNotOurs)
		}
		there = there || have.Moref == snap.Moref
	}
	if !there {
		return false, nil
	}
	consolidate := true
	res, err := methods.RemoveSnapshot_Task(ctx, s.e.vim, &types.RemoveSnapshot_Task{
		This:           types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: snap.Moref},
		RemoveChildren: false, Consolidate: &consolidate,
	})
	if err == nil {
		err = s.e.finish(ctx, "remove_snapshot", res.Returnval)
	}
	return err == nil, err
}

// Consolidate merges disks of a VM that need it, and says whether they still do. An error without a need is about the look.
// It waits for the tasks, however long, until ctx ends; never call it while a snapshot of the VM is made or removed.
func (s *Snapshotter) Consolidate(ctx context.Context, vm inventory.VM) (needed bool, err error) {
	return s.consolidate(ctx, vm.Moref)
}

// consolidate reads runtime.consolidationNeeded, then tries ConsolidateVMDisks_Task a few times. It says what is left.
func (s *Snapshotter) consolidate(ctx context.Context, vm string) (needed bool, err error) {
	wait := busyPause
	for try := 0; ; try++ {
		p, readErr := s.e.properties(ctx, vmRef(vm), "runtime.consolidationNeeded")
		if isFault[*types.ManagedObjectNotFound](readErr) {
			return false, nil
		}
		if readErr != nil {
			return needed, failure("read consolidation of", vm, errors.Join(err, readErr))
		}
		if needed = value[bool](p, "runtime.consolidationNeeded"); !needed {
			return false, nil
		}
		if try == consolidateTries || isFault[*types.MethodNotFound](err) || try > 0 && !pause(ctx, wait) {
			return true, failure("consolidate disks of", vm, err)
		}
		if try > 0 {
			wait *= 2
		}
		res, callErr := methods.ConsolidateVMDisks_Task(ctx, s.e.vim, &types.ConsolidateVMDisks_Task{This: vmRef(vm)})
		if callErr == nil {
			callErr = s.e.finish(ctx, "consolidate_disks", res.Returnval)
		}
		err = callErr
	}
}

// finish waits for a task outside windows by reading it, 50 ms to 1 s apart. It gives the task's error; kind is what an
// observer calls the task.
func (e *Endpoint) finish(ctx context.Context, kind string, task types.ManagedObjectReference) error {
	for wait := taskPollFirst; ; wait = min(2*wait, taskPollLast) {
		p, err := e.properties(ctx, task, "info")
		if err != nil {
			return err
		}
		info := value[types.TaskInfo](p, "info")
		e.ended(kind, info)
		if info.State == types.TaskInfoStateSuccess || info.State == types.TaskInfoStateError {
			return taskError(info)
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("wait for %s: %w", task.Value, context.Cause(ctx))
		}
	}
}
