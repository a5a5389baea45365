package daemon

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/selection"
)

// survey reads the inventory of a vCenter and writes down what it shows: which VMs there are and which of them jobs exclude,
// which snapshots no run wants, which disks need consolidation.
func (d *Daemon) survey(ctx context.Context, o catalog.Owner) error {
	jobs, err := d.selectors(ctx, o.VCenter)
	if err != nil {
		return err
	}
	at := d.Now()
	tags := slices.ContainsFunc(jobs, func(j selector) bool { return j.NeedsTags() })
	e, err := d.see(ctx, d.Config(), o.VCenter, tags, 0)
	if err != nil && tags { // tags are for exclusions only; what is left behind must be found without them
		d.Log.Warn("read the inventory with its tags", zap.String("vcenter", o.VCenter), zap.Error(err))
		jobs = nil
		e, err = d.see(ctx, d.Config(), o.VCenter, false, 0)
	}
	if err != nil {
		return err
	}
	var members []inventory.Member
	var seen []catalog.VM
	for _, m := range e.Members {
		if m.InstanceUUID != "" && !m.Template {
			members, seen = append(members, m), append(seen, ofMember(o.VCenter, m))
		}
	}
	if seen, err = d.Catalog.SawVMs(ctx, o.VCenter, seen); err != nil {
		return err
	}
	taken, err := d.Catalog.TakeIn(ctx, o, catalog.Inventory{
		At: at, Installation: d.Installation, Before: d.Before, Epoch: d.Epoch, VMs: seenVMs(members, seen),
	})
	if err != nil {
		return err
	}
	d.tell(o.VCenter, taken)
	if jobs != nil {
		if err := d.Catalog.Exclude(ctx, o, excluded(e, jobs, seen)); err != nil {
			return err
		}
	}
	if err := d.settle(ctx, o); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.surveyed[o.VCenter] = true
	return nil
}

// seenVMs brings what an inventory shows to the catalog; both lists are in the same order.
func seenVMs(members []inventory.Member, vms []catalog.VM) []catalog.SeenVM {
	all := make([]catalog.SeenVM, len(members))
	for n, m := range members {
		all[n] = catalog.SeenVM{ID: vms[n].ID, Moref: m.Moref, ConsolidationNeeded: m.ConsolidationNeeded}
		for _, s := range m.Snapshots {
			run, epoch, ours := backup.ParseSnapshotName(s.Name)
			if !ours {
				continue
			}
			found := catalog.SeenSnapshot{Name: s.Name, Moref: s.Moref, RunID: run, Epoch: epoch, Created: s.Created}
			if mark, ok := ReadMark(s.Description); ok && mark.RunID == run && mark.Epoch == epoch {
				found.Installation, found.Keep = mark.Installation, mark.Keep
			}
			all[n].Snapshots = append(all[n].Snapshots, found)
		}
	}
	return all
}

// tell says what was found, once.
func (d *Daemon) tell(vcenter string, t catalog.Taken) {
	for _, s := range t.New {
		what := "a snapshot of ours that no run wants will be removed (SF2304)"
		if s.State == catalog.Foreign {
			what = "a snapshot has a name of our form and no proof that it is ours: it is left alone"
		}
		if s.State == catalog.SnapshotInUse {
			what = "a snapshot of ours was to be kept: it is removed when its time has come"
		}
		d.Log.Warn(what, zap.String("vcenter", vcenter), zap.String("vm_moref", s.VMMoref), zap.String("snapshot", s.Name), zap.String("proof", s.Proof))
	}
	if t.Behind != "" {
		d.Log.Error("the database is older than what is outside: schedules wait for all inventories (SF1906)", zap.String("snapshot", t.Behind))
	}
}

// settle takes the vCenter off what has to be reconciled.
func (d *Daemon) settle(ctx context.Context, o catalog.Owner) error {
	r, err := d.Catalog.Reconciliation(ctx)
	if err != nil || r.Why == "" {
		return err
	}
	done, err := d.Catalog.Compared(ctx, o, d.vcenters())
	if done {
		d.Log.Warn("the database knows again which snapshots are outside: schedules fire. Not known are the runs and sessions with writers since its copy, and agents that lie in guests")
	}
	return err
}

func (d *Daemon) vcenters() []string {
	var all []string
	for _, v := range d.Config().VCenters {
		all = append(all, v.Name)
	}
	return all
}

// waits says whether a job may not fire yet: what is outside on one of its vCenters has to be known first.
func (d *Daemon) waits(ctx context.Context, j catalog.Job) (bool, error) {
	s, err := readSpec(j)
	if err != nil {
		return false, err
	}
	of := s.Select.VCenters
	if len(of) == 0 {
		of = d.vcenters()
	}
	r, err := d.Catalog.Reconciliation(ctx)
	return len(r.Open(of...)) > 0, err
}

// compared says whether this process has compared a vCenter's inventory with the ledger, which may show that the database is old.
func (d *Daemon) compared(vcenter string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.surveyed[vcenter]
}

// selector is what a job selects by.
type selector struct {
	selection.Selector
	job string
}

// selectors are those of all jobs that take VMs of a vCenter.
func (d *Daemon) selectors(ctx context.Context, vcenter string) ([]selector, error) {
	jobs, err := d.Catalog.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	all := []selector{}
	for _, j := range jobs {
		s, err := readSpec(j)
		if err != nil {
			return nil, err
		}
		if of := s.Select.VCenters; len(of) == 0 || slices.Contains(of, vcenter) {
			all = append(all, selector{selectorOf(s.Select), j.Name})
		}
	}
	return all, nil
}

// excluded are the VMs that only exclusions keep out of a job, by VM, with the first job that does.
func excluded(e inventory.Estate, jobs []selector, vms []catalog.VM) map[string]string {
	out, in := map[string]string{}, map[string]bool{}
	for _, j := range jobs {
		r := selection.Select(e, j.Selector, nil)
		for _, c := range r.Taken {
			in[c.VM.InstanceUUID] = true
		}
		for _, c := range r.LeftOut {
			if _, known := out[c.VM.InstanceUUID]; c.Excluded() && !known {
				out[c.VM.InstanceUUID] = j.job
			}
		}
	}
	by := map[string]string{}
	for _, v := range vms {
		if job := out[v.InstanceUUID]; job != "" && !in[v.InstanceUUID] {
			by[v.ID] = job
		}
	}
	return by
}
