package backup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// Limits of the clean-up, each of its own step.
const (
	removeLimit = 10 * time.Minute
	lookLimit   = 30 * time.Second
	lookQuiet   = 10 * time.Second
	lookPause   = time.Second
	closeLimit  = 20 * time.Second
	// endLimit is longer than the guest's session, which waits for post-thaw hooks, or for VSS writers.
	endLimit = 7 * time.Minute
)

// Runner does runs; it has no state of its own, so one may do many at once.
type Runner struct {
	Hypervisor Hypervisor
	Guests     Guests
	// Memory lasts from run to run; without it nothing is remembered, nor can a killed run be recovered.
	Memory Memory
	// Checks answers the preflight table; without it only what Find told is judged.
	Checks Checks
	// Tasks tells what works on the VM; without it nobody is asked.
	Tasks Tasks
	// Hosts opens the road to a VM's host; without it every snapshot goes through vCenter.
	Hosts Hosts
	// Gate is asked before the guest is armed and before it is frozen; without it nobody waits.
	Gate Gate
	// Sessions hears of sessions with a guest's writers; without it there is no ledger of them.
	Sessions Sessions
	// Origins is needed by a plan with a mover.
	Origins Origins
	Log     *zap.Logger
	// Now is the wall clock, by which earlier windows are aged; nil is this machine's. Nothing in a window asks it.
	Now func() time.Time
}

// run is one run on its way.
type run struct {
	Runner
	plan   Plan
	result Result
	undo   undo
	vm     inventory.VM
	guest  *guest.Deployment
	// host is the road to the VM's host when the snapshot is asked of it, nil when it goes through vCenter; snapshot is
	// what was prepared on that road; samples are what the road was chosen by.
	host     HostRoad
	snapshot Snapshot
	samples  []admission.Sample
	// kept are the snapshots that exist and have to go.
	kept []kept
	// unsettled is true when a snapshot of this run exists, or may still appear.
	unsettled bool
	// mode is where the guest will be held.
	mode freezewindow.Mode
	// need is the least time worth a snapshot; sample is what the window took, called when the snapshot was asked for.
	need   time.Duration
	sample *admission.Sample
	called time.Time
	// armed is true when the guest was asked to prepare; the session with its writers is open from then on.
	armed bool
}

// Run does the window of one VM, has the mover store what its snapshot holds, tells the guest's applications how that went,
// and removes the snapshot, always in this order. When ctx ends inside the window, the guest is thawed first. The error tells
// why no window took place, why nothing was stored, or what could not be cleaned up; what the window proved is in the
// Result, which is always filled in as far as the run came.
func (r Runner) Run(ctx context.Context, p Plan) (Result, error) {
	return r.do(ctx, p, (*run).straight)
}

// do does one line of steps, and takes back whatever is to be taken back.
func (r Runner) do(ctx context.Context, p Plan, line func(*run, context.Context) error) (Result, error) {
	x := &run{Runner: r, plan: p, result: newResult(p)}
	err := line(x, ctx)
	if err != nil {
		x.result.failure(err)
	}
	x.session()
	if left := x.undo.run(ctx); left != nil {
		x.result.failure(left)
		x.result.Leftovers = append(x.result.Leftovers, left.Error())
		err = errors.Join(err, left)
	}
	x.attempts()
	x.remember(ctx)
	if ctx.Err() != nil {
		x.result.Outcome = Aborted
	}
	return x.result, err
}

// straight is the run's one line: each step uses what the one before gave.
func (x *run) straight(ctx context.Context) error {
	begin := time.Now()
	if x.plan.Mover != nil {
		if err := x.plan.Mover.Check(); err != nil {
			return err
		}
	}
	if err := x.find(ctx); err != nil {
		return err
	}
	if err := x.admit(ctx); err != nil {
		return err
	}
	if x.plan.DryRun {
		x.result.Outcome = OK
		return nil
	}
	if err := x.intend(ctx); err != nil {
		return err
	}
	if err := x.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the snapshot: %w", err)
	}
	x.undo.push("end the watch of the snapshot task", limited(closeLimit, x.unwatch))
	var err error
	loggedOn, err := pass(ctx, x.Gate.Logon)
	if err != nil {
		return err
	}
	x.guest, err = x.Guests.Open(ctx, x.vm, x.plan.RunID, x.plan.Epoch)
	loggedOn()
	x.undo.push("leave the guest", func(ctx context.Context) error { return x.guest.Close(ctx) })
	if err != nil {
		if x.guest.Left != nil { // what it put there could not be taken back either
			x.result.Leftovers = append(x.result.Leftovers, x.guest.Left.Error())
		}
		return err
	}
	x.introduce()
	x.Log.Info("agent ready", zap.String("version", x.guest.Session.Hello.AgentVersion), zap.String("os", x.guest.Session.Hello.OS.Version))
	leave, err := pass(ctx, x.Gate.Arm)
	if err != nil {
		return x.leave(ctx, err)
	}
	defer func() { leave() }()
	ready, budget, err := x.arm(ctx)
	if err != nil {
		return err
	}
	x.Log.Info("armed", zap.Strings("volumes", ready.Volumes), zap.Duration("rtt", time.Duration(x.result.Window.RTTSeconds*float64(time.Second))))
	if err := ctx.Err(); err != nil {
		return x.leave(ctx, context.Cause(ctx))
	}
	closed, err := x.Gate.window(ctx, &ready)
	if err != nil {
		return x.leave(ctx, err)
	}
	armed := leave
	leave = func() { closed(); armed() }
	prepared, began := time.Since(begin), time.Now()
	failpoint.Before("backup", "window")
	report, pending := freezewindow.Run(ctx, budget, ready, x.guest.Session, x.snapshotter())
	failpoint.After("backup", "window")
	x.result.report(report, prepared)
	if x.Gate.Thawed != nil {
		x.Gate.Thawed()
	}
	x.observe(began, report)
	if pending == nil { // else the snapshot is still being made: there is no room for another one yet
		leave()
		leave = func() {}
	}
	x.Log.Info("window closed", zap.String("level", string(report.Verdict.Level)), zap.String("cause", string(report.Verdict.Cause)),
		zap.Float64p("held_by_guest_seconds", x.result.Window.HeldByGuestSeconds),
		zap.Float64p("held_at_most_seconds", x.result.Window.HeldAtMostSeconds))
	x.result.explain(report)
	if report.Snap == freezewindow.SnapSucceeded {
		x.kept = append(x.kept, kept{report.Snapshot, x.host != nil})
	}
	return x.afterwards(ctx, report, pending, began)
}

// afterwards is what follows the window. The guest's session stays open over the move when its applications can still be
// told how that went; else it ends at once, without a backup.
func (x *run) afterwards(ctx context.Context, report freezewindow.Report, pending *freezewindow.Pending, began time.Time) error {
	var left error
	open := x.plan.Mover != nil && report.Verdict.Level.Consistent() && x.level() != Failed && ctx.Err() == nil
	if !open {
		left = errors.Join(x.release(ctx, report, began), x.late(ctx, pending))
	}
	x.settle()
	x.result.unheld()
	good := x.result.Outcome != Failed && len(x.kept) == 1
	if x.plan.Mover != nil && good && ctx.Err() == nil {
		left = errors.Join(left, x.move(ctx, open))
	} else if open {
		left = errors.Join(left, x.release(ctx, report, began))
	}
	if x.plan.KeepSnapshot && good && ctx.Err() == nil {
		return errors.Join(left, x.keep(ctx))
	}
	return errors.Join(left, x.remove(ctx))
}

func (x *run) find(ctx context.Context) (err error) {
	if x.vm, err = x.Hypervisor.Find(ctx, x.plan.VM); err != nil {
		return err
	}
	x.result.VM = VM{x.vm.Name, x.vm.Path, x.vm.Moref, x.vm.InstanceUUID}
	x.Log.Info("found", zap.String("vm", x.vm.Path), zap.String("moref", x.vm.Moref))
	if err := preflight(x.vm); err != nil {
		return err
	}
	if err := x.begin(ctx); err != nil {
		return err
	}
	return x.preflight(ctx)
}

// osWindows is what the agent of a Windows guest says of it.
const osWindows = "windows"

// windows says whether vCenter takes the guest for a Windows one.
func (x *run) windows() bool { return x.vm.System() == inventory.Windows }

// arm measures the road, fits the budget to the agent's own limits and has it prepare; nothing is held yet.
func (x *run) arm(ctx context.Context) (freezewindow.Ready, freezewindow.Budget, error) {
	session, budget := x.guest.Session, x.budget()
	rtt, err := session.RTT(ctx)
	if err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, err)
	}
	x.result.Window.RTTSeconds = rtt.Seconds()
	if own := time.Duration(session.Hello.Limits.DeadmanMS) * time.Millisecond; own > 0 {
		budget.Deadman = min(budget.Deadman, own)
	}
	if err := budget.Check(rtt); err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, &Refusal{"SF4011", err})
	}
	if err := x.road(rtt, budget); err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, err)
	}
	if family := session.Hello.OS.Family; (family == osWindows) != x.windows() {
		return freezewindow.Ready{}, budget, x.leave(ctx, &Refusal{"SF3704", fmt.Errorf("the agent runs on %q, vCenter says that the guest is %q", family, x.vm.GuestFamily)})
	}
	x.armed = true // also when what comes next fails: it may have been written all the same
	if err := x.opening(ctx); err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, err)
	}
	r, err := session.Arm(ctx, guest.Order{
		Mode: x.hold(), Budget: budget, Volumes: x.plan.Volumes, BackupType: x.plan.BackupType,
		Required: x.plan.Writers.Required, Tolerated: x.plan.Writers.Tolerated, Excluded: x.plan.Writers.Excluded,
	})
	if err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, fmt.Errorf("prepare the freeze in the guest: %w", err))
	}
	if len(r.Volumes) == 0 { // an empty hold proves nothing
		return freezewindow.Ready{}, budget, x.leave(ctx, &Refusal{"SF4702", errors.New("the agent found no file system to hold")})
	}
	at := time.Now()
	if err := errors.Join(x.opening(ctx), x.stay(ctx)); err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, err)
	}
	r.Go, r.Armed, r.Name, r.Need = rand.Uint64()|1, true, x.plan.SnapshotName(), x.need
	r.Left -= time.Since(at)
	x.result.Window.Volumes = append(x.result.Window.Volumes, r.Volumes...)
	x.result.notHeld(session.NotHeld(r.Volumes))
	return r, budget, nil
}

// leave ends the agent's session when the window does not take place.
func (x *run) leave(ctx context.Context, why error) error {
	ended, owed := x.end(ctx)
	return errors.Join(why, ended, owed)
}

// end ends the agent's session. An agent that does not answer may have died before the guest's hooks of post-thaw were
// over, so they are run from outside; owed is why they were not.
func (x *run) end(ctx context.Context) (ended, owed error) {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if ended = x.guest.Session.End(ending); ended == nil || x.windows() {
		return ended, nil
	}
	x.Log.Warn("the agent did not answer the end of its session: running in the guest what it may owe")
	if _, err := x.guest.Rescue(ctx); err != nil {
		// Leaving the guest tries once more, and names it as a leftover when that fails too.
		return ended, &Refusal{"SF4919", fmt.Errorf("run in the guest what its agent may owe: %w", err)}
	}
	return ended, nil
}

// settle reads the outcome from the verdict under the run's policy.
func (x *run) settle() {
	x.result.Outcome = x.level()
	if level := x.result.Verdict.Level; !level.Consistent() || x.less() {
		x.result.find("SF4909", fmt.Sprintf("level %s, policy on_degrade=%s", level, x.plan.OnDegrade))
	}
}

// less says whether the verdict is less than the guest's owner, or the plan, required.
func (x *run) less() bool {
	return x.result.Verdict.Cause == freezewindow.CauseHookFailed || x.plan.Level != "" && x.result.Verdict.Level.Below(x.plan.Level)
}

// level is the outcome of the window alone.
func (x *run) level() Outcome {
	level, less := x.result.Verdict.Level, x.less()
	switch {
	case level.Consistent() && !less && x.result.toleratedFailed(): // the level stands, what the writer's application has does not
		return Degraded
	case level.Consistent() && !less:
		return OK
	case level == freezewindow.Crash && x.plan.Level == freezewindow.Crash:
		return Degraded
	case level != freezewindow.Unproved && (level == freezewindow.Crash || less) && x.plan.OnDegrade == Keep:
		return Degraded
	}
	return Failed
}

// release ends the agent's session. A guest that never said that it is free is released once more from outside.
func (x *run) release(ctx context.Context, w freezewindow.Report, began time.Time) error {
	if !w.HeldAtMostKnown && w.SelfReleased {
		x.Log.Warn("the agent's last word did not come: thawing the guest once more from outside")
		released, err := x.guest.Rescue(ctx)
		if err != nil {
			x.Log.Error("the guest may still be frozen: it could not be thawed from outside", zap.Error(err))
			// Leaving the guest tries once more, and names it as a leftover when that fails too.
			return &Refusal{"SF4919", fmt.Errorf("thaw the guest once more: %w", err)}
		}
		x.result.rescued(released, time.Since(began))
		return nil
	}
	ended, owed := x.end(ctx)
	if ended != nil && w.LinkLosses == 0 {
		x.Log.Warn("the agent's session was not closed in good order", zap.Error(ended))
	}
	return owed
}

// late waits for a snapshot that the window did not wait for, because it has to be removed when it comes.
func (x *run) late(ctx context.Context, pending *freezewindow.Pending) error {
	if pending == nil {
		return nil
	}
	defer pending.Stop()
	x.Log.Warn("the snapshot task had not ended with the window: waiting for it, to remove what it makes",
		zap.String("snapshot", pending.Name), zap.String("task", pending.Task), zap.Duration("limit", x.plan.LateLimit))
	waiting, cancel := x.waiting(ctx)
	defer cancel()
	s, timing, err := pending.Wait(waiting)
	if err == nil || waiting.Err() != nil { // it succeeded, or took longer than we wait
		x.observeLate()
	}
	s, there, err := x.resolve(ctx, waiting, pending.Task, s, err)
	if there {
		x.result.late(s, timing)
	}
	return err
}

// waiting is for a snapshot task: it ends with the LateLimit or when the operator gives up, whatever becomes of ctx.
func (x *run) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.plan.LateLimit)
	go func() {
		select {
		case <-x.plan.GiveUp:
			cancel()
		case <-waiting.Done():
		}
	}()
	return waiting, cancel
}

// resolve finds out whether the snapshot is there whose task gave s and err, and notes that it has to go. An error says that
// it may still appear.
func (x *run) resolve(ctx, waiting context.Context, task string, s inventory.Snapshot, err error) (_ inventory.Snapshot, there bool, _ error) {
	if err == nil {
		x.kept = append(x.kept, kept{s, x.host != nil})
		return s, true, nil
	}
	var unknown interface{ OutcomeUnknown() bool }
	if waiting.Err() == nil && (!errors.As(err, &unknown) || !unknown.OutcomeUnknown()) {
		return s, false, nil // the task failed: there is no snapshot
	}
	name := x.plan.SnapshotName()
	found, none, lookErr := x.look(ctx, waiting, name)
	if len(found) > 0 {
		for _, s := range found {
			x.kept = append(x.kept, kept{s, false})
		}
		return found[0], true, nil
	}
	if none {
		return s, false, nil // the call never became a task, or its task failed
	}
	left := fmt.Sprintf("snapshot %q of %s may still appear: its task %q has not ended", name, x.vm.Path, task)
	x.result.Leftovers = append(x.result.Leftovers, left)
	x.unsettled = true
	return s, false, &Refusal{"SF2304", errors.Join(errors.New(left), lookErr)}
}

// look looks for a snapshot whose call or task ended without telling its outcome, for as long as a task works on the VM
// and waiting allows, at least once. none is true when, for lookQuiet, there was neither the snapshot nor a task that
// could still make it; errors are borne for lookLimit.
func (x *run) look(ctx, waiting context.Context, name string) (found []inventory.Snapshot, none bool, err error) {
	ctx = context.WithoutCancel(ctx)
	heard, busy := time.Now(), time.Now()
	for {
		found, unfinished, err := x.glance(ctx, name)
		now := time.Now()
		switch {
		case len(found) > 0:
			return found, false, nil
		case err != nil && now.Sub(heard) >= lookLimit:
			return nil, false, err
		case err == nil && unfinished:
			heard, busy = now, now
		case err == nil && now.Sub(busy) >= lookQuiet:
			return nil, true, nil
		case err == nil:
			heard = now
		}
		select {
		case <-time.After(lookPause):
		case <-waiting.Done():
			return nil, false, err
		}
	}
}

// glance is one look: the snapshot of exactly this name as vCenter has it, and whether a task may still make it.
func (x *run) glance(ctx context.Context, name string) (found []inventory.Snapshot, unfinished bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	unfinished = x.Tasks == nil // nobody can tell
	if x.Tasks != nil {         // asked first: a task that ends between the two calls has made its snapshot by the second
		tasks, err := x.unfinished(ctx)
		if err != nil {
			return nil, false, err
		}
		unfinished = slices.ContainsFunc(tasks, inventory.Task.Snapshots)
	}
	found, err = x.named(ctx, name)
	return found, unfinished, err
}

// remove removes every snapshot of this run.
func (x *run) remove(ctx context.Context) error {
	var all error
	if len(x.kept) > 0 {
		defer x.Gate.remove(context.WithoutCancel(ctx))()
	}
	for _, s := range x.kept {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
		unsettled, err := x.removeOne(ctx, s)
		cancel()
		if err != nil {
			x.unsettled = true
			x.result.Leftovers = append(x.result.Leftovers, fmt.Sprintf("snapshot %q (%s) of %s", s.Name, s.Moref, x.vm.Path))
			all = errors.Join(all, fmt.Errorf("remove the snapshot %q: %w", s.Name, err))
			continue
		}
		x.result.Snapshot.Removed = true
		if unsettled != "" {
			x.result.find("SF2302", unsettled)
		}
	}
	if len(x.kept) > 0 && all == nil {
		x.Log.Info("snapshot removed", zap.String("snapshot", x.plan.SnapshotName()))
	}
	return all
}

// introduce takes over how the agent introduced itself.
func (x *run) introduce() {
	h := x.guest.Session.Hello
	x.result.Guest.Channel = string(x.guest.Channel())
	x.result.Guest.AgentVersion = h.AgentVersion
	x.result.Guest.BootID = h.BootID
	x.result.Guest.OS = strings.TrimSpace(h.OS.Edition + " " + h.OS.Version)
}

// attempts takes over every try of the way in, when the run is over.
func (x *run) attempts() {
	if x.guest == nil {
		return
	}
	for _, a := range x.guest.Attempts {
		x.result.Guest.Attempts = append(x.result.Guest.Attempts, Attempt{
			string(a.Way.Road), string(a.Way.Start), string(a.Stage), string(a.Channel), a.OK, a.Skipped, string(guest.ClassOf(a.Code)), a.Code, a.Text, a.Took.Seconds(),
		})
		if a.OK && a.Stage == guest.StageHello {
			x.result.Guest.Road, x.result.Guest.Start = string(a.Way.Road), string(a.Way.Start)
		}
	}
}

// limited gives a clean-up step its own limit.
func limited(limit time.Duration, do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return do(ctx)
	}
}
