package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/metrics"
)

// fleet reads the database for a scrape.
func (s *service) fleet(ctx context.Context) (metrics.Fleet, error) {
	f, err := readFleet(ctx, s.catalog, s.daemon.Config(), s.now()())
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the database was not read for the metrics", zap.Error(err))
	}
	return f, err
}

// readFleet reads what the database knows of everything.
func readFleet(ctx context.Context, c *catalog.Catalog, conf *config.Config, now time.Time) (metrics.Fleet, error) {
	fleet := metrics.Fleet{PerVM: conf.Metrics.PerVM}
	read, err := c.Figures(ctx)
	if err != nil {
		return fleet, err
	}
	leaks, err := c.Leaks(ctx)
	if err != nil {
		return fleet, err
	}
	if len(leaks) > 0 { // the most first
		fleet.Leaked = leaks[0].Ours + leaks[0].Foreign
	}
	fleet.Leftovers = read.Leftovers
	jobs, since := map[string][]string{}, map[string]time.Time{}
	for _, j := range read.Jobs {
		told := metrics.Job{Name: j.Name, LastSuccess: j.LastOK}
		if j.Enabled {
			told.Next = j.Next
		}
		fleet.Jobs = append(fleet.Jobs, told)
		since[j.Name] = lastButOne(j.Job, now)
		for _, vm := range j.Took {
			jobs[vm] = append(jobs[vm], j.Name)
		}
	}
	fleet.VMs = make([]metrics.VM, 0, len(read.VMs))
	for _, v := range read.VMs {
		fleet.VMs = append(fleet.VMs, metrics.VM{
			VCenter: v.VCenter, Name: v.Name, Moref: v.Moref, InstanceUUID: v.InstanceUUID, Protection: protection(v.LastOK, v.ExcludedBy, jobs[v.ID], since),
			Level: v.Level, LastSuccess: v.LastOK,
		})
	}
	fleet.Snapshots = snapshotsOf(conf, read.Snapshots)
	return fleet, nil
}

// snapshotsOf adds the vCenters without a snapshot: a gauge that is there only when something is wrong is no use to an alert.
func snapshotsOf(conf *config.Config, found []catalog.SnapshotFigures) []metrics.Snapshots {
	var all []metrics.Snapshots
	told := map[string]bool{}
	for _, s := range found {
		told[s.VCenter] = true
		all = append(all, metrics.Snapshots{VCenter: s.VCenter, Open: s.Open, Orphans: s.Orphans, Oldest: s.Oldest})
	}
	for _, v := range conf.VCenters {
		if !told[v.Name] {
			all = append(all, metrics.Snapshots{VCenter: v.Name})
		}
	}
	return all
}

// process is what this process knows for a scrape.
func (s *service) process() metrics.Process {
	p := metrics.Process{Sessions: s.rooms.up(), Consolidation: s.daemon.Consolidation(), AuditFailures: s.trail.Failures()}
	for _, w := range s.daemon.Windows() {
		p.Windows = append(p.Windows, w.Since)
	}
	var c guest.ReverseCounts
	if s.rooms.reverse != nil {
		c = s.rooms.reverse.Reverser.Counts()
	}
	p.Dials = map[string]uint64{"proved": c.Proved, "stranger": c.Strangers, "unexpected": c.Unexpected, "garbled": c.Garbled, "crowded": c.Crowded}
	return p
}
