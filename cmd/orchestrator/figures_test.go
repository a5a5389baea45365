package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/metrics"
	"github.com/stillframe/stillframe/pkg/store"
)

// scrape asks the daemon as Prometheus does.
func (s *station) scrape(t *testing.T) string {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.env["STILLFRAME_SOCKET"])
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	answer, err := c.Get("http://daemon/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", answer.StatusCode, err, text)
	}
	return string(text)
}

// TestDaemonTells scrapes a daemon that has done a run, and reads the run's log, which goes when the run does.
func TestDaemonTells(t *testing.T) {
	lab.Need(t, lab.Promtool)
	t.Parallel()
	w := start(t, "recover-quick")
	s := w.station(t, "vm", "  - {name: job, select: {vms: [vm]}, schedule: {cron: \"0 3 1 1 *\", zone: UTC}}\n")
	d := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	r := s.awaitRun()
	var text string
	await(t, "the run in the metrics", func() bool {
		text = s.scrape(t)
		return strings.Contains(text, "stillframe_vm_last_success_timestamp_seconds{consistency=\""+r.Level) &&
			strings.Contains(text, `stillframe_job_runs_total{job="job",result="ok"} 1`)
	})
	everyName(t, text)
	for _, line := range []string{
		`stillframe_job_runs_total{job="job",result="ok"} 1`, `stillframe_job_run_duration_seconds_count{job="job"} 1`, `stillframe_vms{state="protected",vcenter="lab"} 1`,
		`stillframe_vsphere_session_up{vcenter="lab"} 1`, `stillframe_snapshots_open{vcenter="lab"} 0`, `stillframe_orphan_snapshots{vcenter="lab"} 0`,
		`stillframe_vsphere_task_duration_seconds_count{stage="running",task="create_snapshot"} 1`, `stillframe_config_last_reload_successful 1`,
		`stillframe_vsphere_requests_total{code="ok",method="CreateSnapshotEx_Task",vcenter="lab"} 1`, `stillframe_vms_consolidation_needed{vcenter="lab"} 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	s.askDoctor(t)
	s.do("jobs", "pause", "job")
	await(t, "the end of the paused job's next run", func() bool { return !strings.Contains(s.scrape(t), "stillframe_job_next_run_timestamp_seconds{") })
	s.configure("vcenters: 7\n")
	if err := d.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "the failed reload", func() bool { return strings.Contains(s.scrape(t), "\nstillframe_config_last_reload_successful 0\n") })
	s.readLog(t, r.ID)
}

// askDoctor wants the daemon's memory of the VM and what vCenter says of it now.
func (s *station) askDoctor(t *testing.T) {
	t.Helper()
	x, err := client.New(s.env["STILLFRAME_SOCKET"]).Examine(t.Context(), "vm", "")
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for _, c := range x.Checks {
		status[c.ID] = c.Status
	}
	for _, id := range []string{"last_run", "window", "vcenter_answer", "power", "guest_operations"} {
		if status[id] != checkOK {
			t.Errorf("the doctor says %q of %s, want ok", status[id], id)
		}
	}
}

// readLog wants the whole story of a good run in its log, and nothing secret.
func (s *station) readLog(t *testing.T, run string) {
	t.Helper()
	o := s.do("runs", "logs", run, "-o=json")
	var log struct{ Lines []map[string]any }
	if err := json.Unmarshal([]byte(o.stdout), &log); o.exit != exitOK || err != nil {
		t.Fatalf("runs logs: exit status %d, %v", o.exit, err)
	}
	said := map[string]bool{}
	for _, l := range log.Lines {
		if l["run"] != run {
			t.Errorf("a line of another run: %v", l)
		}
		said[fmt.Sprint(l["msg"])] = true
		if l["msg"] == "phase" {
			said["phase "+fmt.Sprint(l["phase"])] = true
		}
	}
	for _, want := range []string{"run begins", "agent ready", "armed", "window closed", "snapshot removed", "run ended", "phase freeze", "phase snapshot_create", "phase thaw", "attempt"} {
		if !said[want] {
			t.Errorf("the log of the run does not say %q", want)
		}
	}
	for _, secret := range []string{s.Password, s.env["GUEST_PASSWORD"]} {
		if strings.Contains(o.stdout, secret) {
			t.Error("a password is in the log of the run")
		}
	}
	if o := s.do("runs", "logs", run); o.exit != exitOK || !regexp.MustCompile(`(?m)^\S+Z? INFO  run begins  attempt=1`).MatchString(o.stdout) {
		t.Errorf("runs logs for people: exit status %d\n%s", o.exit, o.stdout)
	}
	about, err := os.Stat(filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state", "runs", run+".jsonl"))
	if err != nil || about.Mode().Perm() != 0o600 {
		t.Errorf("the log's file: %v, %v, want mode 0600", about, err)
	}
}

// everyName wants each metric of docs/metrics.md in a scrape, but for those that need what did not happen.
func everyName(t *testing.T, text string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("(?m)^\\| `(stillframe_[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1)
	if len(names) < 40 {
		t.Fatalf("docs/metrics.md has %d metrics", len(names))
	}
	for _, m := range names {
		if m[1] == "stillframe_snapshot_oldest_timestamp_seconds" { // there is no snapshot
			continue
		}
		if !strings.Contains(text, "\n# TYPE "+m[1]+" ") {
			t.Errorf("the daemon does not tell %s", m[1])
		}
	}
}

// TestFleet reads a database of a night for the metrics.
func TestFleet(t *testing.T) { onBoth(t, testFleet) }

func testFleet(t *testing.T, s *served) {
	t.Helper()
	s.fill(t)
	read := func(now time.Time) metrics.Fleet {
		t.Helper()
		return must[metrics.Fleet](t)(readFleet(t.Context(), s.catalog, s.daemon.config, now))
	}
	f := read(noon)
	states, levels := map[string]string{}, map[string]string{}
	for _, v := range f.VMs {
		states[v.Name], levels[v.Name] = v.Protection, v.Level
	}
	if fmt.Sprint(states) != "map[exch-01:protected old-01:overdue sql-01:overdue web-01:unprotected]" || levels["exch-01"] != "application" || levels["web-01"] != "" {
		t.Errorf("states %v, levels %v", states, levels)
	}
	jobs := map[string]metrics.Job{}
	for _, j := range f.Jobs {
		jobs[j.Name] = j
	}
	if j := jobs["nightly"]; !j.LastSuccess.Equal(noon) || j.Next.IsZero() {
		t.Errorf("job nightly is %+v, want its success at noon, and a next run", j)
	}
	if j := jobs["byhand"]; !j.LastSuccess.IsZero() || !j.Next.IsZero() {
		t.Errorf("job byhand is %+v, want neither a success nor a next run", j)
	}
	if f.Leaked != 1 || len(f.Snapshots) != 1 || f.Snapshots[0].VCenter != "main" || f.Snapshots[0].Open != 0 {
		t.Errorf("%d leaked, snapshots %+v, want the session of another requestor and no snapshot", f.Leaked, f.Snapshots)
	}
	if err := s.daemon.Enable(t.Context(), "nightly", false); err != nil {
		t.Fatal(err)
	}
	found := catalog.SeenSnapshot{Name: "stillframe-x", Moref: "snapshot-1", RunID: "unknown", Epoch: 1, Installation: "we", Created: noon.Add(-time.Hour)}
	err := s.store.Update(t.Context(), "own the vCenter, and look away from a VM", func(tx store.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO vcenter_leases (vcenter_id, owner_node, epoch, lease_until, updated_at) VALUES ('main', 'n', 1, 0, 0)")
		if err == nil {
			_, err = tx.Exec(t.Context(), "UPDATE vms SET seen_at = seen_at - 1200000 WHERE name = 'old-01'")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := catalog.Inventory{At: noon, Installation: "we", Before: 1, Epoch: 1, VMs: []catalog.SeenVM{{ID: s.vms["web-01"], Snapshots: []catalog.SeenSnapshot{found}}}}
	if _, err := s.catalog.TakeIn(t.Context(), catalog.Owner{VCenter: "main", Epoch: 1}, seen); err != nil {
		t.Fatal(err)
	}
	f = read(noon)
	if want := (metrics.Snapshots{VCenter: "main", Open: 1, Orphans: 1, Oldest: found.Created}); len(f.Snapshots) != 1 || f.Snapshots[0] != want {
		t.Errorf("snapshots %+v, want %+v", f.Snapshots, want)
	}
	for _, j := range f.Jobs {
		if j.Name == "nightly" && !j.Next.IsZero() {
			t.Error("a paused job has a next run")
		}
	}
	if len(f.VMs) != 3 {
		t.Errorf("%d VMs, want those that are there", len(f.VMs))
	}
}

// BenchmarkScrape scrapes a database of 5,000 VMs in 40 jobs with a week of runs: with the database read for each scrape, and while what
// was read is young. The bar is 100 ms.
func BenchmarkScrape(b *testing.B) {
	const vms, jobs, nights = 5000, 40, 7
	s := serveFaces(b, "")
	ctx := b.Context()
	var found []catalog.VM
	for n := range vms {
		found = append(found, catalog.VM{InstanceUUID: uuid.NewString(), Moref: fmt.Sprint("vm-", n), Name: fmt.Sprintf("vm-%05d", n), Path: fmt.Sprintf("/DC0/vm/vm-%05d", n)})
	}
	all, err := s.catalog.SawVMs(ctx, "main", found)
	if err != nil {
		b.Fatal(err)
	}
	template := s.daemon.config.Jobs[0]
	s.daemon.config.Jobs = nil
	for n := range jobs {
		template.Name = fmt.Sprint("job", n)
		s.daemon.config.Jobs = append(s.daemon.config.Jobs, template)
		if err := s.daemon.put(ctx, template, true); err != nil {
			b.Fatal(err)
		}
		s.daemon.targets = nil
		for _, v := range all[n*vms/jobs : (n+1)*vms/jobs] {
			s.daemon.targets = append(s.daemon.targets, catalog.Target{VMID: v.ID, VCenter: "main"})
		}
		for night := nights; night > 0; night-- {
			if err := s.daemon.Fire(ctx, template.Name, noon.AddDate(0, 0, -night), ""); err != nil {
				b.Fatal(err)
			}
			err := s.store.Update(ctx, "end the night", func(tx store.Tx) error {
				_, err := tx.Exec(ctx, "UPDATE runs SET state = 'done', outcome = 'ok', level = $1, started_at = created_at, finished_at = created_at WHERE state = 'queued'", string(freezewindow.Filesystem))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	err = s.store.Update(ctx, "remember the points", func(tx store.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE vms SET last_ok_at = $1, last_ok_run = (SELECT id FROM runs r WHERE r.vm_id = vms.id ORDER BY created_at DESC, id DESC LIMIT 1)", noon.UnixMilli())
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	made := func() *metrics.Daemon {
		return metrics.NewDaemon(metrics.DaemonOptions{
			Budget: freezewindow.DefaultBudget(), Version: "v", Process: func() metrics.Process { return metrics.Process{} },
			Fleet: func(ctx context.Context) (metrics.Fleet, error) {
				return readFleet(ctx, s.catalog, s.daemon.config, noon)
			},
		})
	}
	scrape := func(b *testing.B, m *metrics.Daemon) {
		b.Helper()
		answer := httptest.NewRecorder()
		m.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
		if n := strings.Count(answer.Body.String(), "\nstillframe_vm_last_success_timestamp_seconds{"); n != vms {
			b.Fatalf("%d VMs", n)
		}
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			m := made() // it has read nothing yet
			b.StartTimer()
			scrape(b, m)
		}
	})
	b.Run("young", func(b *testing.B) {
		m := made()
		for b.Loop() {
			scrape(b, m)
		}
	})
}
