package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

// unpack reads a bundle: its files by their names in it.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if about, err := file.Stat(); err != nil || about.Mode().Perm() != 0o600 {
		t.Errorf("mode of the bundle: %v, %v, want 0600", about.Mode(), err)
	}
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for in := tar.NewReader(zipped); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		all[name] = string(text)
	}
}

// spoiled are ways in which a careless program could have written a password into the log of a run.
func spoiled(t *testing.T, password string) string {
	t.Helper()
	var wide []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	var b strings.Builder
	for _, text := range []string{
		password, "cut off " + password[:len(password)/2+2], fmt.Sprintf("%x", password), fmt.Sprintf("% X", password), fmt.Sprint([]byte(password)), fmt.Sprintf("%#v", []byte(password)),
		string(wide), fmt.Sprintf("%x", wide), base64.StdEncoding.EncodeToString([]byte("u:" + password)), base64.URLEncoding.EncodeToString([]byte(password)),
		base64.StdEncoding.EncodeToString(wide), fmt.Sprint(wide),
	} {
		line, err := json.Marshal(map[string]string{"level": "info", "msg": text})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

// TestSupportBundle plants one password in a configuration and, however it could be spelled, in the log of a run, and looks for
// it in bundles with and without a daemon.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	c, unknown := canary.New(), canary.New()
	w := start(t, "recover-quick")
	s := w.station(t, "vm", "  - {name: job, select: {vms: [vm]}}\n"+
		"  - {name: other, enabled: false, select: {names: [none]}, mover: {kind: exec, command: [/bin/true, --key="+c.String()+", --password, "+unknown.String()+"]}}\n")
	s.configure(strings.Replace(s.configuration(), "store:", "  rules:\n    - {match: {names: [none]}, username: u, password: \"env:CANARY\"}\nstore:", 1))
	s.env["CANARY"] = c.String()
	dir := filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "state")
	d := s.begin()
	s.ready()
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	run := s.awaitRun().ID
	log := runLogPath(runLogDir(dir), run)
	await(t, "the log of the run", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "thaw")
	})
	file, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(spoiled(t, c.String()) + `{"level":"info","msg":"tried","db_password":"` + unknown.String() + `"}` + "\n")
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if len(c.Find([]byte(spoiled(t, c.String())))) < 6 {
		t.Fatal("the password is not planted")
	}
	bundle := func(name string, args ...string) map[string]string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name+".tar.gz")
		o := s.do(append([]string{"support-bundle", "-o=json", "--out", path}, args...)...)
		if o.exit != exitOK {
			t.Fatalf("support-bundle: exit status %d, %s", o.exit, o.stdout)
		}
		all := unpack(t, path)
		for name, text := range all {
			for _, bird := range []canary.Canary{c, unknown} {
				if found := bird.Find([]byte(text)); len(found) > 0 {
					t.Errorf("a password is in %s, by its %v", name, found)
				}
			}
		}
		var m bundleManifest
		if err := json.Unmarshal([]byte(all["manifest.json"]), &m); err != nil {
			t.Fatal(err)
		}
		by := map[string]bool{}
		for _, r := range m.Removed {
			by[r.By+" "+r.Of] = true
		}
		if !by["value env:CANARY"] || !by["name key of that name"] || !by["name argument of that name"] || len(m.Unsearched) > 0 || len(m.Files) != len(all)-1 {
			t.Errorf("the manifest is\n%s", all["manifest.json"])
		}
		if !strings.Contains(all["config.json"], `"env:CANARY"`) || !strings.Contains(all["runs/"+run+"/log.jsonl"], "thaw") {
			t.Errorf("the reference or the log of the run is missing in %s: %s", name, all["config.json"])
		}
		for _, want := range []string{"version.json", "state.txt", "audit.json", "database.json"} {
			if all[want] == "" {
				t.Errorf("%s has no %s", name, want)
			}
		}
		return all
	}
	all := bundle("with", "--run", run)
	for _, want := range []string{"readyz.json", "metrics.txt", "jobs.json", "vms.json", "runs.json", "snapshots.json", "windows.json", "doctor.json", "runs/" + run + "/timeline.json"} {
		if all[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	if o := s.do("support-bundle", "--out", filepath.Join(t.TempDir(), "x"), "--run", "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"); o.exit != exitNoMatch {
		t.Errorf("a run that nobody knows: exit status %d, want %d", o.exit, exitNoMatch)
	}
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := d.end(t); exit != exitOK {
		t.Fatalf("SIGTERM: exit status %d", exit)
	}
	if all := bundle("without"); all["jobs.json"] != "" {
		t.Error("jobs are known without a daemon")
	}
}
