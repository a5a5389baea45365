package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// The bars of the daemon.
const (
	planVMs, planJobs, planVCenters = 20_000, 40, 8
	planBar                         = 10 * time.Second
	planMemoryBarMB                 = 400
	planRuns                        = 20 // limits.vcenter.runs, its default
	// planWatch is how long the runs are watched then.
	planWatch = 10 * time.Second

	idleVMs         = 50
	idleRuns        = 4
	idleWindows     = 2
	idleBarPercent  = 2
	idleMemoryBarMB = 100
	// idleSettle lets a start, or the last run, come to rest; idleTime is how long the idle daemon is watched.
	idleSettle, idleTime = 10 * time.Second, 20 * time.Second

	oneQueueBar, fourQueuesBar = 200, 500

	flightBar    = 500
	flightOwnBar = 100 * time.Millisecond
)

// daemonFigures is daemon.json. MB are 10^6 bytes.
type daemonFigures struct {
	// PlannedVMs in PlannedJobs on 8 vCenters are due in one minute. PlanSeconds is from its first moment until the last of
	// their runs was queued, durably; PlanPeakMB the most memory (VmHWM) that the daemon had had by then.
	PlannedVMs  int     `json:"planned_vms"`
	PlannedJobs int     `json:"planned_jobs"`
	PlanSeconds float64 `json:"plan_seconds"`
	PlanPeakMB  float64 `json:"plan_peak_mb"`
	// PlanRuns is how many of those runs were at work at once on one vCenter, at most, until 10 s later.
	PlanRuns int `json:"plan_runs_at_once"`
	// IdleCPUPercent is of one core, over IdleSeconds, with one vCenter of IdleVMs VMs; IdleMB is the memory (VmRSS) then.
	IdleVMs        int     `json:"idle_vms"`
	IdleSeconds    float64 `json:"idle_seconds"`
	IdleCPUPercent float64 `json:"idle_cpu_percent"`
	IdleMB         float64 `json:"idle_mb"`
	// AfterRunsMB is the same after one run of each of those VMs, PeakMB the most that there was on the way.
	AfterRunsMB float64 `json:"after_runs_mb"`
	PeakMB      float64 `json:"runs_peak_mb"`
	// RunsAtOnce and WindowsAtOnce are how many of those runs were at work at once, and how many snapshot tasks the lab had.
	RunsAtOnce    int `json:"runs_at_once"`
	WindowsAtOnce int `json:"windows_at_once"`
	// Deliveries are of runs that do nothing but end, on SQLite with synchronous=FULL, a second.
	OneQueue   float64 `json:"deliveries_per_second_one_queue"`
	FourQueues float64 `json:"deliveries_per_second_four_queues"`
	// FlightWindows are windows of one node, FlightTogether how many guests were held at once at most, FlightOver how many
	// were over the budget or proved less than they should. The rest is this node's own part of each hold: FROZEN received to
	// call sent, and push seen to THAW sent.
	FlightWindows     int     `json:"flight_windows"`
	FlightTogether    int     `json:"flight_together"`
	FlightOver        int     `json:"flight_over_budget"`
	FlightOwnMSMedian float64 `json:"flight_own_ms_median"`
	FlightOwnMS       float64 `json:"flight_own_ms_p99"`
	FlightOwnMSMax    float64 `json:"flight_own_ms_max"`
	// RecoveredRuns were open when their process was killed; RecoverySeconds is from the daemon's start until the last of their
	// guests was cleared and the last of their snapshots gone.
	RecoveredRuns   int                `json:"recovered_runs"`
	RecoverySeconds float64            `json:"recovery_seconds"`
	Bars            map[string]float64 `json:"bars"`
}

func (f *daemonFigures) missed() error {
	var errs []error
	miss := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	miss(f.PlanSeconds > f.Bars["plan_seconds"], "%d VMs are planned and queued in %.1f s, more than %.0f", f.PlannedVMs, f.PlanSeconds, f.Bars["plan_seconds"])
	miss(f.PlanPeakMB > planMemoryBarMB, "the daemon needs %.0f MB to plan %d VMs, more than %d", f.PlanPeakMB, f.PlannedVMs, planMemoryBarMB)
	miss(f.PlanRuns > planRuns || f.PlanRuns == 0, "%d runs of one vCenter were at work at once, not 1 to %d", f.PlanRuns, planRuns)
	miss(f.RunsAtOnce != idleRuns, "%d runs were at work at once, not %d", f.RunsAtOnce, idleRuns)
	miss(f.WindowsAtOnce != idleWindows, "%d windows were open at once, not %d", f.WindowsAtOnce, idleWindows)
	miss(f.IdleCPUPercent > idleBarPercent, "the idle daemon takes %.1f %% of a core, more than %d", f.IdleCPUPercent, idleBarPercent)
	miss(f.IdleMB > idleMemoryBarMB, "the idle daemon needs %.0f MB, more than %d", f.IdleMB, idleMemoryBarMB)
	miss(f.AfterRunsMB > idleMemoryBarMB, "the idle daemon needs %.0f MB after its runs, more than %d", f.AfterRunsMB, idleMemoryBarMB)
	miss(f.OneQueue < oneQueueBar, "one queue delivers %.0f runs a second, less than %d", f.OneQueue, oneQueueBar)
	miss(f.RecoverySeconds > f.Bars["recovery_seconds"], "%d open runs are recovered in %.1f s, more than %.0f", f.RecoveredRuns, f.RecoverySeconds, f.Bars["recovery_seconds"])
	miss(f.FlightTogether < flightBar, "%d windows were in flight at once, fewer than %d", f.FlightTogether, flightBar)
	miss(f.FlightOver > 0, "%d of %d windows were over the budget, or proved less than they should", f.FlightOver, f.FlightWindows)
	miss(f.FlightOwnMS > f.Bars["flight_own_ms_p99"], "the own part of a window is %.1f ms in flight with others, more than %.0f", f.FlightOwnMS, f.Bars["flight_own_ms_p99"])
	miss(f.FourQueues < fourQueuesBar, "four queues deliver %.0f runs a second, less than %d", f.FourQueues, fourQueuesBar)
	return errors.Join(errs...)
}

// rows are what is printed: what, figure, bar.
func (f *daemonFigures) rows() [][3]string {
	mb := func(v float64) string { return fmt.Sprintf("%.0f MB", v) }
	return [][3]string{
		{
			fmt.Sprintf("%d VMs of %d jobs planned and queued", f.PlannedVMs, f.PlannedJobs), fmt.Sprintf("%.1f s", f.PlanSeconds),
			fmt.Sprintf("<= %.0f s", f.Bars["plan_seconds"]),
		},
		{"  the daemon's memory at its peak", mb(f.PlanPeakMB), "<= " + mb(planMemoryBarMB)},
		{"  runs of one vCenter at once", fmt.Sprint(f.PlanRuns), fmt.Sprintf("<= %d", planRuns)},
		{"idle daemon, of one core", fmt.Sprintf("%.2f %%", f.IdleCPUPercent), fmt.Sprintf("<= %d %%", idleBarPercent)},
		{"  its memory", mb(f.IdleMB), "<= " + mb(idleMemoryBarMB)},
		{fmt.Sprintf("  its memory after %d runs", f.IdleVMs), mb(f.AfterRunsMB), "<= " + mb(idleMemoryBarMB)},
		{"  at its peak", mb(f.PeakMB), ""},
		{"  runs at once", fmt.Sprint(f.RunsAtOnce), fmt.Sprint(idleRuns)},
		{"  snapshot tasks at once", fmt.Sprint(f.WindowsAtOnce), fmt.Sprint(idleWindows)},
		{"runs delivered a second, one queue", fmt.Sprintf("%.0f", f.OneQueue), fmt.Sprintf(">= %d", oneQueueBar)},
		{"  four queues", fmt.Sprintf("%.0f", f.FourQueues), fmt.Sprintf(">= %d", fourQueuesBar)},
		{"windows in flight at once", fmt.Sprint(f.FlightTogether), fmt.Sprintf(">= %d", flightBar)},
		{"  over the budget", fmt.Sprint(f.FlightOver), "0"},
		{"  own part of the hold, p99", fmt.Sprintf("%.1f ms", f.FlightOwnMS), fmt.Sprintf("<= %.0f ms", f.Bars["flight_own_ms_p99"])},
		{"  its median", fmt.Sprintf("%.1f ms", f.FlightOwnMSMedian), ""},
		{"  its worst", fmt.Sprintf("%.1f ms", f.FlightOwnMSMax), ""},
		{fmt.Sprintf("%d open runs recovered after kill -9", f.RecoveredRuns), fmt.Sprintf("%.1f s", f.RecoverySeconds), fmt.Sprintf("<= %.0f s", f.Bars["recovery_seconds"])},
	}
}

// measureDaemon measures the daemon, each figure with a process and a lab of its own.
func measureDaemon(ctx context.Context, o options) (daemonFigures, error) {
	f := daemonFigures{PlannedVMs: planVMs, PlannedJobs: planJobs, IdleVMs: idleVMs, IdleSeconds: idleTime.Seconds(), Bars: map[string]float64{
		"plan_seconds": planBar.Seconds(), "plan_peak_mb": planMemoryBarMB, "idle_cpu_percent": idleBarPercent, "idle_mb": idleMemoryBarMB,
		"plan_runs_at_once": planRuns, "runs_at_once": idleRuns, "windows_at_once": idleWindows,
		"deliveries_per_second_one_queue": oneQueueBar, "deliveries_per_second_four_queues": fourQueuesBar,
		"recovery_seconds": recoveryBar.Seconds(), "flight_together": flightBar, "flight_over_budget": 0, "flight_own_ms_p99": milliseconds(flightOwnBar),
	}}
	for _, measure := range []func(context.Context, options) error{f.plan, f.idle, f.deliver, f.fly, f.recover} {
		if err := measure(ctx, o); err != nil {
			return f, err
		}
	}
	return f, nil
}

// plan has all jobs of a large estate due in the same minute. The lab's VMs are empty, so that the runs that begin meanwhile fail
// at once: they are more, and keep the daemon busier, than any others.
func (f *daemonFigures) plan(ctx context.Context, o options) (err error) {
	s, err := newSite(o, "daemon-plan")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	const folders, each = planJobs / planVCenters, planVMs / planJobs
	var jobs string
	for v := range planVCenters {
		scenario := fmt.Sprintf("name: plan-%d\nseed: %d\nvms:\n", v, v+1)
		for n := range folders {
			scenario += fmt.Sprintf("  - {name: \"web-%d-###\", count: %d, folder: folder-%d}\n", n, each, n)
			jobs += fmt.Sprintf("  - name: job-%d-%d\n    select: {vcenters: [%s], folders: [folder-%d]}\n", v, n, vcenterName(v), n)
			jobs += "    schedule: {cron: \"CRON\", zone: UTC}\n"
		}
		if err := s.add(ctx, scenario); err != nil {
			return err
		}
	}
	if err := s.configure(o, ""); err != nil {
		return err
	}
	d, err := s.start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.kill()) }()
	if err := d.knows(ctx, planVMs); err != nil {
		return err
	}
	due := time.Now().UTC().Truncate(time.Minute).Add(time.Minute)
	if time.Until(due) < 10*time.Second { // the jobs are taken over first
		due = due.Add(time.Minute)
	}
	if err := s.configure(o, "jobs:\n"+withCron(jobs, due)); err != nil {
		return err
	}
	if err := d.process.Process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("have the daemon read its configuration again: %w", err)
	}
	var last time.Time
	err = d.until(ctx, "all jobs are fired", func(context.Context) bool {
		queued := 0
		for _, e := range d.log.of("runs made") {
			queued, last = queued+e.Queued, e.At
		}
		return queued == planVMs
	})
	if err != nil {
		return err
	}
	f.PlanSeconds = last.Sub(due).Seconds()
	if _, f.PlanPeakMB, err = d.size(); err != nil {
		return err
	}
	err = pause(ctx, planWatch)
	f.PlanRuns = d.log.together()
	return err
}

// idle watches a daemon that has nothing to do, before its first run and after some.
func (f *daemonFigures) idle(ctx context.Context, o options) (err error) {
	s, err := newSite(o, "daemon-idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	scenario := fmt.Sprintf("name: idle\nseed: 1\ndefaults: {guest: scripted, snapshot: {queue: 20ms, run: 300ms}}\nvms:\n  - {name: \"web-##\", count: %d, user: root, password: %s}\n", idleVMs, guestPassword)
	if err := s.add(ctx, scenario); err != nil {
		return err
	}
	if err := s.configure(o, fmt.Sprintf("limits: {vcenter: {runs: %d, window: %d}}\njobs:\n  - {name: all, select: {names: [\"*\"]}, retry: {attempts: 0}}\n", idleRuns, idleWindows)); err != nil {
		return err
	}
	d, err := s.start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.kill()) }()
	if err := errors.Join(d.knows(ctx, idleVMs), pause(ctx, idleSettle)); err != nil {
		return err
	}
	before, err := d.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, idleTime); err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	f.IdleCPUPercent = 100 * (after - before).Seconds() / idleTime.Seconds()
	if f.IdleMB, _, err = d.size(); err != nil {
		return err
	}
	if _, err := d.client.FireJob(ctx, "all", "bench-idle"); err != nil {
		return err
	}
	err = d.until(ctx, "all runs have ended", func(context.Context) bool { return len(d.log.of("run ended")) >= idleVMs })
	if err != nil {
		return err
	}
	if err := pause(ctx, idleSettle); err != nil {
		return err
	}
	f.RunsAtOnce = d.log.together()
	a, err := s.worlds[0].ask("web-01", "")
	if err != nil {
		return err
	}
	f.WindowsAtOnce = a.Most
	f.AfterRunsMB, f.PeakMB, err = d.size()
	return err
}

// withCron sets the schedule of all jobs to one minute of the day.
func withCron(jobs string, due time.Time) string {
	return strings.ReplaceAll(jobs, "CRON", fmt.Sprintf("%d %d * * *", due.Minute(), due.Hour()))
}
