package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCatalogCopies has a daemon do a job, which copies its database, goes on with other copies beside it, and puts the first one
// back when it has ended.
func TestCatalogCopies(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	s := w.station(t, "vm", "  - {name: job, select: {vms: [vm]}}\n")
	dir := filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state")
	d := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	run := s.awaitRun()
	var list struct{ Copies []dbCopy }
	await(t, "the copy after the job", func() bool {
		o := s.do("db", "list", "-o=json")
		return o.exit == exitOK && json.Unmarshal([]byte(o.stdout), &list) == nil && len(list.Copies) == 1
	})
	made := list.Copies[0]
	if filepath.Dir(made.Path) != filepath.Join(dir, "copies") || len(made.SHA256) != 64 || made.SizeBytes == 0 {
		t.Errorf("the copy is %+v", made)
	}
	if o := s.do("db", "check"); o.exit != exitOK || !strings.Contains(o.stdout, "sqlite is whole: schema version") {
		t.Errorf("db check: exit status %d, %s", o.exit, o.stdout)
	}
	to := filepath.Join(t.TempDir(), "by hand.db")
	if o := s.do("db", "backup", "--to", to); o.exit != exitOK || !strings.Contains(o.stdout, to) {
		t.Errorf("db backup --to: exit status %d, %s", o.exit, o.stdout)
	}
	if o := s.do("db", "backup", "-o=json"); o.exit != exitOK || !strings.Contains(o.stdout, filepath.Join(dir, "copies")) {
		t.Errorf("db backup: exit status %d, %s", o.exit, o.stdout)
	}
	if o := s.do("db", "list"); o.exit != exitOK || strings.Count(o.stdout, "\n") != 3 {
		t.Errorf("db list: exit status %d, want two copies:\n%s", o.exit, o.stdout)
	}
	if o := s.do("db", "restore", made.Path); o.exit != exitLocked {
		t.Errorf("db restore beside the daemon: exit status %d, want %d", o.exit, exitLocked)
	}
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := d.end(t); exit != exitOK {
		t.Fatalf("SIGTERM: exit status %d", exit)
	}
	if o := s.do("db", "restore", filepath.Join(dir, "none")); o.exit != exitUsage {
		t.Errorf("db restore of nothing: exit status %d, want %d", o.exit, exitUsage)
	}
	file := filepath.Join(dir, "stillframe.db")
	if err := os.WriteFile(file, []byte("this is no database, but it is long enough to be read as one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := s.do("db", "check", "-o=json"); o.exit != exitFailed || !strings.Contains(o.stdout, `"ok": false`) {
		t.Errorf("db check of a damaged one: exit status %d, %s", o.exit, o.stdout)
	}
	if o := s.do("db", "restore", made.Path); o.exit != exitOK || !strings.Contains(o.stdout, file+".before-") {
		t.Errorf("db restore: exit status %d, %s", o.exit, o.stdout)
	}
	s.begin()
	s.ready()
	if all := s.runs(); len(all) != 1 || all[0].ID != run.ID {
		t.Errorf("after db restore there are %d runs, want the one of before", len(all))
	}
}
