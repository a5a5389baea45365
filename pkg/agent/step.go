// Package agent serves one orchestrator inside the guest.
package agent

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Start is the state of a fresh agent, with the timer that ends it when nobody comes within idle.
func Start(self Self, idle time.Duration) (State, []Command) {
	if idle == 0 {
		idle = idleLimit
	}
	return State{Name: Idle, Self: self, Expired: NotExpired}, []Command{SetTimer{TimerIdle, idle}}
}

// Step is the agent's reducer: pure but for random nonces, total, without a clock. at is the time of e since the agent's
// start; one before the last is raised to it.
func Step(s State, at time.Duration, e Event) (State, []Command) {
	s, commands := step(s, at, e)
	s, commands = s.mindHooks(s.last, commands)
	return s.mindClosing(commands)
}

func step(s State, at time.Duration, e Event) (State, []Command) {
	happened := at
	at = max(at, s.last)
	s.last = at
	switch e := e.(type) {
	case Hello:
		return hello(s, at, e)
	case Msg:
		return message(s, at, e.M)
	case PreparedEvent:
		return prepared(s, at, e)
	case HoldStarted:
		if s.Holding { // by a hook already
			return s, nil
		}
		// The hold is as old as it is, even when other events were heard of first.
		s.Holding, s.HoldAt = true, happened
		return s, []Command{SetTimer{TimerDeadman, s.HoldAt + s.Deadman}, StopTimer{TimerPrehold}}
	case FreezeEnded:
		return freezeEnded(s, at, e)
	case HoldExpired:
		return holdExpired(s, at, e)
	case ThawEnded:
		return thawEnded(s, at, e)
	case SettledEvent:
		return s.settled(at, e.Settled)
	case CompletedEvent:
		return s.completed(at, e.Completed)
	case ClosedEvent:
		return s.closed(at, e)
	case HookEnded:
		return hookEnded(s, at, e)
	case HooksReleased:
		return hooksReleased(s, at, e)
	case PinKept:
		return pinKept(s, e)
	case Fired:
		return fired(s, at, e.Timer)
	case LinkLost:
		return linkLost(s, at)
	case NetLost:
		if s.Name != Freezing && s.Name != Frozen {
			return s, nil
		}
		s.Expired = BySystem
		return s.release(at)
	case ServiceStop:
		s.Stopping = true
		return s.end(at, ByServiceStop)
	}
	return drop(s)
}

func drop(s State) (State, []Command) {
	s.Dropped++
	return s, nil
}

func hello(s State, at time.Duration, e Hello) (State, []Command) {
	refuse := func(code, format string, a ...any) (State, []Command) {
		s.Dropped++
		m := &protocol.Error{
			Envelope: protocol.Envelope{V: protocol.MaxVersion, T: protocol.WordError, S: e.M.S, Re: e.M.Q},
			Code:     code, Op: "hello", Phase: string(s.Name), Fatal: true, Text: fmt.Sprintf(format, a...),
		}
		return s, []Command{Refuse{e.Link, m}}
	}
	switch {
	case e.M.MinV > protocol.MaxVersion || e.M.MaxV < protocol.MinVersion:
		return refuse("SF3704", "protocol versions %d..%d are not spoken here, only %d..%d", e.M.MinV, e.M.MaxV, protocol.MinVersion, protocol.MaxVersion)
	case !protocol.SameUUID(e.M.VMUUID, s.Self.VMUUID):
		return refuse("SF3704", "this guest's VM has the uuid %q, not %q", s.Self.VMUUID, e.M.VMUUID)
	case e.M.Epoch < s.Epoch:
		return refuse("SF4022", "epoch %d is older than %d", e.M.Epoch, s.Epoch)
	case len(e.M.S) != 32:
		return refuse("SF4022", "the session %q is not 128 bits in hex", e.M.S)
	case e.M.Resume && (e.M.S != s.Session || e.M.Q <= s.LastQ):
		return refuse("SF4022", "there is no session %q to resume", e.M.S)
	case !e.M.Resume && (s.Name != Idle || s.Stopping):
		return refuse("SF4008", "the agent serves another session, state %s", s.Name)
	}
	s.Session, s.Epoch, s.LastQ, s.Linked, s.hook.run = e.M.S, e.M.Epoch, e.M.Q, true, e.M.Run
	volumes := e.Volumes[:min(len(e.Volumes), maxVolumesListed)]
	answer := &protocol.HelloAnswer{
		NonceEcho: e.M.Nonce, Nonce: rand.Text(),
		AgentVersion: s.Self.Version, ExeSHA256: s.Self.ExeSHA256, OS: s.Self.OS, VMUUID: s.Self.VMUUID,
		UptimeUS: e.Uptime.Microseconds(), BootID: s.Self.BootID, State: string(s.Name), StateSession: s.Session,
		Limits:  protocol.Limits{HoldMS: Hold.Milliseconds(), DeadmanMS: Deadman.Milliseconds(), IODeadmanMS: IODeadman.Milliseconds()},
		Volumes: volumes, Conflicts: []string{}, LeakedSessions: e.Leaked, Persistent: s.Self.Persistent,
	}
	answer.T, answer.Re = protocol.WordHello, e.M.Q
	cmds := []Command{Adopt{e.Link}, Send{answer}, StopTimer{TimerIdle}}
	return s, append(cmds, s.silence(at)...)
}

// silence arms the limit on the time without a word, where there is one: never while anything is held, because a stunned
// VM is silent too.
func (s State) silence(at time.Duration) []Command {
	switch s.Name {
	case Idle, Arming, Ready:
		return []Command{SetTimer{TimerSilence, at + silenceLimit}}
	case Open:
		return []Command{SetTimer{TimerSilence, at + resumeLimit}}
	case Closed: // nothing is left to complete: only the last word waits to be fetched
		if !s.Ending {
			return []Command{SetTimer{TimerSilence, at + fetchLimit}}
		}
	case Freezing, Frozen, Thawing, Completing:
	}
	return []Command{StopTimer{TimerSilence}}
}

func message(s State, at time.Duration, m protocol.Message) (State, []Command) {
	h := m.Head()
	if h.S != s.Session || s.Session == "" {
		s.Dropped++
		return s, []Command{s.refusal(h, "SF4022", false, "session %q is not the present one", h.S)}
	}
	if h.Q <= s.LastQ {
		return drop(s)
	}
	s.LastQ = h.Q
	var cmds []Command
	switch m := m.(type) {
	case *protocol.Arm:
		s, cmds = arm(s, at, m)
	case *protocol.Go:
		s, cmds = goFreeze(s, at, m)
	case *protocol.Thaw:
		s, cmds = thaw(s, at, m)
	case *protocol.Heartbeat:
		cmds = []Command{Send{s.beat(at, h.Q)}}
	case *protocol.Complete:
		s, cmds = complete(s, at, m)
	case *protocol.Abort:
		s, cmds = abort(s, at, m)
	case *protocol.Pin:
		s, cmds = pin(s, m)
	default:
		s.Dropped++
		cmds = []Command{s.refusal(h, "SF3704", false, "word %q is not known here", h.T)}
	}
	return s, append(cmds, s.silence(at)...)
}

func (s State) refusal(h *protocol.Envelope, code string, fatal bool, format string, a ...any) Command {
	m := &protocol.Error{Code: code, Op: strings.ToLower(string(h.T)), Phase: string(s.Name), Fatal: fatal, Text: fmt.Sprintf(format, a...)}
	m.T, m.Re = protocol.WordError, h.Q
	return Send{m}
}

func (s State) beat(at time.Duration, re uint64) *protocol.Heartbeat {
	b := &protocol.Heartbeat{State: string(s.Name), Phase: strings.ToLower(string(s.Name))}
	b.T, b.Re = protocol.WordHeartbeat, re
	if s.Holding {
		b.HoldUS, b.LeftUS = (at - s.HoldAt).Microseconds(), (s.HoldAt + s.Deadman - at).Microseconds()
	}
	return b
}

func arm(s State, at time.Duration, m *protocol.Arm) (State, []Command) {
	if s.Name != Idle {
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4008", false, "ARM in state %s", s.Name)}
	}
	s.Deadman = Deadman
	if asked := time.Duration(m.Budget.DeadmanMS) * time.Millisecond; asked > 0 && asked < s.Deadman {
		s.Deadman = asked
	}
	s.Name, s.Mode = Arming, m.Mode
	s.asked = PrepareRequest{
		Volumes: m.Volumes, Mode: m.Mode, BackupType: m.BackupType, Writers: m.Writers,
		Deadman: s.Deadman, IODeadman: IODeadman, SecondNet: s.Deadman + secondNetAfter,
	}
	if asked := time.Duration(m.Budget.IODeadmanMS) * time.Millisecond; asked > 0 {
		s.asked.IODeadman = min(IODeadman, asked)
	}
	limit := SetTimer{TimerArm, at + armLimit}
	if s.Self.Hooks {
		s.hook.running = PointPrepare
		return s, []Command{limit, RunHooks{HookRequest{PointPrepare, s.hook.run, s.Mode, true, s.asked.SecondNet}}}
	}
	return s, []Command{limit, Prepare{s.asked}}
}

func prepared(s State, at time.Duration, e PreparedEvent) (State, []Command) {
	if s.Name != Arming { // aborted meanwhile
		return s, []Command{Finish{}}
	}
	if e.Err != nil {
		no := s.refusal(&protocol.Envelope{T: protocol.WordArm}, code(e.Err, "SF4001"), true, "prepare the freeze: %v", e.Err)
		s, cmds := s.close(at)
		return s, append([]Command{no}, cmds...)
	}
	s.Name, s.Volumes = Ready, e.Volumes
	r := &protocol.Ready{
		Mode: s.Mode, Volumes: e.Volumes, Hooks: s.hook.names, ReadyLeftMS: readyLimit.Milliseconds(),
		SetID: e.SetID, Provider: e.Provider, Writers: listed(e.Writers), PhasesUS: microseconds(e.Phases),
	}
	r.Provider.Served = listed(r.Provider.Served)
	r.T = protocol.WordReady
	return s, append([]Command{StopTimer{TimerArm}, SetTimer{TimerReady, at + readyLimit}, Send{r}}, s.silence(at)...)
}

// listed is never null on the wire.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func microseconds(phases map[string]time.Duration) map[string]int64 {
	us := map[string]int64{}
	for name, d := range phases {
		us[name] = d.Microseconds()
	}
	return us
}

func code(err error, otherwise string) string {
	var c *CodedError
	if errors.As(err, &c) {
		return c.Code
	}
	return otherwise
}

func goFreeze(s State, at time.Duration, m *protocol.Go) (State, []Command) {
	if m.Go == s.Go && m.Go != 0 { // again: answered with what is, never a second freeze
		switch {
		case s.Name == Frozen:
			return s, []Command{Send{s.frozenWord(at)}}
		case s.Stored != nil:
			return s, []Command{Send{s.Stored}}
		}
		return s, []Command{Send{s.beat(at, m.Q)}}
	}
	if s.Name != Ready || m.Go == 0 || slices.Contains(s.Used, m.Go) {
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4022", false, "GO %d in state %s", m.Go, s.Name)}
	}
	recent := slices.DeleteFunc(slices.Clone(s.GoTimes), func(t time.Duration) bool { return at-t >= time.Hour })
	if len(recent) >= GoesPerHour {
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4023", true, "more than %d freezes in an hour", GoesPerHour)}
	}
	s.GoTimes = append(recent, at)
	s.use(m.Go)
	if asked := time.Duration(m.HoldMS) * time.Millisecond; asked > 0 && asked < s.Deadman {
		s.Deadman = asked
	}
	s.Name, s.Go, s.GoAt = Freezing, m.Go, at
	cmds := []Command{StopTimer{TimerReady}, SetTimer{TimerPrehold, at + preholdLimit}}
	if s.hook.preTo {
		s.hook.running = PointPreFreeze
		return s, append(cmds, RunHooks{HookRequest{Point: PointPreFreeze, Run: s.hook.run, Mode: s.Mode, OK: true}})
	}
	s.FreezeRuns = true
	return s, append(cmds, Freeze{})
}

// use remembers a go id, so that it never freezes (again); the list is bounded by the rate limit on freezes.
func (s *State) use(id uint64) {
	s.Used = append(slices.Clone(s.Used), id)
	if len(s.Used) > usedGoEntries {
		s.Used = s.Used[1:]
	}
}

func (s State) frozenWord(at time.Duration) *protocol.Frozen {
	f := &protocol.Frozen{
		Go: s.Go, Mode: s.Mode, Flush: cmp.Or(s.Flush, "full"), PhasesUS: microseconds(s.Phases),
		HoldUS: (at - s.HoldAt).Microseconds(), SinceGoUS: (at - s.GoAt).Microseconds(), LeftUS: (s.HoldAt + s.Deadman - at).Microseconds(),
	}
	f.PhasesUS["freeze"] = (s.FrozenAt - s.HoldAt).Microseconds()
	if s.IOAt > 0 {
		f.IOUS, f.LeftUS = (at - s.IOAt).Microseconds(), min(f.LeftUS, (s.IOAt+s.asked.IODeadman-at).Microseconds())
	}
	f.T = protocol.WordFrozen
	return f
}

func freezeEnded(s State, at time.Duration, e FreezeEnded) (State, []Command) {
	s.FreezeRuns = false
	earlier := e.HoldAt > 0 && s.Holding && e.HoldAt < s.HoldAt // HoldStarted came late: this process may have been stopped
	if earlier {
		s.HoldAt = e.HoldAt
	}
	switch {
	case s.Name != Freezing: // released meanwhile: what the call reached is released once more, then the end is told
		s.ThawsRun++
		return s, []Command{Thaw{}}
	case e.Err != nil:
		no := s.refusal(&protocol.Envelope{T: protocol.WordGo}, code(e.Err, "SF4001"), true, "freeze: %v", e.Err)
		s, cmds := s.release(at)
		return s, append([]Command{no}, cmds...)
	case at >= s.HoldAt+s.Deadman:
		s.Expired = ByDeadman
		return s.release(at)
	}
	s.Name, s.FrozenAt, s.ReachedAll = Frozen, at, true
	s.IOAt, s.Flush, s.Phases = e.IOAt, e.Flush, e.Phases
	cmds := []Command{Send{s.frozenWord(at)}}
	if earlier {
		cmds = append(cmds, SetTimer{TimerDeadman, s.HoldAt + s.Deadman})
	}
	return s, cmds
}

// thaw is idempotent and accepted in every state.
func thaw(s State, at time.Duration, m *protocol.Thaw) (State, []Command) {
	if s.Go != 0 && m.Go != s.Go {
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4022", false, "THAW of %d, not of the present %d", m.Go, s.Go)}
	}
	switch s.Name {
	case Idle, Arming, Ready: // its GO, should it still come, must not freeze any more
		s.use(m.Go)
		w := s.thawedWord(at)
		w.Go = m.Go
		return s, []Command{Send{w}}
	case Freezing:
		s.ThawAt = at
		return s.release(at)
	case Frozen:
		s.ThawAt = at
		if at >= s.HoldAt+s.Deadman { // the dead-man was due, even if its timer has not fired yet
			s.Expired = ByDeadman
		} else {
			s.WasHeld = true
		}
		return s.release(at)
	case Thawing:
		if s.settle.runs { // released, but the writers have not been asked yet
			return s, []Command{Send{s.Stored}}
		}
		return s, nil
	case Open, Completing, Closed:
		if s.Stored != nil {
			return s, []Command{Send{s.Stored}}
		}
		w := s.thawedWord(at)
		w.Go = m.Go // its GO never came: the session was closed before
		return s, []Command{Send{w}}
	}
	return drop(s)
}

// release lets everything go, whatever was reached.
func (s State) release(at time.Duration) (State, []Command) {
	s.Name = Thawing
	s.ThawsRun++
	cmds := []Command{
		Thaw{s.WasHeld},
		StopTimer{TimerDeadman},
		StopTimer{TimerPrehold},
		StopTimer{TimerReady},
		StopTimer{TimerSilence},
		SetTimer{TimerThawing, at + thawingLimit},
	}
	switch {
	case s.hook.running == PointPreFreeze, s.hook.holds && s.Expired == ByDeadman:
		cmds = append(cmds, s.endHooks(at)...)
	case s.hook.holds: // what they hold lasts until they have ended
		cmds = append(cmds, SetTimer{TimerDeadman, s.HoldAt + s.Deadman})
	}
	return s, cmds
}

func thawEnded(s State, at time.Duration, e ThawEnded) (State, []Command) {
	s.Results = append(slices.Clone(s.Results), e.Results...)
	s.ThawsRun--
	s.IO = max(s.IO, e.IO)
	if e.Expired != "" { // the hold itself knows who was first
		s.WasHeld = false
		if s.Expired == NotExpired {
			s.Expired = e.Expired
		}
	}
	s.hook.gap, s.hook.trace = e.MaxGap, e.Trace
	// A freeze still in flight asks for one more thaw when it ends.
	if s.FreezeRuns || s.ThawsRun > 0 || s.Name != Thawing {
		return s, nil
	}
	if s.Expired == NotExpired && s.HoldAt > 0 && at >= s.HoldAt+s.Deadman && !s.finished() && !s.Self.Settles {
		s.Expired = ByDeadman // our own release came too late: the second net, outside this process, has thawed
	}
	return s.settleRelease(at)
}

// released is the end of the hold.
func (s State) released(at time.Duration) (State, []Command) {
	s.Holding, s.ReleasedAt = false, at
	if s.Self.Settles {
		return s.settleWriters(at)
	}
	s.Name = Closed
	if s.finished() {
		s.Name = Open
	}
	w := s.thawedWord(at)
	w.MaxGapUS, w.Trace, w.Final = s.hook.gap.Microseconds(), s.hook.trace, !s.hook.owed()
	s.Stored = w
	cmds := []Command{StopTimer{TimerThawing}, Send{w}, SetTimer{TimerOpen, at + openLimit}}
	if s.hook.preTo {
		cmds = append(cmds, StopTimer{TimerDeadman})
	}
	cmds = append(cmds, s.silence(at)...)
	if s.Stopping || s.Ending {
		return s, append(cmds, Finish{}, Leave{})
	}
	return s, cmds
}

// finished says whether everything was held, and all of it was released by our own thaw.
func (s State) finished() bool {
	if s.Self.Settles {
		return s.ReachedAll && s.settle.was.Finished
	}
	return s.ReachedAll && !slices.ContainsFunc(s.Results, func(r protocol.ThawResult) bool { return !r.OK })
}

func (s State) thawedWord(at time.Duration) *protocol.Thawed {
	w := &protocol.Thawed{
		Go: s.Go, Final: true, WasHeld: s.WasHeld, Expired: s.Expired != NotExpired, ExpiredBy: string(s.Expired),
		Finished: s.finished() && !s.Holding, ThawResults: s.Results, Writers: []protocol.Writer{}, Witness: map[string]string{},
		Hooks: s.hook.results,
	}
	w.T = protocol.WordThawed
	if s.HoldAt > 0 {
		end := s.ReleasedAt
		if s.Holding {
			end = at
		}
		w.HeldUS, w.ReleasedUS, w.IOUS = (end - s.HoldAt).Microseconds(), (end - s.HoldAt).Microseconds(), s.IO.Microseconds()
		if s.ThawAt > 0 {
			w.ThawArrivedUS = (s.ThawAt - s.HoldAt).Microseconds()
		}
	}
	return w
}

func complete(s State, at time.Duration, m *protocol.Complete) (State, []Command) {
	switch {
	case s.settle.told != nil: // again: its answer was lost
		told := *s.settle.told
		told.Envelope, told.T, told.Re = protocol.Envelope{}, protocol.WordComplete, m.Q
		return s, []Command{Send{&told}}
	case s.Name == Completing: // again: the link was lost meanwhile
		s.settle.re = m.Q
		return s, nil
	case s.Name != Open:
		s.Dropped++
		return s, []Command{s.refusal(m.Head(), "SF4020", false, "COMPLETE in state %s", s.Name)}
	case s.Self.Settles:
		return s.complete(m.Q, Completion{m.OK, m.Components, m.Truncate})
	}
	a := &protocol.CompleteAnswer{Result: "ok", Writers: []protocol.Writer{}, Events: []string{}, Closed: true}
	a.T, a.Re = protocol.WordComplete, m.Q
	s, cmds := s.close(at)
	return s, append([]Command{Send{a}}, cmds...)
}

func abort(s State, at time.Duration, m *protocol.Abort) (State, []Command) {
	a := &protocol.Abort{Reason: m.Reason, Was: string(s.Name), Closed: !s.Holding}
	a.T, a.Re = protocol.WordAbort, m.Q
	s.Ending = true
	s, cmds := s.end(at, NotExpired)
	if s.Self.Settles { // its answer says that no writer waits any more
		s.settle.answer = a
		return s, cmds
	}
	if s.Name == Closed && s.hook.owed() { // its answer says that all is over
		s.hook.answer = a
		return s, cmds
	}
	return s, append([]Command{Send{a}}, cmds...)
}

// close ends the session when nothing is held; the process leaves a little later, so that the last word arrives.
func (s State) close(at time.Duration) (State, []Command) {
	s.Name, s.Ending = Closed, true
	leave := at + leaveAfter
	if s.Self.Settles {
		leave = at + closeLimit
	}
	return s, []Command{
		Finish{},
		StopTimer{TimerArm},
		StopTimer{TimerReady},
		StopTimer{TimerOpen},
		StopTimer{TimerSilence},
		SetTimer{TimerLeave, leave},
	}
}

// end ends whatever the agent does; a hold is released first and marked as by.
func (s State) end(at time.Duration, by ExpiredBy) (State, []Command) {
	switch s.Name {
	case Freezing, Frozen:
		s.Expired = by
		if by == NotExpired {
			s.Expired = BySystem
		}
		return s.release(at)
	case Thawing, Completing:
		return s, nil
	case Open:
		if s.Self.Settles && s.Stopping { // the writers wait to be told, and nobody else will
			s.settle.leave = true
			return s.complete(0, Completion{OK: "none"})
		}
	case Idle, Arming, Ready, Closed:
	}
	s, cmds := s.close(at)
	if s.Stopping {
		cmds = append(cmds, Leave{})
	}
	return s, cmds
}

func fired(s State, at time.Duration, t Timer) (State, []Command) {
	switch {
	case s.Self.Settles && s.Name == Open && (t == TimerSilence || t == TimerOpen): // nobody will say how the backup went
		s.settle.leave = true
		return s.complete(0, Completion{OK: "none"})
	case t == TimerSettle && s.settle.runs:
		return s.settled(at, Settled{})
	case t == TimerLeave && s.settle.closing: // the writers do not answer: the end of this process tells them too
		s.settle.closing = false
		return s, []Command{Leave{}}
	case t == TimerIdle && s.Name == Idle, t == TimerLeave, t == TimerSilence && (s.Name == Idle || s.Name == Open || s.Name == Closed), t == TimerOpen:
		s.Name, s.Ending = Closed, true
		return s, []Command{Finish{}, Leave{}}
	case t == TimerArm && s.Name == Arming, t == TimerReady && s.Name == Ready, t == TimerSilence && (s.Name == Arming || s.Name == Ready):
		no := s.refusal(&protocol.Envelope{T: protocol.WordArm}, "SF4001", true, "no GO in time in state %s", s.Name)
		s, cmds := s.close(at)
		return s, append([]Command{no}, cmds...)
	case t == TimerPrehold && s.Name == Freezing && !s.Holding:
		return s.release(at)
	case t == TimerDeadman && (s.Name == Freezing || s.Name == Frozen):
		s.Expired = ByDeadman
		return s.release(at)
	case t == TimerDeadman && s.Name == Thawing && s.hook.holds: // a thaw that takes its time is no reason to hold applications
		return s, s.endHooks(at)
	case t == TimerThawing && s.Name == Thawing: // the release hangs in the kernel: say what is known, keep waiting for it
		w := s.thawedWord(at)
		w.Finished, w.ThawResults = false, slices.Clone(s.Results)
		w.WasHeld = w.WasHeld && !s.Self.Settles // only the hold itself knows who was first
		for _, v := range s.Volumes {
			w.ThawResults = append(w.ThawResults, protocol.ThawResult{Mount: mountOf(v), Error: "the release has not ended"})
		}
		s.Stored = w
		return s, []Command{Send{w}}
	}
	return drop(s)
}

// mountOf names a volume as the results of its release do.
func mountOf(v protocol.Volume) string {
	if len(v.Mounts) > 0 {
		return v.Mounts[0]
	}
	return v.ID
}

func linkLost(s State, at time.Duration) (State, []Command) {
	s.Linked = false
	switch s.Name {
	case Freezing, Frozen: // the peer is gone for certain: no reason to hold any longer
		s.Expired = ByLinkLost
		return s.release(at)
	case Arming, Ready:
		return s.close(at)
	case Idle:
		return s, []Command{StopTimer{TimerSilence}, SetTimer{TimerIdle, at + idleLimit}}
	case Closed:
		if s.Ending && !s.settle.closing {
			return s, []Command{Leave{}}
		}
	case Thawing, Open, Completing:
	}
	return s, nil
}
