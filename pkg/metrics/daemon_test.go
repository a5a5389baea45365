package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

// watched is a daemon's metrics with what they read.
type watched struct {
	*Daemon
	fleet   Fleet
	err     error
	hangs   bool
	process Process
	reads   int
}

func newDaemon() *watched {
	at := time.Unix(1_700_000_000, 0)
	w := &watched{
		fleet: Fleet{
			PerVM: true, Leaked: 3, Leftovers: 2,
			Jobs: []Job{{Name: "nightly", LastSuccess: at, Next: at.Add(time.Hour)}},
			VMs: []VM{{
				VCenter: "main", Name: "vm", Moref: "vm-1", InstanceUUID: good().VM.InstanceUUID, Protection: "protected", Level: string(freezewindow.Application), LastSuccess: at,
			}},
			Snapshots: []Snapshots{{VCenter: "main", Open: 2, Orphans: 1, Oldest: at}},
		},
		process: Process{Windows: []time.Time{at}, Sessions: map[string]bool{"main": true}, Consolidation: map[string]int{"main": 4}, AuditFailures: 5, Dials: map[string]uint64{"stranger": 6}},
	}
	w.Daemon = NewDaemon(DaemonOptions{
		Budget: freezewindow.DefaultBudget(), Version: "v1", Process: func() Process { return w.process },
		Fleet: func(ctx context.Context) (Fleet, error) {
			w.reads++
			if w.hangs {
				<-ctx.Done()
				return Fleet{}, ctx.Err()
			}
			return w.fleet, w.err
		},
	})
	w.SetJobs([]string{"nightly"})
	return w
}

// scrape gives the lines of one scrape.
func (w *watched) scrape(t testing.TB) string {
	t.Helper()
	answer := httptest.NewRecorder()
	w.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("status %d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// says checks lines of a scrape; one that begins with ! must not be there, as a line or the beginning of one.
func says(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if absent, not := strings.CutPrefix(line, "!"); not {
			if strings.Contains(text, "\n"+absent) {
				t.Errorf("there is %s", absent)
			}
		} else if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
}

func TestDaemon(t *testing.T) {
	w := newDaemon()
	r := good()
	r.Snapshot.Road, r.Snapshot.TaskSeconds = "host", 1.5
	r.Guest.Attempts = []backup.Attempt{{Road: "guestops", Start: "guestops", Stage: "push", Class: "rights", Seconds: 2}, {Road: "pigeon", Stage: "push", OK: true, Seconds: 1}, {Road: "adminshare", Start: "svcctl", Skipped: true}}
	w.Observe("main", r)
	w.Called("main", "CreateSnapshot_Task", "ok")
	w.TaskEnded("create_snapshot", 20*time.Millisecond, 700*time.Millisecond)
	w.Recovered("snapshot")
	w.Finished("nightly", backup.Degraded, 90*time.Second)
	w.Finished("gone", backup.OK, time.Second)
	w.Fired("nightly", 3, 2)
	w.Configured(false, true)
	text := w.scrape(t)
	says(t, text,
		`stillframe_job_runs_total{job="nightly",result="degraded"} 1`, `stillframe_job_runs_total{job="nightly",result="skipped"} 3`,
		`stillframe_job_runs_total{job="nightly",result="failed"} 0`, `stillframe_job_runs_total{job="other",result="ok"} 1`,
		`stillframe_job_runs_total{job="(none)",result="ok"} 0`, `stillframe_job_run_duration_seconds_sum{job="nightly"} 90`,
		`stillframe_job_runs_missed_total{job="nightly"} 2`, `stillframe_job_last_success_timestamp_seconds{job="nightly"} 1.7e+09`,
		`stillframe_job_next_run_timestamp_seconds{job="nightly"} 1.7000036e+09`,
		`stillframe_vm_last_success_timestamp_seconds{consistency="application",moref="vm-1",vcenter="main",vm="vm"} 1.7e+09`,
		`stillframe_vms{state="protected",vcenter="main"} 1`, `stillframe_vms{state="overdue",vcenter="main"} 0`,
		`stillframe_orphan_snapshots{vcenter="main"} 1`, `stillframe_snapshots_open{vcenter="main"} 2`,
		`stillframe_snapshot_oldest_timestamp_seconds{vcenter="main"} 1.7e+09`, `stillframe_vms_consolidation_needed{vcenter="main"} 4`,
		`stillframe_vsphere_session_up{vcenter="main"} 1`, `stillframe_vsphere_requests_total{code="ok",method="CreateSnapshot_Task",vcenter="main"} 1`,
		`stillframe_vsphere_task_duration_seconds_sum{stage="running",task="create_snapshot"} 0.7`,
		`stillframe_snapshot_create_duration_seconds_sum{endpoint="host"} 1.5`, `stillframe_vss_leaked_sessions 3`, `stillframe_guest_leftovers 2`,
		`stillframe_guest_attempts_total{class="rights",road="guestops",stage="push",start="guestops"} 1`, `stillframe_guest_attempts_total{class="ok",road="other",stage="push",start="other"} 1`,
		`stillframe_guest_deploy_duration_seconds_sum{road="guestops",stage="push",start="guestops"} 2`, `stillframe_audit_write_failures_total 5`,
		`stillframe_guest_dials_total{result="stranger"} 6`,
		`stillframe_recovery_actions_total{action="snapshot"} 1`, `stillframe_recovery_actions_total{action="agent_folder"} 0`,
		`stillframe_config_last_reload_successful 0`, `stillframe_config_degraded 1`, `stillframe_freeze_windows_active 1`,
		`stillframe_freeze_window_oldest_start_timestamp_seconds 1.7e+09`, `stillframe_per_vm_metrics_suppressed 0`)
	if !strings.Contains(text, `stillframe_build_info{goversion="go1.`) {
		t.Error("there is no build_info")
	}
	if n := strings.Count(text, "\nstillframe_vm_freeze_window_last_seconds{"); n != 1 {
		t.Errorf("%d series of last holds, want 1", n)
	}
}

// TestFleetChanges lets jobs, VMs and the database come and go.
func TestFleetChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDaemon()
		w.Observe("main", good())
		w.scrape(t)
		vm := `stillframe_vm_last_success_timestamp_seconds{consistency="application",moref="vm-1",vcenter="main",vm="vm"} 1.7e+09`

		w.fleet.Jobs = []Job{{Name: "nightly"}}
		says(t, w.scrape(t), `stillframe_job_next_run_timestamp_seconds{job="nightly"} 1.7000036e+09`) // it was read a moment ago
		time.Sleep(fleetAge)
		says(t, w.scrape(t), `!stillframe_job_next_run_timestamp_seconds`)

		w.err = errors.New("away")
		w.fleet.VMs = nil
		time.Sleep(fleetAge)
		says(t, w.scrape(t), vm)
		w.err, w.hangs = nil, true
		begun := time.Now()
		says(t, w.scrape(t), vm)
		if took := time.Since(begun); took != fleetLimit {
			t.Errorf("a scrape waited %v for a database that is away, want %v", took, fleetLimit)
		}
		w.hangs = false
		says(t, w.scrape(t), `!stillframe_vm_last_success_timestamp_seconds`, `!stillframe_vm_freeze_window_last_seconds`, `stillframe_vms{state="protected",vcenter="main"} 0`)

		// A VM whose instance UUID has changed is there twice for a while.
		at := time.Unix(1_700_000_000, 0)
		same := VM{VCenter: "main", Name: "vm", Moref: "vm-1", Protection: "overdue", Level: "application", LastSuccess: at}
		w.fleet.VMs = []VM{{VCenter: "main", Name: "vm", Moref: "vm-1", Protection: "unprotected"}, same}
		time.Sleep(fleetAge)
		says(t, w.scrape(t), vm)

		for n := range perVMLimit {
			w.fleet.VMs = append(w.fleet.VMs, VM{VCenter: "main", Name: fmt.Sprint("vm", n), Moref: fmt.Sprint("vm-x", n), Protection: "protected", LastSuccess: at})
		}
		time.Sleep(fleetAge)
		says(t, w.scrape(t), `stillframe_per_vm_metrics_suppressed 1`, `!stillframe_vm_last_success_timestamp_seconds`, `stillframe_vms{state="protected",vcenter="main"} 20000`)
		w.fleet.VMs, w.fleet.PerVM = []VM{same}, false
		time.Sleep(fleetAge)
		says(t, w.scrape(t), `stillframe_per_vm_metrics_suppressed 1`, `!stillframe_vm_last_success_timestamp_seconds`)
	})
}

// TestJobsGone has no series of a job that is not configured any more.
func TestJobsGone(t *testing.T) {
	w := newDaemon()
	w.Finished("nightly", backup.OK, time.Minute)
	w.SetJobs([]string{"weekly"})
	w.fleet.Jobs = nil
	says(t, w.scrape(t), `!stillframe_job_runs_total{job="nightly"`, `!stillframe_job_run_duration_seconds_bucket{job="nightly"`, `stillframe_job_runs_total{job="weekly",result="ok"} 0`)
}

// TestWriterInARow counts the windows in a row in which a writer was not well, the most of all VMs.
func TestWriterInARow(t *testing.T) {
	w := newDaemon()
	for _, name := range []string{"a", "b"} {
		w.fleet.VMs = append(w.fleet.VMs, VM{VCenter: "main", Name: name, Moref: name, InstanceUUID: name, Protection: "protected"})
	}
	windows := func(vm string, state int, failure string, n int) {
		for range n {
			r := good()
			r.VM.InstanceUUID = vm
			r.Writers = []backup.Writer{backup.WriterOf(freezewindow.Writer{
				Name: "Microsoft Exchange Writer", ClassID: "{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}", State: state, Failure: failure,
			})}
			w.Observe("main", r)
		}
	}
	const exchange = `stillframe_vss_writer_consecutive_failures{writer="Microsoft Exchange Writer"} `
	says(t, w.scrape(t), exchange+"0")
	windows("a", 9, "800423f2", 2)
	windows("b", 9, "800423f2", 3)
	says(t, w.scrape(t), exchange+"3")
	windows("b", 5, "00000000", 1)
	says(t, w.scrape(t), exchange+"2")
}

// TestDaemonPromtool asks Prometheus itself.
func TestDaemonPromtool(t *testing.T) {
	lab.Need(t, lab.Promtool)
	t.Parallel()
	w := newDaemon()
	w.Observe("main", good())
	w.Called("main", "CreateSnapshot_Task", "ok")
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(w.scrape(t))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
