package vsphere

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

func TestParseStuns(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	line := func(us string) string {
		return "2026-01-02T03:04:05.006Z In(05) vcpu-0 - Checkpoint_Unstun: vm stopped for " + us + " us\n"
	}
	cases := map[string]struct {
		log  string
		want []stun
	}{
		"empty":           {"", nil},
		"another line":    {"2026-01-02T03:04:05.006Z In(05) vmx - created\n", nil},
		"in their order":  {line("300000") + "x\n" + line("200"), []stun{{at, 300 * time.Millisecond}, {at, 200 * time.Microsecond}}},
		"none":            {line("0"), []stun{{at, 0}}},
		"as in ESXi 6":    {"2026-01-02T03:04:05.006Z| vcpu-0| I125: Checkpoint_Unstun: vm stopped for 7 us\r\n", []stun{{at, 7 * time.Microsecond}}},
		"no time":         {"Jan 02 03:04:05.006: vcpu-0| Checkpoint_Unstun: vm stopped for 7 us\n", []stun{{length: 7 * time.Microsecond}}},
		"cut beginning":   {"stopped for 9 us\n" + line("7"), []stun{{at, 7 * time.Microsecond}}},
		"cut end":         {line("7") + strings.TrimSuffix(line("9"), "\n"), []stun{{at, 7 * time.Microsecond}}},
		"cut number":      {"Checkpoint_Unstun: vm stopped for 12\n", nil},
		"negative":        {line("-5"), nil},
		"an hour":         {line("3600000000"), []stun{{at, time.Hour}}},
		"above an hour":   {line("3600000001"), nil},
		"above any int64": {line("99999999999999999999"), nil},
		"no number":       {line("many"), nil},
	}
	for name, c := range cases {
		if diff := cmp.Diff(c.want, parseStuns([]byte(c.log)), cmp.AllowUnexported(stun{})); diff != "" {
			t.Errorf("%s: stuns (-want +got):\n%s", name, diff)
		}
	}
}

func TestDatacenterPath(t *testing.T) {
	ref := func(kind, id string) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: kind, Value: id}
	}
	dc, folder, root := ref("Datacenter", "datacenter-1"), ref("Folder", "group-d2"), ref("Folder", "group-d1")
	all := map[types.ManagedObjectReference]map[string]any{
		dc: {"name": "DC0", "parent": folder}, folder: {"name": "vm", "parent": root}, root: {"name": "Datacenters"},
		ref("Folder", "group-v3"): {"name": "vm", "parent": dc},
	}
	if got := datacenterPath(all); got != "/vm/DC0" {
		t.Errorf("datacenterPath = %q, want /vm/DC0", got)
	}
	delete(all, dc)
	if got := datacenterPath(all); got != "" {
		t.Errorf("datacenterPath without a datacenter = %q, want none", got)
	}
}

// TestLogEnd reads what other servers may answer: none of it fails, and no more than the end is read.
func TestLogEnd(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	v := wellView()
	v.vm[logFolder], v.datacenter = "[LocalDS_0] DC0_H0_VM0", "/DC0"
	long := "2026-01-02T03:04:05.006Z In(05) vcpu-0 - Checkpoint_Unstun: vm stopped for 3500000 us\n"
	whole := strings.Repeat(long, maxLogEnd/len(long)+1)
	for name, c := range map[string]struct {
		status int
		body   string
		found  int
		why    string
	}{
		"part":      {http.StatusPartialContent, whole[len(whole)-maxLogEnd:], maxLogEnd / len(long), ""},
		"whole":     {http.StatusOK, long + long, 2, ""},
		"too much":  {http.StatusOK, whole + whole, 0, "more than"},
		"forbidden": {http.StatusForbidden, "", 0, "403"},
		"elsewhere": {http.StatusFound, "", 0, "redirected"},
	} {
		asked := ""
		w.setSpoil(func(method string, rw http.ResponseWriter, _ func(http.ResponseWriter)) bool {
			asked = method
			rw.Header().Set("Location", "https://nobody.invalid/")
			rw.WriteHeader(c.status)
			if _, err := rw.Write([]byte(c.body)); err != nil {
				t.Log("the reader has left:", err)
			}
			return true
		})
		v.stuns = stuns{}
		v.recall(t.Context(), e)
		if len(v.stuns.list) != c.found || v.stuns.known != (c.why == "") || !strings.Contains(v.stuns.why, c.why) {
			t.Errorf("%s: %d stuns, %q, want %d, %q", name, len(v.stuns.list), v.stuns.why, c.found, c.why)
		}
		if asked != "GET /folder/DC0_H0_VM0/vmware.log" {
			t.Errorf("%s: asked for %q", name, asked)
		}
	}
	w.setSpoil(nil)
	w.take()
	v.vm[logFolder] = nil
	if v.recall(t.Context(), e); !strings.Contains(v.stuns.why, "its folder") || len(w.take()) > 0 {
		t.Errorf("without a folder: %q, want it said without a call", v.stuns.why)
	}
	v.vm[logFolder] = "[LocalDS_0] DC0_H0_VM0/"
	closed := errors.New("the window is open")
	v.recall(Guard(t.Context(), func() error { return closed }), e)
	if calls := w.take(); len(calls) > 0 || !strings.Contains(v.stuns.why, closed.Error()) {
		t.Errorf("when no call may go out: %q with %v, want none", v.stuns.why, calls)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLogLimit)
	if v.recall(ctx, e); !strings.Contains(v.stuns.why, "no answer within 4.9s") {
		t.Errorf("when time is up: %q", v.stuns.why)
	}
}

// TestStunWithoutPrivilege asks a vCenter that lets nobody read its datastores.
func TestStunWithoutPrivilege(t *testing.T) {
	s := startLab(t, vcenter.Options{Missing: []string{"Datastore.Browse"}, VMs: []vcenter.VM{{Name: "stunned", Conditions: []string{"long_stun"}}}})
	e := labEndpoint(t, s.URL(), s.Thumbprint())
	vm, err := e.Find(t.Context(), "stunned")
	if err != nil {
		t.Fatal(err)
	}
	checks, err := e.Preflight(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(checks, func(c inventory.Check) bool { return c.ID == "stun" })
	if c := checks[i]; c.Status != unclear || !strings.Contains(strings.Join(c.Evidence, "; "), strconv.Itoa(http.StatusForbidden)) {
		t.Errorf("stun = %v %q, want unknown with the status 403", c.Status, c.Evidence)
	}
}
