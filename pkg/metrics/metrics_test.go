package metrics

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
)

func good() backup.Result {
	return backup.Result{
		Outcome: backup.OK, VM: backup.VM{Name: "db", Moref: "vm-42"}, Admission: &backup.Admitted{Decision: admission.Admit, Mode: freezewindow.ModeFS},
		Window: backup.Window{
			RTTSeconds: 0.001, HeldByGuestSeconds: new(1.0), HeldAtMostSeconds: new(1.2),
			Phases: []backup.Phase{{Name: "prepare", StartSeconds: -2, DurationSeconds: 2}, {Name: "freeze", DurationSeconds: 0.25}},
		},
		Guest: backup.Guest{Channel: "direct", OS: "Debian GNU/Linux 12"},
	}
}

// text writes a file after the results were observed, and reads it back.
func text(t *testing.T, results ...backup.Result) string {
	t.Helper()
	m := New(freezewindow.DefaultBudget())
	for _, r := range results {
		m.Observe("vcenter.example", r)
	}
	path := filepath.Join(t.TempDir(), "stillframe.prom")
	if err := m.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file has mode %v, %v, want 0644", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v, want the file alone", left, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestObserve(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*backup.Result)
		want   []string // lines of the file
	}{
		{"a good window", func(*backup.Result) {}, []string{
			`stillframe_freeze_windows_total{cause="none",result="ok"} 1`,
			`stillframe_freeze_window_duration_seconds_sum{channel="direct",os="linux",result="ok"} 1.2`,
			`stillframe_freeze_window_duration_seconds_bucket{channel="direct",os="linux",result="ok",le="1"} 0`,
			`stillframe_freeze_window_duration_seconds_bucket{channel="direct",os="linux",result="ok",le="2"} 1`,
			`stillframe_freeze_phase_duration_seconds_sum{channel="direct",phase="prepare"} 2`,
			`stillframe_freeze_phase_duration_seconds_sum{channel="direct",phase="freeze"} 0.25`,
			`stillframe_guest_control_rtt_seconds_count{channel="direct"} 1`,
			`stillframe_freeze_clock_disagreement_seconds_count 1`,
			`stillframe_vm_freeze_window_last_seconds{moref="vm-42",vcenter="vcenter.example",vm="db"} 1.2`,
			`stillframe_freeze_admissions_total{decision="fs"} 1`,
			`stillframe_freeze_limit_exceeded_total{limit="soft"} 0`,
			`stillframe_freeze_window_limit_seconds{limit="writer"} 20`,
			`stillframe_freeze_window_limit_seconds{limit="config"} 17`,
		}},
		{"near the limit", func(r *backup.Result) { r.Window.HeldAtMostSeconds = new(17.5) }, []string{
			`stillframe_freeze_limit_exceeded_total{limit="soft"} 1`,
			`stillframe_freeze_limit_exceeded_total{limit="config"} 1`,
			`stillframe_freeze_limit_exceeded_total{limit="writer"} 0`,
		}},
		{"exactly at the limit", func(r *backup.Result) { r.Window.HeldAtMostSeconds = new(20.0) }, []string{
			`stillframe_freeze_limit_exceeded_total{limit="writer"} 0`,
		}},
		{"over the limit", func(r *backup.Result) { r.Window.HeldByGuestSeconds = new(20.001) }, []string{
			`stillframe_freeze_limit_exceeded_total{limit="writer"} 1`,
			`stillframe_freeze_window_duration_seconds_bucket{channel="direct",os="linux",result="ok",le="20"} 0`,
		}},
		{"the guest let go", func(r *backup.Result) {
			r.Outcome, r.Verdict.Cause = backup.Failed, freezewindow.CauseLinkLost
			r.Window.SelfReleased, r.Window.ReleasedBy = true, "link_lost"
		}, []string{
			`stillframe_freeze_windows_total{cause="link_lost",result="failed"} 1`,
			`stillframe_agent_watchdog_thaws_total{reason="link_lost"} 1`,
			`stillframe_agent_watchdog_thaws_total{reason="deadline"} 0`,
		}},
		{"the guest was not heard of again", func(r *backup.Result) {
			r.Window.SelfReleased, r.Window.HeldByGuestSeconds, r.Window.HeldAtMostSeconds = true, nil, nil
		}, []string{
			`stillframe_agent_watchdog_thaws_total{reason="other"} 1`,
			`stillframe_freeze_windows_total{cause="none",result="ok"} 1`,
		}},
		{"Exchange gave up", func(r *backup.Result) {
			r.Window.IOHeldSeconds = 6
			r.Writers = []backup.Writer{
				backup.WriterOf(freezewindow.Writer{Name: "Microsoft Exchange Writer", ClassID: "{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}", State: 9, Failure: "800423f2"}),
				backup.WriterOf(freezewindow.Writer{Name: "evil\n", ClassID: "{00000000-0000-0000-0000-000000000001}", State: 99, Failure: "deadbeef"}),
				backup.WriterOf(freezewindow.Writer{Name: "System Writer", ClassID: "{e8132975-6f93-4464-a53e-1050253ae220}", State: 5, Failure: "00000000"}),
			}
			r.Findings = append(r.Findings, advice.Explain("SF4021", "one", "two", "information only"))
		}, []string{
			`stillframe_vss_writer_failures_total{code="0x800423f2",state="failed_at_freeze",writer="Microsoft Exchange Writer"} 1`,
			`stillframe_vss_writer_failures_total{code="0x800423f2",state="failed_at_freeze",writer="NTDS"} 0`,
			`stillframe_vss_writer_failures_total{code="other",state="other",writer="other"} 1`,
			`stillframe_freeze_provider_hold_duration_seconds_sum{provider="stillframe"} 6`,
			`stillframe_freeze_limit_exceeded_total{limit="provider"} 0`,
			`stillframe_vss_leaked_sessions 2`,
		}},
		{"a late snapshot", func(r *backup.Result) { r.Snapshot.Late, r.Snapshot.Removed = true, true }, []string{
			`stillframe_late_snapshots_total{disposition="removed"} 1`,
		}},
		{"one that may still come", func(r *backup.Result) {
			r.Snapshot.Name = "stillframe-1-2"
			r.Leftovers = []string{`snapshot "stillframe-1-2" of /DC0/vm/db may still appear: its task "task-7" has not ended`}
		}, []string{
			`stillframe_late_snapshots_total{disposition="pending"} 1`,
		}},
		{"an old one of ours, seen by preflight", func(r *backup.Result) { r.Findings = append(r.Findings, advice.Explain("SF2304")) }, []string{
			`stillframe_late_snapshots_total{disposition="pending"} 0`,
		}},
		{"a late one that could not be removed", func(r *backup.Result) {
			r.Snapshot = backup.Snap{Name: "stillframe-1-2", Moref: "snapshot-3", Late: true}
			r.Leftovers = []string{`snapshot "stillframe-1-2" (snapshot-3) of /DC0/vm/db`}
		}, []string{
			`stillframe_late_snapshots_total{disposition="kept"} 1`,
			`stillframe_late_snapshots_total{disposition="pending"} 0`,
		}},
		{"a name that is no UTF-8", func(r *backup.Result) { r.VM.Name = "d\xffb" }, []string{
			"stillframe_vm_freeze_window_last_seconds{moref=\"vm-42\",vcenter=\"vcenter.example\",vm=\"d\uFFFDb\"} 1.2",
		}},
		{"refused", func(r *backup.Result) {
			r.Admission.Decision, r.Window.Phases = admission.Refuse, nil
		}, []string{
			`stillframe_freeze_admissions_total{decision="refuse"} 1`,
			`stillframe_freeze_windows_total{cause="none",result="ok"} 0`,
		}},
		{"words that nobody knows", func(r *backup.Result) {
			r.Outcome, r.Verdict.Cause, r.Guest.Channel, r.Guest.OS = "odd", "odd", "odd", ""
		}, []string{
			`stillframe_freeze_windows_total{cause="other",result="other"} 1`,
			`stillframe_freeze_window_duration_seconds_count{channel="other",os="other",result="other"} 1`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := good()
			tc.change(&r)
			lines := strings.Split(text(t, r), "\n")
			for _, want := range tc.want {
				if !slices.Contains(lines, want) {
					t.Errorf("the file lacks %s", want)
				}
			}
		})
	}
}

// TestPrepared wants every counter at 0 before anything has happened, so that the first event is an increase.
func TestPrepared(t *testing.T) {
	content := text(t)
	for line := range strings.Lines(content) {
		if strings.Contains(line, "_total{") && !strings.HasSuffix(line, " 0\n") {
			t.Errorf("%s is not 0", strings.TrimSpace(line))
		}
	}
	if n, want := strings.Count(content, "stillframe_freeze_windows_total{"), len(results())*len(causes()); n != want {
		t.Errorf("%d series of windows, want %d", n, want)
	}
}

// TestCauses holds the label's set to the causes that a window can have.
func TestCauses(t *testing.T) {
	source, err := os.ReadFile("../freezewindow/verdict.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\bCause\s+= "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		if !slices.Contains(causes(), m[1]) {
			t.Errorf("cause %q is not among the label's values", m[1])
		}
	}
}

// TestPage holds docs/metrics.md to what a daemon has registered, which is all there is: every metric with its type and labels, and
// no other.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1]+" "+m[2]+" "+strings.ReplaceAll(strings.TrimSpace(m[3]), "`", ""))
	}
	for _, set := range [][]string{
		results(), causes(), phases(), channels(), limits(), reasons(), dispositions(), decisions(), roads(), stages(), endpoints(), jobResults(), levels(),
		protections(), actions(), tasks(),
	} {
		for _, value := range set {
			if !strings.Contains(string(page), "`"+value+"`") {
				t.Errorf("docs/metrics.md does not name the label value %s", value)
			}
		}
	}
	w := newDaemon()
	m := w.Daemon
	r := good()
	r.Guest.Attempts = []backup.Attempt{{Road: "guestops", Stage: "push", OK: true}}
	m.Observe("main", r)
	m.Called("main", "CreateSnapshot_Task", "ok")
	w.scrape(t)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc, 100)
	m.registry.Describe(descriptions)
	close(descriptions)
	labels := map[string]string{}
	for d := range descriptions {
		part := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([\w,]*)\}`).FindStringSubmatch(d.String())
		labels[part[1]] = strings.ReplaceAll(part[2], ",", " ")
	}
	var registered []string
	for _, f := range families {
		set := labels[f.GetName()]
		if set == "" {
			set = "–"
		}
		registered = append(registered, f.GetName()+" "+strings.ToLower(f.GetType().String())+" "+set)
	}
	slices.Sort(documented)
	slices.Sort(registered)
	if len(registered) != len(labels) {
		t.Errorf("%d families were gathered, %d are registered", len(registered), len(labels))
	}
	if !slices.Equal(documented, registered) {
		t.Errorf("docs/metrics.md has\n%s\nregistered are\n%s", strings.Join(documented, "\n"), strings.Join(registered, "\n"))
	}
}

// TestPromtool asks Prometheus itself.
func TestPromtool(t *testing.T) {
	lab.Need(t, lab.Promtool)
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, good()))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestUnwritable(t *testing.T) {
	err := New(freezewindow.DefaultBudget()).WriteFile(filepath.Join(t.TempDir(), "missing", "stillframe.prom"))
	var coded interface{ Code() string }
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &coded) || coded.Code() != "SF1004" {
		t.Errorf("WriteFile = %v, want SF1004 for a folder that is not there", err)
	}
}
