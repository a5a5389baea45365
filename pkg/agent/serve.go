package agent

import (
	"context"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Options are what an Agent needs. Freezer and the identity are required.
type Options struct {
	// Version, ExeSHA256 (hex), VMUUID, BootID and OS are told in HELLO.
	Version, ExeSHA256, VMUUID, BootID string
	OS                                 protocol.OS
	// Uptime is the time since the guest booted.
	Uptime  func() time.Duration
	Freezer Freezer
	// Hooks runs the guest owner's programs around a freeze; nil runs none.
	Hooks Hooks
	// Idle is how long the agent waits for an authenticated peer; 0 means 60 s.
	Idle time.Duration
	// Keeper makes the agent a persistent one, which serves another session after this one; nil for one that leaves.
	Keeper Keeper
	// Leaked counts the sessions with writers that never got their end; nil for none.
	Leaked func() int
	// Notes are what went wrong before Serve and hinders nothing; they are told in the trace.
	Notes []error
	// Slow says that words take seconds on their way, so that a peer gets more time to prove itself.
	Slow bool
	// Urgent is told, if it is not nil, whether words are awaited without delay: the guest is armed or held. It must not block.
	Urgent func(bool)
}

// Agent serves one orchestrator: it prepares, freezes and thaws as it is told, and thaws by itself when nobody tells.
type Agent struct {
	o      Options
	start  time.Time
	state  State
	timers [Timers]time.Duration // since start, 0 = off
	events chan timed
	gone   chan struct{}
	left   bool

	met     map[int]*link // connections on which the reducer decides right now
	present *link
	session string // the session that q counts in
	q       uint64

	// unprepare ends a Prepare that is under way.
	unprepare context.CancelFunc
	calls     chan func() // Prepare, Freeze and Release, one after the other
	group     sync.WaitGroup
	ring      ring
	gap       gap
	gc        int
	before    *Agent // of the session before; nil after Serve has begun
}

type timed struct {
	at    time.Time
	link  int // of a LinkLost or Msg, 0 for all else
	event Event
}

// New makes an Agent; it does nothing before Serve.
func New(o Options) *Agent {
	return &Agent{o: o, events: make(chan timed, ringEntries), gone: make(chan struct{}), met: map[int]*link{}, calls: make(chan func(), 16)}
}

// Next makes the Agent for the session after that of a, whose Serve has ended. What bounds an impersonator outlasts a session:
// the highest epoch, the ids that must not freeze again, and the freezes of the last hour.
func (a *Agent) Next() *Agent {
	next := New(a.o)
	next.before = a
	return next
}

// inherit takes over what outlasts a session; times are since the start of each Agent.
func (a *Agent) inherit() {
	if a.before == nil {
		return
	}
	earlier := a.before.state
	a.state.Epoch, a.state.Used = earlier.Epoch, earlier.Used
	for _, t := range earlier.GoTimes {
		a.state.GoTimes = append(a.state.GoTimes, a.before.start.Add(t).Sub(a.start))
	}
	a.before = nil
}

// Serve accepts connections of l, which must already demand the one peer's certificate (protocol.ServerTLS), and serves
// them until the session is over or nobody came in time; then it returns nil. When ctx ends, a hold is released first.
// Serve closes l, the Freezer and the Hooks.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	a.start = time.Now()
	detached := context.WithoutCancel(ctx)
	a.group.Go(func() { a.accept(detached, l) })
	a.group.Go(func() {
		for call := range a.calls {
			call()
		}
	})
	var commands []Command
	a.state, commands = Start(Self{
		a.o.Version, a.o.ExeSHA256, a.o.VMUUID, a.o.BootID, a.o.OS, a.o.Hooks != nil, a.settler() != nil, a.o.Keeper != nil,
	}, a.o.Idle)
	a.inherit()
	for _, note := range a.o.Notes {
		a.ring.note(0, note)
	}
	a.do(detached, commands)
	stop := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !a.left {
		timer.Reset(time.Until(a.start.Add(a.earliest())))
		select {
		case e := <-a.events:
			a.take(detached, e)
		case <-timer.C:
			a.fire(detached, time.Now())
		case <-stop:
			stop = nil
			a.step(detached, time.Now(), ServiceStop{})
		}
	}
	err := l.Close()
	close(a.gone)
	close(a.calls)
	a.hangUp()
	a.group.Wait()
	if a.o.Hooks != nil {
		err = errors.Join(err, a.o.Hooks.Close())
	}
	return errors.Join(err, a.o.Freezer.Close())
}

// ReleasedByStop says, after Serve, whether the end of its context released what was held.
func (a *Agent) ReleasedByStop() bool { return a.state.Expired == ByServiceStop }

func (a *Agent) earliest() time.Duration {
	next := time.Since(a.start) + time.Hour
	for _, at := range a.timers {
		if at > 0 {
			next = min(next, at)
		}
	}
	return next
}

func (a *Agent) fire(ctx context.Context, now time.Time) {
	for i, at := range a.timers {
		if at > 0 && a.timers[i] == at && at <= now.Sub(a.start) {
			a.timers[i] = 0
			a.step(ctx, now, Fired{Timer(i)})
		}
	}
}

// take drops what comes from a connection that is not the present one any more.
func (a *Agent) take(ctx context.Context, e timed) {
	if e.link != 0 && (a.present == nil || a.present.id != e.link) {
		return
	}
	switch event := e.event.(type) {
	case linkMet:
		a.met[event.hello.Link] = event.link
		a.step(ctx, e.at, event.hello)
	case LinkLost:
		a.hangUp()
		a.step(ctx, e.at, event)
	default:
		a.step(ctx, e.at, event)
	}
}

func (a *Agent) step(ctx context.Context, at time.Time, e Event) {
	a.ring.note(at.Sub(a.start), e)
	var commands []Command
	a.state, commands = Step(a.state, at.Sub(a.start), e)
	if a.o.Urgent != nil {
		a.o.Urgent(a.state.urgent())
	}
	if !a.state.mayHold() {
		a.collect() // before anybody is told
	}
	a.do(ctx, commands)
}

func (a *Agent) do(ctx context.Context, commands []Command) {
	for _, c := range commands {
		switch c := c.(type) {
		case Adopt:
			a.adopt(c.Link)
		case Refuse:
			a.refuse(c)
		case Send:
			a.send(c.M)
		case SetTimer:
			a.timers[c.Timer] = c.At
		case StopTimer:
			a.timers[c.Timer] = 0
		case Leave:
			a.left = true
		case Prepare, Freeze, Thaw, Finish, Settle, Complete:
			a.call(ctx, c)
		case KeepPin:
			a.calls <- func() { // before any Prepare that comes later, so that nothing is held meanwhile
				own, err := a.o.Keeper.Renew(c.Renewal)
				a.post(0, PinKept{c.Re, own, err})
			}
		case RunHooks:
			a.group.Go(func() {
				outcome := a.o.Hooks.Run(ctx, c.HookRequest, func() { a.post(0, HoldStarted{}) })
				a.post(0, HookEnded{c.Point, outcome})
			})
		case EndHooks:
			a.group.Go(func() { a.post(0, HooksReleased{a.o.Hooks.End(a.start.Add(c.By))}) })
		}
	}
}

// call runs one effect of the Freezer beside the loop: Thaw at once, the others one after the other.
func (a *Agent) call(ctx context.Context, c Command) {
	switch c := c.(type) {
	case Prepare:
		a.prepare(ctx, c.PrepareRequest)
	case Freeze:
		a.gc = debug.SetGCPercent(-1) // no collection while anything is held; the heap is a few MiB
		a.gap.begin(&a.group)
		a.calls <- func() {
			held, err := a.o.Freezer.Freeze(ctx, func() { a.post(0, HoldStarted{}) })
			e := FreezeEnded{Flush: held.Flush, Phases: held.Phases, Err: err}
			if !held.Since.IsZero() {
				e.HoldAt = held.Since.Sub(a.start)
			}
			if !held.IOSince.IsZero() {
				e.IOAt = held.IOSince.Sub(a.start)
			}
			a.post(0, e)
		}
	case Thaw:
		if s := a.settler(); s != nil && !c.Asked {
			s.Veto()
		}
		a.group.Go(func() {
			release := a.o.Freezer.Thaw(ctx)
			at := time.Now()
			a.postAt(at, 0, ThawEnded{release, a.gap.end(), a.ring.entries()})
		})
	case Settle:
		a.calls <- func() { a.post(0, SettledEvent{a.settler().Settle(ctx)}) }
	case Complete:
		a.calls <- func() { a.post(0, CompletedEvent{a.settler().Complete(ctx, c.Completion)}) }
	case Finish:
		a.collect()
		if a.unprepare != nil {
			a.unprepare() // a long flush must not keep a session that is over
		}
		a.calls <- func() { a.post(0, ClosedEvent{a.o.Freezer.Close()}) }
	}
}

// prepare has the Freezer prepare, which the end of the session cuts short.
func (a *Agent) prepare(ctx context.Context, r PrepareRequest) {
	preparing, cancel := context.WithCancel(ctx)
	a.unprepare = cancel
	r.Broken = func() { a.post(0, NetLost{}) }
	r.Expired = func(by ExpiredBy) { a.group.Go(func() { a.post(0, HoldExpired{by}) }) }
	a.calls <- func() {
		defer cancel()
		p, err := a.o.Freezer.Prepare(preparing, r)
		runtime.GC()
		a.post(0, PreparedEvent{p, err})
	}
}

// settler is the Freezer where its release has an aftermath, else nil.
func (a *Agent) settler() Settler {
	s, _ := a.o.Freezer.(Settler)
	return s
}

// collect allows garbage collections again when the hold is over: the session may stay open for a day.
func (a *Agent) collect() {
	if a.gc != 0 {
		debug.SetGCPercent(a.gc)
		a.gc = 0
	}
}

func (a *Agent) post(link int, e Event) { a.postAt(time.Now(), link, e) }

func (a *Agent) postAt(at time.Time, link int, e Event) {
	select {
	case a.events <- timed{at, link, e}:
	case <-a.gone:
	}
}
