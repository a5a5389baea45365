package freezewindow

import "time"

// Step is the reducer of a window: pure, total, without a clock. at is the time of e since just before GO was written;
// one before the last is raised to it. After Finish every event is ignored.
func Step(s State, at time.Duration, e Event) (State, []Command) {
	at = max(at, s.last)
	s.last = at
	if s.Phase == Done {
		s.Ignored++
		return s, nil
	}
	switch e := e.(type) {
	case Start:
		return start(s, at, e)
	case GuestFrozen:
		return frozen(s, at, e)
	case GuestThawed:
		return thawed(s, at, e)
	case GuestError:
		return guestError(s, at, e)
	case LinkLost:
		return linkLost(s, at)
	case LinkBack:
		return linkBack(s, at)
	case ResumeFailed:
		return resumeFailed(s, at, e)
	case SnapAccepted, SnapDone, SnapFailed, SnapUnknown:
		return snapshot(s, at, e)
	case Fired:
		return fired(s, at, e.Timer)
	case Cancel:
		if s.Phase != Going && s.Phase != Frozen {
			return ignore(s)
		}
		s.blame(CauseCancelled)
		return s.thaw(at, Cancelled)
	case GuestBeat:
		s.HeardAt = at
		return s, nil
	}
	return ignore(s)
}

func ignore(s State) (State, []Command) {
	s.Ignored++
	return s, nil
}

// blame keeps the first cause: what follows from it is not a cause of its own.
func (s *State) blame(c Cause) {
	if s.Cause == CauseNone {
		s.Cause = c
	}
}

func start(s State, at time.Duration, e Start) (State, []Command) {
	if s.Phase != New {
		return ignore(s)
	}
	s.Ready = e.Ready
	if s.Ready.Need < MinNeed {
		s.Ready.Need = MinNeed
	}
	if e.Ready.Left < MinReadyLeft || !e.Ready.Armed || e.Ready.Go == 0 || s.Budget.Check(0) != nil {
		s.Cause = CauseNotReady
		return s.finish(at)
	}
	s.Phase, s.Linked = Going, true
	return s, []Command{
		SetTimer{ThawBy, s.Budget.ThawBy()},
		SetTimer{Beat, at + beatEvery},
		SendGo{e.Ready.Go},
	}
}

func frozen(s State, at time.Duration, e GuestFrozen) (State, []Command) {
	if s.Phase != Going || e.Go != s.Ready.Go {
		return ignore(s)
	}
	s.Held, s.Frozen, s.FrozenAt = Holding, e, at
	// The hold began e.SinceGo-e.Hold after the guest read GO, which was not before we wrote it. A guest that claims more
	// than has passed is not believed.
	s.HoldFrom = min(max(e.SinceGo-e.Hold, 0), at)
	thawBy := s.Budget.ThawBy() + s.HoldFrom
	cmds := []Command{SetTimer{ThawBy, thawBy}}
	if e.Mode == ModeIO {
		// Age inside CommitSnapshots <= time since FROZEN was received + e.IO + the whole transit of GO and FROZEN.
		ioBy := s.Budget.IOThaw + min(max(e.SinceGo-e.IO, 0), at)
		thawBy = min(thawBy, ioBy)
		cmds = append(cmds, SetTimer{IOBy, ioBy})
	}
	if e.Mode != s.Ready.Mode {
		s.blame(CauseBug)
		return s.thaw(at, Cancelled)
	}
	if thawBy-at < s.Ready.Need {
		s.blame(CauseNoTime)
		return s.thaw(at, NoTime)
	}
	s.Phase, s.Snap, s.CallAt = Frozen, SnapCalled, at
	return s, append(cmds, CallSnapshot{})
}

func thawed(s State, at time.Duration, e GuestThawed) (State, []Command) {
	if e.Go != s.Ready.Go || s.Phase == New {
		return ignore(s)
	}
	var cmds []Command
	if s.Held != Released && s.Held != Expired {
		s.ReleasedAt = at
	}
	s.Release, s.Held = e.Release, Released
	if e.Expired {
		s.Held = Expired
		s.blame(expiredCause(e.ExpiredBy))
	}
	switch {
	case e.mayHold():
		s.blame(CauseGuestError)
	case len(e.Failed) > 0:
		s.blame(CauseForeignThaw)
	case e.Held > s.Budget.Hold:
		s.blame(CauseHoldTimeout)
	case e.Final && !e.Finished && s.Ready.Mode != ModeFS:
		s.blame(setCause(e.SetResult))
	}
	if s.Phase == Going || s.Phase == Frozen { // not asked for: the guest let go by itself; THAW is attempted all the same
		if !e.Expired {
			s.blame(CauseUnknown)
		}
		s, cmds = s.thaw(at, Cancelled)
	}
	s.Phase = Settling
	cmds = append(cmds, StopTimer{ThawAck}, StopTimer{ThawBy}, StopTimer{IOBy}, StopTimer{Beat})
	if !e.Final {
		return s, cmds
	}
	s.Final = true
	s, end := s.finish(at)
	return s, append(cmds, end...)
}

func guestError(s State, at time.Duration, e GuestError) (State, []Command) {
	if s.GuestCode == "" {
		s.GuestCode, s.GuestErr = e.Code, e.Text
	}
	if !e.Fatal || (s.Phase != Going && s.Phase != Frozen) {
		return ignore(s)
	}
	s.blame(CauseGuestError)
	return s.thaw(at, Cancelled)
}

func linkLost(s State, at time.Duration) (State, []Command) {
	if s.Phase == New || !s.Linked {
		return ignore(s)
	}
	s.Linked = false
	s.Losses++
	if s.LostAt == 0 {
		s.LostAt = at
	}
	if s.Held != Released && s.Held != Expired {
		s.Held = HeldUnknown
		s.blame(CauseLinkLost)
	}
	s.Phase = Settling
	if s.Losses > maxLosses {
		return s.finish(at)
	}
	cmds := []Command{StopTimer{ThawBy}, StopTimer{IOBy}, StopTimer{Beat}, StopTimer{ThawAck}}
	return s, append(cmds, SetTimer{SettleBy, s.lostBy(at)}, TryResume{})
}

// linkBack repeats the thaw: the agent answers it with the THAWED that it kept, or thaws now.
func linkBack(s State, at time.Duration) (State, []Command) {
	if s.Phase != Settling || s.Linked {
		return ignore(s)
	}
	s.Linked = true
	s, cmds := s.thaw(at, Cancelled)
	return s, append(cmds, SetTimer{SettleBy, at + s.settleWithin()})
}

func resumeFailed(s State, at time.Duration, e ResumeFailed) (State, []Command) {
	if s.Phase != Settling || s.Linked {
		return ignore(s)
	}
	if e.Gone { // nobody will ever answer: what is not known now stays unknown
		return s.finish(at)
	}
	return s, []Command{SetTimer{Reconnect, at + reconnectEvery}}
}

func snapshot(s State, at time.Duration, e Event) (State, []Command) {
	if s.Snap != SnapCalled && s.Snap != SnapTaken {
		return ignore(s)
	}
	var why Reason
	switch e := e.(type) {
	case SnapAccepted:
		s.Snap, s.Task, s.AcceptedAt = SnapTaken, e.Task, at
		return s, nil
	case SnapDone:
		s.Snap, s.Snapshot, s.Timing, why = SnapSucceeded, e.Snapshot, e.Timing, SnapshotDone
	case SnapFailed:
		s.Snap, s.SnapCode, s.SnapErr, why = SnapErrored, e.Code, errorText(e.Err), SnapshotFailed
	case SnapUnknown:
		s.Snap, s.SnapCode, s.SnapErr, why = SnapLost, e.Code, errorText(e.Err), SnapshotUnknown
	}
	s.TaskEndAt = at
	if s.Phase != Frozen {
		s.Late = true
		return s, nil
	}
	if why != SnapshotDone {
		s.blame(CauseSnapshotFailed)
	}
	return s.thaw(at, why)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func fired(s State, at time.Duration, t Timer) (State, []Command) {
	switch {
	case t == Beat && (s.Phase == Going || s.Phase == Frozen || s.Phase == Thawing):
		return s, []Command{SendBeat{}, SetTimer{Beat, at + beatEvery}}
	case (t == ThawBy || t == IOBy) && s.Phase <= Frozen && at > s.thawDue(t)+lateTimer:
		s.blame(CauseStalled)
		return s.thaw(at, Deadline)
	case t == ThawBy && s.Phase == Going:
		s.blame(CauseFreezeSlow)
		return s.thaw(at, Deadline)
	case (t == ThawBy || t == IOBy) && s.Phase == Frozen:
		s.blame(CauseSnapshotSlow)
		return s.thaw(at, Deadline)
	case t == ThawAck && s.Phase == Thawing && s.Thaws < thawSends:
		return s.thaw(at, s.Why)
	case t == ThawAck && s.Phase == Thawing && at-s.HeardAt <= 2*beatEvery:
		return s, []Command{SetTimer{ThawAck, at + thawAckAfter}} // it is there, and slow to release
	case t == ThawAck && s.Phase == Thawing:
		// The peer does not answer on this connection: try a new one.
		s.Linked, s.Phase, s.Held = false, Settling, HeldUnknown
		s.Losses++
		if s.LostAt == 0 {
			s.LostAt = at
		}
		s.blame(CauseLinkLost)
		return s, []Command{StopTimer{Beat}, SetTimer{SettleBy, s.lostBy(at)}, TryResume{}}
	case t == Reconnect && s.Phase == Settling && !s.Linked:
		return s, []Command{TryResume{}}
	case t == SettleBy && (s.Phase == Thawing || s.Phase == Settling):
		if s.Held != Released && s.Held != Expired {
			s.Held = HeldUnknown
			s.blame(CauseUnknown)
		}
		return s.finish(at)
	}
	return ignore(s)
}

// thaw sends THAW, with why the first time and with the same reason again, and waits for its answer. It never waits for
// vSphere.
func (s State) thaw(at time.Duration, why Reason) (State, []Command) {
	var cmds []Command
	if s.ThawSentAt == 0 {
		s.ThawSentAt, s.Why = at, why
		cmds = append(cmds, StopTimer{ThawBy}, StopTimer{IOBy})
	}
	s.Thaws++
	s.Phase = Thawing
	cmds = append(cmds, SendThaw{s.Ready.Go, s.Why}, SetTimer{ThawAck, at + thawAckAfter})
	return s, append(cmds, s.settle(at)...)
}

// thawDue is when a timer that sends THAW was to fire.
func (s State) thawDue(t Timer) time.Duration {
	if t == IOBy {
		return s.Budget.IOThaw + min(max(s.Frozen.SinceGo-s.Frozen.IO, 0), s.FrozenAt)
	}
	return s.Budget.ThawBy() + s.HoldFrom
}

// settle bounds the wait for the guest's last word, once.
func (s *State) settle(at time.Duration) []Command {
	if s.settling {
		return nil
	}
	s.settling = true
	return []Command{SetTimer{SettleBy, at + s.settleWithin()}}
}

// settleWithin is how long a guest that can be reached may take for its last word.
func (s *State) settleWithin() time.Duration {
	if s.Ready.Mode != ModeFS {
		return settleSet + settleWriters
	}
	return settleSet
}

// lostBy is when the wait for a guest that cannot be reached ends. One that has said that it is free keeps its time, and so
// does one that comes back.
func (s *State) lostBy(at time.Duration) time.Duration {
	s.settling = true
	if s.Held == Released || s.Held == Expired {
		return at + s.settleWithin()
	}
	return max(at+reconnectEvery*3, s.HoldFrom+settleLost)
}

func (s State) finish(at time.Duration) (State, []Command) {
	s.Phase, s.EndAt = Done, at
	if s.Ready.Mode != ModeFS && !s.Final && s.ThawSentAt > 0 { // how the set ended and how the writers are stays unknown
		if s.Losses > 0 {
			s.blame(CauseLinkLost)
		}
		s.blame(CauseUnknown)
	}
	var cmds []Command
	if s.Snap == SnapCalled || s.Snap == SnapTaken || s.Snap == SnapLost {
		cmds = append(cmds, HandOver{s.Task, s.Ready.Name})
	}
	return s, append(cmds, Finish{})
}
