package fsfreeze

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// holding is where one file system is on its way.
type holding int

const (
	released holding = iota // not held: before, after, or never
	freezing                // FIFREEZE is under way
	held
	thawing // FITHAW is under way, or did not answer
)

// target is one file system of the armed set.
type target struct {
	fs    fileSystem
	dir   *os.File
	state holding
	// returned is closed when FIFREEZE has returned and, if that was too late, FITHAW too.
	returned chan struct{}
	err      error                // of FIFREEZE
	tooLate  bool                 // FIFREEZE succeeded after stopped was set: its own goroutine thaws
	late     *protocol.ThawResult // of that FITHAW, until somebody reports it
}

// Freezer holds file systems by FIFREEZE. Its methods follow agent.Freezer. One Prepare, Freeze, Thaw, Close is a
// session; sessions follow one another.
type Freezer struct {
	options Options
	limits  limits

	// release serialises the thawing; state guards the fields below and is never held across a system call that blocks.
	release sync.Mutex
	state   sync.Mutex
	targets []*target
	dog     *watchdog
	list    *list
	notes   []string
	began   time.Time     // of Freeze; zero before
	stopped bool          // whatever freezes from now on thaws itself
	stop    chan struct{} // closed with stopped
	left    error         // of a clean-up after a thaw, until Close gives it
}

var _ agent.Freezer = (*Freezer)(nil)

// New makes a Freezer. Nothing is opened yet.
func New(o Options) *Freezer { return &Freezer{options: o, limits: defaultLimits()} }

// Notes are the rights that the watchdog of the last Prepare misses.
func (f *Freezer) Notes() []string {
	f.state.Lock()
	defer f.state.Unlock()
	return slices.Clone(f.notes)
}

// survey reads the mounts and judges them.
func (f *Freezer) survey() ([]mount, []fileSystem, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, nil, fmt.Errorf("read the mounts: %w", err)
	}
	bound := Bound{AllMounts: f.options.Bound.AllMounts}
	for _, point := range f.options.Bound.OnlyMount {
		if resolved, err := filepath.EvalSymlinks(point); err == nil {
			point = resolved
		}
		bound.OnlyMount = append(bound.OnlyMount, filepath.Clean(point))
	}
	return mounts, survey(mounts, bound, isDir), nil
}

// Volumes implements agent.Freezer. It blocks for at most 5 s.
func (f *Freezer) Volumes(ctx context.Context) ([]protocol.Volume, error) {
	return within(ctx.Done(), f.limits.open, func() ([]protocol.Volume, error) {
		_, all, err := f.survey()
		volumes := make([]protocol.Volume, 0, len(all))
		for _, fs := range all {
			volumes = append(volumes, volume(fs))
		}
		return volumes, err
	})
}

// Prepare implements agent.Freezer. It blocks for at most 5 s for each file system and 5 s for the watchdog, and for as
// long as it takes to write what is dirty, at most 9 min for each.
func (f *Freezer) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	f.state.Lock()
	busy := f.dog != nil
	f.state.Unlock()
	if busy {
		return agent.Prepared{}, coded(codeFailed, "prepare: the session before was not closed")
	}
	if r.Mode != mode {
		return agent.Prepared{}, coded(codeFailed, "prepare: file systems are held in mode %s, not %q", mode, r.Mode)
	}
	if r.SecondNet <= 0 || r.SecondNet > maxDeadman {
		return agent.Prepared{}, coded(codeFailed, "prepare: second net of %v is outside 0..%v", r.SecondNet, maxDeadman)
	}
	mounts, all, err := f.survey()
	if err != nil {
		return agent.Prepared{}, &agent.CodedError{Code: codeFailed, Err: err}
	}
	set, err := choose(all, r.Volumes)
	if err != nil {
		return agent.Prepared{}, err
	}
	if err := sameNamespace(f.options.Bound); err != nil {
		return agent.Prepared{}, err
	}
	if len(set) > maxMounts {
		return agent.Prepared{}, coded(codeFailed, "prepare: %d file systems are more than %d", len(set), maxMounts)
	}
	set = order(set, mounts, backingFiles)
	if err := f.open(ctx, set, mounts, r.SecondNet); err != nil {
		return agent.Prepared{}, err
	}
	if r.Broken != nil {
		go f.guard(f.dog, r.Broken)
	}
	var p agent.Prepared
	for _, fs := range set {
		p.Volumes = append(p.Volumes, volume(fs))
	}
	return p, nil
}

// open opens the set, writes the list and starts the watchdog; on an error nothing of it is left.
func (f *Freezer) open(ctx context.Context, set []fileSystem, mounts []mount, deadman time.Duration) (err error) {
	var targets []*target
	var armed *list
	defer func() {
		if err == nil {
			return
		}
		for _, t := range targets {
			err = errors.Join(err, t.dir.Close())
		}
		if armed != nil {
			err = errors.Join(err, armed.close(true))
		}
	}()
	var dirs []*os.File
	var points []string
	for _, fs := range set {
		dir, err := openTarget(ctx, fs, f.limits.open)
		if err != nil {
			return err
		}
		targets = append(targets, &target{fs: fs, dir: dir})
		if err := flush(ctx, dir, fs.at.point); err != nil {
			return err
		}
		dirs, points = append(dirs, dir), append(points, fs.at.point)
	}
	if armed, err = f.makeList(set, mounts, points); err != nil {
		return err
	}
	dog, notes, err := startWatchdog(ctx, deadman, dirs)
	if err != nil {
		return &agent.CodedError{Code: codeFailed, Err: err}
	}
	f.state.Lock()
	defer f.state.Unlock()
	f.targets, f.dog, f.list, f.notes = targets, dog, armed, notes
	f.began, f.stopped, f.stop = time.Time{}, false, make(chan struct{})
	return nil
}

// guard tells when the watchdog ended while something was held. It ends with the watchdog.
func (f *Freezer) guard(dog *watchdog, broken func()) {
	<-dog.exited
	f.state.Lock()
	held := f.dog == dog && !f.began.IsZero() && !f.clean()
	f.state.Unlock()
	if held {
		broken()
	}
}

// openTarget opens the mount point and makes sure that it is still the mount that was judged.
func openTarget(ctx context.Context, fs fileSystem, limit time.Duration) (*os.File, error) {
	dir, err := openDir(ctx, fs.at.point, limit)
	if err != nil {
		return nil, coded(codeNotOpen, "open mount point %s: %w", fs.at.point, err)
	}
	if id, err := mountID(dir); err != nil || id != fs.at.id {
		return nil, errors.Join(coded(codeNotOpen, "open mount point %s: something else is mounted there now: %v", fs.at.point, err), dir.Close())
	}
	return dir, nil
}

// makeList writes the mount points into RunDir, which must not be on the set: removing the list would block.
func (f *Freezer) makeList(set []fileSystem, mounts []mount, points []string) (*list, error) {
	if err := os.MkdirAll(f.options.RunDir, 0o700); err != nil {
		return nil, coded(codeFailed, "make the list of mounts: %w", err)
	}
	l, err := openList(f.options.RunDir, os.O_CREATE)
	if errors.Is(err, ErrHeldByAnother) {
		return nil, &agent.CodedError{Code: codeFrozen, Err: err}
	}
	if err != nil {
		return nil, coded(codeFailed, "make the list of mounts: %w", err)
	}
	id, err := mountID(l.file)
	if err == nil {
		for _, m := range mounts {
			if m.id == id && slices.ContainsFunc(set, func(fs fileSystem) bool { return fs.device == m.device }) {
				err = fmt.Errorf("%s lies on %s, which would be frozen", f.options.RunDir, m.point)
			}
		}
	}
	if err == nil {
		err = l.write(points)
	}
	if err != nil {
		return nil, errors.Join(coded(codeFailed, "make the list of mounts: %w", err), l.close(true))
	}
	return l, nil
}

// initialNamespace is the number of the first mount namespace since Linux 6.18 (MNT_NS_INIT_INO, linux/nsfs.h).
const initialNamespace = "mnt:[4026531832]"

// sameNamespace refuses to work outside the mount namespace of process 1, where mounts may be missing that applications
// write to. Some systems let not even root read that of process 1; then the first namespace, or an allow-list, is enough.
func sameNamespace(b Bound) error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return coded(codeFailed, "compare the mount namespaces: %w", err)
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if errors.Is(err, fs.ErrPermission) && (own == initialNamespace || len(b.OnlyMount) > 0) {
		return nil
	}
	if err != nil {
		return coded(codeNoRight, "compare the mount namespaces: %w", err)
	}
	if own != first {
		return coded(codeFailed, "the agent runs in the mount namespace %s, the system in %s", own, first)
	}
	return nil
}

// mode is the hold mode of file systems, in the words of the protocol.
const mode = "fs"

// Freeze implements agent.Freezer. It takes at most 10 s, and 5 s for each file system; a last flush comes before the
// hold begins.
func (f *Freezer) Freeze(ctx context.Context, started func()) (agent.Held, error) {
	return agent.Held{}, f.freeze(ctx, started)
}

func (f *Freezer) freeze(ctx context.Context, started func()) error {
	f.state.Lock()
	if f.dog == nil || !f.began.IsZero() || f.stopped {
		f.state.Unlock()
		return coded(codeFailed, "freeze: not prepared, or this session has frozen already")
	}
	f.began = time.Now()
	targets, dog := f.targets, f.dog
	f.state.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, f.limits.all, errLate)
	defer cancel()
	var err error
	for i := 0; i < len(targets) && err == nil; i++ {
		err = flushOnce(ctx, targets[i].dir, targets[i].fs.at.point)
	}
	if err != nil {
		return err // nothing is held yet
	}
	if !dog.alive() {
		return coded(codeFailed, "freeze: the watchdog has ended")
	}
	started() // before the watchdog's time begins, so that the agent's own dead-man comes first
	if err = dog.send(wordArm); err != nil {
		err = coded(codeFailed, "freeze: arm the watchdog: %w", err)
	}
	for i := 0; i < len(targets) && err == nil; i++ {
		err = f.freezeOne(ctx, targets[i])
	}
	f.state.Lock()
	if err == nil && f.stopped {
		err = coded(codeNotReached, "freeze: thawed meanwhile")
	}
	f.state.Unlock()
	if err == nil {
		return nil
	}
	for _, r := range f.thawAll(0) {
		if !r.OK {
			err = errors.Join(err, fmt.Errorf("thaw %s: %s", r.Mount, r.Error))
		}
	}
	return err
}

// freezeOne holds one file system, or gives up waiting: then the call thaws itself when it returns, because the caller
// sets stopped.
func (f *Freezer) freezeOne(ctx context.Context, t *target) error {
	point := t.fs.at.point
	f.state.Lock()
	switch {
	case f.stopped:
		f.state.Unlock()
		return coded(codeNotReached, "freeze %s: thawed meanwhile", point)
	case ctx.Err() != nil || time.Since(f.began) >= f.limits.all || !f.dog.alive():
		f.state.Unlock()
		return coded(codeNotReached, "freeze %s: %w", point, errors.Join(errLate, context.Cause(ctx)))
	}
	t.state, t.returned = freezing, make(chan struct{})
	stop := f.stop
	f.state.Unlock()
	go f.call(t)
	timer := time.NewTimer(f.limits.each)
	defer timer.Stop()
	select {
	case <-t.returned:
	case <-timer.C:
		return coded(codeNotReached, "freeze %s: %w within %v", point, errLate, f.limits.each)
	case <-stop:
		return coded(codeNotReached, "freeze %s: thawed meanwhile", point)
	case <-ctx.Done():
		return coded(codeNotReached, "freeze %s: %w", point, context.Cause(ctx))
	}
	f.state.Lock()
	defer f.state.Unlock()
	if t.err != nil {
		return coded(freezeCode(t.err), "freeze %s: %w", point, t.err)
	}
	return nil
}

// call is the goroutine of one FIFREEZE.
func (f *Freezer) call(t *target) {
	defer close(t.returned)
	err := freeze(t.dir)
	f.state.Lock()
	t.err = err
	switch {
	case err != nil:
		t.state = released
	case !f.stopped:
		t.state = held
	default:
		t.state, t.tooLate = thawing, true
	}
	late := t.tooLate
	f.state.Unlock()
	if !late {
		return
	}
	err = thaw(t.dir)
	row := thawRow(t, err)
	f.state.Lock()
	defer f.state.Unlock()
	t.state, t.late = released, &row
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.state = held // it may still be: the next Thaw tries again
	}
}

// freezeCode gives the catalogue's code of an error of FIFREEZE.
func freezeCode(err error) string {
	for _, row := range []struct {
		errno unix.Errno
		code  string
	}{
		{unix.EBUSY, codeFrozen},
		{unix.EOPNOTSUPP, codeCannot},
		{unix.ENOTTY, codeCannot},
		{unix.EPERM, codeNoRight},
		{unix.EACCES, codeNoRight},
		{unix.EIO, codeIO},
		{unix.ENXIO, codeNotOpen},
	} {
		if errors.Is(err, row.errno) {
			return row.code
		}
	}
	return codeFailed
}
