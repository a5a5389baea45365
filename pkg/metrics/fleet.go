package metrics

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stillframe/stillframe/pkg/backup"
)

// Fleet is what the database knows at one instant.
type Fleet struct {
	Jobs []Job
	VMs  []VM
	// Snapshots has a row for each vCenter, also for one without a snapshot.
	Snapshots []Snapshots
	// Leaked is the most sessions with writers that one VM has open, Leftovers how much of ours still lies in guests.
	Leaked, Leftovers int
	// PerVM says whether gauges of single VMs are wanted.
	PerVM bool
}

// Job is one job. LastSuccess is zero when there was none, Next when it does not fire.
type Job struct {
	Name              string
	LastSuccess, Next time.Time
}

// VM is one VM that is there. LastSuccess is zero when there is no good point; Level is what that point proved.
type VM struct {
	VCenter, Name, Moref, InstanceUUID string
	// Protection is protected, unprotected, excluded or overdue.
	Protection, Level string
	LastSuccess       time.Time
}

// Snapshots are those of ours on one vCenter that may be there. Oldest is zero when there is none.
type Snapshots struct {
	VCenter       string
	Open, Orphans int
	Oldest        time.Time
}

// Process is what the daemon's process knows by itself.
type Process struct {
	// Windows are the beginnings of the windows in which a guest may be held now, the oldest first.
	Windows []time.Time
	// Sessions says of the vCenters that this process has spoken to whether they answered last.
	Sessions map[string]bool
	// Consolidation counts the VMs of each vCenter whose disks need it, as its inventory was seen last.
	Consolidation map[string]int
	AuditFailures uint64
	// Dials counts the connections that agents, or others, made to us, by what became of them: proved, stranger, unexpected,
	// garbled or crowded.
	Dials map[string]uint64
}

const (
	// fleetAge is how old what the database said may be, fleetLimit how long a scrape waits for it. Prometheus gives up after 10 s.
	fleetAge   = 10 * time.Second
	fleetLimit = 3 * time.Second
	// perVMLimit is how many VMs have gauges of their own.
	perVMLimit = 20_000
)

// metric is one gauge or counter that the collector tells.
type metric struct {
	name, help string
	labels     []string
}

// All that the collector tells.
var (
	leakedSessions = metric{"vss_leaked_sessions", "Sessions with VSS writers that were never ended: the most that one VM has (event 12289).", nil}
	lastHold       = metric{"vm_freeze_window_last_seconds", "The last hold of a VM, as freeze_window_duration_seconds counts it.", []string{"vcenter", "vm", "moref"}}
	lastSuccess    = metric{"vm_last_success_timestamp_seconds", "When a VM's last run ended that did all it should.", []string{"vcenter", "vm", "moref", "consistency"}}
	suppressed     = metric{"per_vm_metrics_suppressed", "Whether the gauges of single VMs are left out.", nil}
	vmsByState     = metric{"vms", "VMs by how they are protected.", []string{"vcenter", "state"}}
	jobSuccess     = metric{"job_last_success_timestamp_seconds", "When a run of the job ended last that did all it should.", []string{"job"}}
	jobNext        = metric{"job_next_run_timestamp_seconds", "When the job is due; there is none while it is paused.", []string{"job"}}
	snapshotsOpen  = metric{"snapshots_open", "Snapshots of ours that may be there.", []string{"vcenter"}}
	orphans        = metric{"orphan_snapshots", "Snapshots of ours that no run needs.", []string{"vcenter"}}
	oldest         = metric{"snapshot_oldest_timestamp_seconds", "When the oldest snapshot of ours was made.", []string{"vcenter"}}
	consolidation  = metric{"vms_consolidation_needed", "VMs whose disks need consolidation.", []string{"vcenter"}}
	session        = metric{"vsphere_session_up", "Whether a vCenter answered last.", []string{"vcenter"}}
	active         = metric{"freeze_windows_active", "Windows in which a guest may be held now.", nil}
	oldestWindow   = metric{"freeze_window_oldest_start_timestamp_seconds", "When the oldest open window began; 0 when none is open.", nil}
	leftovers      = metric{"guest_leftovers", "Folders and processes of ours that still have to leave a guest.", nil}
	inARow         = metric{"vss_writer_consecutive_failures", "In how many windows in a row a writer was not well, the most of all VMs.", []string{"writer"}}
	auditFailures  = metric{"audit_write_failures_total", "Entries that the audit log could not take.", nil}
	dials          = metric{"guest_dials_total", "Connections to the address at which agents dial, by what became of them.", []string{"result"}}
	readAt         = metric{"catalog_read_timestamp_seconds", "When the database was read last for these metrics; 0 before the first time.", nil}
)

// fleet collects what is not counted as it happens. While the database does not answer it tells what it knew last: a time
// that stands still raises the alerts that rest on it, a series that is gone would silence them.
type fleet struct {
	read    func(context.Context) (Fleet, error)
	process func() Process
	known   map[string]*prometheus.Desc
	// reading is held by the one scrape that reads the database.
	reading chan struct{}

	mu   sync.Mutex
	last Fleet
	at   time.Time
	// seen is what this process saw of single VMs.
	seen map[vmKey]*seen
}

type vmKey struct{ vcenter, instanceUUID string }

// keyOf is the key of a VM; an inventory and a run may write its UUID differently.
func keyOf(vcenter, instanceUUID string) vmKey { return vmKey{vcenter, strings.ToLower(instanceUUID)} }

// seen is what the windows of one VM told.
type seen struct {
	held   float64
	holds  bool
	leaks  int
	failed map[string]int // windows in a row, by the writer's name
}

func newFleet(o DaemonOptions) *fleet {
	f := &fleet{read: o.Fleet, process: o.Process, known: map[string]*prometheus.Desc{}, reading: make(chan struct{}, 1), seen: map[vmKey]*seen{}}
	for _, m := range []metric{
		leakedSessions, lastHold, lastSuccess, suppressed, vmsByState, jobSuccess, jobNext, snapshotsOpen, orphans, oldest, consolidation, session, active,
		oldestWindow, leftovers, inARow, auditFailures, dials, readAt,
	} {
		f.known[m.name] = prometheus.NewDesc(prefix+m.name, m.help, m.labels, nil)
	}
	return f
}

// refresh reads the database unless that was done a short time ago. When it does not answer in time, what is known stays.
func (f *fleet) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fleetLimit)
	defer cancel()
	select {
	case f.reading <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-f.reading }()
	f.mu.Lock()
	young := !f.at.IsZero() && time.Since(f.at) < fleetAge
	f.mu.Unlock()
	if young {
		return
	}
	read, err := f.read(ctx)
	if err != nil {
		return // the reader tells it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.at = read, time.Now()
	there := make(map[vmKey]bool, len(read.VMs))
	for _, v := range read.VMs {
		there[keyOf(v.VCenter, v.InstanceUUID)] = true
	}
	for key := range f.seen {
		if !there[key] {
			delete(f.seen, key)
		}
	}
}

// observe keeps what the last window of a VM told.
func (f *fleet) observe(vcenter string, r backup.Result) {
	if len(r.Window.Phases) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := keyOf(vcenter, r.VM.InstanceUUID)
	s := f.seen[key]
	if s == nil {
		s = &seen{failed: map[string]int{}}
		f.seen[key] = s
	}
	s.held, s.holds = hold(r.Window)
	s.leaks = leaks(r)
	for _, w := range r.Writers {
		if name := writer(w); w.Failed() {
			s.failed[name]++
		} else {
			delete(s.failed, name)
		}
	}
}

// Describe implements prometheus.Collector.
func (f *fleet) Describe(to chan<- *prometheus.Desc) {
	for _, d := range f.known {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (f *fleet) Collect(to chan<- prometheus.Metric) {
	now := f.process()
	f.mu.Lock()
	defer f.mu.Unlock()
	t := teller{f.known, to}
	t.process(now)
	t.at(readAt, f.at)
	t.vms(f.last, f.seen)
	leaked, failed := f.last.Leaked, map[string]int{}
	for _, s := range f.seen {
		leaked = max(leaked, s.leaks)
		for name, n := range s.failed {
			failed[name] = max(failed[name], n)
		}
	}
	t.gauge(leakedSessions, float64(leaked))
	for _, name := range writers() {
		t.gauge(inARow, float64(failed[name]), name)
	}
	t.gauge(leftovers, float64(f.last.Leftovers))
	for _, j := range f.last.Jobs {
		t.since(jobSuccess, j.LastSuccess, utf8(j.Name))
		t.since(jobNext, j.Next, utf8(j.Name))
	}
	for _, s := range f.last.Snapshots {
		t.gauge(snapshotsOpen, float64(s.Open), utf8(s.VCenter))
		t.gauge(orphans, float64(s.Orphans), utf8(s.VCenter))
		t.since(oldest, s.Oldest, utf8(s.VCenter))
	}
}

// teller writes metrics.
type teller struct {
	known map[string]*prometheus.Desc
	to    chan<- prometheus.Metric
}

func (t teller) gauge(m metric, value float64, labels ...string) {
	t.to <- prometheus.MustNewConstMetric(t.known[m.name], prometheus.GaugeValue, value, labels...)
}

func (t teller) counter(m metric, value uint64, labels ...string) {
	t.to <- prometheus.MustNewConstMetric(t.known[m.name], prometheus.CounterValue, float64(value), labels...)
}

// at tells a time, 0 for one that never was.
func (t teller) at(m metric, when time.Time, labels ...string) {
	value := 0.0
	if !when.IsZero() {
		value = float64(when.UnixMilli()) / 1000
	}
	t.gauge(m, value, labels...)
}

// since tells a time that was, or will be.
func (t teller) since(m metric, when time.Time, labels ...string) {
	if !when.IsZero() {
		t.at(m, when, labels...)
	}
}

func (t teller) process(p Process) {
	t.gauge(active, float64(len(p.Windows)))
	var first time.Time
	if len(p.Windows) > 0 {
		first = p.Windows[0]
	}
	t.at(oldestWindow, first)
	for vcenter, up := range p.Sessions {
		t.gauge(session, flag(up), utf8(vcenter))
	}
	for vcenter, n := range p.Consolidation {
		t.gauge(consolidation, float64(n), utf8(vcenter))
	}
	t.counter(auditFailures, p.AuditFailures)
	for result, n := range p.Dials {
		t.counter(dials, n, result)
	}
}

// vms tells of all VMs together, and of each one unless they are too many. Of two rows that look the same from outside, as
// for the time in which a VM's instance UUID has changed, the better one counts.
func (t teller) vms(f Fleet, saw map[vmKey]*seen) {
	type place struct{ vcenter, state string }
	type shown struct{ vcenter, vm, moref string }
	counts, best := map[place]int{}, map[shown]VM{}
	for _, s := range f.Snapshots { // each vCenter has all its states
		for _, state := range protections() {
			counts[place{s.VCenter, state}] = 0
		}
	}
	each := f.PerVM && len(f.VMs) <= perVMLimit
	for _, v := range f.VMs {
		counts[place{v.VCenter, v.Protection}]++
		if each {
			key := shown{utf8(v.VCenter), utf8(v.Name), utf8(v.Moref)}
			if b, twice := best[key]; !twice || b.LastSuccess.Before(v.LastSuccess) {
				best[key] = v
			}
		}
	}
	for p, n := range counts {
		t.gauge(vmsByState, float64(n), utf8(p.vcenter), p.state)
	}
	for key, v := range best {
		t.since(lastSuccess, v.LastSuccess, key.vcenter, key.vm, key.moref, known(levels(), v.Level))
		if s := saw[keyOf(v.VCenter, v.InstanceUUID)]; s != nil && s.holds {
			t.gauge(lastHold, s.held, key.vcenter, key.vm, key.moref)
		}
	}
	t.gauge(suppressed, flag(!each))
}
