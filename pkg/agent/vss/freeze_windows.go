package vss

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// exitStuck is the exit status of a process that could not end its hold in any other way.
const exitStuck = 9

// freeze has VSS make the set, and waits until our provider holds it or the set has ended.
func (s *session) freeze(ctx context.Context, started func()) (agent.Held, error) {
	set := s.set.Load()
	if set == nil || !s.freezing.CompareAndSwap(false, true) {
		return agent.Held{}, coded(codeRequestorBug, "a session freezes once, after it was prepared")
	}
	s.group.Go(s.makeSet)
	s.group.Go(s.secondNet)
	begun := time.Now()
	phases := map[string]time.Duration{}
	prepared, done := set.Prepared(), ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case <-prepared:
			started()
			prepared = nil
			phases["prepare_snapshot"] = time.Since(begun)
		case <-set.Entered():
			if prepared != nil { // both at once
				started()
				phases["prepare_snapshot"] = time.Since(begun)
			}
			s.group.Go(s.tellExpired)
			return s.held(begun, phases), nil
		case <-s.ended:
			if held := s.held(begun, phases); set.Held() { // and thawed since
				return held, nil
			}
			return agent.Held{Since: set.Facts().Prepared}, setEnded(s.result, set.Phase())
		case <-done:
			s.giveUp()
			done, late = nil, time.After(s.f.limits.cancel)
		case <-late:
			return agent.Held{Since: set.Facts().Prepared}, fmt.Errorf("make the shadow copy set: %w", errStuck)
		}
	}
}

func (s *session) held(begun time.Time, phases map[string]time.Duration) agent.Held {
	facts := s.set.Load().Facts()
	h := agent.Held{Since: facts.Prepared, Flush: facts.Flush, Phases: phases}
	if s.mode == provider.IO {
		h.IOSince = facts.Entered
	}
	phases["freeze"] = facts.Entered.Sub(begun) - phases["prepare_snapshot"]
	return h
}

// makeSet runs DoSnapshotSet to its end on the session's thread. Whatever then still waits at our provider is let go.
func (s *session) makeSet() {
	err := s.thread.do(func() error {
		a, err := s.backup.start("make the shadow copy set", slotDoSnapshotSet)
		if err != nil {
			return err
		}
		defer a.end()
		asked := false
		for {
			if s.result = a.look(); s.result != vsscode.VSS_S_ASYNC_PENDING {
				return nil
			}
			if !asked && (s.cancel.Load() || s.set.Load().Overdue()) {
				asked = true
				if err := a.cancel(); err != nil {
					return err
				}
			}
		}
	})
	if err != nil {
		s.result = vsscode.E_UNEXPECTED
		var hr vsscode.HRESULT
		if errors.As(err, &hr) {
			s.result = hr
		}
	}
	s.set.Load().Abandon()
	close(s.ended)
}

// tellExpired tells the session when the hold ended without Thaw.
func (s *session) tellExpired() {
	set := s.set.Load()
	<-set.Left()
	if by := expired(set.Phase()); by != "" && s.request.Expired != nil {
		s.request.Expired(by)
	}
}

// netLook is how often the second net looks whether it is still needed.
const netLook = 50 * time.Millisecond

// secondNet ends this process when a hold outlives its own deadline: Windows then releases everything. It waits on a
// thread of its own by a timer of the system, in case it is Go's timers that stand still.
func (s *session) secondNet() {
	set := s.set.Load()
	select {
	case <-set.Prepared():
	case <-s.ended:
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for prepared := set.Facts().Prepared; time.Since(prepared) < s.request.SecondNet; {
		select {
		case <-set.Left():
			return
		case <-s.ended:
			return
		default:
			windows.SleepEx(uint32(netLook/time.Millisecond), false)
		}
	}
	if s.request.SecondNet == 0 || !set.Held() { // the hold's function has not returned, whoever was to end it
		return
	}
	if err := windows.TerminateProcess(windows.CurrentProcess(), exitStuck); err != nil {
		panic(err) // which ends the process as well
	}
}

// giveUp makes the set fail: what holds lets go with a veto, else VSS is asked to stop.
func (s *session) giveUp() {
	set := s.set.Load()
	if set == nil {
		return
	}
	set.Veto()
	if !set.Held() {
		s.cancel.Store(true)
	}
}

func (s *session) thaw() agent.Release {
	set := s.set.Load()
	if set == nil {
		return agent.Release{}
	}
	phase, err := set.Thaw()
	set.Wait()
	var r agent.Release
	if !set.Held() {
		s.cancel.Store(true)
		return r
	}
	r.Expired = expired(phase)
	if s.mode == provider.IO {
		r.IO = set.Facts().Held
	}
	if phase == provider.Thawed && !s.reported.Swap(true) {
		for _, v := range s.volumes {
			row := protocol.ThawResult{Mount: v.ID, OK: err == nil}
			if len(v.Mounts) > 0 {
				row.Mount = v.Mounts[0]
			}
			if err != nil {
				row.Error = err.Error()
			}
			r.Results = append(r.Results, row)
		}
	}
	return r
}
