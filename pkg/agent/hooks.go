package agent

import (
	"context"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Point is when hooks run.
type Point string

// The points, in the words of the protocol.
const (
	// PointPrepare is in ARMING: slow work, nothing is held yet.
	PointPrepare Point = "prepare"
	// PointPreFreeze is between GO and the first FIFREEZE; only hooks that hold run there.
	PointPreFreeze Point = "pre-freeze"
	// PointPostThaw is after the release of everything, or after an end without a freeze.
	PointPostThaw Point = "post-thaw"
)

// holdEndLimit is how long holding hooks have to end when they are let go; their dead-man may leave them less.
const holdEndLimit = 3 * time.Second

// Hooks runs the programs that the guest's owner wants to be run around a freeze: hook.Runner.
type Hooks interface {
	// Run runs the hooks of one point and blocks until they have ended or, at pre-freeze, hold. It calls started once,
	// right before the first holding hook is started. Prepare takes at most 5 min, pre-freeze 8 s, post-thaw 30 s. After
	// End only the hooks of post-thaw run.
	Run(ctx context.Context, r HookRequest, started func()) HookOutcome
	// End kills what prepare or pre-freeze still start, lets the holding hooks go, and kills those that have not ended
	// at by. It returns when none of them lives any more, with the results of pre-freeze.
	End(by time.Time) []protocol.Hook
	// Close ends what watches the hooks from outside. It is idempotent.
	Close() error
}

// HookRequest is what hooks are told.
type HookRequest struct {
	Point Point
	// Run is the orchestrator's run, Mode the hold mode.
	Run, Mode string
	// OK is true at post-thaw when everything was held until THAW came and was released well.
	OK bool
	// Deadman is the time from the start of the first holding hook after which what watches the hooks from outside must
	// have killed them; told at prepare.
	Deadman time.Duration
}

// HookOutcome is how the hooks of one point went.
type HookOutcome struct {
	// Installed names the hooks of all points, Holding counts those of pre-freeze; both are known from prepare on.
	Installed []string
	Holding   int
	// Results has a row for each hook that was run; those of pre-freeze come with End.
	Results []protocol.Hook
	// Err is not nil when a required hook failed, or when the hooks cannot be trusted or read.
	Err error
}

// hooking is the reducer's memory of hooks. All is zero in a guest without any.
type hooking struct {
	run     string   // of HELLO
	running Point    // whose Run has not returned; empty for none
	ending  bool     // End has not returned
	ended   bool     // End was called
	holds   bool     // pre-freeze has ended well and End was not called
	names   []string // of the hooks that are installed; if there are any, post-thaw is owed
	preTo   bool     // there are hooks of pre-freeze
	done    bool     // post-thaw has ended
	leave   bool     // the process was to leave, which waits for post-thaw
	answer  *protocol.Abort
	gap     time.Duration
	trace   []protocol.TraceEntry
	results []protocol.Hook
}

// owed says whether post-thaw has to run, or to end, before the session is over.
func (h hooking) owed() bool { return (len(h.names) > 0 || h.running != "") && !h.done }

// hookEnded takes what Run returned.
func hookEnded(s State, at time.Duration, e HookEnded) (State, []Command) {
	s.hook.running = ""
	s.hook.results = append(slices.Clone(s.hook.results), e.Results...)
	switch {
	case e.Point == PointPrepare:
		s.hook.names, s.hook.preTo = e.Installed, e.Holding > 0
		switch {
		case s.Name != Arming && len(e.Installed) == 0: // aborted meanwhile, and post-thaw will not come
			return s.hooksDone()
		case s.Name != Arming:
			return s, nil
		}
		if e.Err != nil {
			return s.hookFailed(at, protocol.WordArm, e.Err)
		}
		return s, []Command{Prepare{s.asked}}
	case e.Point == PointPreFreeze && s.Name == Freezing:
		s.hook.holds = true
		if e.Err != nil {
			return s.hookFailed(at, protocol.WordGo, e.Err)
		}
		s.FreezeRuns = true
		return s, []Command{Freeze{}}
	case e.Point == PointPreFreeze:
		return s.settleRelease(at)
	}
	return s.hooksDone()
}

// hookFailed ends the session, or the hold that has begun, because of a required hook.
func (s State) hookFailed(at time.Duration, word protocol.Word, err error) (State, []Command) {
	no := s.refusal(&protocol.Envelope{T: word}, code(err, "SF4019"), true, "run the hooks: %v", err)
	var cmds []Command
	if s.Name == Freezing {
		s, cmds = s.release(at)
	} else {
		s, cmds = s.close(at)
	}
	return s, append([]Command{no}, cmds...)
}

// hooksReleased takes what End returned.
func hooksReleased(s State, at time.Duration, e HooksReleased) (State, []Command) {
	s.hook.ending, s.hook.holds = false, false
	s.hook.results = append(slices.Clone(s.hook.results), e.Results...)
	return s.settleRelease(at)
}

// endHooks lets the holding hooks go, and kills those that live at by.
func (s *State) endHooks(by time.Duration) []Command {
	s.hook.ending, s.hook.ended, s.hook.holds = true, true, false
	return []Command{EndHooks{by}}
}

// settleRelease ends the hold once everything is thawed and no holding hook lives any more. Hooks are let go after the
// last FITHAW, because their applications may have to write.
func (s State) settleRelease(at time.Duration) (State, []Command) {
	switch {
	case s.FreezeRuns || s.ThawsRun > 0 || s.Name != Thawing || s.hook.ending || s.hook.running != "":
		return s, nil
	case s.hook.holds:
		return s, s.endHooks(min(at+holdEndLimit, s.HoldAt+s.Deadman))
	}
	return s.released(at)
}

// hooksDone says the last word after post-thaw, and leaves if that was put off.
func (s State) hooksDone() (State, []Command) {
	s.hook.done = true
	var cmds []Command
	if s.Stored != nil {
		w := *s.Stored
		w.Final, w.Hooks = true, s.hook.results
		s.Stored = &w
		cmds = append(cmds, Send{s.Stored})
	}
	if s.hook.answer != nil {
		cmds = append(cmds, Send{s.hook.answer})
		s.hook.answer = nil
	}
	if s.hook.leave {
		cmds = append(cmds, Leave{})
	}
	return s, cmds
}

// mindHooks runs post-thaw when the session is over or nothing is held any more, once, whatever led there, and keeps the
// process until it has ended.
func (s State) mindHooks(at time.Duration, cmds []Command) (State, []Command) {
	if !s.hook.owed() || (s.Name != Open && s.Name != Closed) {
		return s, cmds
	}
	switch {
	case s.hook.ending || s.hook.running == PointPostThaw:
	case s.hook.running != "": // the session ended in ARMING
		if !s.hook.ended {
			cmds = append(cmds, s.endHooks(at)...)
		}
	default:
		s.hook.running = PointPostThaw
		ok := s.finished() && s.WasHeld && s.Expired == NotExpired
		cmds = append(cmds, RunHooks{HookRequest{Point: PointPostThaw, Run: s.hook.run, Mode: s.Mode, OK: ok}})
	}
	kept := slices.DeleteFunc(slices.Clone(cmds), func(c Command) bool { return c == Leave{} })
	s.hook.leave = s.hook.leave || len(kept) < len(cmds)
	return s, kept
}
