package lab_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// TestMain lets the test binary be the lab's child processes.
func TestMain(m *testing.M) {
	if code, ok := guests.Helper(os.Args[1:]); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

const twoGuests = `
name: two-guests
seed: 3
vms:
  - {name: vm, folder: prod, guest: scripted, snapshot: {run: 100ms}}
  - {name: plain}
events:
  - {at: task.running+10ms, vm: vm, do: cut_connection, for: 20ms}
  - {at: start, vm: vm, do: kill_agent}
`

func startWorld(t *testing.T, text string) *lab.World {
	t.Helper()
	s, err := lab.ParseScenario([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.Start(t.Context(), s, lab.Options{Dir: t.TempDir(), Self: []string{exe}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// operator finds a VM of the world as a stock client does.
func operator(t *testing.T, w *lab.World, vm string) *object.VirtualMachine {
	t.Helper()
	r := w.Ready()
	u, err := url.Parse(r.VCenter)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(r.User, r.Password)
	c, err := govmomi.NewClient(t.Context(), u, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Logout(context.Background()); err != nil {
			t.Error(err)
		}
	})
	found, err := find.NewFinder(c.Client).VirtualMachine(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func ask(t *testing.T, w *lab.World, path string, into any) int {
	t.Helper()
	rec := httptest.NewRecorder()
	w.Admin().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	if rec.Code == 200 {
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			t.Fatalf("%s: %v: %s", path, err, rec.Body)
		}
	}
	return rec.Code
}

func TestWorld(t *testing.T) {
	w := startWorld(t, twoGuests)
	r := w.Ready()
	if len(r.Guests) != 2 || r.Guests[0].Kind != "scripted" || r.Guests[1].Kind != "none" || !strings.HasPrefix(r.Guests[0].Outside, "127.") {
		t.Errorf("Ready = %+v", r)
	}
	vm := operator(t, w, "/DC0/vm/prod/vm")
	if got := vm.UUID(t.Context()); got != r.Guests[0].UUID {
		t.Errorf("the VM's uuid = %s, want %s", got, r.Guests[0].UUID)
	}
	task, err := vm.CreateSnapshot(t.Context(), "snap", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	var snapshots lab.SnapshotsOf
	if code := ask(t, w, "/vm/vm/snapshots", &snapshots); code != 200 || len(snapshots.Names) != 1 || len(snapshots.Images) != 1 {
		t.Fatalf("snapshots = %d, %+v, want one with its image", code, snapshots)
	}
	tally, err := guests.CountFile(snapshots.Images[0].Path)
	if err != nil || tally.Contiguous == 0 {
		t.Errorf("records in the image = %+v, %v", tally, err)
	}
	var holds lab.HoldsOf
	if code := ask(t, w, "/vm/vm/holds", &holds); code != 200 || holds.Acknowledged < tally.Contiguous || len(holds.Holds) != 0 {
		t.Errorf("holds = %d, %+v", code, holds)
	}
	var calls []lab.Call
	if code := ask(t, w, "/calls", &calls); code != 200 || len(calls) == 0 {
		t.Errorf("calls = %d, %d of them", code, len(calls))
	}
	for _, path := range []string{"/vm/nobody/holds", "/vm/nobody/snapshots", "/vm/plain/holds"} {
		if code := ask(t, w, path, nil); code != 404 {
			t.Errorf("%s = %d, want 404", path, code)
		}
	}
	happened(t, w, "cut_connection", "end of cut_connection", "kill_agent")
}

// happened waits for events; the one about agents must say that there was none.
func happened(t *testing.T, w *lab.World, want ...string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		var state lab.State
		if code := ask(t, w, "/state", &state); code != 200 {
			t.Fatalf("/state = %d", code)
		}
		seen := map[string]string{}
		for _, h := range state.Happened {
			seen[h.Event] = h.Error
		}
		if len(seen) == len(want) {
			for _, name := range want {
				said, ok := seen[name]
				if !ok || (said != "") != (name == "kill_agent") {
					t.Errorf("events = %v, want %v, an error for kill_agent only", seen, want)
				}
			}
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("events after 10 s = %v, want %v", seen, want)
		}
	}
}

func TestWorldThatCannotStart(t *testing.T) {
	s, err := lab.ParseScenario([]byte("name: x\nvms: [{name: vm, guest: scripted, call_fault: NoSuchFault}]"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Start(t.Context(), s, lab.Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "NoSuchFault") {
		t.Errorf("Start = %v, want an error with NoSuchFault", err)
	}
	if _, err := lab.Start(t.Context(), s, lab.Options{Dir: "here"}); err == nil {
		t.Error("a world in a relative directory started")
	}
}

// TestWorldWithLinuxGuest checks that nothing is left of a world with a real file system.
func TestWorldWithLinuxGuest(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	w := startWorld(t, "name: linux\nvms: [{name: vm, guest: linux, disks: [{size: 32MiB}]}]")
	g, ok := w.Guest("vm")
	if !ok || g.Kind() != "linux" {
		t.Fatalf("guest = %v, %v", g, ok)
	}
	dir := filepath.Dir(g.Disk())
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("still mounted below %s:\n%s", dir, mounts)
	}
}
