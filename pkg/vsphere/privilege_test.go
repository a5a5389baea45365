package vsphere

import (
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator/esx"
)

// TestFeatures holds the ids to those that an ESXi host really has.
func TestFeatures(t *testing.T) {
	var known []string
	for _, r := range esx.RoleList {
		if r.Name == "Admin" {
			known = r.Privilege
		}
	}
	seen := map[string]string{}
	for _, f := range Features() {
		for _, id := range f.Privileges() {
			if !slices.Contains(known, id) {
				t.Errorf("%s: nobody knows the privilege %s", f.Name, id)
			}
			if seen[id] != "" {
				t.Errorf("%s is in %s as well as in %s", id, f.Name, seen[id])
			}
			seen[id] = f.Name
		}
	}
	line := RoleLine(Features()...)
	if !strings.HasPrefix(line, "govc role.create stillframe-backup Cryptographer.Access ") || strings.Contains(line, "System.") {
		t.Errorf("RoleLine = %q, want a sorted list without what is built in", line)
	}
}

func TestGrants(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	vm, err := e.Find(t.Context(), "/DC0/vm/DC0_H0_VM0")
	if err != nil {
		t.Fatal(err)
	}
	w.take()
	grants, err := e.Grants(t.Context(), &vm)
	if err != nil {
		t.Fatal(err)
	}
	if calls := w.take(); len(calls) != 2 {
		t.Errorf("it took the calls %v, want two", calls)
	}
	if len(grants) != len(Features()) {
		t.Errorf("%d grants, want one for each of %d features", len(grants), len(Features()))
	}
	for _, g := range grants {
		if len(g.Missing) > 0 {
			t.Errorf("%s lacks %v, want nothing: the simulator's account may do all", g.Feature.Name, g.Missing)
		}
	}
	if _, err := e.Grants(t.Context(), nil); err != nil {
		t.Errorf("Grants without a VM = %v", err)
	}
}

func TestProbe(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	seen, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(w.front.URL, "https://"); seen.Address != want || len(seen.Thumbprint) != 64 || seen.NotAfter.IsZero() {
		t.Errorf("Probe = %+v, want the certificate of %s", seen, want)
	}
	vm, err := e.Find(t.Context(), "/DC0/vm/DC0_H0_VM0")
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.ProbeHost(t.Context(), vm) // the simulator's hosts have names that nobody resolves
	wantCode(t, err, "SF3612")
}

// TestUnknownHost asks for a name that nobody resolves: its error unwraps to nil, which govmomi takes for a bug.
func TestUnknownHost(t *testing.T) {
	o := newWorld(t, nil).options()
	o.URL.Host = "nobody.invalid"
	_, err := Open(t.Context(), o)
	wantCode(t, err, "SF2004")
}
