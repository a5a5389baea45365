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

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// notebook is a memory that tells its calls among the hypervisor's.
type notebook struct {
	h       *hypervisor
	open    []statefile.Intent
	windows []admission.Sample
	tasks   []inventory.Task
	settled []string
}

func (n *notebook) Intend(_ context.Context, intents ...statefile.Intent) error {
	n.open = append(n.open, intents...)
	return n.h.call("intend")
}

func (n *notebook) Settle(ctx context.Context, intents ...statefile.Intent) error {
	for _, i := range intents {
		n.settled = append(n.settled, i.Subject)
	}
	n.open = slices.DeleteFunc(n.open, func(o statefile.Intent) bool { return slices.Contains(intents, o) })
	if err := n.h.call("settle"); err != nil {
		return err
	}
	return ctx.Err()
}

func (n *notebook) Intents(context.Context, string) ([]statefile.Intent, error) {
	if err := n.h.call("intents"); err != nil {
		return nil, err
	}
	return slices.Clone(n.open), nil
}

func (n *notebook) Acquire(context.Context, string, string) error { return n.h.call("acquire") }

func (n *notebook) Release(ctx context.Context, _, _ string) error {
	if err := n.h.call("release"); err != nil {
		return err
	}
	return ctx.Err()
}

func (n *notebook) Windows(context.Context, string) ([]admission.Sample, error) {
	return n.windows, n.h.call("windows")
}

func (n *notebook) Record(_ context.Context, _ string, s admission.Sample) error {
	n.windows = append(n.windows, s)
	return n.h.call("record")
}

func (n *notebook) Unfinished(context.Context, inventory.VM) ([]inventory.Task, error) {
	return n.tasks, n.h.call("tasks")
}

func TestRunWithMemory(t *testing.T) {
	ended := []string{"settle", "release"}
	start := []string{"find", "acquire", "intents", "windows", "tasks", "intend", "prepare"}
	whole := append(slices.Clone(start), "ready", "create", "remove", "close", "settle", "release", "record")
	old := []admission.Sample{{At: time.Date(1999, 12, 24, 0, 0, 0, 0, time.UTC), Freeze: time.Second, Snapshot: time.Minute, Thaw: time.Second}} // a bubble begins in 2000
	slow := []admission.Sample{{At: time.Now(), Freeze: time.Second, Snapshot: 20 * time.Second, Thaw: time.Second}}
	for name, c := range map[string]struct {
		change func(*hypervisor, *notebook, *Plan)
		code   string // of the error, "-" for none
		calls  []string
		open   bool // the snapshot's name stays written down
		word   admission.Word
	}{
		"well": {func(*hypervisor, *notebook, *Plan) {}, "-", whole, false, admission.Admit},
		"switched off": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.vm.PowerState = "poweredOff" }, "SF2112",
			[]string{"find"},
			false, "",
		},
		"no instance UUID": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.vm.InstanceUUID = "" }, "SF2111",
			[]string{"find"},
			false, "",
		},
		"another run": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["acquire"] = codedError{code: "SF1103"} }, "SF1103",
			[]string{"find", "acquire"},
			false, "",
		},
		"an earlier run left something": {
			func(_ *hypervisor, n *notebook, _ *Plan) { n.open = []statefile.Intent{{Subject: "old"}} }, "SF2304",
			[]string{"find", "acquire", "intents", "release"},
			true, "",
		},
		"nothing can be written": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["intend"] = codedError{code: "SF1101"} }, "SF1101",
			[]string{"find", "acquire", "intents", "windows", "tasks", "intend", "release"},
			true, admission.Admit,
		},
		"will not fit": {
			func(_ *hypervisor, n *notebook, _ *Plan) { n.windows = slow }, "SF4010",
			[]string{"find", "acquire", "intents", "windows", "tasks", "release"},
			false, admission.Refuse,
		},
		"did not fit more than a week ago": {
			func(_ *hypervisor, n *notebook, _ *Plan) { n.windows = old }, "-", whole, false, admission.Admit,
		},
		"will not fit, told to go on": {
			func(_ *hypervisor, n *notebook, p *Plan) { n.windows, p.Admission = slow, AdmissionWarn }, "-", whole, false, admission.Refuse,
		},
		"another snapshot task": {
			func(_ *hypervisor, n *notebook, _ *Plan) {
				n.tasks = []inventory.Task{{Moref: "task-9", Kind: "removeSnapshot", State: "running"}}
			}, "SF4012",
			[]string{"find", "acquire", "intents", "windows", "tasks", "release"},
			false, admission.Delay,
		},
		"another task": {
			func(_ *hypervisor, n *notebook, _ *Plan) {
				n.tasks = []inventory.Task{{Kind: "customize", State: "queued"}}
			}, "-", whole, false, admission.Admit,
		},
		"not prepared": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["prepare"] = codedError{code: "SF2004"} }, "SF2004",
			append(slices.Clone(start), ended...), false, admission.Admit,
		},
		"the snapshot fails": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["create"] = codedError{code: "SF2206"} }, "-",
			append(slices.Clone(start), "ready", "create", "close", "settle", "release", "record"), false, admission.Admit,
		},
		"its outcome is unknown": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["create"] = codedError{"SF2004", true} }, "-",
			append(slices.Clone(start), "ready", "create", "tasks", "look", "close", "settle", "release", "record"), false, admission.Admit,
		},
		"it is not removed": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["remove"] = codedError{code: "SF2301"} }, "SF2301",
			append(slices.Clone(start), "ready", "create", "remove", "close", "release", "record"), true, admission.Admit,
		},
		"it cannot be struck out": {
			func(h *hypervisor, _ *notebook, _ *Plan) { h.fail["settle"] = codedError{code: "SF1101"} }, "SF1101",
			whole, false, admission.Admit,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hypervisor{vm: goodVM(), fail: map[string]error{}, takes: 2003 * time.Millisecond}
				m, n := boot(t, "linux"), &notebook{h: h}
				p := Plan{RunID: "r", Epoch: 7, VM: "db1", OnDegrade: Fail, Budget: freezewindow.DefaultBudget(), LateLimit: time.Minute}
				c.change(h, n, &p)
				r, err := Runner{Hypervisor: h, Guests: m, Memory: n, Tasks: n, Log: zap.NewNop()}.Run(t.Context(), p)
				m.end(t)
				if diff := cmp.Diff(c.calls, once(h.calls)); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				if got := codeOf(err); got != c.code {
					t.Errorf("error %v with code %s, want %s", err, got, c.code)
				}
				if got := len(n.open) > 0; got != c.open {
					t.Errorf("open intents: %v, want some: %t", n.open, c.open)
				}
				if got := (r.Admission != nil); got != (c.word != "") || got && r.Admission.Decision != c.word {
					t.Errorf("admission %+v, want %q", r.Admission, c.word)
				}
			})
		})
	}
}

func codeOf(err error) string {
	if err == nil {
		return "-"
	}
	var r Result
	r.failure(err)
	if len(r.Findings) == 0 {
		return "?"
	}
	return string(r.Findings[0].Code)
}

// TestRemembers looks at what a window leaves for the next prediction.
func TestRemembers(t *testing.T) {
	for name, c := range map[string]struct {
		takes    time.Duration
		snapshot time.Duration // at least
		late     bool
	}{
		"late":                {time.Minute, time.Minute, true},
		"longer than we wait": {time.Hour, 10 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hypervisor{vm: goodVM(), fail: map[string]error{}, takes: c.takes}
				m, n := boot(t, "linux"), &notebook{h: h}
				p := Plan{RunID: "r", Epoch: 7, VM: "db1", OnDegrade: Fail, Budget: freezewindow.DefaultBudget(), LateLimit: 10 * time.Minute}
				if _, err := (Runner{Hypervisor: h, Guests: m, Memory: n, Log: zap.NewNop()}).Run(t.Context(), p); (err != nil) != (c.takes > p.LateLimit) {
					t.Errorf("Run = %v", err)
				}
				m.end(t)
				if len(n.windows) != 1 || n.windows[0].Snapshot < c.snapshot || n.windows[0].Snapshot > c.snapshot+20*time.Second || n.windows[0].Late != c.late {
					t.Errorf("remembered %+v, want a snapshot of %v", n.windows, c.snapshot)
				}
			})
		})
	}
}

func TestRefusalNamesWhatIsOpen(t *testing.T) {
	h := &hypervisor{vm: goodVM(), fail: map[string]error{}}
	n := &notebook{h: h, open: []statefile.Intent{{Kind: statefile.Folder, Subject: "/x/y", Run: "before"}}}
	_, err := Runner{Hypervisor: h, Memory: n, Log: zap.NewNop()}.Run(t.Context(), Plan{Budget: freezewindow.DefaultBudget()})
	if err == nil || !strings.Contains(err.Error(), "stillframe recover --vm "+h.vm.Moref) || !strings.Contains(err.Error(), "agent_folder /x/y of run before") {
		t.Errorf("Run = %v, want the command and what is open", err)
	}
}

// once takes a series of looks for one: how often it looks is a matter of time, not of order.
func once(calls []string) []string {
	var out []string
	for _, c := range calls {
		if (c == "look" || c == "tasks") && len(out) > 0 && slices.Contains(out, "look") {
			continue
		}
		out = append(out, c)
	}
	return out
}

// TestWindowsAge: windows that took too long refuse by the clock of the run for a week, wherever that clock is set.
func TestWindowsAge(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	slow := []admission.Sample{{At: at, Freeze: time.Second, Snapshot: 20 * time.Second, Thaw: time.Second}}
	for age, want := range map[time.Duration]admission.Word{
		0: admission.Refuse, refusalLife: admission.Refuse, refusalLife + 1: admission.Admit, 10 * 365 * 24 * time.Hour: admission.Admit,
	} {
		x := &run{Runner: Runner{Now: func() time.Time { return at.Add(age) }}, plan: Plan{Budget: freezewindow.DefaultBudget()}}
		if d := x.decide(slow, ""); d.Word != want {
			t.Errorf("after %v: %s (%s), want %s", age, d.Word, d.Reason, want)
		}
	}
}
