package guestops_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// kept is a guest in which a deployment has kept its program.
func kept(t *testing.T, system inventory.System) (*operations, guest.Remote) {
	t.Helper()
	o, p := newOperations(), payload()
	p.Name = guest.AgentName(system)
	a := guestops.New(o, system)
	r, err := a.Put(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	o.files[strings.TrimSuffix(r.Exe, p.Name)+"ready"] = nil
	r.Keep, r.Greeted, r.Started = true, true, true
	for range 2 { // idempotent
		if err := a.Remove(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	o.calls, r.Keep, r.Greeted, r.Started = nil, false, false, false
	return o, r
}

func TestKeep(t *testing.T) {
	for _, system := range []inventory.System{inventory.Linux, inventory.Windows} {
		o, r := kept(t, system)
		var names []string
		for file := range o.files {
			if dir, name := split(file); dir == r.Dir {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if diff := cmp.Diff([]string{guest.KeptFile, guest.AgentName(system)}, names); diff != "" {
			t.Errorf("%v keeps (-want +got):\n%s", system, diff)
		}
	}
}

// A folder without the program is of no use to anybody.
func TestKeepNothing(t *testing.T) {
	o, r := kept(t, inventory.Linux)
	delete(o.files, r.Exe)
	r.Keep = true
	if err := guestops.New(o, inventory.Linux).Remove(t.Context(), r); err != nil || len(o.files)+len(o.dirs) > 0 {
		t.Errorf("Remove = %v with %d files and %d folders left, want none", err, len(o.files), len(o.dirs))
	}
}

func TestReuse(t *testing.T) {
	cases := map[string]struct {
		change func(o *operations, r guest.Remote)
		same   bool
		code   string
		calls  []string
		left   int // files and folders
	}{
		"well":                   {func(*operations, guest.Remote) {}, true, "", []string{"validate", "fetch", "remove"}, 2},
		"wrong password":         {func(o *operations, _ guest.Remote) { o.fail["validate"] = coded("SF3604") }, false, "SF3604", []string{"validate"}, 3},
		"the guest does not say": {func(o *operations, _ guest.Remote) { o.fail["fetch"] = coded("SF3501") }, false, "", []string{"validate", "fetch"}, 3},
		"another program":        {func(o *operations, r guest.Remote) { o.files[r.Exe][0] ^= 1 }, false, "", []string{"validate", "fetch"}, 3},
		"nothing there":          {func(o *operations, _ guest.Remote) { clear(o.files); clear(o.dirs) }, false, "", []string{"validate", "fetch"}, 0},
		// Somebody reads it.
		"the mark stays": {func(o *operations, _ guest.Remote) { o.fail["remove"] = coded("SF3501") }, true, "", []string{"validate", "fetch", "remove"}, 3},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o, was := kept(t, inventory.Linux)
			c.change(o, was)
			r, same, err := guestops.New(o, inventory.Linux).Reuse(t.Context(), payload(), was.Deployment)
			if same != c.same || guest.CodeOf(err) != c.code || (err == nil) != (c.code == "") {
				t.Errorf("Reuse = %t, %v, want %t, code %q", same, err, c.same, c.code)
			}
			if want := (guest.Remote{Deployment: was.Deployment, Dir: was.Dir, Exe: was.Exe}); r != want {
				t.Errorf("Reuse = %+v, want %+v", r, want)
			}
			if diff := cmp.Diff(c.calls, o.did()); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
			if left := len(o.files) + len(o.dirs); left != c.left {
				t.Errorf("%d files and folders are left, want %d", left, c.left)
			}
		})
	}
}

// A mark that cannot be written is no reason to leave anything.
func TestKeepWithoutRoom(t *testing.T) {
	o, r := kept(t, inventory.Linux)
	delete(o.files, r.Dir+"/"+guest.KeptFile)
	o.fail["upload"] = coded("SF3306")
	r.Keep = true
	if err := guestops.New(o, inventory.Linux).Remove(t.Context(), r); err != nil || len(o.files)+len(o.dirs) > 0 {
		t.Errorf("Remove = %v with %d files and %d folders left, want none", err, len(o.files), len(o.dirs))
	}
}
