package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// Journal keeps what a run is about to make outside, so that a later process can take it away when this one dies.
type Journal interface {
	// Intend is durable when it returns; with an error nothing must be made.
	Intend(ctx context.Context, intents ...statefile.Intent) error
	// Settle strikes out what is proved to be gone.
	Settle(ctx context.Context, intents ...statefile.Intent) error
	// Intents lists what is open for a VM, by its instance UUID; for all VMs when vm is empty.
	Intents(ctx context.Context, vm string) ([]statefile.Intent, error)
}

// Locks let one run at a time work on a VM.
type Locks interface {
	// Acquire never waits. An error with the code SF1103 says that another run works there.
	Acquire(ctx context.Context, vm, run string) error
	Release(ctx context.Context, vm, run string) error
}

// History keeps the last windows of each VM.
type History interface {
	Windows(ctx context.Context, vm string) ([]admission.Sample, error)
	Record(ctx context.Context, vm string, s admission.Sample) error
}

// Memory is what lasts from run to run, satisfied by *statefile.Store. Nothing of it is called between GO and THAWED.
type Memory interface {
	Journal
	Locks
	History
}

var _ Memory = (*statefile.Store)(nil)

// Tasks tells what works on a VM, satisfied by *vsphere.Snapshotter.
type Tasks interface {
	Unfinished(ctx context.Context, vm inventory.VM) ([]inventory.Task, error)
}

// Admission is what happens when the window will probably not fit into the budget.
type Admission string

// The policies; the zero value refuses.
const (
	AdmissionRefuse Admission = "refuse"
	AdmissionWarn   Admission = "warn"
)

// refusalLife is how long a window can refuse later ones: a VM that is always refused measures no new ones.
const refusalLife = 7 * 24 * time.Hour

// begin makes this run the only one on its VM, and refuses a VM on which another run left something.
func (x *run) begin(ctx context.Context) error {
	if x.Memory == nil {
		return nil
	}
	if err := x.Memory.Acquire(ctx, x.vm.InstanceUUID, x.plan.RunID); err != nil {
		return fmt.Errorf("begin to work on %s: %w", x.vm.Path, err)
	}
	x.undo.push("let go of the VM", func(ctx context.Context) error {
		if err := x.Memory.Release(ctx, x.vm.InstanceUUID, x.plan.RunID); err != nil {
			x.Log.Warn("the VM stays marked as worked on until this process has ended", zap.Error(err))
		}
		return nil
	})
	open, err := x.Memory.Intents(ctx, x.vm.InstanceUUID)
	if err != nil {
		return err
	}
	if open = Unfinished(open); len(open) == 0 {
		return nil
	}
	var left []string
	for _, i := range open {
		left = append(left, fmt.Sprintf("%s %s of run %s", i.Kind, i.Subject, i.Run))
	}
	return &Refusal{"SF2304", fmt.Errorf("an earlier run of %s was not finished: \"stillframe recover --vm %s\" does that\n%s",
		x.vm.Path, x.vm.Moref, strings.Join(left, "\n"))}
}

// intend writes down the snapshot's name before anything is made, and strikes it out when the run leaves none behind.
func (x *run) intend(ctx context.Context) error {
	if x.Memory == nil {
		return nil
	}
	i := x.intent(statefile.Snapshot)
	if err := x.Memory.Intend(ctx, i); err != nil {
		return err
	}
	x.undo.push("strike out the snapshot's name", func(ctx context.Context) error {
		if x.unsettled {
			return nil
		}
		return x.Memory.Settle(ctx, i)
	})
	return nil
}

// intent is what is written down of this run's snapshot.
func (x *run) intent(kind statefile.Kind) statefile.Intent {
	return statefile.Intent{
		Kind: kind, Subject: x.plan.SnapshotName(), Run: x.plan.RunID, Epoch: x.plan.Epoch, VCenter: x.plan.VCenter,
		VM: x.vm.InstanceUUID, Path: x.vm.Path, Moref: x.vm.Moref,
	}
}

// admit predicts the window and refuses one that will not fit.
func (x *run) admit(ctx context.Context) error {
	x.mode = freezewindow.ModeFS
	if x.windows() {
		x.mode = freezewindow.ModeIO
	}
	if x.plan.Budget.ThawBy() <= 0 {
		return nil // arm refuses such a budget, with all its reasons
	}
	var samples []admission.Sample
	var busy []string
	var err error
	if x.Memory != nil {
		if samples, err = x.Memory.Windows(ctx, x.vm.InstanceUUID); err != nil {
			return err
		}
	}
	if err := x.choose(ctx, samples); err != nil {
		return err
	}
	tasks, err := x.unfinished(ctx)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if t.Snapshots() {
			busy = append(busy, fmt.Sprintf("task %s (%s) is %s", t.Moref, t.Kind, t.State))
		}
	}
	d := x.decide(admission.OnRoad(samples, x.result.Snapshot.Road), strings.Join(busy, ", "))
	x.need, x.mode = d.Need, d.Mode
	x.result.admit(d)
	return x.decided(d.Word, d.Code, d.Reason)
}

// wallClock is the time by which what was remembered is aged.
func (r Runner) wallClock() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// decide refuses for what earlier windows took only when those of the refusalLife say so by themselves. None lies after
// the wall clock: what was remembered before it was set back counts from then on (statefile).
func (x *run) decide(samples []admission.Sample, busy string) admission.Decision {
	now := x.wallClock()
	one := func(samples []admission.Sample) admission.Decision {
		if x.windows() {
			l := admission.Limits{Hold: x.plan.Budget.ThawBy(), IO: x.plan.Budget.IOThaw}
			return admission.DecideVSS(samples, l, x.plan.Mode, busy, now)
		}
		return admission.Decide(samples, x.plan.Budget.ThawBy(), busy)
	}
	d := one(samples)
	if d.Code != "SF4010" {
		return d
	}
	recent := slices.DeleteFunc(slices.Clone(samples), func(s admission.Sample) bool { return now.Sub(s.At) > refusalLife })
	if again := one(recent); again.Word == admission.Admit {
		again.Reason += "; older windows took too long, but refuse for 7 days only"
		return again
	}
	return d
}

// decided refuses what admission does not admit, or says that the run goes on all the same.
func (x *run) decided(word admission.Word, code, reason string) error {
	if word == admission.Admit {
		return nil
	}
	if x.plan.Admission != AdmissionWarn {
		return &Refusal{code, errors.New(reason)}
	}
	x.result.Admission.Overridden = true
	x.need = freezewindow.MinNeed // else the window itself would find too little time left, and never prove the history wrong
	x.result.Admission.Predicted.NeedSeconds = x.need.Seconds()
	x.result.find(code, reason, "the run went on, because its admission policy is warn")
	x.Log.Warn("not admitted, but told to go on", zap.String("code", code), zap.String("reason", reason))
	return nil
}

// road decides again when the round trip to the agent is known.
func (x *run) road(rtt time.Duration, b freezewindow.Budget) error {
	if x.guest.Mailbox() != nil {
		return x.fits(rtt, b)
	}
	why := admission.Road(rtt)
	if why == "" || x.result.Admission == nil {
		return nil
	}
	a := x.result.Admission
	a.Decision, a.Code, a.Reason = admission.Refuse, "SF4011", why
	return x.decided(admission.Refuse, "SF4011", why)
}

// holdTimeout is VSS_E_HOLD_WRITES_TIMEOUT (vsserror.h): Windows itself let go of the writes.
const holdTimeout = "80042314"

// observe takes what the window took; remember writes it down when the run is over.
func (x *run) observe(began time.Time, w freezewindow.Report) {
	x.sample = &admission.Sample{Mode: w.Mode, HoldTimeout: w.Release.SetResult == holdTimeout}
	if w.Snap != freezewindow.SnapNone {
		x.sample.Via = x.result.Snapshot.Road
	}
	for _, p := range w.Phases {
		switch {
		case p.Name == "freeze" && w.Verdict.Cause != freezewindow.CauseCancelled:
			x.sample.Freeze = p.Duration
			x.called = began.Add(p.Duration)
		case p.Name == "thaw" && w.LinkLosses == 0 && !w.SelfReleased:
			x.sample.Thaw = p.Duration
		}
	}
	if t := w.Timing; w.Snap == freezewindow.SnapSucceeded && !t.Sent.IsZero() && !t.PushSeen.IsZero() {
		x.sample.Snapshot, x.sample.Late = t.PushSeen.Sub(t.Sent), w.Late
	}
}

// observeLate takes the full time of a task that outlived the window: without it only the fast ones would be remembered.
func (x *run) observeLate() {
	if x.sample != nil && !x.called.IsZero() {
		x.sample.Snapshot, x.sample.Late = time.Since(x.called), true
	}
}

// remember adds the window to the VM's history. That it cannot be written harms predictions only.
func (x *run) remember(ctx context.Context) {
	if x.sample == nil || x.Memory == nil {
		return
	}
	x.sample.Road, x.sample.Channel = x.result.Guest.Road, x.result.Guest.Channel
	if err := x.Memory.Record(context.WithoutCancel(ctx), x.vm.InstanceUUID, *x.sample); err != nil {
		x.Log.Warn("the window was not remembered", zap.Error(err))
	}
}
