package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a test's flag

// bench is one run with its doubles; what is not changed goes well.
type bench struct {
	h        *hypervisor
	m        *machine
	plan     Plan
	hosts    Hosts
	memory   Memory
	cancel   time.Duration // after which the run is interrupted, 0 for never
	bare     *notebook     // of a snapshot alone, nil for a run
	gate     Gate
	sessions Sessions
	// reboot puts another guest in the place of the Linux one.
	reboot func(family string)
	inside int // how many passed the gate and have not left
}

func (b *bench) pass(context.Context) (func(), error) {
	b.inside++
	return func() { b.inside-- }, nil
}

// noRoom is a gate at which nobody ever leaves.
func noRoom(ctx context.Context) (func(), error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(5 * time.Minute):
		return nil, context.DeadlineExceeded
	}
}

// play does one run in a bubble and hands its result to check.
func play(t *testing.T, change func(*bench), check func(t *testing.T, b *bench, r Result, err error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			h: &hypervisor{vm: goodVM(), fail: map[string]error{}, takes: 2003 * time.Millisecond},
			m: boot(t, "linux"),
			plan: Plan{
				RunID: "20260101-abc", Epoch: 1767225600000, VM: "db1", OnDegrade: Fail, Budget: freezewindow.DefaultBudget(),
				LateLimit: 10 * time.Minute, Description: "test",
			},
		}
		b.reboot = func(family string) {
			b.m.end(t)
			b.m = boot(t, family)
		}
		change(b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if b.cancel > 0 {
			defer time.AfterFunc(b.cancel, cancel).Stop()
		}
		runner := Runner{Hypervisor: b.h, Guests: b.m, Hosts: b.hosts, Memory: b.memory, Gate: b.gate, Sessions: b.sessions, Log: zap.NewNop()}
		do := runner.Run
		if b.bare != nil {
			runner.Memory, runner.Tasks = b.bare, b.bare
			do = runner.Bare
		}
		r, err := do(ctx, b.plan)
		b.m.end(t)
		if b.inside != 0 {
			t.Errorf("%d places are still taken", b.inside)
		}
		check(t, b, r, err)
	})
}

// codes are those of the findings.
func codes(r Result) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, string(f.Code))
	}
	return out
}

func TestRun(t *testing.T) {
	closedChannel := make(chan struct{})
	close(closedChannel)
	name := "stillframe-20260101-abc-1767225600000"
	whole := []string{"find", "prepare", "ready", "create", "remove", "close"}
	unwound := []string{"find", "prepare", "ready", "close"}
	cases := map[string]struct {
		change   func(*bench)
		outcome  Outcome
		level    freezewindow.Level
		code     string   // of the error, "-" for none
		findings []string // at least these
		calls    []string
		removed  bool
		left     string // named as a leftover
	}{
		"well":                {func(*bench) {}, OK, freezewindow.Filesystem, "-", nil, whole, true, ""},
		"VM not found":        {func(b *bench) { b.h.fail["find"] = codedError{code: "SF2009"} }, Failed, freezewindow.Unproved, "SF2009", []string{"SF2009"}, []string{"find"}, false, ""},
		"preflight":           {func(b *bench) { b.h.vm.PowerState = "poweredOff" }, Failed, freezewindow.Unproved, "SF2112", []string{"SF2112"}, []string{"find"}, false, ""},
		"not prepared":        {func(b *bench) { b.h.fail["prepare"] = codedError{code: "SF2004"} }, Failed, freezewindow.Unproved, "SF2004", []string{"SF2004"}, []string{"find", "prepare"}, false, ""},
		"no way in":           {func(b *bench) { b.m.open = codedError{code: "SF3703"} }, Failed, freezewindow.Unproved, "SF3703", []string{"SF3703"}, []string{"find", "prepare", "close"}, false, ""},
		"not ready":           {func(b *bench) { b.h.fail["ready"] = codedError{code: "SF2004"} }, Failed, freezewindow.Unproved, "SF2004", []string{"SF2004"}, unwound, false, ""},
		"broken budget":       {func(b *bench) { b.plan.Budget = freezewindow.Budget{} }, Failed, freezewindow.Unproved, "SF4011", []string{"SF4011"}, []string{"find", "prepare", "close"}, false, ""},
		"link lost before GO": {func(b *bench) { b.h.onReady = b.m.cut }, Failed, freezewindow.Unproved, "-", []string{"SF4009"}, unwound, false, ""},
		"link lost while frozen": {func(b *bench) {
			b.h.onReady = func() { time.AfterFunc(1001*time.Millisecond, b.m.cut) }
		}, Failed, freezewindow.Crash, "-", []string{"SF4009", "SF4909"}, whole, true, ""},
		"the same, and kept": {func(b *bench) {
			b.plan.OnDegrade = Keep
			b.h.onReady = func() { time.AfterFunc(1001*time.Millisecond, b.m.cut) }
		}, Degraded, freezewindow.Crash, "-", []string{"SF4009", "SF4909"}, whole, true, ""},
		"below what was asked for": {
			func(b *bench) { b.plan.Level = freezewindow.Application }, Failed, freezewindow.Filesystem, "-", []string{"SF4909"}, whole, true, "",
		},
		"below what was asked for, and kept": {func(b *bench) {
			b.plan.Level, b.plan.OnDegrade = freezewindow.Application, Keep
		}, Degraded, freezewindow.Filesystem, "-", []string{"SF4909"}, whole, true, ""},
		"no more was asked for": {func(b *bench) {
			b.plan.Level = freezewindow.Crash
			b.h.onReady = func() { time.AfterFunc(1001*time.Millisecond, b.m.cut) }
		}, Degraded, freezewindow.Crash, "-", []string{"SF4009", "SF4909"}, whole, true, ""},
		"room was found": {func(b *bench) {
			b.gate = Gate{Logon: b.pass, Arm: b.pass, Window: b.pass, Remove: b.pass, Wait: time.Minute}
		}, OK, freezewindow.Filesystem, "-", nil, whole, true, ""},
		"no room to log on to the guest": {func(b *bench) {
			b.gate = Gate{Logon: noRoom}
		}, Failed, freezewindow.Unproved, "SF1912", []string{"SF1912"}, []string{"find", "prepare", "close"}, false, ""},
		"no room to remove the snapshot": {func(b *bench) { b.gate = Gate{Remove: noRoom} }, OK, freezewindow.Filesystem, "-", nil, whole, true, ""},
		"no room before the guest is armed": {func(b *bench) {
			b.gate = Gate{Arm: noRoom}
		}, Failed, freezewindow.Unproved, "SF1912", []string{"SF1912"}, []string{"find", "prepare", "close"}, false, ""},
		"no room for the window": {func(b *bench) {
			b.gate = Gate{Arm: b.pass, Window: noRoom, Wait: 40 * time.Second}
		}, Failed, freezewindow.Unproved, "SF1912", []string{"SF1912"}, unwound, false, ""},
		"snapshot fails": {
			func(b *bench) { b.h.fail["create"] = codedError{code: "SF2206"} }, Failed, freezewindow.Unproved, "-",
			[]string{"SF4015", "SF2206", "SF4909"},
			[]string{"find", "prepare", "ready", "create", "close"},
			false, "",
		},
		"snapshot unknown, not there": {
			func(b *bench) { b.h.fail["create"] = codedError{"SF2004", true} }, Failed, freezewindow.Unproved, "SF2304",
			[]string{"SF4016", "SF2304"},
			[]string{"find", "prepare", "ready", "create", "look", "close"},
			false, name,
		},
		"snapshot unknown, and there": {func(b *bench) {
			b.h.fail["create"] = codedError{"SF2004", true}
			b.h.snapshots = []inventory.Snapshot{{Name: name, Moref: "snapshot-9"}, {Name: name + "1", Moref: "snapshot-10"}}
		}, Failed, freezewindow.Crash, "-", []string{"SF4016"}, []string{"find", "prepare", "ready", "create", "look", "remove", "close"}, true, ""},
		"snapshot unknown, another's there": {func(b *bench) {
			b.h.fail["create"] = codedError{"SF2004", true}
			b.h.snapshots = []inventory.Snapshot{{Name: name + "1", Moref: "snapshot-10"}}
		}, Failed, freezewindow.Unproved, "SF2304", []string{"SF4016"}, []string{"find", "prepare", "ready", "create", "look", "close"}, false, name},
		"late snapshot": {func(b *bench) { b.h.takes = time.Minute }, Failed, freezewindow.Crash, "-", []string{"SF4014", "SF4909"}, whole, true, ""},
		"too late snapshot": {
			func(b *bench) { b.h.takes = time.Hour }, Failed, freezewindow.Unproved, "SF2304",
			[]string{"SF2304"},
			[]string{"find", "prepare", "ready", "create", "look", "close"},
			false, name,
		},
		"late snapshot, given up": {
			func(b *bench) { b.h.takes, b.plan.GiveUp = time.Minute, closedChannel }, Failed, freezewindow.Unproved, "SF2304",
			[]string{"SF2304"},
			[]string{"find", "prepare", "ready", "create", "look", "close"},
			false, name,
		},
		"late snapshot, no look": {func(b *bench) {
			b.h.takes, b.plan.GiveUp, b.h.fail["look"] = time.Minute, closedChannel, codedError{code: "SF2004"}
		}, Failed, freezewindow.Unproved, "SF2304", nil, []string{"find", "prepare", "ready", "create", "look", "close"}, false, name},
		"interrupted in the window": {func(b *bench) { b.cancel = 1203 * time.Millisecond }, Aborted, freezewindow.Crash, "-", nil, whole, true, ""},
		"interrupted before GO":     {func(b *bench) { b.cancel = 101 * time.Millisecond }, Aborted, freezewindow.Unproved, "SF3701", nil, []string{"find", "prepare", "close"}, false, ""},
		"not removed": {
			func(b *bench) { b.h.fail["remove"] = codedError{code: "SF2301"} }, OK, freezewindow.Filesystem, "SF2301",
			[]string{"SF2301"},
			whole, false, name,
		},
		"removed, not consolidated": {func(b *bench) { b.h.unsettled = "disk-1 is not consolidated" }, OK, freezewindow.Filesystem, "-", []string{"SF2302"}, whole, true, ""},
		"the watch does not end":    {func(b *bench) { b.h.fail["close"] = codedError{code: "SF2004"} }, OK, freezewindow.Filesystem, "SF2004", []string{"SF2004"}, whole, true, "end the watch"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			play(t, c.change, func(t *testing.T, b *bench, r Result, err error) {
				t.Helper()
				if r.Outcome != c.outcome || r.Verdict.Level != c.level {
					t.Errorf("outcome %s with level %s, want %s with %s: %q", r.Outcome, r.Verdict.Level, c.outcome, c.level, r.Verdict.Reasons)
				}
				if got := guest.CodeOf(err); (err == nil) != (c.code == "-") || (err != nil && got != c.code) {
					t.Errorf("error %v with code %q, want %q", err, got, c.code)
				}
				for _, f := range c.findings {
					if !slices.Contains(codes(r), f) {
						t.Errorf("findings are %q, want %s among them", codes(r), f)
					}
				}
				if diff := cmp.Diff(c.calls, slices.Compact(slices.Clone(b.h.calls))); diff != "" {
					t.Errorf("calls to vSphere (-want +got):\n%s", diff)
				}
				if r.Snapshot.Removed != c.removed {
					t.Errorf("removed is %t, want %t", r.Snapshot.Removed, c.removed)
				}
				if left := strings.Join(r.Leftovers, "; "); (left == "") != (c.left == "") || !strings.Contains(left, c.left) {
					t.Errorf("leftovers are %q, want one with %q", left, c.left)
				}
				wellFormed(t, r)
			})
		})
	}
}

// An agent that finds nothing to hold would prove a snapshot of nothing.
func TestRunNeedsSomethingToHold(t *testing.T) {
	play(t, func(b *bench) { b.m.none = true }, func(t *testing.T, b *bench, r Result, err error) {
		t.Helper()
		if r.Verdict.Level != freezewindow.Unproved || guest.CodeOf(err) != "SF4702" || b.m.holds != 0 {
			t.Errorf("level %s, error %v, %d holds, want it refused with SF4702", r.Verdict.Level, err, b.m.holds)
		}
		wellFormed(t, r)
	})
}

func TestRunOpenFailsWithItsAttempts(t *testing.T) {
	play(t, func(b *bench) { b.m.open = codedError{code: "SF3703"} }, func(t *testing.T, _ *bench, r Result, err error) {
		t.Helper()
		if !errors.Is(err, codedError{code: "SF3703"}) || len(r.Guest.Attempts) != 2 || r.Guest.Attempts[1].Code != "SF3703" || r.Guest.Road != "" {
			t.Errorf("%v with guest %+v, want the two attempts and no road", err, r.Guest)
		}
	})
}

// keys are those that the issue promises, with every list.
var keys = []string{ //nolint:gochecknoglobals // a table
	"api_version", "run_id", "vm.name", "vm.moref", "vm.instance_uuid", "verdict.level", "verdict.reasons[]",
	"window.mode", "window.budget_seconds", "window.held_at_most_seconds", "window.held_by_guest_seconds", "window.phases[]",
	"window.volumes[]", "snapshot.name", "snapshot.moref", "snapshot.task_seconds", "snapshot.removed", "snapshot.road", "snapshot.roads[]",
	"guest.road", "guest.channel", "guest.agent_version", "guest.attempts[]", "writers[]", "findings[]", "leftovers[]",
}

// wellFormed checks that r's JSON form has every key, and no list that is null.
func wellFormed(t *testing.T, r Result) {
	t.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		path, isList := strings.CutSuffix(key, "[]")
		var at any = object
		for _, part := range strings.Split(path, ".") {
			inner, _ := at.(map[string]any)
			value, there := inner[part]
			if !there {
				t.Errorf("%s is missing", key)
			}
			at = value
		}
		if _, ok := at.([]any); isList && !ok {
			t.Errorf("%s is %v, want a list", key, at)
		}
	}
	inside := map[string][]string{"phases": {"name", "start_seconds", "duration_seconds"}, "attempts": {"road", "stage", "ok", "code", "seconds"}, "findings": {"code", "title", "evidence", "next"}}
	lists := map[string]any{"phases": object["window"].(map[string]any)["phases"], "attempts": object["guest"].(map[string]any)["attempts"], "findings": object["findings"]}
	for list, want := range inside {
		items, _ := lists[list].([]any)
		for _, item := range items {
			for _, key := range want {
				if value, ok := item.(map[string]any)[key]; !ok || value == nil {
					t.Errorf("%s[].%s is %v", list, key, value)
				}
			}
		}
	}
}

// TestResultGolden compares the whole JSON form; in a bubble even its times are always the same.
func TestResultGolden(t *testing.T) {
	cases := map[string]func(*bench){
		"ok":        func(*bench) {},
		"not_found": func(b *bench) { b.h.fail["find"], b.h.vm = codedError{code: "SF2009"}, inventory.VM{} },
		"late":      func(b *bench) { b.h.takes = time.Minute },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			play(t, change, func(t *testing.T, _ *bench, r Result, _ error) {
				t.Helper()
				got, err := json.MarshalIndent(r, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, '\n')
				file := filepath.Join("testdata", "result_"+name+".json")
				if *update {
					if err := os.WriteFile(file, got, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(want, got) {
					t.Errorf("%s differs (-want +got; -update rewrites it):\n%s", file, cmp.Diff(string(want), string(got)))
				}
			})
		})
	}
}
