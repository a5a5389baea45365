package backup

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// cleared is a guest that is cleared; its calls are among the hypervisor's.
type cleared struct {
	h       *hypervisor
	started bool
}

func (c *cleared) Clear(_ context.Context, _ inventory.VM, _ string, started bool) error {
	c.started = started
	return c.h.call("clear")
}

func (c *cleared) Uninstall(context.Context, inventory.VM, string) error {
	return c.h.call("uninstall")
}

func TestRecover(t *testing.T) {
	installing := func(n *notebook) {
		i := n.open[0]
		i.Kind = statefile.Installed
		n.open = append(n.open, i)
	}
	const name = "stillframe-r-7"
	all := []string{"gone", "gone", "gone"}
	for title, c := range map[string]struct {
		change func(*hypervisor, *notebook, *Recoverer)
		states []string // of folder, process, snapshot
		says   string
		calls  []string // without those of the memory
	}{
		"everything is there": {
			func(*hypervisor, *notebook, *Recoverer) {}, all, "",
			[]string{"find", "clear", "tasks", "look", "remove"},
		},
		"nothing is there": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.snapshots = nil }, all, "",
			[]string{"find", "clear", "tasks", "look", "tasks", "look"}, // twice, however old the intent is
		},
		"the snapshot is another's": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.snapshots[0].Name = name + "1" }, all, "",
			[]string{"find", "clear", "tasks", "look", "tasks", "look"},
		},
		"a task never ends": {
			func(_ *hypervisor, n *notebook, _ *Recoverer) {
				n.tasks = []inventory.Task{{Moref: "task-9", Kind: "createSnapshot", State: "running"}}
			}, []string{"gone", "gone", "open"}, "task-9", []string{"find", "clear", "tasks", "tasks", "tasks"},
		},
		"the guest does not answer": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.fail["clear"] = codedError{code: "SF3601"} },
			[]string{"open", "open", "gone"},
			"SF3601",
			[]string{"find", "clear", "tasks", "look", "remove"},
		},
		"an installation was cut off": {
			func(_ *hypervisor, n *notebook, _ *Recoverer) { installing(n) },
			[]string{"gone", "gone", "gone", "gone"},
			"",
			[]string{"find", "uninstall", "clear", "tasks", "look", "remove"},
		},
		"an installation cannot be undone": {
			func(h *hypervisor, n *notebook, _ *Recoverer) {
				installing(n)
				h.fail["uninstall"] = codedError{code: "SF3204"}
			},
			[]string{"open", "open", "gone", "open"},
			"SF3204",
			[]string{"find", "uninstall", "tasks", "look", "remove"},
		},
		"an installation was over": {
			func(h *hypervisor, n *notebook, _ *Recoverer) {
				installing(n)
				h.fail["uninstall"] = ErrStays
			},
			[]string{"kept", "kept", "gone", "kept"},
			"",
			[]string{"find", "uninstall", "tasks", "look", "remove"},
		},
		"powered off": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.vm.PowerState = "poweredOff" },
			[]string{"open", "open", "gone"},
			"poweredOff",
			[]string{"find", "tasks", "look", "remove"},
		},
		"the removal fails": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.fail["remove"] = codedError{code: "SF2301"} },
			[]string{"gone", "gone", "open"},
			"SF2301",
			[]string{"find", "clear", "tasks", "look", "remove"},
		},
		"another VM has the query": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.vm.InstanceUUID = "another" },
			[]string{"open", "open", "open"},
			"--forget",
			[]string{"find"},
		},
		"the VM was deleted": {
			func(h *hypervisor, _ *notebook, r *Recoverer) {
				h.fail["find"], r.Forget = codedError{code: "SF2009"}, true
			},
			[]string{"forgotten", "forgotten", "forgotten"},
			"",
			[]string{"find"},
		},
		"vCenter is gone, told to forget": {
			func(h *hypervisor, _ *notebook, r *Recoverer) {
				h.fail["find"], r.Forget = codedError{code: "SF2004"}, true
			},
			[]string{"open", "open", "open"},
			"SF2004",
			[]string{"find"},
		},
		"all of it is another vCenter's, told to forget": {
			func(h *hypervisor, n *notebook, r *Recoverer) {
				h.fail["find"], r.Forget, r.VCenter = codedError{code: "SF2009"}, true, "vc2.example"
				for i := range n.open {
					n.open[i].VCenter = "vc1.example"
				}
			},
			[]string{"elsewhere", "elsewhere", "elsewhere"},
			"",
			[]string{},
		},
		"the snapshot is another vCenter's": {
			func(_ *hypervisor, n *notebook, r *Recoverer) {
				r.VCenter = "vc2.example"
				n.open[0].VCenter, n.open[1].VCenter, n.open[2].VCenter = "VC2.example", "vc2.example:443", "vc1.example"
			},
			[]string{"gone", "gone", "elsewhere"},
			"",
			[]string{"find", "clear"},
		},
		"it cannot be read again": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.fail["intents"] = codedError{code: "SF1102"} },
			[]string{"open", "open", "open"},
			"SF1102",
			[]string{},
		},
		"a run works there": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.fail["acquire"] = codedError{code: "SF1103"} },
			[]string{"active", "active", "active"},
			"",
			[]string{},
		},
		"it cannot be written": {
			func(h *hypervisor, _ *notebook, _ *Recoverer) { h.fail["settle"] = codedError{code: "SF1101"} },
			[]string{"open", "open", "open"},
			"SF1101",
			[]string{"find", "clear", "tasks", "look", "remove"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vm := goodVM()
				h := &hypervisor{vm: vm, fail: map[string]error{}, snapshots: []inventory.Snapshot{
					{Name: name, Moref: "snapshot-1"}, {Name: name + "0", Moref: "snapshot-2"}, {Name: "nightly", Moref: "snapshot-3"},
				}}
				n := &notebook{h: h}
				for _, i := range []statefile.Intent{
					{Kind: statefile.Folder, Subject: "/d"}, {Kind: statefile.Process, Subject: "/d"}, {Kind: statefile.Snapshot, Subject: name},
				} {
					i.VM, i.Path, i.At = vm.InstanceUUID, vm.Path, time.Now().Add(-time.Hour)
					n.open = append(n.open, i)
				}
				guest := &cleared{h: h}
				r := Recoverer{Hypervisor: h, Tasks: n, Guests: guest, Memory: n, Log: zap.NewNop(), Run: "recovery", TaskLimit: 1500 * time.Millisecond}
				c.change(h, n, &r)
				others := len(h.snapshots) - 1
				got := r.Recover(t.Context(), slices.Clone(n.open))
				states, stay := []string{}, 0
				for _, thing := range got.Things {
					states = append(states, string(thing.State))
					if thing.State == Elsewhere {
						stay++
						if !strings.Contains(thing.Text, "vCenter vc1.example") {
							t.Errorf("%s %s says %q, want its vCenter", thing.Kind, thing.Subject, thing.Text)
						}
					}
				}
				if stay > len(n.open) {
					t.Errorf("%d intents are left, want the %d of another vCenter", len(n.open), stay)
				}
				if a, r := slices.Contains(h.calls, "acquire") && h.fail["acquire"] == nil, slices.Contains(h.calls, "release"); a != r {
					t.Errorf("the VM was acquired: %t, let go of: %t", a, r)
				}
				if diff := cmp.Diff(c.states, states); diff != "" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
				calls := slices.DeleteFunc(slices.Clone(h.calls), func(s string) bool {
					return slices.Contains([]string{"acquire", "release", "intents", "settle"}, s)
				})
				if diff := cmp.Diff(c.calls, append([]string{}, calls...)); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				left := strings.Join(got.Leftovers, "\n")
				if open := slices.Contains(c.states, "open"); open != (left != "") || !strings.Contains(left, c.says) {
					t.Errorf("leftovers %q, want some: %t, with %q", left, open, c.says)
				}
				if !guest.started && slices.Contains(calls, "clear") {
					t.Error("the guest was cleared as if the agent had never been started")
				}
				for _, s := range h.snapshots {
					others -= map[bool]int{true: 1}[s.Moref != "snapshot-1"]
				}
				if others > 0 {
					t.Errorf("snapshots of others were removed: %v are left", h.snapshots)
				}
			})
		})
	}
}

func TestList(t *testing.T) {
	n := &notebook{h: &hypervisor{}, open: []statefile.Intent{
		{Subject: "a", VM: "uuid-1", Path: "/DC0/vm/prod/db", Moref: "vm-1"}, {Subject: "b", VM: "uuid-2", Path: "/DC0/vm/test/db", Moref: "vm-2"},
	}}
	for query, want := range map[string]string{
		"": "ab", "db": "ab", "/DC0/vm/test/db": "b", "vm-1": "a", "UUID-1": "a", "vm-3": "",
	} {
		got, err := List(t.Context(), n, query)
		subjects := ""
		for _, i := range got {
			subjects += i.Subject
		}
		if err != nil || subjects != want {
			t.Errorf("List(%q) = %q, %v, want %q", query, subjects, err, want)
		}
	}
}
