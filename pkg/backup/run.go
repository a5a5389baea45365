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
	// endLimit is longer than the guest's session, which waits for post-thaw hooks.
	endLimit = 38 * time.Second
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
	Log   *zap.Logger
}

// run is one run on its way.
type run struct {
	Runner
	plan   Plan
	result Result
	undo   undo
	vm     inventory.VM
	guest  *guest.Deployment
	// kept is the snapshot that exists and has to go.
	kept []inventory.Snapshot
	// unsettled is true when a snapshot of this run exists, or may still appear.
	unsettled bool
	// need is the least time worth a snapshot; sample is what the window took, called when the snapshot was asked for.
	need   time.Duration
	sample *admission.Sample
	called time.Time
}

// Run does the window of one VM and removes its snapshot again: no data is moved. When ctx ends inside the window, the
// guest is thawed first. The error tells why no window took place, or what could not be cleaned up; what the window
// proved is in the Result, which is always filled in as far as the run came.
func (r Runner) Run(ctx context.Context, p Plan) (Result, error) {
	x := &run{Runner: r, plan: p, result: newResult(p)}
	err := x.straight(ctx)
	if err != nil {
		x.result.failure(err)
	}
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
	if err := x.find(ctx); err != nil {
		return err
	}
	if err := x.admit(ctx); err != nil {
		return err
	}
	if err := x.intend(ctx); err != nil {
		return err
	}
	name := x.plan.SnapshotName()
	snapshot, err := x.Hypervisor.Prepare(ctx, x.vm, name, x.plan.Description)
	if err != nil {
		return fmt.Errorf("prepare the snapshot: %w", err)
	}
	x.undo.push("end the watch of the snapshot task", limited(closeLimit, snapshot.Close))
	x.guest, err = x.Guests.Open(ctx, x.vm, x.plan.RunID, x.plan.Epoch)
	x.undo.push("leave the guest", func(ctx context.Context) error { return x.guest.Close(ctx) })
	if err != nil {
		if x.guest.Left != nil { // what it put there could not be taken back either
			x.result.Leftovers = append(x.result.Leftovers, x.guest.Left.Error())
		}
		return err
	}
	x.introduce()
	x.Log.Info("agent ready", zap.String("version", x.guest.Session.Hello.AgentVersion), zap.String("os", x.guest.Session.Hello.OS.Version))
	ready, budget, err := x.arm(ctx)
	if err != nil {
		return err
	}
	x.Log.Info("armed", zap.Strings("volumes", ready.Volumes), zap.Duration("rtt", time.Duration(x.result.Window.RTTSeconds*float64(time.Second))))
	if err := ctx.Err(); err != nil {
		return x.leave(ctx, context.Cause(ctx))
	}
	prepared, began := time.Since(begin), time.Now()
	report, pending := freezewindow.Run(ctx, budget, ready, x.guest.Session, snapshot)
	x.result.report(report, prepared)
	x.observe(began, report)
	x.Log.Info("window closed", zap.String("level", string(report.Verdict.Level)), zap.String("cause", string(report.Verdict.Cause)),
		zap.Float64p("held_by_guest_seconds", x.result.Window.HeldByGuestSeconds),
		zap.Float64p("held_at_most_seconds", x.result.Window.HeldAtMostSeconds))
	x.result.explain(report)
	if report.Snap == freezewindow.SnapSucceeded {
		x.kept = append(x.kept, report.Snapshot)
	}
	left := errors.Join(x.release(ctx, report, began), x.late(ctx, pending))
	x.settle()
	x.result.unheld()
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

// arm measures the road, fits the budget to the agent's own limits and has it prepare; nothing is held yet.
func (x *run) arm(ctx context.Context) (freezewindow.Ready, freezewindow.Budget, error) {
	session, budget := x.guest.Session, x.plan.Budget
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
	if err := x.road(rtt); err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, err)
	}
	r, err := session.Arm(ctx, freezewindow.ModeFS, budget, x.plan.Volumes)
	if err != nil {
		return freezewindow.Ready{}, budget, x.leave(ctx, fmt.Errorf("prepare the freeze in the guest: %w", err))
	}
	if len(r.Volumes) == 0 { // an empty hold proves nothing
		return freezewindow.Ready{}, budget, x.leave(ctx, &Refusal{"SF4702", errors.New("the agent found no file system to hold")})
	}
	at := time.Now()
	if err := x.Hypervisor.Ready(ctx); err != nil {
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
	return errors.Join(why, x.end(ctx))
}

func (x *run) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	return x.guest.Session.End(ctx, false)
}

// settle reads the outcome from the verdict under the run's policy.
func (x *run) settle() {
	level := x.result.Verdict.Level
	less := x.result.Verdict.Cause == freezewindow.CauseHookFailed // than the guest's owner required
	switch {
	case level.Consistent() && !less:
		x.result.Outcome = OK
		return
	case (level == freezewindow.Crash || less) && x.plan.OnDegrade == Keep:
		x.result.Outcome = Degraded
	default:
		x.result.Outcome = Failed
	}
	x.result.find("SF4909", fmt.Sprintf("level %s, policy on_degrade=%s", level, x.plan.OnDegrade))
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
	if err := x.end(ctx); err != nil && w.LinkLosses == 0 {
		x.Log.Warn("the agent's session was not closed in good order", zap.Error(err)) // the agent ends by itself
	}
	return nil
}

// late waits for a snapshot that the window did not wait for, because it has to be removed when it comes.
func (x *run) late(ctx context.Context, pending *freezewindow.Pending) error {
	if pending == nil {
		return nil
	}
	defer pending.Stop()
	x.Log.Warn("the snapshot task had not ended with the window: waiting for it, to remove what it makes",
		zap.String("snapshot", pending.Name), zap.String("task", pending.Task), zap.Duration("limit", x.plan.LateLimit))
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.plan.LateLimit)
	defer cancel()
	go func() {
		select {
		case <-x.plan.GiveUp:
			cancel()
		case <-waiting.Done():
		}
	}()
	s, err := pending.Wait(waiting)
	if err == nil || waiting.Err() != nil { // it succeeded, or took longer than we wait
		x.observeLate()
	}
	if err == nil {
		x.kept = append(x.kept, s)
		x.result.late(s)
		return nil
	}
	var unknown interface{ OutcomeUnknown() bool }
	if waiting.Err() == nil && (!errors.As(err, &unknown) || !unknown.OutcomeUnknown()) {
		return nil // the task failed: there is no snapshot
	}
	found, none, lookErr := x.look(ctx, waiting, pending.Name)
	if len(found) > 0 {
		x.kept = append(x.kept, found...)
		x.result.late(found[0])
		return nil
	}
	if none {
		return nil // the call never became a task, or its task failed
	}
	left := fmt.Sprintf("snapshot %q of %s may still appear: its task %q has not ended", pending.Name, x.vm.Path, pending.Task)
	x.result.Leftovers = append(x.result.Leftovers, left)
	x.unsettled = true
	return &Refusal{"SF2304", errors.Join(errors.New(left), lookErr)}
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

// glance is one look: the snapshot of exactly this name, and whether a task may still make it.
func (x *run) glance(ctx context.Context, name string) (found []inventory.Snapshot, unfinished bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	unfinished = x.Tasks == nil // nobody can tell
	if x.Tasks != nil {         // asked first: a task that ends between the two calls has made its snapshot by the second
		tasks, err := x.Tasks.Unfinished(ctx, x.vm)
		if err != nil {
			return nil, false, err
		}
		unfinished = slices.ContainsFunc(tasks, inventory.Task.Snapshots)
	}
	found, err = x.Hypervisor.FindSnapshots(ctx, x.vm, name)
	// Those whose name only begins so are not ours.
	return slices.DeleteFunc(found, func(s inventory.Snapshot) bool { return s.Name != name }), unfinished, err
}

// remove removes every snapshot of this run.
func (x *run) remove(ctx context.Context) error {
	var all error
	for _, s := range x.kept {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
		unsettled, err := x.Hypervisor.Remove(ctx, s)
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
	x.result.Guest.Channel = string(guest.ChannelDirect)
	x.result.Guest.AgentVersion = h.AgentVersion
	x.result.Guest.OS = strings.TrimSpace(h.OS.Edition + " " + h.OS.Version)
}

// attempts takes over every try of the way in, when the run is over.
func (x *run) attempts() {
	if x.guest == nil {
		return
	}
	for _, a := range x.guest.Attempts {
		x.result.Guest.Attempts = append(x.result.Guest.Attempts, Attempt{string(a.Road), string(a.Stage), a.OK, a.Code, a.Text, a.Took.Seconds()})
		if a.OK && a.Stage == guest.StageHello {
			x.result.Guest.Road = string(a.Road)
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
