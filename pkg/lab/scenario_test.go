package lab_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
)

const good = `
name: good
seed: 7
vcenter: {about: "8.0.3", rtt: 20ms, user: u}
vms:
  - {name: a, guest: linux, snapshot: {queue: 50ms, run: 900ms}, remove: {run: 2s}, disks: [{size: 128MiB}]}
  - {name: twin, folder: one}
  - {name: twin, folder: two}
events:
  - {at: task.running+200ms, vm: a, do: cut_connection, for: 60s}
`

func TestParseScenario(t *testing.T) {
	s, err := lab.ParseScenario([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if s.VCenter.RTT != 20*time.Millisecond || s.VMs[0].Snapshot.Run != 900*time.Millisecond || s.VMs[0].Disks[0].Size != 128<<20 {
		t.Errorf("parsed %+v", s)
	}
}

func TestParseScenarioErrors(t *testing.T) {
	cases := map[string]struct{ old, new, want string }{
		"unknown key":         {"seed: 7", "sead: 7", "sead"},
		"unknown key in a VM": {"guest: linux", "gest: linux", "gest"},
		"no name":             {"name: good", "", "name is missing"},
		"guest":               {"guest: linux", "guest: plan9", `guest "plan9" is not one of linux, wine, scripted, none`},
		"power":               {"guest: linux", "guest: linux, power: half", `power "half"`},
		"size":                {"128MiB", "128MB", "KiB, MiB or GiB"},
		"duration":            {"900ms", "fast", "fast"},
		"negative time":       {"900ms", "-1s", "below 0"},
		"two of one path":     {"folder: two", "folder: one", "already"},
		"event's point":       {"task.running+200ms", "window.go", "window.go"},
		"event's time":        {"task.running+200ms", "task.running+soon", "soon"},
		"event's VM":          {"vm: a", "vm: twin", `"twin" is no VM with a guest`},
		"event's word":        {"do: cut_connection", "do: dance", "dance"},
		"slash in a name":     {"name: a,", "name: a/b,", "slash"},
	}
	for name, c := range cases {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%s: nothing replaced", name)
		}
		_, err := lab.ParseScenario([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseScenario = %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := lab.ParseScenario(nil); err == nil {
		t.Error("an empty scenario was taken")
	}
}

func TestShippedScenarios(t *testing.T) {
	files, err := filepath.Glob("../../testing/scenarios/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		s, err := lab.ReadScenario(file)
		if err != nil {
			t.Error(err)
		}
		if want := strings.TrimSuffix(filepath.Base(file), ".yaml"); s.Name != want {
			t.Errorf("%s has the name %q, want %q", file, s.Name, want)
		}
	}
}
