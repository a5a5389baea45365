package metrics

import (
	"context"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// DaemonOptions are what the metrics of a daemon are made of. All are needed.
type DaemonOptions struct {
	Budget  freezewindow.Budget
	Version string
	// Fleet reads the database. It is called by a scrape, at most every ten seconds and for at most three.
	Fleet func(context.Context) (Fleet, error)
	// Process is what the daemon's process knows by itself. It must not block.
	Process func() Process
}

// Daemon are the metrics of a daemon: those of its runs, and what its process and its database know. It is safe for
// concurrent use and needs no closing. The counters begin anew with each start.
type Daemon struct {
	*Metrics
	fleet *fleet

	jobRuns, jobMissed, requests, recoveries *prometheus.CounterVec
	jobDuration, task                        *prometheus.HistogramVec
	reloaded, reloadedAt, degraded           prometheus.Gauge

	mu   sync.Mutex
	jobs map[string]bool
}

// NoJob is the job's name of a run that somebody started without one.
const NoJob = "(none)"

// NewDaemon makes the metrics of a daemon.
func NewDaemon(o DaemonOptions) *Daemon {
	single := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	d := &Daemon{
		Metrics: ofRuns(o.Budget), fleet: newFleet(o), jobs: map[string]bool{},
		jobRuns:     counter("job_runs_total", "Runs that have come to their end, by job and how they ended; skipped ones never began.", "job", "result"),
		jobDuration: histogram("job_run_duration_seconds", "How long runs took from their first start to their end.", jobBuckets(), "job"),
		jobMissed:   counter("job_runs_missed_total", "Ticks of a schedule for which there was no run.", "job"),
		requests:    counter("vsphere_requests_total", "Calls of vCenter, by what it answered: ok or a code of the error catalogue.", "vcenter", "method", "code"),
		recoveries:  counter("recovery_actions_total", "Things that a dead run had left and that were taken away, by their kind.", "action"),
		task:        histogram("vsphere_task_duration_seconds", "How long tasks of vCenter waited and worked, by vCenter's own clock.", taskBuckets(), "task", "stage"),
		reloaded:    single("config_last_reload_successful", "Whether the configuration could be used when it was read last."),
		reloadedAt:  single("config_last_reload_success_timestamp_seconds", "When a configuration was put in force last."),
		degraded:    single("config_degraded", "Whether the last good configuration is in force instead of the file's."),
	}
	build := gauge("build_info", "Always 1; the labels say what runs.", "version", "revision", "goversion")
	build.WithLabelValues(o.Version, revision(), runtime.Version()).Set(1)
	d.registry.MustRegister(d.fleet, d.jobRuns, d.jobDuration, d.jobMissed, d.requests, d.recoveries, d.task, d.reloaded, d.reloadedAt, d.degraded, build)
	for _, a := range actions() {
		d.recoveries.WithLabelValues(a)
	}
	for _, t := range tasks() {
		for _, stage := range []string{"queued", "running"} {
			d.task.WithLabelValues(t, stage)
		}
	}
	d.SetJobs(nil)
	return d
}

// revision is the commit that the program was built from, as far as the build knows it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}

// Handler answers scrapes, in the text format or as OpenMetrics.
func (d *Daemon) Handler() http.Handler {
	serve := promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.fleet.refresh(r.Context())
		serve.ServeHTTP(w, r)
	})
}

// SetJobs says which jobs there are: each has all its counters from now on, and those of jobs that are gone have none.
func (d *Daemon) SetJobs(names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := map[string]bool{NoJob: true}
	for _, name := range names {
		now[utf8(name)] = true
	}
	for name := range d.jobs {
		if !now[name] {
			gone := prometheus.Labels{"job": name}
			d.jobRuns.DeletePartialMatch(gone)
			d.jobDuration.DeletePartialMatch(gone)
			d.jobMissed.DeletePartialMatch(gone)
		}
	}
	for name := range now {
		for _, result := range jobResults() {
			d.jobRuns.WithLabelValues(name, result)
		}
		d.jobDuration.WithLabelValues(name)
		d.jobMissed.WithLabelValues(name)
	}
	d.jobs = now
}

// job is the label of a job; that of one that is not configured any more is other.
func (d *Daemon) job(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name = utf8(name); d.jobs[name] {
		return name
	}
	return other
}

// Observe takes over the figures of one attempt of a run that is over. vcenter is the vCenter's name in the configuration.
func (d *Daemon) Observe(vcenter string, r backup.Result) {
	d.Metrics.Observe(vcenter, r)
	d.fleet.observe(vcenter, r)
}

// Finished counts a run that has come to its end; took is from its first start, 0 when it never began.
func (d *Daemon) Finished(job string, outcome backup.Outcome, took time.Duration) {
	job = d.job(job)
	d.jobRuns.WithLabelValues(job, known(results(), string(outcome))).Inc()
	if took > 0 {
		d.jobDuration.WithLabelValues(job).Observe(took.Seconds())
	}
}

// Fired counts what became of a job's tick.
func (d *Daemon) Fired(job string, skipped, missed int) {
	job = d.job(job)
	d.jobRuns.WithLabelValues(job, "skipped").Add(float64(skipped))
	d.jobMissed.WithLabelValues(job).Add(float64(missed))
}

// Called counts one call of a vCenter.
func (d *Daemon) Called(vcenter, method, code string) {
	d.requests.WithLabelValues(utf8(vcenter), method, code).Inc()
}

// TaskEnded takes over how long a task of vCenter waited and worked.
func (d *Daemon) TaskEnded(task string, queued, running time.Duration) {
	task = known(tasks(), task)
	d.task.WithLabelValues(task, "queued").Observe(queued.Seconds())
	d.task.WithLabelValues(task, "running").Observe(running.Seconds())
}

// Recovered counts one thing that was taken away after a dead run.
func (d *Daemon) Recovered(kind string) { d.recoveries.WithLabelValues(known(actions(), kind)).Inc() }

// Configured says how the reading of the configuration went. degraded is true while the last good one stands in for the file's.
func (d *Daemon) Configured(ok, degraded bool) {
	d.reloaded.Set(flag(ok))
	d.degraded.Set(flag(degraded))
	if ok {
		d.reloadedAt.SetToCurrentTime()
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// writers are the names of the known writers.
func writers() []string {
	var all []string
	for _, w := range advice.Writers() {
		all = append(all, w.Name)
	}
	return append(all, other)
}
