package guestops_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const folder = "/var/lib/stillframe/agent/0123456789abcdef0123456789abcdef"

// programs finds processes among the operations.
type programs struct {
	o    *operations
	pids []int64
}

func (p programs) Programs(_ context.Context, exe, word string) ([]int64, error) {
	return p.pids, p.o.call("programs", exe+" "+word)
}

// book is a ledger among the operations.
type book struct{ o *operations }

func (b book) Intend(_ context.Context, stage guest.Stage, r guest.Remote) error {
	return b.o.call("intend-"+string(stage), r.Dir)
}

func (b book) Settle(_ context.Context, r guest.Remote) error { return b.o.call("settle", r.Dir) }

func TestClear(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*operations)
		pids    []int64
		started bool
		code    string
		calls   []string
		left    bool // the folder
	}{
		"never started": {
			change: func(*operations) {}, calls: []string{"validate", "programs", "list", "list", "remove", "remove"},
		},
		"it was started": {
			change: func(*operations) {}, started: true,
			calls: []string{"validate", "programs", "list", "start", "wait", "list", "remove", "remove"},
		},
		"it still runs": {
			change: func(o *operations) { o.runs = true }, pids: []int64{7}, started: true,
			calls: []string{"validate", "programs", "running", "terminate", "running", "list", "start", "wait", "list", "remove", "remove"},
		},
		"the folder is gone": {
			change: func(o *operations) { o.dirs = map[string]bool{} }, started: true, calls: []string{"validate", "programs", "list"},
		},
		"the agent is gone": {
			change:  func(o *operations) { delete(o.files, folder+"/stillframe-agent") },
			started: true, calls: []string{"validate", "programs", "list", "list", "remove"},
		},
		"wrong password": {
			change: func(o *operations) { o.fail["validate"] = coded("SF3001") }, code: "SF3001", calls: []string{"validate"}, left: true,
		},
		"the thaw fails": {
			change: func(o *operations) { o.exit = 1 }, started: true, code: "-",
			calls: []string{"validate", "programs", "list", "start", "wait"}, left: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				o.dirs[folder] = true
				o.files[folder+"/stillframe-agent"] = []byte("x")
				c.change(o)
				err := guestops.New(o, inventory.Linux).Clear(t.Context(), programs{o, c.pids}, folder, c.started)
				if (err != nil) != (c.code != "") || c.code != "-" && guest.CodeOf(err) != c.code {
					t.Errorf("Clear = %v, want code %q", err, c.code)
				}
				if diff := cmp.Diff(c.calls, o.did()); diff != "" {
					t.Errorf("operations (-want +got):\n%s", diff)
				}
				if o.dirs[folder] != c.left {
					t.Errorf("the folder is there: %t, want %t", o.dirs[folder], c.left)
				}
				if c.started && slices.Contains(o.did(), "start") && !slices.Equal(o.args, []string{"thaw"}) {
					t.Errorf("the agent was started with %q, want thaw", o.args)
				}
			})
		})
	}
}

func TestClearTouchesOnlyOurs(t *testing.T) {
	for _, dir := range []string{
		"", "/", "/etc", "/var/lib/stillframe/agent", folder + "/x", folder + "/", "/tmp/" + strings.Repeat("0", 32),
		"/var/lib/stillframe/agent/../../" + strings.Repeat("0", 32), "/var/lib/stillframe/agent/" + strings.Repeat("g", 32),
	} {
		o := newOperations()
		if err := guestops.New(o, inventory.Linux).Clear(t.Context(), programs{o: o}, dir, true); guest.CodeOf(err) != "SF3950" || len(o.did()) > 0 {
			t.Errorf("Clear(%q) = %v after %v, want SF3950 and nothing", dir, err, o.did())
		}
	}
}

// TestLedger wants each name written down before the effect, and struck out after its end.
func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperations()
		o.ready, o.ends = "READY "+strings.Repeat("ab", 32)+" 6465\n", true
		a := guestops.NewRecorded(o, inventory.Linux, book{o})
		r, err := a.Put(t.Context(), payload())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Start(t.Context(), r, guest.Bootstrap{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Remove(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		did := o.did()
		order := []string{"validate", "intend-push", "mkdir", "upload", "intend-start", "start", "list", "remove", "settle"}
		at := -1
		for _, what := range order {
			now := slices.Index(did, what)
			if now <= at {
				t.Errorf("%s is number %d of %v, want the order %v", what, now, did, order)
			}
			at = now
		}
	})
	for stage, forbidden := range map[string]string{"intend-push": "mkdir", "intend-start": "start"} {
		o := newOperations()
		o.fail[stage] = coded("SF1101")
		a := guestops.NewRecorded(o, inventory.Linux, book{o})
		r, err := a.Put(t.Context(), payload())
		if err == nil {
			_, err = a.Start(t.Context(), r, guest.Bootstrap{})
		}
		if guest.CodeOf(err) != "SF1101" || slices.Contains(o.did(), forbidden) {
			t.Errorf("with %s refused: %v after %v, want no %s", stage, err, o.did(), forbidden)
		}
	}
	o := newOperations()
	o.dirs[folder] = true
	o.fail["remove"] = coded("SF3608")
	err := guestops.NewRecorded(o, inventory.Linux, book{o}).Remove(t.Context(), guest.Remote{Dir: folder})
	if err == nil || slices.Contains(o.did(), "settle") {
		t.Errorf("a removal that failed: %v after %v, want no settle", err, o.did())
	}
}
