package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/schedule"
	"github.com/stillframe/stillframe/pkg/selection"
)

// tick fires a job whose time has come by the database's clock. No vCenter is asked for that: its VMs are owed then, and one
// that is away holds up nobody else.
func (d *Daemon) tick(ctx context.Context, j catalog.Job, now time.Time) error {
	s, err := readSpec(j)
	if err != nil || s.Schedule == nil {
		return err
	}
	when, err := schedule.Parse(s.Schedule.Text(), s.Schedule.Zone)
	if err != nil {
		return err
	}
	late, err := s.Schedule.CatchUp()
	if err != nil {
		return err
	}
	open, err := windows(s.Job)
	if err != nil {
		return err
	}
	settled := j.LastFired
	if j.Updated.After(settled) {
		settled = j.Updated
	}
	due := when.Due(settled, now, late, open, needed)
	t := catalog.Tick{Job: j, For: due.Tick, Next: due.Next, Trigger: catalog.Scheduled, Owed: chooses(d.Config(), s.Select)}
	switch {
	case due.CatchUp:
		t.Trigger = catalog.CatchUp
	case due.Tick.IsZero() && due.LastMissed.IsZero(): // the clock was set back: the tick comes again
		return nil
	case due.Tick.IsZero():
		t.For, t.Skip = due.LastMissed, missed
	}
	done, err := d.Catalog.Tick(ctx, t)
	if err != nil || done.Repeated {
		return err
	}
	if due.Missed > 0 {
		d.Log.Warn("scheduled runs did not happen (SF1905)", zap.String("job", j.Name), zap.Int("missed", due.Missed),
			zap.Time("first", due.FirstMissed), zap.Time("last", due.LastMissed), zap.String("why", due.Why))
		d.Observer.Fired(j.Name, 0, 0, due.Missed)
	}
	if done.Replaced > 0 {
		d.Log.Warn("scheduled runs did not happen (SF1905)", zap.String("job", j.Name), zap.Int("vcenters", done.Replaced),
			zap.String("why", "the vCenter could not be asked for its VMs from the tick before to this one"))
		d.Observer.Fired(j.Name, 0, 0, 1)
	}
	d.Log.Info("job fired", zap.String("job", j.Name), zap.Time("for", t.For))
	return nil
}

// missed is the cause of a run that was due when nobody could begin it.
const missed = "missed"

// Between two attempts to ask a vCenter for the VMs that are owed.
const (
	askFirst, askLast = 5 * time.Second, time.Minute
)

// debtor is a vCenter that owes VMs.
type debtor struct {
	busy  bool
	pause time.Duration
	next  time.Time
}

// collect makes the runs that are owed on the vCenters of this node: beside each other, so that one that cannot be asked delays
// only its own, which come when it can. It does not wait; group does.
func (d *Daemon) collect(ctx context.Context, group *sync.WaitGroup) error {
	all, now, err := d.Catalog.Owed(ctx)
	if err != nil {
		return err
	}
	owned := d.Queue.Owned()
	by := map[string][]catalog.Owed{}
	for _, o := range all {
		if slices.ContainsFunc(owned, func(l engine.Lease) bool { return l.VCenter == o.VCenter }) {
			by[o.VCenter] = append(by[o.VCenter], o)
		}
	}
	for vcenter, owed := range by {
		if !d.compared(vcenter) || !d.ask(vcenter) {
			continue
		}
		group.Go(func() {
			err := d.pay(ctx, owed, now)
			if err != nil && ctx.Err() == nil {
				d.Log.Error("a vCenter cannot be asked for the VMs of jobs that are due: their runs come when it can",
					zap.String("vcenter", vcenter), zap.Int("jobs", len(owed)), zap.Error(err))
			}
			d.asked(vcenter, err == nil)
		})
	}
	return nil
}

// ask says whether a vCenter is to be asked now, and then counts it as being asked.
func (d *Daemon) ask(vcenter string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.debtors[vcenter]
	if b.busy || time.Now().Before(b.next) {
		return false
	}
	b.busy = true
	d.debtors[vcenter] = b
	return true
}

func (d *Daemon) asked(vcenter string, well bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if well {
		delete(d.debtors, vcenter)
		return
	}
	pause := min(max(2*d.debtors[vcenter].pause, askFirst), askLast)
	d.debtors[vcenter] = debtor{pause: pause, next: time.Now().Add(pause)}
}

// pay makes the runs that one vCenter owes. Its inventory is read once for all jobs that need no tags, whose runs do not wait for
// tags either, and once with tags for the others.
func (d *Daemon) pay(ctx context.Context, owed []catalog.Owed, now time.Time) error {
	var errs []error
	var plain, tagged []payment
	for _, o := range owed {
		s, err := readSpec(o.Tick.Job)
		switch p := (payment{owed: o, spec: s}); {
		case err != nil:
			errs = append(errs, err)
		case selectorOf(s.Select).NeedsTags():
			tagged = append(tagged, p)
		default:
			plain = append(plain, p)
		}
	}
	begun := time.Now()
	for _, group := range [][]payment{plain, tagged} {
		aimed, err := d.aim(ctx, group, now, begun)
		if errs = append(errs, err, d.queue(ctx, aimed)); err != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// payment is what a vCenter owes to one tick of a job, and the VMs.
type payment struct {
	owed    catalog.Owed
	spec    spec
	targets []catalog.Target
}

// aim finds the VMs of payments, by an inventory that was begun to be read no earlier than begun. With an error it gives those
// that it had until then.
func (d *Daemon) aim(ctx context.Context, all []payment, now, begun time.Time) (aimed []payment, err error) {
	c := d.Config()
	for _, p := range all {
		s := p.spec
		if slices.Contains(chooses(c, s.Select), p.owed.VCenter) { // else the job was changed meanwhile
			s.Select.VCenters = []string{p.owed.VCenter}
			if p.targets, _, err = d.targets(ctx, c, s.Job, now, time.Since(begun)); err != nil {
				return aimed, err
			}
		}
		if late, err := catchUp(s.Job); err != nil || p.owed.Tick.Skip == "" && now.Sub(p.owed.Tick.For) > late {
			p.owed.Tick.Skip = missed
		}
		if !p.owed.Tick.Job.Enabled && p.owed.Tick.Trigger != catalog.Manual {
			p.owed.Tick.Skip = "paused" // since it was due
		}
		aimed = append(aimed, p)
	}
	return aimed, nil
}

// queue makes the runs of payments, while none begins.
func (d *Daemon) queue(ctx context.Context, all []payment) error {
	defer d.queueing()()
	var errs []error
	for _, p := range all {
		errs = append(errs, d.queueOne(ctx, p))
	}
	return errors.Join(errs...)
}

// queueOne makes the runs of one tick on one vCenter.
func (d *Daemon) queueOne(ctx context.Context, p payment) error {
	o := p.owed
	done, err := d.Catalog.Paid(ctx, o, p.targets)
	if err != nil || done.Repeated {
		return err
	}
	if done.Rest+done.Runs == 0 {
		d.Log.Warn("the job takes no VM (SF1601)", zap.String("job", o.Tick.Job.Name))
	}
	d.Log.Info("runs made", zap.String("job", o.Tick.Job.Name), zap.Time("for", o.Tick.For), zap.String("vcenter", o.VCenter),
		zap.Int("queued", done.Queued), zap.Int("skipped", done.Skipped))
	d.Observer.Fired(o.Tick.Job.Name, done.Queued, done.Skipped, 0)
	return nil
}

// queueLimit bounds how long a run waits for those that are being queued beside it.
const queueLimit = 15 * time.Second

// queueing says that runs are being queued, until done. A run that is delivered meanwhile waits, so that all that is due at one
// time is in the queue soon, and does not share the database with hundreds of runs that begin.
func (d *Daemon) queueing() (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queues == 0 {
		d.queued = make(chan struct{})
	}
	d.queues++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.queues--; d.queues == 0 {
			close(d.queued)
		}
	}
}

// allQueued waits until no runs are being queued, at most for queueLimit.
func (d *Daemon) allQueued(ctx context.Context) {
	d.mu.Lock()
	queued, busy := d.queued, d.queues > 0
	d.mu.Unlock()
	if !busy {
		return
	}
	t := time.NewTimer(queueLimit)
	defer t.Stop()
	select {
	case <-queued:
	case <-d.drained:
	case <-t.C:
	case <-ctx.Done():
	}
}

// catchUp is how old a tick may be that still has runs.
func catchUp(j config.Job) (time.Duration, error) {
	if j.Schedule == nil {
		return schedule.DefaultMaxCatchUp, nil
	}
	late, err := j.Schedule.CatchUp()
	return late.Max, err
}

// targets are the VMs of a job right now, by an inventory of at most an age. away are the vCenters that could not be asked, for
// which err says why.
func (d *Daemon) targets(ctx context.Context, c *config.Config, j config.Job, now time.Time, age time.Duration) (targets []catalog.Target, away []string, err error) {
	all, away, err := d.choose(ctx, c, j.Select, age)
	var spread time.Duration
	if j.Schedule != nil {
		spread = j.Schedule.Jitter.Duration
	}
	for _, of := range all {
		vms, err := d.known(ctx, of)
		if err != nil {
			return nil, nil, err
		}
		for _, vm := range vms {
			if vm.FirstSeen.Equal(vm.Seen) {
				d.Log.Info("a new VM is taken by the job", zap.String("job", j.Name), zap.String("vm", vm.Path))
			}
			t := catalog.Target{VMID: vm.ID, VCenter: of.vcenter}
			if spread > 0 {
				t.NotBefore = now.Add(schedule.Jitter(vm.InstanceUUID, spread))
			}
			targets = append(targets, t)
		}
	}
	return targets, away, err
}

// known writes down what VMs were seen, and gives them as the catalog knows them.
func (d *Daemon) known(ctx context.Context, c chosen) ([]catalog.VM, error) {
	seen := make([]catalog.VM, 0, len(c.taken))
	for _, t := range c.taken {
		seen = append(seen, ofMember(c.vcenter, t.VM))
	}
	return d.Catalog.SawVMs(ctx, c.vcenter, seen)
}

func ofMember(vcenter string, m inventory.Member) catalog.VM {
	return catalog.VM{VCenter: vcenter, InstanceUUID: m.InstanceUUID, Moref: m.Moref, Name: m.Name, Path: m.Path}
}

// Fire makes the runs of a whole job for a tick that somebody asked for, and gives their number. The same tick again makes
// none.
func (d *Daemon) Fire(ctx context.Context, name string, tick time.Time, by string) (catalog.Ticked, error) {
	configured, err := d.job(name)
	if err != nil {
		return catalog.Ticked{}, err
	}
	j, err := d.Catalog.Job(ctx, name)
	if err != nil {
		return catalog.Ticked{}, err
	}
	if !j.Enabled {
		return catalog.Ticked{}, fmt.Errorf("job %s is paused or switched off: %w", name, catalog.ErrState)
	}
	targets, away, err := d.targets(ctx, d.Config(), configured, d.Now(), 0)
	switch {
	case err != nil && len(targets) == 0:
		return catalog.Ticked{}, err
	case err != nil:
		d.Log.Error("a vCenter cannot be asked for the VMs of a job that was started by hand: their runs come when it can",
			zap.String("job", name), zap.Strings("vcenters", away), zap.Error(err))
	case len(targets) == 0:
		return catalog.Ticked{}, &selection.NothingError{}
	}
	done, err := d.Catalog.Tick(ctx, catalog.Tick{Job: j, For: tick, Next: j.Next, Trigger: catalog.Manual, RequestedBy: by, Targets: targets, Owed: away})
	if err == nil {
		d.Observer.Fired(name, done.Queued, done.Skipped, 0)
	}
	return done, err
}

// Start makes one run of a VM by hand, with the id that it is given; the same id again makes no second. An empty job has the
// defaults.
func (d *Daemon) Start(ctx context.Context, id, vm, job, by string, w Wish) error {
	o := catalog.Order{RunID: id, Kind: catalog.Backup, VMID: vm, RequestedBy: by, Priority: manualPriority}
	if job != "" {
		j, err := d.Catalog.Job(ctx, job)
		if err != nil {
			return fmt.Errorf("order a run: %w", err)
		}
		o.JobID = j.ID
	}
	var err error
	if o.Spec, err = json.Marshal(w); err != nil {
		return err
	}
	_, err = d.Catalog.Order(ctx, o)
	return err
}

// manualPriority goes before everything scheduled.
const manualPriority = 1
