package fsfreeze

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Thaw implements agent.Freezer. A FIFREEZE that is still under way thaws itself; Thaw waits for it for at most 4 s and
// says so if that was not enough. The end of the context does not hinder it.
func (f *Freezer) Thaw(context.Context) agent.Release {
	return agent.Release{Results: f.thawAll(f.limits.thaw)}
}

// thawAll releases what is held, the last frozen first, then waits for what is still freezing, and at last, when
// nothing is held any more, lets the watchdog go and removes the list.
func (f *Freezer) thawAll(wait time.Duration) []protocol.ThawResult {
	f.state.Lock()
	if f.stop != nil && !f.stopped {
		close(f.stop)
	}
	f.stopped = true // at once, before waiting for another thaw
	f.state.Unlock()
	f.release.Lock()
	defer f.release.Unlock()
	var results []protocol.ThawResult
	for _, t := range f.take() {
		err := thawWithin(t.dir, f.limits.thaw)
		f.state.Lock()
		switch {
		case err == nil, errors.Is(err, unix.EINVAL):
			t.state = released
		case !errors.Is(err, errLate):
			t.state = held // it may still be: the next Thaw tries again, and so does the watchdog
		}
		f.state.Unlock()
		results = append(results, thawRow(t, err))
	}
	results = append(results, f.awaitLate(wait)...)
	f.settle()
	return results
}

// take gives what is held, the last frozen first, to be thawed by the caller.
func (f *Freezer) take() []*target {
	f.state.Lock()
	defer f.state.Unlock()
	var taken []*target
	for _, t := range slices.Backward(f.targets) {
		if t.state == held {
			t.state = thawing
			taken = append(taken, t)
		}
	}
	return taken
}

// awaitLate waits until the system calls that are still freezing have returned and were thawed, and gives their rows.
func (f *Freezer) awaitLate(wait time.Duration) []protocol.ThawResult {
	f.state.Lock()
	targets := f.targets
	f.state.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	over := false
	var results []protocol.ThawResult
	for _, t := range slices.Backward(targets) {
		f.state.Lock()
		returned := t.returned
		f.state.Unlock()
		if returned == nil {
			continue
		}
		if !over {
			select {
			case <-returned:
			case <-timer.C:
				over = true
			}
		}
		f.state.Lock()
		switch {
		case t.late != nil:
			results = append(results, *t.late)
			t.late = nil
		case t.state == freezing, t.state == thawing && t.tooLate:
			results = append(results, protocol.ThawResult{
				Mount: t.fs.at.point,
				Error: "still freezing: it is thawed when the system call returns",
			})
		}
		f.state.Unlock()
	}
	return results
}

// settle lets the watchdog go and removes the list, once a hold has begun and nothing is held any more.
func (f *Freezer) settle() {
	f.state.Lock()
	defer f.state.Unlock()
	if f.list == nil || f.began.IsZero() || !f.clean() {
		return
	}
	var err error
	if f.dog.alive() {
		if err = f.dog.send(wordDone); errors.Is(err, syscall.EPIPE) {
			err = nil // it has thawed and left by itself
		}
	}
	f.left = errors.Join(f.left, err, f.list.close(true))
	f.list = nil
}

// clean tells whether nothing is held and no system call is under way; the caller has locked state.
func (f *Freezer) clean() bool {
	return !slices.ContainsFunc(f.targets, func(t *target) bool { return t.state != released })
}

// Close implements agent.Freezer. It blocks for at most 4 s for each file system and 5 s for the watchdog. If a system
// call does not return in time, Close gives an error, and blocks until it has: the watchdog and the list stay so long.
func (f *Freezer) Close() error {
	var err error
	for _, r := range f.thawAll(f.limits.thaw) {
		if !r.OK {
			err = errors.Join(err, coded(codeThaw, "thaw %s: %s", r.Mount, r.Error))
		}
	}
	f.state.Lock()
	targets, dog, list, clean := f.targets, f.dog, f.list, f.clean()
	err = errors.Join(err, f.left)
	f.targets, f.dog, f.list, f.left, f.notes = nil, nil, nil, nil, nil
	f.state.Unlock()
	if dog == nil {
		return err
	}
	if !clean {
		abandon(targets, dog, list)
		return err
	}
	err = errors.Join(err, dog.leave())
	if list != nil {
		err = errors.Join(err, list.close(true))
	}
	for _, t := range targets {
		err = errors.Join(err, t.dir.Close())
	}
	return err
}

// abandon waits for the calls that did not return in time - the process could not end before them either -, and then
// gives the watchdog the end of file, so that it makes a last pass. What a call froze too late its own goroutine thaws,
// which is why the process must not end first: the watchdog may be dead. The list stays for the next agent. Its files are
// closed with the process.
func abandon(targets []*target, dog *watchdog, l *list) {
	for _, t := range targets {
		if t.returned != nil {
			<-t.returned
		}
	}
	if err := errors.Join(dog.words.Close(), l.close(false)); err != nil {
		return // the end of the process closes them
	}
	<-dog.exited
}

// thawRow is what one FITHAW says. EINVAL means that somebody else had thawed it: the hold proves nothing then.
func thawRow(t *target, err error) protocol.ThawResult {
	if err != nil {
		return protocol.ThawResult{Mount: t.fs.at.point, Error: errno(err)}
	}
	return protocol.ThawResult{Mount: t.fs.at.point, OK: true}
}
