package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// Hosts opens the road to the ESXi host that runs a VM, past vCenter.
type Hosts interface {
	Open(ctx context.Context, vm inventory.VM) (HostRoad, error)
}

// HostRoad is the road to one VM over its host. The morefs of its snapshots are good on this road only.
type HostRoad interface {
	// Name is the host's.
	Name() string
	// Here fails, with the code SF2702, when the VM has left the host.
	Here(ctx context.Context) error
	// The others are those of Hypervisor and Tasks, for the one VM.
	Prepare(ctx context.Context, name, description string) (Snapshot, error)
	Ready(ctx context.Context) error
	Remove(ctx context.Context, s inventory.Snapshot) (unsettled string, err error)
	FindSnapshots(ctx context.Context, prefix string) ([]inventory.Snapshot, error)
	Unfinished(ctx context.Context) ([]inventory.Task, error)
	Close(ctx context.Context) error
}

// kept is a snapshot that exists and has to go.
type kept struct {
	inventory.Snapshot
	// direct is true when its moref is the host's.
	direct bool
}

// RoadTimes is what this VM's windows tell of one road.
type RoadTimes struct {
	Road admission.SnapshotRoad `json:"road"`
	// Asked is how many snapshots were asked for, Made how many of them were made; the percentiles are theirs, 0 without any.
	Asked      int     `json:"asked"`
	Made       int     `json:"made"`
	P50Seconds float64 `json:"p50_seconds"`
	P95Seconds float64 `json:"p95_seconds"`
}

// hostOpenLimit bounds the search for the host and the login there.
const hostOpenLimit = 30 * time.Second

// choose picks the road of the snapshot, and opens the one to the host when it is that. Where both are allowed, a host that
// cannot be asked is no reason to stop.
func (x *run) choose(ctx context.Context, samples []admission.Sample) error {
	x.samples = samples
	c := admission.PickRoad(samples, x.plan.SnapshotRoad, x.closed())
	for _, t := range c.Times {
		x.result.Snapshot.Roads = append(x.result.Snapshot.Roads, RoadTimes{t.Road, t.Asked, t.Made, t.P50.Seconds(), t.P95.Seconds()})
	}
	x.take(c.Road, c.Reason)
	if c.Road != admission.ThroughHost {
		return nil
	}
	if x.Hosts == nil { // only policy host comes here without
		return &Refusal{"SF1002", errors.New("no account of the ESXi hosts was given, and the snapshot may be asked of the host only")}
	}
	opening, cancel := context.WithTimeout(ctx, hostOpenLimit)
	defer cancel()
	host, err := x.Hosts.Open(opening, x.vm)
	if err != nil {
		err = fmt.Errorf("ask the host of %s itself: %w", x.vm.Path, err)
		if x.plan.SnapshotRoad == admission.RoadHost {
			return err
		}
		x.detour("SF2701", err)
		return nil
	}
	x.host = host
	x.undo.push("leave the host", limited(closeLimit, host.Close))
	x.result.Snapshot.Host = host.Name()
	return nil
}

// closed is why the host cannot be asked; empty when it can.
func (x *run) closed() string {
	if x.Hosts == nil {
		return "no account of the ESXi hosts was given"
	}
	return ""
}

func (x *run) take(road admission.SnapshotRoad, reason string) {
	x.result.Snapshot.Road, x.result.Snapshot.RoadReason = road, reason
	x.Log.Info("road of the snapshot", zap.String("road", string(road)), zap.String("reason", reason))
}

// detour goes on through vCenter where the host was to be asked.
func (x *run) detour(code string, why error) {
	x.host, x.result.Snapshot.Host = nil, ""
	x.take(admission.ThroughVCenter, why.Error())
	x.result.find(code, why.Error(), "the run went on through vCenter")
}

// prepare makes the snapshot ready on the road that was chosen. Under auto vCenter stands in for a host that refuses.
func (x *run) prepare(ctx context.Context) (err error) {
	name := x.plan.SnapshotName()
	if x.host != nil {
		x.snapshot, err = x.host.Prepare(ctx, name, x.plan.Description)
		if err == nil || x.plan.SnapshotRoad == admission.RoadHost {
			return err
		}
		x.detour("SF2701", fmt.Errorf("ask host %s: %w", x.host.Name(), err))
	}
	x.snapshot, err = x.Hypervisor.Prepare(ctx, x.vm, name, x.plan.Description)
	return err
}

// unwatch ends the watch of the snapshot task, whichever road it is on by then.
func (x *run) unwatch(ctx context.Context) error {
	if x.snapshot == nil {
		return nil
	}
	return x.snapshot.Close(ctx)
}

// stay makes sure, right before GO, that the road is good: that the VM is still where it was, and the session alive. Nothing
// is frozen yet, so that a VM that has left its host goes through vCenter where that is allowed, and is refused otherwise.
func (x *run) stay(ctx context.Context) error {
	if x.host == nil {
		return x.Hypervisor.Ready(ctx)
	}
	err := x.host.Here(ctx)
	if err == nil {
		err = x.host.Ready(ctx)
	}
	if err == nil || x.plan.SnapshotRoad == admission.RoadHost {
		return err
	}
	code := guest.CodeOf(err)
	if code != "SF2702" {
		code = "SF2701"
	}
	closed := x.unwatch(ctx)
	x.snapshot = nil
	x.detour(code, err)
	if err := errors.Join(closed, x.prepare(ctx)); err != nil {
		return fmt.Errorf("prepare the snapshot through vCenter: %w", err)
	}
	if x.result.Admission != nil { // what was admitted was the other road
		if d := x.decide(admission.OnRoad(x.samples, admission.ThroughVCenter), ""); d.Word != admission.Admit {
			return x.decided(d.Word, d.Code, d.Reason)
		}
	}
	return x.Hypervisor.Ready(ctx)
}

// unfinished lists what works on the VM: vCenter does not always know what was asked of the host.
func (x *run) unfinished(ctx context.Context) ([]inventory.Task, error) {
	if x.Tasks == nil {
		return nil, nil
	}
	tasks, err := x.Tasks.Unfinished(ctx, x.vm)
	if err != nil || x.host == nil {
		return tasks, err
	}
	more, err := x.host.Unfinished(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask host %s for tasks: %w", x.host.Name(), err)
	}
	return slices.Concat(tasks, more), nil
}

// removeOne removes a snapshot on the road that made it. What the host made and cannot remove, such as when the VM has left
// it with its snapshot, is looked for by name in vCenter; so is what the host says that it has removed.
func (x *run) removeOne(ctx context.Context, k kept) (unsettled string, err error) {
	if !k.direct {
		return x.Hypervisor.Remove(ctx, k.Snapshot)
	}
	unsettled, direct := x.host.Remove(ctx, k.Snapshot)
	if direct != nil {
		x.Log.Warn("the host did not remove the snapshot: looking for it in vCenter", zap.Error(direct))
	}
	for begun := time.Now(); ; {
		found, err := x.named(ctx, k.Name)
		switch {
		case err != nil:
			return unsettled, errors.Join(direct, err)
		case len(found) == 0 && direct == nil:
			return unsettled, nil
		case len(found) > 0 && (direct != nil || time.Since(begun) >= lookQuiet):
			unsettled, err = x.removeAll(ctx, found)
			if err != nil {
				return unsettled, errors.Join(direct, err)
			}
			return unsettled, nil
		case time.Since(begun) >= lookQuiet:
			return unsettled, direct
		} // vCenter learns a little later what happened on the host
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return unsettled, errors.Join(direct, context.Cause(ctx))
		}
	}
}

// inVCenter gives a snapshot as vCenter knows it: one that the host made has another moref there, and vCenter learns of it a
// little later.
func (x *run) inVCenter(ctx context.Context, k kept) (inventory.Snapshot, error) {
	if !k.direct {
		return k.Snapshot, nil
	}
	for {
		found, err := x.named(ctx, k.Name)
		if err == nil && len(found) == 1 {
			return found[0], nil
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return inventory.Snapshot{}, errors.Join(fmt.Errorf("find the snapshot %q, which the host made, in vCenter: %w", k.Name, context.Cause(ctx)), err)
		}
	}
}

// removeAll removes snapshots through vCenter.
func (x *run) removeAll(ctx context.Context, all []inventory.Snapshot) (unsettled string, err error) {
	for _, s := range all {
		if unsettled, err = x.Hypervisor.Remove(ctx, s); err != nil {
			return unsettled, err
		}
	}
	return unsettled, nil
}

// named lists the VM's snapshots of exactly this name as vCenter has them.
func (x *run) named(ctx context.Context, name string) ([]inventory.Snapshot, error) {
	found, err := x.Hypervisor.FindSnapshots(ctx, x.vm, name)
	return slices.DeleteFunc(found, func(s inventory.Snapshot) bool { return s.Name != name }), err
}
