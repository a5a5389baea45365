package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// polled is the long poll. One is in flight through the whole window and is renewed after each answer.
const polled = "WaitForUpdatesEx"

// sample is what one window cost.
type sample struct {
	// overhead is the window less the snapshot task's own time.
	overhead time.Duration
	// between is the shorter window of the script, less the same.
	between time.Duration
	// calls are the methods that the front saw begin inside the window, in their order.
	calls []string
}

// besides counts the calls that are not the long poll, or those that are.
func besides(calls []string, poll bool) int {
	n := 0
	for _, c := range calls {
		if (c == polled) == poll {
			n++
		}
	}
	return n
}

// measureWindows measures both rivals, one after the other, at 50 ms and at no round trip.
func (w *world) measureWindows(ctx context.Context) (windowFigures, error) {
	f := windowFigures{RTTMS: 50, Windows: w.windows, GovcWindows: w.scripts}
	for _, rtt := range []time.Duration{50 * time.Millisecond, 0} {
		w.VCenter().SetRTT(rtt)
		ours, err := w.repeat(ctx, w.windows, w.window)
		if err != nil {
			return f, err
		}
		script, err := w.repeat(ctx, w.scripts, w.script)
		if err != nil {
			return f, err
		}
		f.take(rtt, ours, script)
	}
	return f, nil
}

// repeat measures n times, after one time that is not counted: caches and pages are warm for both rivals.
func (w *world) repeat(ctx context.Context, n int, once func(context.Context) (sample, error)) ([]sample, error) {
	var all []sample
	for i := range n + 1 {
		s, err := once(ctx)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			all = append(all, s)
		}
	}
	return all, nil
}

// window is one window of stillframe: from FROZEN received to THAW sent.
func (w *world) window(ctx context.Context) (sample, error) {
	w.VCenter().TakeCalls()
	r, err := w.ours(ctx)
	if err != nil {
		return sample{}, err
	}
	overhead, err := w.overhead(r)
	if err != nil {
		return sample{}, err
	}
	prepare, freeze, create := phase(r, "prepare"), phase(r, "freeze"), phase(r, "snapshot_create")
	frozen := r.StartedAt.Add(prepare + freeze)
	if err := w.witnessed(frozen, create+phase(r, "thaw"), freeze); err != nil {
		return sample{}, err
	}
	return sample{overhead: overhead, calls: begun(w.VCenter().TakeCalls(), frozen, frozen.Add(create))}, nil
}

// overhead is FROZEN received to THAW sent, less the last snapshot task's own time. The lab and vCenter's own stamps in the result
// both know that; the shorter one is the harder one.
func (w *world) overhead(r backup.Result) (time.Duration, error) {
	create := phase(r, "snapshot_create")
	if create == 0 {
		return 0, fmt.Errorf("the window has no snapshot phase: %v", r.Window.Phases)
	}
	return create - min(w.task(), seconds(r.Snapshot.TaskSeconds)), nil
}

// slack is what the lab's samples may be late by on a busy machine: the guest's writer wakes up some time after the thaw.
const slack = 250 * time.Millisecond

// witnessed holds stillframe's own times against the lab's witness, which knows nothing of agents: the guest must have
// been held then, and not for longer than was said.
func (w *world) witnessed(frozen time.Time, length, freeze time.Duration) error {
	guest, _ := w.Guest(machine)
	hold, ok := guest.Between(frozen, frozen.Add(length))
	if !ok {
		return errors.New("the lab saw no hold where stillframe says that there was one")
	}
	if seen := hold.LastSeen.Sub(hold.FirstSeen); seen > freeze+length+slack {
		return fmt.Errorf("the lab saw the guest held for %v, stillframe says %v", seen, freeze+length)
	}
	return nil
}

// script is the same by govc: freeze by a program in the guest, snapshot, thaw by a program. Its window is the time in
// which the guest is held, by the two programs' own words; between is counted only from the end of the freeze command to
// the call that starts the thaw program, which leaves out that the guest is held while its output is fetched.
func (w *world) script(ctx context.Context) (s sample, err error) {
	w.VCenter().TakeCalls()
	said, err := w.program(ctx, w.govc, "guest.run", w.freezer, w.mount)
	if err != nil {
		return s, err
	}
	returned := time.Now()
	w.scripted++
	name := fmt.Sprintf("bench-%d", w.scripted)
	_, failed := w.program(ctx, w.govc, "snapshot.create", "-m=false", "-q=false", name)
	thawed, err := w.program(ctx, w.govc, "guest.run", w.thawer, w.mount)
	if err := errors.Join(failed, err); err != nil {
		return s, err
	}
	calls := w.VCenter().TakeCalls()
	from, err := stamp(said)
	if err != nil {
		return s, err
	}
	to, err := stamp(thawed)
	if err != nil {
		return s, err
	}
	thaw := slices.IndexFunc(calls, func(c vcenter.Call) bool { return c.Method == "StartProgramInGuest" && c.Start.After(returned) })
	if thaw < 0 {
		return s, errors.New("the script's thaw was never started")
	}
	s = sample{overhead: to.Sub(from) - w.task(), between: calls[thaw].Start.Sub(returned) - w.task(), calls: begun(calls, from, to)}
	_, err = w.program(ctx, w.govc, "snapshot.remove", name)
	return s, err
}

// stamp reads the seconds since 1970 that a program wrote.
func stamp(said []byte) (time.Time, error) {
	whole, nano, ok := strings.Cut(strings.TrimSpace(string(said)), ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	n, also := strconv.ParseInt(nano, 10, 64)
	if err := errors.Join(err, also); err != nil || !ok || len(nano) != 9 {
		return time.Time{}, fmt.Errorf("a program in the guest said %q, not when: %w", said, err)
	}
	return time.Unix(s, n), nil
}

// begun lists the methods of the calls that began between two moments.
func begun(calls []vcenter.Call, from, to time.Time) []string {
	var methods []string
	for _, c := range calls {
		if c.Start.After(from) && !c.Start.After(to) {
			methods = append(methods, c.Method)
		}
	}
	return methods
}

func phase(r backup.Result, name string) time.Duration {
	for _, p := range r.Window.Phases {
		if p.Name == name {
			return seconds(p.DurationSeconds)
		}
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
