// Package engine delivers due runs to the node that owns their vCenter.
//
// River only delivers: a row of it carries a run's id and epoch, and is worth nothing when they are not the run's any more.
// Ownership is a row by the database's clock on PostgreSQL, and the lock of the state folder with SQLite.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

// Limits of the engine's own work.
const (
	// undoAtOnce is how many runs are undone beside each other.
	undoAtOnce = 16
	// Between two attempts to undo a run.
	undoFirst, undoLast = 5 * time.Second, 10 * time.Minute
	// again is when a run is delivered once more that could not be begun.
	again = 5 * time.Second
	// closeLimit bounds one attempt to close a queue whose runs were cancelled. Meanwhile the library opens none.
	closeLimit = time.Second
	// stopLimit bounds the end of deliveries that were cancelled.
	stopLimit = 5 * time.Second
	// sweepEvery is how often queued runs without a delivery are looked for.
	sweepEvery = time.Minute
	// callLimit bounds one call of the database, takeLimit the taking of a vCenter, which delivers all that is queued there anew.
	callLimit = 5 * time.Second
	takeLimit = time.Minute
	// offerAgain is how long a vCenter that was offered to a node with less to do, and came back, is not offered again.
	offerAgain = 10 * time.Minute
)

// silent is for what the library has to say of its tables.
var silent = slog.New(slog.DiscardHandler)

// ErrCancelled is the cause of the end of a run's context when somebody asked for the run's end.
var ErrCancelled = errors.New("somebody asked for the end of the run")

// Options of an engine.
type Options struct {
	Hostname, Version string
	// Workers is how many runs of one vCenter are at work at once; 0 is 20.
	Workers int
	// MaxVCenters is how many this node owns at most; 0 is any number.
	MaxVCenters int
	// PollOnly is for a PostgreSQL behind a pool that does not keep sessions.
	PollOnly bool
	// Undo takes away what a run of a dead process, or one that ended without a word, has left outside, and finishes the run
	// or puts it back into the queue. It is called again, less and less often, until it returns nil; its context ends when
	// the vCenter is another's.
	Undo func(context.Context, catalog.Delivery) error
	Log  *zap.Logger
}

func (o Options) check() error {
	if o.Undo == nil || o.Log == nil {
		return errors.New("make an engine: Undo and Log are needed")
	}
	return nil
}

// Engine brings due runs to this node. It is safe for concurrent use.
type Engine struct {
	store   *store.Store
	queue   queue
	options Options
	node    string
	log     *zap.Logger
	timing  timing

	work           func(context.Context, catalog.Delivery) error
	seen, draining atomic.Bool
	turns          atomic.Uint64
	undoing        chan struct{}
	background     sync.WaitGroup

	mu     sync.Mutex
	wanted []string
	held   map[string]*held
	// others are wanted vCenters that other nodes owned when that was last looked at.
	others map[string]bool
	// closing are the vCenters that were lost and whose runs have not all come back yet: none of them is taken again before.
	closing map[string]bool
	running map[string]context.CancelCauseFunc
	// serving ends Serve; served is closed when it has ended.
	serving context.CancelFunc
	served  chan struct{}
}

// New makes the queue's tables, if need be, and the engine. It may enqueue at once, and delivers once it serves.
func New(ctx context.Context, s *store.Store, o Options) (*Engine, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Workers == 0 {
		o.Workers = 20
	}
	e := &Engine{
		store: s, options: o, node: s.Installation().Node, log: o.Log.Named("engine"), timing: leases,
		held: map[string]*held{}, closing: map[string]bool{}, running: map[string]context.CancelCauseFunc{}, undoing: make(chan struct{}, undoAtOnce), served: make(chan struct{}),
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{engine: e}); err != nil {
		return nil, err
	}
	var err error
	e.queue, err = newQueue(s, &river.Config{
		ID: "node-" + e.node, JobTimeout: jobLimit, RescueStuckJobsAfter: rescueAfter, MaxAttempts: 1, PollOnly: o.PollOnly, Workers: workers,
		FetchCooldown: fetchEvery, FetchPollInterval: pollEvery, CompletedJobRetentionPeriod: keepRows, CancelledJobRetentionPeriod: keepRows,
		DiscardedJobRetentionPeriod: keepRows, Logger: slog.New(zapslog.NewHandler(o.Log.Named("river").WithOptions(zap.IncreaseLevel(zap.WarnLevel)).Core())),
		// It wants one queue to begin with; nothing is ever put into this one.
		Queues: map[string]river.QueueConfig{queueOf("no vCenter, of node " + e.node): {MaxWorkers: 1, FetchPollInterval: time.Hour}},
	})
	if err != nil {
		return nil, fmt.Errorf("make the queue: %w", err)
	}
	if err := s.Alone(ctx, e.queue.migrate); err != nil {
		return nil, fmt.Errorf("make the queue's tables: %w", err)
	}
	return e, nil
}

// Enqueue adds deliveries in the caller's transaction: they are there when it is committed.
func (e *Engine) Enqueue(ctx context.Context, tx store.Tx, deliveries ...catalog.Delivery) error {
	return e.queue.insert(ctx, tx, deliveries)
}

// Want says which vCenters this node may own. One that is not wanted any more is released when nothing is at work there.
func (e *Engine) Want(vcenters ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wanted = slices.Clone(vcenters)
}

// Serve owns vCenters and calls work for each delivery, until Drain, or until ctx ends, which cancels what is at work.
// The context of work ends with a *LostError when the vCenter is another's, with ErrCancelled when somebody asked for it.
// It is called once.
func (e *Engine) Serve(ctx context.Context, work func(context.Context, catalog.Delivery) error) error {
	defer close(e.served)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	e.serving = cancel
	e.mu.Unlock()
	if e.draining.Load() { // it was drained before it began
		return nil
	}
	e.work = work
	life := context.WithoutCancel(ctx)
	if err := e.queue.start(life); err != nil {
		return fmt.Errorf("start the queue: %w", err)
	}
	e.loop(ctx)
	limit, done := context.WithTimeout(life, stopLimit)
	defer done()
	err := e.queue.stop(limit, true)
	back := err == nil
	for _, l := range e.Owned() {
		if back { // else a run still cleans up here, and the lease is left to run out
			err = errors.Join(err, e.release(limit, l))
		}
		e.lose(ctx, l, "this node ends")
	}
	e.background.Wait()
	return err
}

// Drain takes no new deliveries, waits for those at work until ctx ends, then ends Serve, which lets the vCenters go.
func (e *Engine) Drain(ctx context.Context) error {
	e.draining.Store(true)
	e.mu.Lock()
	end := e.serving
	e.mu.Unlock()
	if end == nil {
		return nil
	}
	err := e.queue.stop(ctx, false)
	end()
	<-e.served
	return err
}

// Turns counts how often the loop has come round that takes vCenters and lets them go; one that stands still is stuck.
func (e *Engine) Turns() uint64 { return e.turns.Load() }

// loop keeps the leases until ctx ends. Each of its parts goes on whatever the calls of the others wait for; the watch makes
// none.
func (e *Engine) loop(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { every(ctx, e.timing.look, func() { e.watch(ctx) }) })
	all.Go(func() {
		every(ctx, e.timing.renew, func() {
			e.turns.Add(1)
			e.keep(ctx)
		})
	})
	all.Go(func() { every(ctx, sweepEvery, func() { e.sweep(ctx) }) })
	s := settling{first: map[string]time.Time{}, offered: map[string]time.Time{}}
	all.Go(func() {
		every(ctx, e.timing.look, func() {
			e.turns.Add(1)
			e.settleWants(ctx, &s)
		})
	})
	all.Wait()
}

// every does something at once and then again and again, until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// keep renews once, and does what it found.
func (e *Engine) keep(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, max(e.timing.renew, time.Second))
	defer cancel()
	begun := time.Now()
	r, err := e.renew(limit, e.Owned())
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("the ownership of vCenters was not renewed", zap.Error(err))
		}
		return
	}
	for _, l := range r.lost {
		e.lose(ctx, l, "another node has taken it")
	}
	for l, paused := range r.paused {
		e.mu.Lock()
		h := e.held[l.VCenter]
		same := h != nil && h.Lease == l // it may have been let go and taken again meanwhile
		changed := same && h.paused != paused
		if same {
			h.renewed, h.paused = begun, paused
		}
		e.mu.Unlock()
		if changed {
			e.gate(ctx, l.VCenter, paused)
		}
	}
	for _, run := range r.cancel {
		e.cancel(run)
	}
}

// watch ends the work on vCenters whose renewal is too long ago: another node may have them by now. It asks nobody, so that
// nothing can hold it up.
func (e *Engine) watch(ctx context.Context) {
	for _, l := range e.Owned() {
		if age := e.Fresh(l.VCenter); age > e.timing.dead && age < math.MaxInt64 {
			e.lose(ctx, l, fmt.Sprintf("it was last renewed %s ago", age.Round(time.Millisecond)))
		}
	}
}

// settling is what the taking of vCenters remembers: when one without an owner may be taken, when one was offered to others,
// and when that was last looked at.
type settling struct {
	first, offered map[string]time.Time
	shared         time.Time
}

// settleWants takes wanted vCenters that nobody owns, and releases idle ones that are not wanted, or that a node with less to
// do should have. A node that drains wants none.
func (e *Engine) settleWants(ctx context.Context, s *settling) {
	missing, unwanted, room := e.wants()
	why := "it is not wanted any more"
	if e.draining.Load() {
		why = "this node ends"
	}
	for _, l := range unwanted {
		e.giveUp(ctx, l, why)
	}
	if e.draining.Load() {
		return
	}
	if time.Since(s.shared) >= e.timing.share {
		e.share(ctx, s)
		s.shared = time.Now()
	}
	if len(missing) == 0 {
		return
	}
	limit, cancel := context.WithTimeout(ctx, e.timing.ttl)
	free, err := e.free(limit, missing)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("vCenters without an owner were not looked for", zap.Error(err))
		}
		return
	}
	others := map[string]bool{}
	for _, v := range missing {
		if others[v] = !slices.Contains(free, v); others[v] {
			delete(s.first, v) // it waits anew when it is free again
		}
	}
	e.mu.Lock()
	e.others = others
	e.mu.Unlock()
	for _, v := range free {
		if room <= 0 {
			return
		}
		e.turns.Add(1) // to take one with many runs lasts
		if e.store.Dialect() == store.Postgres {
			if at, seen := s.first[v]; !seen {
				s.first[v] = time.Now().Add(rand.N(e.timing.spread))
				continue
			} else if time.Now().Before(at) {
				continue
			}
			delete(s.first, v)
		}
		if err := e.own(ctx, v); err == nil {
			room--
		} else if !errors.Is(err, ErrOwned) && ctx.Err() == nil {
			e.log.Warn("a vCenter was not taken", zap.String("vcenter", v), zap.Error(err))
		}
	}
}

// wants are the wanted vCenters that this node does not own, the leases of those that it does not want, and how many more it
// may own.
func (e *Engine) wants() (missing []string, unwanted []Lease, room int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wanted []string
	if !e.draining.Load() {
		wanted = e.wanted
	}
	for _, v := range wanted {
		if e.held[v] == nil && !e.closing[v] {
			missing = append(missing, v)
		}
	}
	for v, h := range e.held {
		if !slices.Contains(wanted, v) {
			unwanted = append(unwanted, h.Lease)
		}
	}
	room = len(missing)
	if e.options.MaxVCenters > 0 {
		room = e.options.MaxVCenters - len(e.held)
	}
	return missing, unwanted, room
}

// share lets go of one idle vCenter when another node has two less. It is not taken back while that node should have
// taken it, and not offered again soon when it did not.
func (e *Engine) share(ctx context.Context, s *settling) {
	mine := e.Owned()
	if e.store.Dialect() == store.SQLite || len(mine) < 2 || len(e.Unowned()) > 0 { // what has no owner is there for the other node
		return
	}
	least, err := e.least(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("other nodes were not looked for", zap.Error(err))
		}
		return
	}
	if len(mine)-least < 2 {
		return
	}
	for _, l := range mine {
		if at, ok := s.offered[l.VCenter]; ok && time.Since(at) < offerAgain {
			continue
		}
		if e.giveUp(ctx, l, "another node has less to do") {
			s.offered[l.VCenter], s.first[l.VCenter] = time.Now(), time.Now().Add(e.timing.ttl)
			return
		}
	}
}

// own takes one vCenter, begins to undo what is unfinished there, and opens its queue.
func (e *Engine) own(ctx context.Context, vcenter string) error {
	t, err := e.take(ctx, vcenter)
	if err != nil {
		return err
	}
	h := &held{Lease: t.Lease, renewed: t.at, paused: t.paused}
	h.work, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	e.mu.Lock()
	e.held[vcenter] = h
	e.mu.Unlock()
	e.log.Info("a vCenter is ours", zap.String("vcenter", vcenter), zap.Int64("epoch", t.Epoch), zap.Int("to_undo", len(t.undo)))
	for _, d := range t.undo {
		e.background.Go(func() { e.undo(h.work, h, d) })
	}
	if err := e.queue.add(queueOf(vcenter), e.options.Workers); err != nil {
		e.lose(ctx, t.Lease, "its queue does not open")
		return errors.Join(err, e.release(ctx, t.Lease))
	}
	e.gate(ctx, vcenter, t.paused)
	return nil
}

// giveUp releases a vCenter on which nothing is at work, and says whether it did. Runs that wait for the vCenter to be wanted
// again do not work.
func (e *Engine) giveUp(ctx context.Context, l Lease, why string) bool {
	var busy int
	err := e.view(ctx, "look for work on vCenter "+l.VCenter, func(ctx context.Context, tx store.Tx) error {
		return tx.One(ctx, []any{&busy}, "SELECT count(*) FROM runs WHERE vcenter_id = $1 AND state IN ('running', 'compensating')", l.VCenter)
	})
	e.mu.Lock()
	if h := e.held[l.VCenter]; h != nil {
		busy -= h.stranded
	}
	e.mu.Unlock()
	if err == nil && busy <= 0 && e.loseIdle(ctx, l, why) {
		if err = e.release(ctx, l); err == nil {
			return true
		}
	}
	if err != nil {
		e.log.Warn("a vCenter was not let go", zap.String("vcenter", l.VCenter), zap.Error(err))
	}
	return false
}

// shut closes the queue of a vCenter, and waits for its runs, which are cancelled already: until they have come back, what they
// left is nobody's to undo here.
func (e *Engine) shut(ctx context.Context, vcenter string) {
	e.background.Go(func() {
		for {
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
			err := e.queue.remove(limit, queueOf(vcenter))
			cancel()
			if err == nil {
				break
			}
			e.log.Warn("the queue of a vCenter does not close yet", zap.String("vcenter", vcenter), zap.Error(err))
			select {
			case <-ctx.Done(): // this node ends
				return
			case <-time.After(again):
			}
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.closing, vcenter)
	})
}

// gate opens or closes the queue of a vCenter for deliveries.
func (e *Engine) gate(ctx context.Context, vcenter string, paused bool) {
	limit, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := e.queue.pause(limit, queueOf(vcenter), paused); err != nil {
		e.log.Warn("the queue of a vCenter was neither paused nor resumed", zap.String("vcenter", vcenter), zap.Error(err))
	}
}

// Pause keeps new runs of a vCenter from starting, wherever it is owned, within 3 s; here at once. Runs at work go on.
func (e *Engine) Pause(ctx context.Context, vcenter string) error { return e.pause(ctx, vcenter, true) }

// Resume ends Pause.
func (e *Engine) Resume(ctx context.Context, vcenter string) error {
	return e.pause(ctx, vcenter, false)
}

func (e *Engine) pause(ctx context.Context, vcenter string, paused bool) error {
	err := e.store.Update(ctx, "pause or resume vCenter "+vcenter, func(tx store.Tx) error {
		n, err := tx.Exec(ctx, "UPDATE vcenter_leases SET paused = $1 WHERE vcenter_id = $2", store.Flag(paused), vcenter)
		if err == nil && n == 0 {
			err = fmt.Errorf("vCenter %q: %w", vcenter, catalog.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	h := e.held[vcenter]
	if h != nil {
		h.paused = paused
	}
	e.mu.Unlock()
	if h != nil {
		e.gate(ctx, vcenter, paused)
	}
	return nil
}

// cancel ends the context of a run that is at work here.
func (e *Engine) cancel(run string) {
	e.mu.Lock()
	end := e.running[run]
	e.mu.Unlock()
	if end != nil {
		end(ErrCancelled)
	}
}

// undo has one run undone, however often it takes, while the vCenter is ours and wanted. Nobody can do it on one that is
// not: the run waits then.
func (e *Engine) undo(ctx context.Context, h *held, d catalog.Delivery) {
	for pause := undoFirst; e.untilWanted(ctx, h); pause = min(2*pause, undoLast) {
		select {
		case e.undoing <- struct{}{}:
		case <-ctx.Done():
			return
		}
		failpoint.Before("engine", "undo")
		err := guarded(func() error { return e.options.Undo(ctx, d) })
		failpoint.After("engine", "undo")
		<-e.undoing
		if err == nil {
			return
		}
		e.log.Warn("a run is not undone yet", zap.String("run", d.RunID), zap.Duration("again_in", pause), zap.Error(err))
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// untilWanted waits while the vCenter of a lease is not wanted, and says whether it is; false when ctx has ended.
func (e *Engine) untilWanted(ctx context.Context, h *held) bool {
	for waiting := false; ; waiting = true {
		e.mu.Lock()
		wanted := slices.Contains(e.wanted, h.VCenter)
		switch {
		case wanted && waiting:
			h.stranded--
		case !wanted && !waiting:
			h.stranded++
		}
		e.mu.Unlock()
		if wanted {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false // with its lease, which counts them
		case <-time.After(e.timing.look):
		}
	}
}

// guarded makes an error of a panic: what has begun outside must be undone all the same.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return do()
}

// view reads within callLimit.
func (e *Engine) view(ctx context.Context, op string, do func(context.Context, store.Tx) error) error {
	limit, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return e.store.View(limit, op, func(tx store.Tx) error { return do(limit, tx) })
}

// sweep delivers queued runs that have lost their delivery, whatever the library did with it: none of them may wait for ever.
func (e *Engine) sweep(ctx context.Context) {
	for _, l := range e.Owned() {
		var lost []catalog.Delivery
		limit, cancel := context.WithTimeout(ctx, takeLimit)
		err := e.store.Update(limit, "look for lost deliveries", func(tx store.Tx) (err error) {
			lost, err = store.All(limit, tx, func(scan func(...any) error) (catalog.Delivery, error) {
				d := catalog.Delivery{VCenter: l.VCenter}
				var next int64
				err := scan(&d.RunID, &d.Epoch, &d.Priority, &next)
				d.NotBefore = store.Time(next)
				return d, err
			}, `SELECT r.id, r.epoch, r.priority, r.next_attempt_at FROM runs r WHERE r.vcenter_id = $1 AND r.state = 'queued' AND (r.id, r.epoch) NOT IN (
				SELECT j.args ->> 'run_id', CAST(j.args ->> 'epoch' AS BIGINT) FROM river_job j
				WHERE j.queue = $2 AND j.state IN ('available', 'scheduled', 'retryable', 'running', 'pending'))`, l.VCenter, queueOf(l.VCenter))
			if err != nil {
				return err
			}
			return e.queue.insert(limit, tx, lost)
		})
		cancel()
		if err != nil && ctx.Err() == nil {
			e.log.Warn("lost deliveries were not looked for", zap.String("vcenter", l.VCenter), zap.Error(err))
		}
		if len(lost) > 0 {
			e.log.Warn("queued runs had lost their delivery", zap.String("vcenter", l.VCenter), zap.Int("runs", len(lost)))
		}
	}
}
