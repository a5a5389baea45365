// Package daemon keeps the jobs of a configuration going: it makes the runs that are due and works on those that it is given.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/selection"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// Order is one run as a vCenter is to do it.
type Order struct {
	Plan backup.Plan
	// Job is the job's name, empty for a run without one, Keep for how long its snapshot will be kept; both go into the
	// snapshot's description.
	Job  string
	Keep time.Duration
	// Guest is how to get into the guest, Address where it is reached; empty is what VMware Tools report.
	Guest   config.Guest
	Address string
	Gate    backup.Gate
	// Owned says why nothing may be done on the vCenter any more: another node may own it. It is asked before each call.
	Owned func() error
	// Forget strikes out what belongs to a VM that the vCenter does not have any more.
	Forget bool
	// Memory is the run's own view of what lasts.
	Memory backup.Memory
	// Epoch draws the number that the guest's agent is told; nil where none is spoken with.
	Epoch func(context.Context) (uint64, error)
	// Sessions is the run's own view of the ledger of sessions with writers; nil for an undo.
	Sessions backup.Sessions
}

// VCenter is a session with one vCenter. It is safe for concurrent use.
type VCenter interface {
	// Estate lists its VMs, with their tags when they are asked for.
	Estate(ctx context.Context, tags bool) (inventory.Estate, error)
	// Run does one run. Its error is that of backup.Runner.
	Run(ctx context.Context, o Order) (backup.Result, error)
	// Remove removes the snapshot of exactly this name of the VM with this instance UUID; one that is gone is removed. A VM
	// whose snapshots a task works on is left alone, with an error. unmerged is true when its disks need consolidation. owned is
	// that of an Order.
	Remove(ctx context.Context, owned func() error, instanceUUID, name string) (unmerged bool, err error)
	// Consolidate merges the disks of the VM with this instance UUID, under the same condition. An error says why they still
	// need it.
	Consolidate(ctx context.Context, owned func() error, instanceUUID string) error
	// Preflight looks at what would keep a window of the order's VM from its start, and changes nothing.
	Preflight(ctx context.Context, o Order) ([]inventory.Check, error)
	// Undo takes away what is open of one VM.
	Undo(ctx context.Context, o Order, intents []statefile.Intent) (backup.Recovery, error)
}

// VCenters opens the sessions, and keeps them.
type VCenters interface {
	// VCenter gives the session with a vCenter of the configuration, by its name there.
	VCenter(ctx context.Context, c *config.Config, name string) (VCenter, error)
}

// Queue is what the daemon needs of the engine.
type Queue interface {
	Serve(ctx context.Context, work func(context.Context, catalog.Delivery) error) error
	Drain(ctx context.Context) error
	Want(vcenters ...string)
	Fresh(vcenter string) time.Duration
	Owned() []engine.Lease
	// Unowned are the configured vCenters that no node owns.
	Unowned() []string
}

// Observer hears what happens. It must not block.
type Observer interface {
	// Began and Ended are told of each attempt of a run.
	Began(r catalog.Run)
	Ended(r catalog.Run, result backup.Result)
	// Finished is told of each run that has come to its end, as it was written down.
	Finished(r catalog.Run)
	// Fired is told of the runs of a tick, once for each vCenter, and of ticks that had none; missed is their number.
	Fired(job string, queued, skipped, missed int)
}

// Options of a daemon. All are needed but Now.
type Options struct {
	Catalog  *catalog.Catalog
	Queue    Queue
	VCenters VCenters
	Config   *config.Config
	Observer Observer
	Log      *zap.Logger
	// Installation is the mark of our snapshots; Before is the highest epoch that the database knew when it was opened, Epoch
	// the one that was drawn then.
	Installation  string
	Before, Epoch int64
	// Now is the wall clock; nil is this machine's.
	Now func() time.Time
}

// Daemon is safe for concurrent use.
type Daemon struct {
	Options
	config   atomic.Pointer[config.Config]
	room     *admission.Room
	swept    chan struct{}
	draining atomic.Bool
	drained  chan struct{} // closed by the first Drain

	applying sync.Mutex // by Apply and Enable, one after the other

	mu      sync.Mutex
	estates map[string]estate
	windows map[string]OpenWindow
	// surveyed are the vCenters whose inventories were compared with the ledger by this process; leaks is how many writer
	// sessions each VM was said to have left.
	surveyed map[string]bool
	leaks    map[string]int
	debtors  map[string]debtor
	// queues is how many vCenters' runs are being queued; queued is closed when that is over.
	queues int
	queued chan struct{}
	// tended are the VMs whose snapshots the sweeper works on.
	tended map[string]bool
}

// estate is what a vCenter was seen to have.
type estate struct {
	inventory.Estate
	at time.Time
}

// New makes a daemon. It does nothing before Apply and Serve.
func New(o Options) *Daemon {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Daemon{
		Options: o, room: admission.NewRoom(), swept: make(chan struct{}, 1), estates: map[string]estate{}, windows: map[string]OpenWindow{},
		drained: make(chan struct{}), surveyed: map[string]bool{}, leaks: map[string]int{}, debtors: map[string]debtor{}, tended: map[string]bool{},
	}
	d.config.Store(o.Config)
	return d
}

// Unready are the reasons why no work is done yet; none when it is.
func (d *Daemon) Unready(ctx context.Context) []string {
	var all []string
	for _, v := range d.Queue.Unowned() {
		all = append(all, "vCenter "+v+" is owned by no node")
	}
	var names []string
	for _, v := range d.Config().VCenters {
		names = append(names, v.Name)
	}
	r, err := d.Catalog.Reconciliation(ctx)
	if err != nil {
		all = append(all, "the database cannot be read: "+err.Error())
	}
	if open := r.Open(names...); len(open) > 0 {
		all = append(all, fmt.Sprintf("schedules wait until the inventory of %s was read (SF1906): %s", strings.Join(open, ", "), r.Why))
	}
	if d.draining.Load() {
		all = append(all, "it is ending")
	}
	return all
}

// Config is the configuration in force. Runs at work keep the one that they began with.
func (d *Daemon) Config() *config.Config { return d.config.Load() }

// Apply puts a configuration in force: its jobs into the catalog, its vCenters to the queue. A job that is not in it any
// more is forgotten; its runs stay.
func (d *Daemon) Apply(ctx context.Context, c *config.Config) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	known, err := d.Catalog.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range c.Jobs {
		if _, err := d.put(ctx, j, d.paused(known, j)); err != nil {
			return err
		}
	}
	for _, j := range known {
		gone := !slices.ContainsFunc(c.Jobs, func(want config.Job) bool { return want.Name == j.Name })
		if j.Origin == catalog.FromFile && gone {
			if err := d.Catalog.RemoveJob(ctx, j.Name, catalog.FromFile); err != nil {
				return err
			}
		}
	}
	names := []string{}
	for _, v := range c.VCenters {
		names = append(names, v.Name)
	}
	if err := d.strand(ctx, names); err != nil {
		return err
	}
	d.config.Store(c)
	d.Queue.Want(names...)
	return nil
}

// strand says, once for each configuration, what waits for a vCenter that is not in it.
func (d *Daemon) strand(ctx context.Context, configured []string) error {
	left, err := d.Catalog.Unfinished(ctx)
	for vcenter, runs := range left {
		if !slices.Contains(configured, vcenter) {
			d.Log.Error("runs of a vCenter that is not configured wait for it (SF1209)", zap.String("vcenter", vcenter), zap.Int("runs", runs))
		}
	}
	return err
}

const (
	// lookEvery is how often due jobs are looked for.
	lookEvery = time.Second
	// estateAge is how old an inventory may be that a run is begun by.
	estateAge = 5 * time.Minute
	// estateLimit bounds the reading of one: the interface for tags has no limit of its own.
	estateLimit = 5 * time.Minute
)

// Serve makes the runs of jobs that are due and works on runs, until Drain, or until ctx ends.
func (d *Daemon) Serve(ctx context.Context) error {
	looking, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { d.look(looking) })
	group.Go(func() { d.sweep(looking) })
	group.Go(func() { d.prune(looking) })
	group.Go(func() {
		select {
		case <-d.drained:
			stop()
		case <-looking.Done():
		}
	})
	err := d.Queue.Serve(ctx, d.work)
	stop()
	group.Wait()
	return err
}

// Drain makes no more runs and begins none, waits for those at work until ctx ends, and ends Serve.
func (d *Daemon) Drain(ctx context.Context) error {
	if !d.draining.Swap(true) {
		close(d.drained) // what looks and sweeps must not keep a vCenter busy that a run needs for its end
	}
	return d.Queue.Drain(ctx)
}

// Preflight asks the VM's vCenter what would keep a window from its start.
func (d *Daemon) Preflight(ctx context.Context, vm catalog.VM) ([]inventory.Check, error) {
	c := d.Config()
	v, err := d.VCenters.VCenter(ctx, c, vm.VCenter)
	if err != nil {
		return nil, err
	}
	o := Order{Plan: backup.Plan{VM: vm.InstanceUUID}}
	if o.Guest, o.Address, err = d.guest(ctx, c, vm); err != nil {
		return nil, err
	}
	return v.Preflight(ctx, o)
}

// look fires what is due, once a second.
func (d *Daemon) look(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	if r, err := d.Catalog.Reconciliation(ctx); err == nil && r.Why != "" {
		d.Log.Error("no schedule fires until the database knows what is outside (SF1906)", zap.String("why", r.Why))
	}
	var collecting sync.WaitGroup
	defer collecting.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if d.draining.Load() {
			return
		}
		jobs, now, err := d.Catalog.DueJobs(ctx)
		if err != nil && ctx.Err() == nil {
			d.Log.Error("look for due jobs", zap.Error(err))
		}
		for _, j := range jobs {
			wait, err := d.waits(ctx, j)
			if err != nil && ctx.Err() == nil {
				d.Log.Error("look what has to be known before a job fires", zap.String("job", j.Name), zap.Error(err))
			}
			if wait || err != nil {
				continue // it is still due when what is outside is known
			}
			if err := d.tick(ctx, j, now); err != nil && ctx.Err() == nil {
				d.Log.Error("fire a job", zap.String("job", j.Name), zap.Error(err))
			}
		}
		if err := d.collect(ctx, &collecting); err != nil && ctx.Err() == nil {
			d.Log.Error("look for VMs of due jobs", zap.Error(err))
		}
	}
}

// see reads a vCenter's inventory, unless what is known of it is young enough.
func (d *Daemon) see(ctx context.Context, c *config.Config, vcenter string, tags bool, age time.Duration) (inventory.Estate, error) {
	d.mu.Lock()
	known, ok := d.estates[vcenter]
	d.mu.Unlock()
	if ok && time.Since(known.at) < age && (known.TagsRead || !tags) {
		return known.Estate, nil
	}
	ctx, cancel := context.WithTimeout(ctx, estateLimit)
	defer cancel()
	v, err := d.VCenters.VCenter(ctx, c, vcenter)
	if err != nil {
		return inventory.Estate{}, err
	}
	e, err := v.Estate(ctx, tags)
	if err != nil {
		return inventory.Estate{}, fmt.Errorf("read the inventory of %s: %w", vcenter, err)
	}
	d.mu.Lock()
	d.estates[vcenter] = estate{e, time.Now()}
	d.mu.Unlock()
	return e, nil
}

// Consolidation counts the VMs whose disks need it on each vCenter whose inventory was read, as it was then.
func (d *Daemon) Consolidation() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string]int{}
	owned := d.Queue.Owned()
	for vcenter, e := range d.estates {
		if !slices.ContainsFunc(owned, func(l engine.Lease) bool { return l.VCenter == vcenter }) {
			continue // its owner tells
		}
		all[vcenter] = 0
		for _, m := range e.Members {
			if m.ConsolidationNeeded {
				all[vcenter]++
			}
		}
	}
	return all
}

// chosen is what a selection takes of one vCenter.
type chosen struct {
	vcenter string
	taken   []selection.Choice
}

func selectorOf(s config.JobSelect) selection.Selector {
	selector := selection.Selector{Rules: selection.Rules(s.Rules)}
	if s.Exclude != nil {
		selector.Exclude = selection.Rules(*s.Exclude)
	}
	return selector
}

// chooses are the vCenters that a selection names, or all.
func chooses(c *config.Config, s config.JobSelect) []string {
	var all []string
	for _, v := range c.VCenters {
		if len(s.VCenters) == 0 || slices.Contains(s.VCenters, v.Name) {
			all = append(all, v.Name)
		}
	}
	return all
}

// choose applies a selection to the vCenters that it names, or to all, which are asked beside each other. What it does not take,
// and why, is logged; away are those that could not be asked, for which err says why.
func (d *Daemon) choose(ctx context.Context, c *config.Config, s config.JobSelect, age time.Duration) (all []chosen, away []string, err error) {
	selector := selectorOf(s)
	names := chooses(c, s)
	seen, errs := make([]inventory.Estate, len(names)), make([]error, len(names))
	var group sync.WaitGroup
	for n, name := range names {
		group.Go(func() { seen[n], errs[n] = d.see(ctx, c, name, selector.NeedsTags(), age) })
	}
	group.Wait()
	for n, name := range names {
		if errs[n] != nil {
			away = append(away, name)
			continue
		}
		r := selection.Select(seen[n], selector, nil)
		for _, p := range r.Problems {
			d.Log.Warn("a rule of a selection does not do what it says", zap.String("vcenter", name), zap.String("code", p.Code()), zap.Error(p))
		}
		all = append(all, chosen{name, r.Taken})
	}
	return all, away, errors.Join(errs...)
}
