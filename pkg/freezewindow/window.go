package freezewindow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Guest is the one warm connection to the agent, satisfied by *guest.Session.
type Guest interface {
	// Send writes GO, THAW or a heartbeat. It is one write with a limit of 1 s and never waits for an answer. After an
	// error the connection is closed, and Events says LinkLost.
	Send(ctx context.Context, w Word) error
	// Events gives what the agent says, each with its time of receipt, and LinkLost when the connection ends. It is
	// never closed.
	Events() <-chan GuestEvent
	// Resume makes a new connection and resumes the session, within a limit of its own. An error with
	// Gone() bool == true means that nobody is there who could answer.
	Resume(ctx context.Context) error
}

// Word is one word to the agent: exactly one of GO, THAW and heartbeat.
type Word struct {
	// Go is the id of the freeze, for GO and THAW.
	Go uint64
	// Hold is the hold limit, set in GO only.
	Hold time.Duration
	// Thaw is the reason, set in THAW only. A Word without Hold and Thaw is a heartbeat.
	Thaw Reason
}

// GuestEvent is one event of the guest with its time of receipt.
type GuestEvent struct {
	Received time.Time
	Event    Event
}

// Snapshotter makes the one call of the window, satisfied by *vsphere.Prepared: watcher waiting, request built,
// connections warm.
type Snapshotter interface {
	// Create takes the snapshot and returns when the task has ended, however late; accepted is called with the task's
	// reference when vSphere took the call. An error with OutcomeUnknown() bool == true leaves open whether there is a
	// snapshot; an error with Code() string names its cause.
	Create(ctx context.Context, accepted func(task string)) (inventory.Snapshot, inventory.Timing, error)
}

// Pending is a snapshot whose outcome the window did not wait for. Who gets it owns it: Wait for the outcome or Stop.
type Pending struct {
	// Task is the task's reference, empty when vSphere never answered the call; Name is the snapshot's name.
	Task, Name string
	outcome    <-chan Event
	stop       context.CancelFunc
}

// Wait blocks until the task has ended or ctx ends. Without an error the snapshot exists, and vSphere's stamps say where its
// task spent the time.
func (p *Pending) Wait(ctx context.Context) (inventory.Snapshot, inventory.Timing, error) {
	select {
	case e := <-p.outcome:
		switch e := e.(type) {
		case SnapDone:
			return e.Snapshot, e.Timing, nil
		case SnapFailed:
			return inventory.Snapshot{}, inventory.Timing{}, e.Err
		case SnapUnknown:
			return inventory.Snapshot{}, inventory.Timing{}, e.Err
		}
		return inventory.Snapshot{}, inventory.Timing{}, errors.New("the outcome was already told")
	case <-ctx.Done():
		return inventory.Snapshot{}, inventory.Timing{}, context.Cause(ctx)
	}
}

// Stop gives the task up; it may still end well later, so its name has to be written down somewhere.
func (p *Pending) Stop() { p.stop() }

// Run freezes g, takes the snapshot s and thaws g within b. It always attempts the thaw and never lets it wait for s;
// ctx only cancels: the window is thawed first and then ends. Run blocks until the guest has said how its hold ended,
// at most about Hold + 35 s, with VSS writers 60 s more. The Pending is nil when the outcome of the snapshot is known.
func Run(ctx context.Context, b Budget, r Ready, g Guest, s Snapshotter) (Report, *Pending) {
	detached, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &driver{
		ctx: detached, stop: stop, guest: g, snapshotter: s,
		state: State{Budget: b}, events: make(chan timed, 64), sends: make(chan Word, 64),
	}
	d.link, d.unlink = context.WithCancel(detached)
	return d.run(ctx, r)
}

// timed is an event of this process with its time.
type timed struct {
	at    time.Time
	event Event
}

// driver does the effects of one window. One goroutine owns the state; whatever may block runs beside it.
type driver struct {
	ctx         context.Context //nolint:containedctx // the window's own, detached from the run's
	stop        context.CancelFunc
	guest       Guest
	snapshotter Snapshotter
	state       State
	start       time.Time
	events      chan timed
	sends       chan Word
	timers      [Timers]time.Duration // since start, 0 = off
	outcome     chan Event
	pending     *Pending
	done        bool
	// link bounds the attempts to resume, which end with the window.
	link     context.Context //nolint:containedctx // as ctx
	unlink   context.CancelFunc
	resuming sync.WaitGroup
}

func (d *driver) run(ctx context.Context, r Ready) (Report, *Pending) {
	sent := make(chan struct{})
	go func() { defer close(sent); d.send() }()
	d.start = time.Now()
	d.step(d.start, Start{r})
	cancelled := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !d.done {
		timer.Reset(time.Until(d.start.Add(d.earliest())))
		select {
		case e := <-d.guest.Events():
			d.step(e.Received, e.Event)
		case e := <-d.events:
			d.step(e.at, e.event)
		case <-timer.C:
			d.fire(time.Now())
		case <-cancelled:
			cancelled = nil
			d.step(time.Now(), Cancel{})
		}
	}
	d.unlink()
	d.resuming.Wait()
	close(d.sends)
	<-sent
	if d.pending == nil {
		d.stop()
	}
	return Conclude(d.state), d.pending
}

// earliest is when the next timer is due; an hour when none is set.
func (d *driver) earliest() time.Duration {
	next := time.Hour
	for _, at := range d.timers {
		if at > 0 {
			next = min(next, at)
		}
	}
	return next
}

// fire tells of every timer that is due, each once.
func (d *driver) fire(now time.Time) {
	for i, at := range d.timers {
		if at > 0 && d.timers[i] == at && at <= now.Sub(d.start) && !d.done {
			d.timers[i] = 0
			d.step(now, Fired{Timer(i)})
		}
	}
}

func (d *driver) step(at time.Time, e Event) {
	var commands []Command
	d.state, commands = Step(d.state, at.Sub(d.start), e)
	for _, c := range commands {
		d.do(c)
	}
}

func (d *driver) do(c Command) {
	switch c := c.(type) {
	case SendGo:
		d.sends <- Word{Go: c.Go, Hold: d.state.Budget.Hold}
	case SendThaw:
		d.sends <- Word{Go: c.Go, Thaw: c.Reason}
	case SendBeat:
		d.sends <- Word{}
	case CallSnapshot:
		d.outcome = make(chan Event, 1)
		go d.snapshot()
	case SetTimer:
		d.timers[c.Timer] = c.At
	case StopTimer:
		d.timers[c.Timer] = 0
	case TryResume:
		d.resuming.Go(d.resume)
	case HandOver:
		d.pending = &Pending{Task: c.Task, Name: c.Name, outcome: d.outcome, stop: d.stop}
	case Finish:
		d.done = true
	}
}

// send writes the words in their order. An error needs no handling here: the session says LinkLost.
func (d *driver) send() {
	for w := range d.sends {
		if err := d.guest.Send(d.ctx, w); err != nil {
			continue
		}
	}
}

func (d *driver) resume() {
	err := d.guest.Resume(d.link)
	var gone interface{ Gone() bool }
	switch {
	case err == nil:
		d.tell(LinkBack{})
	default:
		d.tell(ResumeFailed{Gone: errors.As(err, &gone) && gone.Gone(), Err: err})
	}
}

// snapshot makes the call and tells its outcome twice: to the window, and to who may get it as Pending.
func (d *driver) snapshot() {
	snapshot, timing, err := d.snapshotter.Create(d.ctx, func(task string) { d.tell(SnapAccepted{task}) })
	var outcome Event = SnapDone{snapshot, timing}
	if err != nil {
		var unknown interface{ OutcomeUnknown() bool }
		var coded interface{ Code() string }
		code := ""
		if errors.As(err, &coded) {
			code = coded.Code()
		}
		outcome = SnapFailed{code, err}
		if errors.As(err, &unknown) && unknown.OutcomeUnknown() {
			outcome = SnapUnknown{code, err}
		}
	}
	d.outcome <- outcome
	d.tell(outcome)
}

// tell hands an event to the window; one that comes when nobody reads any more is dropped, never waited for.
func (d *driver) tell(e Event) {
	select {
	case d.events <- timed{time.Now(), e}:
	default:
	}
}
