// Package guestops is the way into a guest by vSphere guest operations.
package guestops

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// Operations are vSphere's guest operations for one VM and one guest account, satisfied by *vsphere.GuestOps. Paths are
// the guest's.
type Operations interface {
	Validate(ctx context.Context) error
	// MakeDir makes a directory that must not exist yet, and its parents.
	MakeDir(ctx context.Context, path string) error
	Upload(ctx context.Context, path string, size int64, r io.Reader) error
	Fetch(ctx context.Context, path string, max int64) ([]byte, error)
	Start(ctx context.Context, path string, args, env []string) (int64, error)
	Wait(ctx context.Context, pid int64) (int, error)
	Running(ctx context.Context, pid int64) (bool, error)
	List(ctx context.Context, dir string) ([]string, error)
	Remove(ctx context.Context, path string, dir bool) error
	Terminate(ctx context.Context, pid int64) error
}

// Polling of the guest, between the first and the longest pause.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 500 * time.Millisecond
	leaveLimit   = 12 * time.Second
	// launcherLimit is how long the program that had the agent serve may take to leave after it.
	launcherLimit = 5 * time.Second
	maxReadyFile  = 4 << 10
	removePause   = 100 * time.Millisecond
)

// codeNotThere is what a file that does not exist is reported with.
const codeNotThere = "SF3406"

// Access is the road by guest operations into one guest.
type Access struct {
	ops    Operations
	home   home
	ledger guest.Ledger // nil for none
	// launcher is the process id of the program that was started last, which need not be the one that serves.
	launcher int64
}

var _ guest.Access = (*Access)(nil)

// New makes the road into a guest of the system; one that is not known is taken for Linux.
func New(ops Operations, system inventory.System) *Access { return NewRecorded(ops, system, nil) }

// NewRecorded makes the road, and has the ledger told before anything is put into the guest and when it is gone.
func NewRecorded(ops Operations, system inventory.System, ledger guest.Ledger) *Access {
	return &Access{ops: ops, home: homeOf(system), ledger: ledger}
}

// Way is guestops.
func (a *Access) Way() guest.Way { return guest.WayGuestOps }

// Put logs on once, then pushes the payload into a fresh folder and reads it back.
func (a *Access) Put(ctx context.Context, p guest.Payload) (guest.Remote, error) {
	if err := a.ops.Validate(ctx); err != nil {
		return guest.Remote{}, fmt.Errorf("log on to the guest: %w", err)
	}
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	r := a.remote(hex.EncodeToString(id[:]), p)
	if err := a.intend(ctx, guest.StagePush, r); err != nil {
		return guest.Remote{}, err
	}
	if err := a.ops.MakeDir(ctx, r.Dir); err != nil {
		return r, fmt.Errorf("make the folder %s in the guest: %w", r.Dir, err) // it may exist all the same: the answer was lost
	}
	content, err := p.Open()
	if err != nil {
		return r, fmt.Errorf("open the agent: %w", err)
	}
	err = a.ops.Upload(ctx, r.Exe, p.Size, content)
	if err := errors.Join(err, content.Close()); err != nil {
		return r, fmt.Errorf("push the agent to %s: %w", r.Exe, err)
	}
	back, err := a.ops.Fetch(ctx, r.Exe, p.Size+1)
	if err != nil {
		return r, fmt.Errorf("read the agent back from %s: %w", r.Exe, err)
	}
	if got := sha256.Sum256(back); got != p.SHA256 {
		return r, &guest.Error{SF: "SF3801", Op: "compare what was read back from " + r.Exe, Err: fmt.Errorf(
			"it has %d bytes with SHA-256 %x, pushed were %d with %x", len(back), got, p.Size, p.SHA256)}
	}
	return r, nil
}

// remote is a deployment of the payload.
func (a *Access) remote(deployment string, p guest.Payload) guest.Remote {
	dir := a.home.join(a.home.folder, deployment)
	return guest.Remote{Deployment: deployment, Dir: dir, Exe: a.home.join(dir, p.Name)}
}

// Start runs the agent and reads its READY file.
func (a *Access) Start(ctx context.Context, r guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	ready := a.home.join(r.Dir, "ready")
	args := append(append([]string{"run"}, b.Words()...), "--deployment", r.Deployment, "--ready-file", ready)
	for _, m := range b.OnlyMounts {
		args = append(args, "--only-mount", m)
	}
	if err := a.intend(ctx, guest.StageStart, r); err != nil {
		return guest.Identity{}, err
	}
	pid, err := a.ops.Start(ctx, r.Exe, args, nil)
	if err != nil {
		return guest.Identity{}, fmt.Errorf("start the agent: %w", err)
	}
	a.launcher = pid
	id := guest.Identity{PID: pid}
	content, err := a.poll(ctx, ready, pid)
	if err != nil {
		return id, err
	}
	said, err := guest.ParseReady(content, b.Listens())
	if said.PID == 0 {
		said.PID = pid
	}
	return said, err
}

// poll waits for the READY file, or for the agent's end.
func (a *Access) poll(ctx context.Context, file string, pid int64) (string, error) {
	notReady := func(err error) error {
		return &guest.Error{SF: "SF3703", Op: "wait for the agent to be ready", Err: err}
	}
	ended := false
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		content, err := a.ops.Fetch(ctx, file, maxReadyFile)
		if err == nil && bytes.HasSuffix(content, []byte("\n")) {
			return string(content), nil
		}
		if err != nil && guest.CodeOf(err) != codeNotThere {
			return "", notReady(err)
		}
		if ended {
			exit, err := a.ops.Wait(ctx, pid)
			return "", notReady(errors.Join(fmt.Errorf("the agent ended with exit code %d before it was ready", exit), err))
		}
		running, err := a.ops.Running(ctx, pid)
		if err != nil {
			return "", notReady(err)
		}
		if !running { // one more look: it may have written why right before it ended
			ended = true
			continue
		}
		if err := sleep(ctx, pause); err != nil {
			return "", notReady(err)
		}
	}
}

// Rescue ends the agent, whatever it does, and runs its "thaw": a living agent keeps others from what it holds. Where the
// agent is a service its "thaw" is what ends it, because that releases in good order.
func (a *Access) Rescue(ctx context.Context, r guest.Remote) (released bool, err error) {
	if r.Exe == "" {
		return false, nil
	}
	if !a.home.service {
		if _, err := a.end(ctx, r.PID, 0); err != nil {
			return false, fmt.Errorf("end the agent: %w", err)
		}
	}
	return a.thaw(ctx, r)
}

// thaw runs the agent's "thaw". Where the agent is a service that also takes away what a terminated one left registered, and leaves
// a persistent agent alone.
func (a *Access) thaw(ctx context.Context, r guest.Remote) (released bool, err error) {
	switch exit, err := a.run(ctx, r.Exe, "thaw"); {
	case err != nil:
		return false, err
	case exit == 0:
		return false, nil
	case exit == exitThawed:
		return true, nil
	default:
		return false, fmt.Errorf("the agent's thaw ended with exit code %d", exit)
	}
}

// exitThawed is the exit status of the agent's thaw when something was still frozen and has been released.
const exitThawed = 9

// run runs one command of the agent to its end.
func (a *Access) run(ctx context.Context, exe, command string, args ...string) (exit int, err error) {
	pid, err := a.ops.Start(ctx, exe, append([]string{command}, args...), nil)
	if err != nil {
		return 0, fmt.Errorf("start the agent's %s: %w", command, err)
	}
	return a.ops.Wait(ctx, pid)
}

// Remove ends the agent if it does not leave by itself, and removes its folder. Where the agent is a service, one that did
// not leave by itself has no chance to take its registration away: its "thaw" does, before its file is removed.
func (a *Access) Remove(ctx context.Context, r guest.Remote) error {
	if r.Dir == "" {
		return nil
	}
	patience := leaveLimit
	if !r.Greeted {
		patience = 0 // it waits for somebody who will not come
	}
	terminated, ended := a.end(ctx, r.PID, patience)
	if launcher := a.launcher; r.Started && launcher != r.PID { // it leaves after the one that serves, which takes out what is registered
		_, err := a.end(ctx, launcher, min(patience, launcherLimit))
		ended = errors.Join(ended, err)
	}
	a.launcher = 0 // a process id is soon another program's
	names, err := a.ops.List(ctx, r.Dir)
	if guest.CodeOf(err) == codeNotThere {
		if ended != nil {
			return ended
		}
		return a.settle(ctx, r)
	}
	names = a.home.names(names)
	if err == nil && a.home.service && r.Started && (terminated || !r.Greeted) && slices.Contains(names, a.home.exe) {
		if _, err := a.thaw(ctx, r); err != nil {
			return errors.Join(ended, err) // the file stays, for the next try
		}
	}
	kept := r.Keep && ended == nil && err == nil && !terminated && slices.Contains(names, a.home.exe) && a.keep(ctx, r.Dir, names) == nil
	if r.Keep {
		names = append(names, guest.KeptFile) // it may have been begun
	}
	if !kept {
		if err := errors.Join(ended, err, a.empty(ctx, r.Dir, names)); err != nil {
			return err
		}
	}
	return a.settle(ctx, r)
}

// empty removes files of a folder, then the folder.
func (a *Access) empty(ctx context.Context, dir string, names []string) (err error) {
	for _, name := range names {
		err = errors.Join(err, a.remove(ctx, a.home.join(dir, name), false))
	}
	return errors.Join(err, a.remove(ctx, dir, true))
}

// remove removes a file or an empty folder; what is not there is removed. Where a program that has just ended still locks
// its file, the removal is tried again for about 2 s.
func (a *Access) remove(ctx context.Context, path string, dir bool) error {
	for try := 1; ; try++ {
		err := gone(a.ops.Remove(ctx, path, dir))
		if err == nil || try >= a.home.removals {
			return err
		}
		if sleepErr := sleep(ctx, removePause); sleepErr != nil {
			return errors.Join(err, sleepErr)
		}
	}
}

// end waits for the agent to leave, which it does when its session is closed, and has it terminated when patience is over.
func (a *Access) end(ctx context.Context, pid int64, patience time.Duration) (terminated bool, err error) {
	if pid == 0 {
		return false, nil
	}
	for begin, pause := time.Now(), firstPause; ; pause = min(2*pause, longestPause) {
		running, err := a.ops.Running(ctx, pid)
		if err != nil {
			return terminated, fmt.Errorf("look for the agent's process: %w", err)
		}
		if !running {
			return terminated, nil
		}
		if !terminated && time.Since(begin) >= patience {
			terminated = true
			if err := a.ops.Terminate(ctx, pid); err != nil {
				return terminated, fmt.Errorf("terminate the agent: %w", err)
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return terminated, err
		}
	}
}

// gone takes the error of a removal of what is not there for success.
func gone(err error) error {
	if guest.CodeOf(err) == codeNotThere {
		return nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
