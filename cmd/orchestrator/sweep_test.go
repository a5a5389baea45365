package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// leave makes a snapshot of a VM as somebody who is no run of ours.
func (w *world) leave(t *testing.T, vm, name, description string) {
	t.Helper()
	u, err := url.Parse(w.VCenter)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(w.User, w.Password)
	e, err := vsphere.Open(t.Context(), vsphere.Options{URL: u, CAFile: w.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	found, err := e.Find(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	p, err := vsphere.NewSnapshotter(e).Prepare(t.Context(), found, name, description)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = p.Create(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) names(t *testing.T, vm string) []string {
	t.Helper()
	var s lab.SnapshotsOf
	w.get(t, "/vm/"+vm+"/snapshots", &s)
	return slices.Sorted(slices.Values(s.Names))
}

// ledger lists snapshots as the daemon knows them, by name.
func (s *station) ledger(flags ...string) map[string]api.Snapshot {
	s.t.Helper()
	var list struct {
		Snapshots []api.Snapshot `json:"snapshots"`
	}
	all := map[string]api.Snapshot{}
	if o := s.do(append([]string{"snapshots", "list", "-o=json"}, flags...)...); o.exit == exitOK && json.Unmarshal([]byte(o.stdout), &list) == nil {
		for _, one := range list.Snapshots {
			all[one.Name] = one
		}
	}
	return all
}

// stateDir is the station's state folder.
func (s *station) stateDir() string {
	return filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state")
}

// installation is the station's mark.
func (s *station) installation() string {
	s.t.Helper()
	var known struct {
		Installation string `json:"installation_id"`
	}
	text, err := os.ReadFile(filepath.Join(s.stateDir(), "node.json"))
	if err != nil || json.Unmarshal(text, &known) != nil || known.Installation == "" {
		s.t.Fatalf("read the installation's name: %v", err)
	}
	return known.Installation
}

// TestDaemonSweeps has two installations work on one vCenter, with snapshots of each and of nobody: each removes its own
// orphans only. Then one loses its database and goes on by itself.
func TestDaemonSweeps(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	jobs := `  - {name: job, select: {names: ["*"], exclude: {vms: [other]}}, mover: {kind: none, keep_snapshot: 24h}}` + "\n"
	s := w.station(t, "vm", jobs)
	made := func(installation, run string, epoch int64) (name, description string) {
		return fmt.Sprintf("stillframe-%s-%d", run, epoch), daemon.Mark{Installation: installation, RunID: run, Epoch: epoch}.String() + " job=job host=h"
	}
	nobodys, _ := made("", uuid.NewString(), 1700000000001)
	w.leave(t, "other", nobodys, "before the upgrade")
	w.leave(t, "other", "stillframe-notes", "somebody's own")
	d := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	r := s.awaitRun()
	if len(w.names(t, "vm")) != 1 {
		t.Fatalf("the run %s kept %v, want one snapshot", r.State, w.names(t, "vm"))
	}
	kept := w.names(t, "vm")[0]
	await(t, "the foreign snapshot", func() bool { return s.ledger("--orphans")[nobodys].State == "foreign" })
	await(t, "the excluded VM", func() bool { return strings.Contains(s.do("vms", "list", "--protection", "excluded").stdout, "other") })

	await(t, "the excluded VM's metric", func() bool {
		return strings.Contains(s.scrape(t), "stillframe_vms{state=\"excluded\",vcenter=\"lab\"} 1\n")
	})

	// Orphans of both installations, and what a person decides on.
	other := w.station(t, "vm", jobs)
	e := other.begin()
	other.ready()
	ours, mark := made(s.installation(), uuid.NewString(), 1700000000002)
	w.leave(t, "other", ours, mark)
	theirs, mark := made(other.installation(), uuid.NewString(), 1700000000003)
	w.leave(t, "other", theirs, mark)
	for _, station := range []*station{s, other} { // a request to remove is a sweep of its own
		foreign := station.ledger("--orphans")[nobodys]
		if o := station.do("snapshots", "remove", foreign.ID, "--run", uuid.NewString()); o.exit == exitOK {
			t.Error("a snapshot was removed with another run's name")
		}
	}
	if o := s.do("snapshots", "remove", s.ledger("--orphans")[nobodys].ID, "--run", s.ledger("--orphans")[nobodys].RunID); o.exit != exitOK {
		t.Errorf("snapshots remove: exit status %d", o.exit)
	}
	await(t, "the removals", func() bool {
		return !slices.Contains(w.names(t, "other"), nobodys) && !slices.Contains(w.names(t, "other"), ours)
	})
	if left := w.names(t, "other"); !slices.Equal(left, slices.Sorted(slices.Values([]string{theirs, "stillframe-notes"}))) {
		t.Errorf("the VM has %v, want what is not ours", left)
	}
	foreign := s.ledger("--orphans")[theirs]
	if foreign.State != "foreign" || foreign.Proof != "inst="+other.installation() {
		t.Errorf("the other's snapshot is %+v, want it foreign", foreign)
	}
	if o := s.do("snapshots", "remove", foreign.ID, "--run", foreign.RunID); o.exit == exitOK {
		t.Error("another installation's snapshot may be removed")
	}
	for _, one := range []*daemonProcess{d, e} {
		if err := one.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		one.end(t)
	}
	other.begin() // a start is a sweep
	await(t, "the other's own sweep", func() bool { return !slices.Contains(w.names(t, "other"), theirs) })
	if got := other.ledger("--orphans")[kept]; got.State != "foreign" {
		t.Errorf("to the other one the kept snapshot is %+v, want it foreign", got)
	}
	s.lose(t, kept)
}

// lose takes the station's database away. No schedule fires until the kept snapshot is known again; then all goes on.
func (s *station) lose(t *testing.T, kept string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.stateDir(), "stillframe.db*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("the database is not there: %v", err)
	}
	for _, path := range all {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	s.configure(strings.Replace(s.configuration(), "{name: job, ", `{name: job, schedule: {cron: "* * * * *", zone: UTC}, `, 1))
	d := s.begin()
	await(t, "the reconciliation", func() bool {
		log := d.log.String()
		return strings.Contains(log, "SF1906") && strings.Contains(log, "schedules fire")
	})
	got := s.ledger()[kept]
	if got.State != "in_use" || got.KeepUntil == nil || got.KeepUntil.Sub(got.CreatedAt).Hours() != 24 {
		t.Errorf("the kept snapshot is %+v, want it kept for its day", got)
	}
	if before, _, _ := strings.Cut(d.log.String(), "schedules fire"); strings.Contains(before, "job fired") {
		t.Error("a schedule has fired before the inventory was read")
	}
	if names := s.names(t, "vm"); !slices.Contains(names, kept) {
		t.Errorf("the VM has %v, the kept snapshot is gone", names)
	}
}
