// Package metrics turns the results of runs into Prometheus metrics.
//
// It is the only package that knows Prometheus. It is told of a run when the run is over, and counts calls of vCenter in memory
// only, so nothing here can lengthen a hold. Every label has a closed set of values, and what is not in the set becomes "other"; no histogram carries the
// name of a VM. docs/metrics.md lists all metrics, and a test holds that page to what is registered.
package metrics

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// softShare is the part of the budget beyond which a hold counts as near its limit.
const softShare = 0.8

// Native histograms beside the classic buckets, for those who scrape them.
const (
	nativeFactor  = 1.1
	nativeBuckets = 160
	nativeReset   = time.Hour
)

// Metrics are all metrics, in a registry of their own: libraries register on the default one. It is safe for concurrent
// use and needs no closing.
type Metrics struct {
	registry *prometheus.Registry
	budget   freezewindow.Budget

	window, phase, rtt              *prometheus.HistogramVec
	disagreement                    prometheus.Histogram
	limit                           *prometheus.GaugeVec
	windows, exceeded, thaws, lates *prometheus.CounterVec
	admissions                      *prometheus.CounterVec
	providerHold                    *prometheus.HistogramVec
	writerFailures                  *prometheus.CounterVec
	deploy, create                  *prometheus.HistogramVec
	attempts                        *prometheus.CounterVec
	// last and leaked are of one run; those of a daemon speak of all VMs.
	last   *prometheus.GaugeVec
	leaked prometheus.Gauge
}

// New makes the metrics of one run, with every counter at 0. The budget is that of the run.
func New(b freezewindow.Budget) *Metrics {
	m := ofRuns(b)
	m.last = gauge(lastHold.name, lastHold.help, lastHold.labels...)
	m.leaked = prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + leakedSessions.name, Help: leakedSessions.help})
	m.registry.MustRegister(m.last, m.leaked)
	return m
}

// ofRuns makes what is told by the results of runs, of one or of many.
func ofRuns(b freezewindow.Budget) *Metrics {
	m := &Metrics{
		registry: prometheus.NewPedanticRegistry(), budget: b,
		window: histogram("freeze_window_duration_seconds",
			"How long a guest was held: the longer of its own clock and our bound; the bound alone when the guest could not say.",
			windowBuckets(), "channel", "os", "result"),
		phase: histogram("freeze_phase_duration_seconds", "How long each phase of a window took.", windowBuckets(), "phase", "channel"),
		rtt: histogram("guest_control_rtt_seconds", "Longest round trip to the agent, measured before the window.",
			rttBuckets(), "channel"),
		disagreement: prometheus.NewHistogram(options("freeze_clock_disagreement_seconds",
			"Our bound of a hold minus the guest's own measure of it.", rttBuckets())),
		limit:    gauge("freeze_window_limit_seconds", "Limits of a hold: writer is the application's, provider is that of held writes (Windows), config is when THAW is sent.", "limit"),
		windows:  counter("freeze_windows_total", "Windows by outcome and by what first kept them from being perfect.", "result", "cause"),
		exceeded: counter("freeze_limit_exceeded_total", "Holds longer than a limit; soft is 80 % of the application's.", "limit"),
		thaws:    counter("agent_watchdog_thaws_total", "Guests that released themselves, by why.", "reason"),
		lates:    counter("late_snapshots_total", "Snapshots that came after the guest was thawed, by what became of them.", "disposition"),
		providerHold: histogram("freeze_provider_hold_duration_seconds", "How long file-system writes were held inside CommitSnapshots.",
			providerBuckets(), "provider"),
		writerFailures: counter("vss_writer_failures_total", "VSS writers that were not well after the freeze, by writer, state and result.", "writer", "state", "code"),
		admissions:     counter("freeze_admissions_total", "Decisions before a freeze: the hold mode that was admitted, or none.", "decision"),
		deploy:         histogram("guest_deploy_duration_seconds", "How long each stage of the way into a guest took.", taskBuckets(), "road", "start", "stage"),
		attempts:       counter("guest_attempts_total", "Attempts at each stage of the way into a guest.", "road", "start", "stage", "class"),
		create: histogram("snapshot_create_duration_seconds", "What the task that makes a snapshot took, by whom it was asked of.",
			taskBuckets(), "endpoint"),
	}
	m.registry.MustRegister(m.window, m.phase, m.rtt, m.disagreement, m.limit, m.windows, m.exceeded, m.thaws, m.lates, m.admissions,
		m.providerHold, m.writerFailures, m.deploy, m.attempts, m.create)
	m.prepare()
	return m
}

// prepare makes every series of the counters, so that the first event is an increase.
func (m *Metrics) prepare() {
	for _, result := range results() {
		for _, cause := range causes() {
			m.windows.WithLabelValues(result, cause)
		}
	}
	for c, values := range map[*prometheus.CounterVec][]string{
		m.exceeded: limits(), m.thaws: reasons(), m.lates: dispositions(), m.admissions: decisions(),
	} {
		for _, v := range values {
			c.WithLabelValues(v)
		}
	}
	m.providerHold.WithLabelValues(ourProvider)
	for _, e := range endpoints() {
		m.create.WithLabelValues(e)
	}
	for _, w := range ways() {
		for _, stage := range stages() {
			for _, class := range classes() {
				m.attempts.WithLabelValues(string(w.Road), string(w.Start), stage, class)
			}
		}
	}
	for _, w := range advice.Writers() { // what KB1680 is about, so that an alert can rest on it
		m.writerFailures.WithLabelValues(w.Name, "failed_at_freeze", "0x800423f2")
	}
	m.limit.WithLabelValues("writer").Set(m.budget.Hold.Seconds())
	m.limit.WithLabelValues("provider").Set(freezewindow.FlushHoldLimit.Seconds())
	m.limit.WithLabelValues("config").Set(m.budget.ThawBy().Seconds())
}

// Observe takes over the figures of one run that is over. vcenter is the host it spoke to.
func (m *Metrics) Observe(vcenter string, r backup.Result) {
	channel := known(channels(), r.Guest.Channel)
	if r.Window.RTTSeconds > 0 {
		m.rtt.WithLabelValues(channel).Observe(r.Window.RTTSeconds)
	}
	m.admission(r)
	m.way(r)
	if r.Snapshot.TaskSeconds > 0 {
		m.create.WithLabelValues(known(endpoints(), string(r.Snapshot.Road))).Observe(r.Snapshot.TaskSeconds)
	}
	if len(r.Window.Phases) == 0 {
		return // no window took place
	}
	result := known(results(), string(r.Outcome))
	m.windows.WithLabelValues(result, cause(r.Verdict.Cause)).Inc()
	for _, p := range r.Window.Phases {
		m.phase.WithLabelValues(known(phases(), p.Name), channel).Observe(p.DurationSeconds)
	}
	m.late(r)
	m.writers(r)
	if r.Window.SelfReleased {
		m.thaws.WithLabelValues(reason(r)).Inc()
	}
	held, ok := hold(r.Window)
	if !ok {
		return
	}
	m.window.WithLabelValues(channel, system(r.Guest.OS), result).Observe(held)
	if m.last != nil {
		m.last.WithLabelValues(utf8(vcenter), utf8(r.VM.Name), utf8(r.VM.Moref)).Set(held)
	}
	m.exceed(held)
	if guest, bound := r.Window.HeldByGuestSeconds, r.Window.HeldAtMostSeconds; guest != nil && bound != nil {
		m.disagreement.Observe(*bound - *guest)
	}
}

// ourProvider is the one provider whose hold is measured.
const ourProvider = "stillframe"

// writers counts what VSS and its writers did in one window.
func (m *Metrics) writers(r backup.Result) {
	if r.Window.IOHeldSeconds > 0 {
		m.providerHold.WithLabelValues(ourProvider).Observe(r.Window.IOHeldSeconds)
		if r.Window.IOHeldSeconds > freezewindow.FlushHoldLimit.Seconds() {
			m.exceeded.WithLabelValues("provider").Inc()
		}
	}
	for _, w := range r.Writers {
		if w.Failed() {
			m.writerFailures.WithLabelValues(writer(w), state(w), result(w)).Inc()
		}
	}
	if m.leaked != nil {
		m.leaked.Set(float64(leaks(r)))
	}
}

// leaks counts the events of sessions that were never ended which a run has seen.
func leaks(r backup.Result) (n int) {
	for _, f := range r.Findings {
		if f.Code == leakCode {
			n = len(f.Evidence) - 1 // the last one says that it is information only
		}
	}
	return n
}

// way counts what it took to get into the guest.
func (m *Metrics) way(r backup.Result) {
	for _, a := range r.Guest.Attempts {
		if a.Skipped {
			continue
		}
		road, start, stage, class := known(roads(), a.Road), known(starts(), a.Start), known(stages(), a.Stage), "ok"
		if !a.OK {
			class = known(classes(), a.Class)
		}
		m.attempts.WithLabelValues(road, start, stage, class).Inc()
		m.deploy.WithLabelValues(road, start, stage).Observe(a.Seconds)
	}
}

// exceed counts the limits that a hold was longer than.
func (m *Metrics) exceed(held float64) {
	writer := m.budget.Hold.Seconds()
	for limit, seconds := range map[string]float64{"writer": writer, "config": m.budget.ThawBy().Seconds(), "soft": softShare * writer} {
		if held > seconds {
			m.exceeded.WithLabelValues(limit).Inc()
		}
	}
}

// admission counts the decision before the freeze; a run that ended before it has none.
func (m *Metrics) admission(r backup.Result) {
	switch a := r.Admission; {
	case a == nil:
	case a.Decision == admission.Admit:
		m.admissions.WithLabelValues(known(decisions(), string(a.Mode))).Inc()
	default:
		m.admissions.WithLabelValues(known(decisions(), string(a.Decision))).Inc()
	}
}

// late counts a snapshot that came after the thaw, or that may still come.
func (m *Metrics) late(r backup.Result) {
	// A snapshot that is left over without having been seen is one whose task had not ended when the run gave up waiting.
	pending := r.Snapshot.Moref == "" && slices.ContainsFunc(r.Leftovers, func(left string) bool {
		return strings.HasPrefix(left, fmt.Sprintf("snapshot %q", r.Snapshot.Name))
	})
	switch {
	case pending:
		m.lates.WithLabelValues("pending").Inc()
	case r.Snapshot.Late && r.Snapshot.Removed:
		m.lates.WithLabelValues("removed").Inc()
	case r.Snapshot.Late && r.Snapshot.Moref != "":
		m.lates.WithLabelValues("kept").Inc()
	}
}

// hold is the longer of both clocks in seconds; false when neither is known.
func hold(w backup.Window) (float64, bool) {
	switch guest, bound := w.HeldByGuestSeconds, w.HeldAtMostSeconds; {
	case guest != nil && bound != nil:
		return max(*guest, *bound), true
	case bound != nil:
		return *bound, true
	case guest != nil:
		return *guest, true
	}
	return 0, false
}

// WriteFile writes all metrics in the text format of node_exporter's textfile collector: a temporary file beside path,
// renamed over it, with mode 0644. The error is a *FileError.
func (m *Metrics) WriteFile(path string) error {
	if err := prometheus.WriteToTextfile(path, m.registry); err != nil {
		return &FileError{path, err}
	}
	return nil
}

// FileError is a metrics file that could not be written.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("write the metrics to %s: %v", e.Path, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *FileError) Code() string { return "SF1004" }

const prefix = "stillframe_"

func options(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: prefix + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
	}
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(options(name, help, buckets), labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
}
