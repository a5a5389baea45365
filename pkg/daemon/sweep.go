package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	// sweepEvery is how often an inventory is read anew, and what should not be there is taken away; sweepAgain is after one that
	// could not be read.
	sweepEvery = 5 * time.Minute
	sweepAgain = 15 * time.Second
	// Between two attempts to remove a snapshot.
	removeFirst, removeLast = time.Minute, time.Hour
	// removeLimit bounds one removal, consolidateLimit one consolidation.
	removeLimit      = 10 * time.Minute
	consolidateLimit = time.Hour
	// unmergedLimit is how long disks that we left may need consolidation until somebody should look.
	unmergedLimit = time.Hour
)

// turn is when a vCenter is swept next.
type turn struct {
	epoch int64 // of the lease that it was swept under last
	at    time.Time
	busy  bool
}

// sweep sweeps each vCenter as soon as this node owns it and then every five minutes. One that is slow keeps no other waiting.
func (d *Daemon) sweep(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	type done struct {
		vcenter string
		wait    time.Duration
	}
	ended := make(chan done)
	turns := map[string]*turn{}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-ended:
			t := turns[e.vcenter]
			t.busy = false
			if !t.at.IsZero() { // else somebody asked for the next one meanwhile
				t.at = time.Now().Add(e.wait)
			}
		case <-d.swept:
			for _, t := range turns {
				t.at = time.Time{}
			}
		case <-ticker.C:
		}
		for _, l := range d.Queue.Owned() {
			t, known := turns[l.VCenter]
			if !known {
				t = &turn{}
				turns[l.VCenter] = t
			}
			if t.busy || l.Epoch == t.epoch && time.Now().Before(t.at) {
				continue
			}
			*t = turn{epoch: l.Epoch, at: time.Now(), busy: true}
			group.Go(func() {
				e := done{l.VCenter, d.sweepOne(ctx, catalog.Owner{VCenter: l.VCenter, Epoch: l.Epoch})}
				select {
				case ended <- e:
				case <-ctx.Done():
				}
			})
		}
	}
}

// Sweep has the next sweep begin now.
func (d *Daemon) Sweep() {
	select {
	case d.swept <- struct{}{}:
	default:
	}
}

// sweepOne sweeps one vCenter, and gives when to do that again.
func (d *Daemon) sweepOne(ctx context.Context, o catalog.Owner) time.Duration {
	say := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			d.Log.Error(what, zap.String("vcenter", o.VCenter), zap.Error(err))
		}
	}
	if err := d.survey(ctx, o); err != nil {
		say("compare the ledger with the inventory", err)
		return sweepAgain
	}
	say("remove snapshots that have to go", d.removeDue(ctx, o))
	say("consolidate disks", d.consolidateDue(ctx, o))
	say("count sessions with writers", d.tellLeaks(ctx, o))
	soon, err := d.soonest(ctx, o)
	say("look what comes next", err)
	return soon
}

// soonest is the time until something is to be tried again, at most sweepEvery. What waits for a run does not hurry.
func (d *Daemon) soonest(ctx context.Context, o catalog.Owner) (time.Duration, error) {
	now := d.Now()
	next := now.Add(sweepEvery)
	snapshots, err := d.Catalog.Snapshots(ctx, catalog.SnapshotFilter{VCenter: o.VCenter, States: []string{string(catalog.Orphan), string(catalog.RemoveRequested)}})
	if err != nil {
		return sweepEvery, err
	}
	for _, s := range snapshots {
		if s.NextAttempt.After(now) && s.NextAttempt.Before(next) {
			next = s.NextAttempt
		}
	}
	unmerged, err := d.Catalog.Consolidations(ctx, o.VCenter, false)
	for _, c := range unmerged {
		if c.Ours && c.NextAttempt.After(now) && c.NextAttempt.Before(next) {
			next = c.NextAttempt
		}
	}
	return max(next.Sub(now), sweepAgain), err
}

// busy says whether a run works on a VM: a removal would stand before the run's snapshot, while the guest is held.
func (d *Daemon) busy(ctx context.Context, vm string) (bool, error) {
	runs, err := d.Catalog.Runs(ctx, catalog.RunFilter{VMID: vm, Unfinished: true, Limit: 1})
	return len(runs) > 0 && runs[0].State != catalog.Queued, err
}

func (d *Daemon) removeDue(ctx context.Context, o catalog.Owner) error {
	due, err := d.Catalog.Snapshots(ctx, catalog.SnapshotFilter{VCenter: o.VCenter, Due: true})
	if err != nil {
		return err
	}
	for _, s := range due {
		unmerged, err := d.removeOne(ctx, o, s)
		if errors.Is(err, errBusy) {
			continue
		}
		gone := catalog.Removal{Gone: "removed", Unmerged: unmerged}
		if err != nil {
			d.Log.Warn("a snapshot could not be removed", zap.String("snapshot", s.Name), zap.Error(err))
			wait := min(removeFirst<<min(s.Attempts, 6), removeLast)
			gone = catalog.Removal{Err: err.Error(), Lost: guest.CodeOf(err) == "SF2009", Next: d.Now().Add(wait)}
		} else {
			d.Log.Info("snapshot removed", zap.String("snapshot", s.Name), zap.String("proof", s.Proof), zap.Bool("consolidation_needed", unmerged))
		}
		if err := d.Catalog.Removed(ctx, o, s.ID, gone); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) removeOne(ctx context.Context, o catalog.Owner, s catalog.Snapshot) (unmerged bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	v, vm, leave, err := d.enter(ctx, s.VCenter, s.VMID)
	if err != nil {
		return false, err
	}
	defer leave()
	return v.Remove(ctx, d.holds(o), vm.InstanceUUID, s.Name)
}

// holds says, whenever it is asked, why a sweep may not touch its vCenter any more.
func (d *Daemon) holds(o catalog.Owner) func() error {
	return func() error {
		if !slices.Contains(d.Queue.Owned(), engine.Lease{VCenter: o.VCenter, Epoch: o.Epoch}) {
			return &engine.LostError{VCenter: o.VCenter, Why: "it was let go"}
		}
		if d.Queue.Fresh(o.VCenter) > deadLimit {
			return &engine.LostError{VCenter: o.VCenter, Why: "its ownership was not renewed in time"}
		}
		return nil
	}
}

// errBusy says that a run works on the VM.
var errBusy = errors.New("a run works on the VM")

// tend keeps runs of a VM from freezing until leave is called; errBusy when one works on it already.
func (d *Daemon) tend(ctx context.Context, vm string) (leave func(), err error) {
	d.mu.Lock()
	d.tended[vm] = true
	d.mu.Unlock()
	leave = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.tended, vm)
	}
	busy, err := d.busy(ctx, vm) // after the mark: a run that this does not see yet sees the mark
	if err == nil && busy {
		err = errBusy
	}
	if err != nil {
		leave()
	}
	return leave, err
}

// tends says whether the sweeper works on a VM's snapshots.
func (d *Daemon) tends(vm string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tended[vm]
}

// enter takes a place among the removals of the VM's vCenter, host and datastores, and then keeps runs of the VM away.
func (d *Daemon) enter(ctx context.Context, vcenter, vmID string) (VCenter, catalog.VM, func(), error) {
	vm, err := d.Catalog.VM(ctx, vmID)
	if err != nil {
		return nil, vm, nil, err
	}
	c := d.Config()
	v, err := d.VCenters.VCenter(ctx, c, vcenter)
	if err != nil {
		return nil, vm, nil, err
	}
	e, err := d.see(ctx, c, vcenter, false, estateAge)
	if err != nil {
		return nil, vm, nil, err
	}
	var m inventory.Member
	if i := slices.IndexFunc(e.Members, func(m inventory.Member) bool { return m.InstanceUUID == vm.InstanceUUID }); i >= 0 {
		m = e.Members[i]
	}
	leave, err := d.room.Enter(ctx, removals(c, vcenter, m))
	if err != nil {
		return nil, vm, nil, err
	}
	untend, err := d.tend(ctx, vmID)
	if err != nil {
		leave()
		return nil, vm, nil, err
	}
	return v, vm, func() { untend(); leave() }, nil
}

// consolidateWaits are between attempts to merge the disks of one VM; the last one stays.
var consolidateWaits = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour}

// consolidateDue merges the disks that our removals left unmerged, one VM after the other.
func (d *Daemon) consolidateDue(ctx context.Context, o catalog.Owner) error {
	due, err := d.Catalog.Consolidations(ctx, o.VCenter, true)
	if err != nil {
		return err
	}
	for _, n := range due {
		err := d.consolidateOne(ctx, o, n.VMID)
		if errors.Is(err, errBusy) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why := ""
		if err != nil {
			why = err.Error()
			say := d.Log.Warn
			if d.Now().Sub(n.Since) > unmergedLimit {
				say = d.Log.Error
			}
			say("disks still need consolidation (SF2302)", zap.String("vm", n.VMID), zap.Time("since", n.Since), zap.Error(err))
		}
		wait := consolidateWaits[min(n.Attempts, len(consolidateWaits)-1)]
		if err := d.Catalog.Consolidated(ctx, o, n.VMID, why, d.Now().Add(wait)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) consolidateOne(ctx context.Context, o catalog.Owner, vmID string) error {
	ctx, cancel := context.WithTimeout(ctx, consolidateLimit)
	defer cancel()
	v, vm, leave, err := d.enter(ctx, o.VCenter, vmID)
	if err != nil {
		return err
	}
	defer leave()
	return v.Consolidate(ctx, d.holds(o), vm.InstanceUUID)
}

// tellLeaks says which guests have sessions with writers that were left open, whenever their number has changed.
func (d *Daemon) tellLeaks(ctx context.Context, o catalog.Owner) error {
	leaks, err := d.Catalog.Leaks(ctx)
	for _, l := range leaks {
		if l.VCenter != o.VCenter {
			continue
		}
		d.mu.Lock()
		said := d.leaks[l.VMID]
		d.leaks[l.VMID] = l.Ours + l.Foreign
		d.mu.Unlock()
		if said == l.Ours+l.Foreign {
			continue
		}
		left, known := l.RunsLeft()
		fields := []zap.Field{zap.String("vm", l.VMID), zap.Int("ours", l.Ours), zap.Int("others", l.Foreign), zap.Strings("snapshot_sets_of_others", l.ForeignSets)}
		if known {
			fields = append(fields, zap.Int("runs_left", left))
		}
		d.Log.Warn("sessions with VSS writers are left open (SF4021)", fields...)
	}
	return err
}
