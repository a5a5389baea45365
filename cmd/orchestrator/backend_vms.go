package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/schedule"
)

// The protection of a VM.
const (
	protected   = "protected"
	unprotected = "unprotected" // no job took it when it fired last
	excluded    = "excluded"    // neither, because a job excludes it
	overdue     = "overdue"     // there is no good point, or none since the last tick but one of a job that takes it
)

// vmsAtOnce is how many VMs are described by one set of statements.
const vmsAtOnce = 500

// fewWindows is how many windows a p95 needs to mean anything.
const fewWindows = 5

// VMs lists by name. The cursor is the id of the last one.
func (b backends) VMs(ctx context.Context, f api.VMFilter, p api.Page) ([]api.VM, string, error) {
	filter := catalog.VMFilter{VCenter: f.VCenter, Limit: vmsAtOnce}
	if f.Job == "" && f.Protection == "" && f.Name == "" {
		filter.Limit = p.Limit + 1
	}
	if p.Cursor != "" {
		after, err := b.catalog.VM(ctx, p.Cursor)
		if err != nil {
			return nil, "", cursor(err)
		}
		filter.After = after
	}
	found, next := []api.VM{}, ""
	err := b.describeAll(ctx, filter, func(v api.VM) bool {
		if !fits(v, f) {
			return true
		}
		if len(found) == p.Limit {
			next = found[p.Limit-1].ID
			return false
		}
		found = append(found, v)
		return true
	})
	if err != nil {
		return nil, "", err
	}
	return found, next, b.addWindows(ctx, found)
}

func fits(v api.VM, f api.VMFilter) bool {
	return (f.Protection == "" || v.Protection.State == f.Protection) && (f.Job == "" || slices.Contains(v.Protection.Jobs, f.Job)) &&
		(f.Name == "" || strings.Contains(strings.ToLower(v.Name), strings.ToLower(f.Name)))
}

// describeAll hands over the VMs of a filter, part by part, until tell wants no more.
func (b backends) describeAll(ctx context.Context, filter catalog.VMFilter, tell func(api.VM) bool) error {
	book, err := b.book(ctx)
	if err != nil {
		return err
	}
	for {
		part, err := b.catalog.VMs(ctx, filter)
		if err != nil {
			return err
		}
		described, err := b.describe(ctx, book, part)
		if err != nil {
			return err
		}
		for _, v := range described {
			if !tell(v) {
				return nil
			}
		}
		if len(part) < filter.Limit {
			return nil
		}
		filter.After = part[len(part)-1]
	}
}

// VM finds one by its id, inventory path, moref, instance UUID or name.
func (b backends) VM(ctx context.Context, ref string) (api.VM, error) {
	v, err := b.catalog.FindVM(ctx, ref)
	if err != nil {
		return api.VM{}, translated(err)
	}
	book, err := b.book(ctx)
	if err != nil {
		return api.VM{}, err
	}
	described, err := b.describe(ctx, book, []catalog.VM{v})
	if err != nil {
		return api.VM{}, err
	}
	return described[0], b.addWindows(ctx, described)
}

// Coverage counts all VMs by their protection.
func (b backends) Coverage(ctx context.Context) (c api.Coverage, err error) {
	err = b.describeAll(ctx, catalog.VMFilter{Limit: vmsAtOnce}, func(v api.VM) bool {
		switch v.Protection.State {
		case protected:
			c.Protected++
		case overdue:
			c.Overdue++
		case excluded:
			c.Excluded++
		default:
			c.Unprotected++
		}
		return true
	})
	return c, err
}

// book is what is known beside the VMs themselves.
type book struct {
	// since is the last tick but one of each job by its name; zero when there are no two.
	since  map[string]time.Time
	leaked map[string]catalog.Leak
	open   map[string]int
}

func (b backends) book(ctx context.Context) (book, error) {
	known := book{map[string]time.Time{}, map[string]catalog.Leak{}, map[string]int{}}
	jobs, err := b.catalog.Jobs(ctx)
	if err != nil {
		return known, err
	}
	for _, j := range jobs {
		known.since[j.Name] = lastButOne(j, b.now())
	}
	leaks, err := b.catalog.Leaks(ctx)
	if err != nil {
		return known, err
	}
	for _, l := range leaks {
		known.leaked[l.VMID] = l
	}
	open, err := b.catalog.OpenSessions(ctx, "")
	for _, s := range open {
		known.open[s.VMID]++
	}
	return known, err
}

// lastButOne is the last tick but one of a job before now, zero when it has none since it was made. A VM that has no good
// point since then missed one whole turn of its job.
func lastButOne(j catalog.Job, now time.Time) time.Time {
	configured := scheduleOf(j)
	if configured == nil {
		return time.Time{}
	}
	s, err := schedule.Parse(configured.Text(), configured.Zone)
	if err != nil {
		return time.Time{}
	}
	const day = 24 * time.Hour
	for _, back := range []time.Duration{2 * time.Hour, 3 * day, 16 * day, 100 * day, 3000 * day} {
		var last, former time.Time
		for t := range s.Ticks(now.Add(-back), now) {
			former, last = last, t
		}
		if !former.IsZero() {
			if former.Before(j.Created) {
				return time.Time{}
			}
			return former.UTC()
		}
	}
	return time.Time{}
}

// describe tells what is known of some VMs but their windows.
func (b backends) describe(ctx context.Context, book book, part []catalog.VM) ([]api.VM, error) {
	ids, points := make([]string, len(part)), make([]string, len(part))
	for n, v := range part {
		ids[n], points[n] = v.ID, v.LastOKRun
	}
	jobs, err := b.catalog.JobsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	levels, err := b.catalog.Levels(ctx, points)
	if err != nil {
		return nil, err
	}
	all := make([]api.VM, 0, len(part))
	for _, v := range part {
		d := api.VM{
			ID: v.ID, Name: v.Name, Path: v.Path, VCenterID: v.VCenter, Moref: v.Moref, InstanceUUID: v.InstanceUUID, GuestFamily: v.GuestFamily,
			Road: v.Road, ConsecutiveFailures: v.ConsecutiveFailures, FirstSeenAt: v.FirstSeen, SeenAt: v.Seen,
			Protection: api.Protection{
				State: protection(v.LastOK, v.ExcludedBy, jobs[v.ID], book.since), Jobs: jobs[v.ID], LastPointAt: when(v.LastOK), LastPointLevel: levels[v.LastOKRun],
				LastApplicationAt: when(v.LastApplication), ExcludedBy: v.ExcludedBy,
			},
		}
		if days, known := v.DaysSinceApplication(b.now()); known {
			d.Protection.DaysSinceApplicationCons = &days
		}
		leak := book.leaked[v.ID]
		d.Sessions = api.Sessions{Open: book.open[v.ID], Leaked: leak.Ours + leak.Foreign}
		if left, known := leak.RunsLeft(); known {
			d.Sessions.RunsLeft = &left
		}
		all = append(all, d)
	}
	return all, nil
}

// addWindows adds what the last windows of some VMs tell. They are many more rows than all else, so only VMs that are shown have it.
func (b backends) addWindows(ctx context.Context, vms []api.VM) error {
	if len(vms) == 0 {
		return nil
	}
	ids := make([]string, len(vms))
	for n, v := range vms {
		ids[n] = v.ID
	}
	holds, err := b.catalog.Holds(ctx, ids)
	for n := range vms {
		if all := holds[vms[n].ID]; len(all) >= fewWindows {
			slices.Sort(all)
			p95 := quantile(all, 95).Seconds()
			vms[n].WindowP95Seconds = &p95
		}
	}
	return err
}

func protection(lastOK time.Time, excludedBy string, jobs []string, since map[string]time.Time) string {
	switch {
	case len(jobs) == 0 && excludedBy != "":
		return excluded
	case len(jobs) == 0:
		return unprotected
	case lastOK.IsZero():
		return overdue
	}
	for _, job := range jobs {
		if lastOK.Before(since[job]) {
			return overdue
		}
	}
	return protected
}

// quantile is by nearest rank; 0 of nothing. sorted is in rising order.
func quantile[T any](sorted []T, percent int) (value T) {
	if len(sorted) == 0 {
		return value
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}
