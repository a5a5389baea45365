package backup

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// carrier is a mover that takes its time; its calls are among the hypervisor's.
type carrier struct {
	h      *hypervisor
	takes  time.Duration
	report datamover.Report
	err    error
	unfit  error
	during func()
	job    datamover.Job
	there  bool // the snapshot, when the mover ended
}

func (c *carrier) Check() error { return c.unfit }

func (c *carrier) Move(ctx context.Context, j datamover.Job, progress func(datamover.Progress)) (datamover.Report, error) {
	if err := c.h.call("move"); err != nil {
		return datamover.Report{ExitStatus: -1}, err
	}
	c.job = j
	if c.during != nil {
		c.during()
	}
	progress(datamover.Progress{Fraction: 0.5})
	select {
	case <-time.After(c.takes):
	case <-ctx.Done():
		return datamover.Report{ExitStatus: -1, Signal: "terminated"}, &datamover.Error{SF: "SF5206", Err: context.Cause(ctx)}
	}
	c.h.mu.Lock()
	c.there = len(c.h.snapshots) > 0
	c.h.mu.Unlock()
	return c.report, c.err
}

// Origin tells where the data of a snapshot lies.
func (h *hypervisor) Origin(context.Context, inventory.Snapshot) (datamover.Origin, error) {
	return datamover.Origin{URL: &url.URL{Host: "vc1.example"}, Disks: []inventory.Disk{{Key: 2000}}}, h.call("origin")
}

// TestMove has a run move what its snapshot holds.
func TestMove(t *testing.T) {
	whole := []string{"find", "acquire", "intents", "windows", "tasks", "intend", "prepare", "ready", "create", "origin", "move", "remove", "close", "settle", "release", "record"}
	without := func(calls []string, drop ...string) []string {
		return slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return slices.Contains(drop, c) })
	}
	all := datamover.Report{Stored: datamover.StoredAll}
	failed := func(code string) error { return &datamover.Error{SF: code, Err: errors.New("no")} }
	for name, c := range map[string]struct {
		change  func(*bench, *carrier)
		outcome Outcome
		code    string // of the error, "-" for none
		state   MoveState
		told    Told
		finding string // among the findings
		calls   []string
		kept    bool
	}{
		"all is stored": {func(*bench, *carrier) {}, OK, "-", MoveStored, ToldAll, "", whole, false},
		"the link is cut meanwhile": {
			func(b *bench, c *carrier) { c.takes, c.during = time.Hour, b.m.cut }, OK, "-", MoveStored, ToldAll, "", whole, false,
		},
		"the agent ends meanwhile": {func(b *bench, c *carrier) {
			c.takes, c.during = time.Hour, func() { b.m.stop(); <-b.m.ended }
		}, OK, "-", MoveStored, ToldExpired, "SF4020", whole, false},
		"after more than the guest's session lasts": {
			func(_ *bench, c *carrier) { c.takes = 24*time.Hour + 5*time.Minute }, OK, "-", MoveStored, ToldExpired, "SF4020", whole, false,
		},
		"the agent ends right before it is told": {func(b *bench, c *carrier) {
			c.during = func() { time.AfterFunc(59*time.Second, b.m.stop) }
		}, OK, "-", MoveStored, ToldExpired, "SF4020", whole, false},
		"a part is stored": {func(_ *bench, c *carrier) {
			c.report, c.err = datamover.Report{Stored: datamover.StoredPartial, ExitStatus: 3}, failed("SF5203")
		}, Degraded, "-", MovePartial, ToldNone, "SF5203", whole, false},
		"nothing is stored": {
			func(_ *bench, c *carrier) { c.report, c.err = datamover.Report{ExitStatus: 1}, failed("SF5202") },
			Failed, "SF5202", MoveFailed, ToldNone, "SF5202", whole, false,
		},
		"nothing is stored, the snapshot kept": {func(b *bench, c *carrier) {
			c.report, c.err, b.plan.KeepSnapshot = datamover.Report{ExitStatus: 1}, failed("SF5202"), true
		}, Failed, "SF5202", MoveFailed, ToldNone, "SF5202", append(without(whole, "remove", "close", "settle", "release", "record"), "intend", "close", "settle", "release", "record"), true},
		"interrupted": {
			func(b *bench, c *carrier) { b.cancel, c.takes = time.Hour, 2*time.Hour }, Aborted, "SF5206", MoveFailed, ToldNone, "SF5206", whole, false,
		},
		"interrupted in the window": {
			func(b *bench, _ *carrier) { b.cancel = 1203 * time.Millisecond }, Aborted, "-", MoveNotRun, ToldNothing, "SF4909",
			without(whole, "origin", "move"), false,
		},
		"below the policy": {
			func(b *bench, _ *carrier) { b.h.takes = time.Minute }, Failed, "-", MoveNotRun, ToldNothing, "SF4014", without(whole, "origin", "move"), false,
		},
		"below the policy, which keeps": {
			func(b *bench, _ *carrier) { b.h.takes, b.plan.OnDegrade = time.Minute, Keep }, Degraded, "-", MoveStored, ToldNothing, "SF4014", whole, false,
		},
		"no snapshot": {
			func(b *bench, _ *carrier) { b.h.fail["create"] = codedError{code: "SF2206"} }, Failed, "-", MoveNotRun, ToldNothing, "SF4015",
			without(whole, "origin", "move", "remove"), false,
		},
		"nobody tells where the data lies": {
			func(b *bench, _ *carrier) { b.h.fail["origin"] = codedError{code: "SF2004"} }, Failed, "SF2004", MoveFailed, ToldNone, "SF2004",
			without(whole, "move"), false,
		},
		"a mover that cannot be used": {
			func(_ *bench, c *carrier) { c.unfit = failed("SF5201") }, Failed, "SF5201", MoveNotRun, ToldNothing, "SF5201", []string{}, false,
		},
		"no mover, the snapshot kept": {
			func(b *bench, _ *carrier) { b.plan.Mover, b.plan.KeepSnapshot = nil, true }, OK, "-", "", ToldNothing, "",
			append(without(whole, "origin", "move", "remove", "close", "settle", "release", "record"), "intend", "close", "settle", "release", "record"), true,
		},
		"below the policy, so not kept": {
			func(b *bench, _ *carrier) { b.plan.Mover, b.plan.KeepSnapshot, b.h.takes = nil, true, time.Minute }, Failed, "-", "", ToldNothing, "SF4014",
			without(whole, "origin", "move"), false,
		},
		"kept, and cannot be remembered": {func(b *bench, c *carrier) {
			b.plan.KeepSnapshot, c.during = true, func() { b.h.fail["intend"] = codedError{code: "SF1101"} }
		}, Failed, "SF1101", MoveStored, ToldAll, "SF1101", append(without(whole, "remove", "close", "settle", "release", "record"), "intend", "remove", "close", "settle", "release", "record"), false},
		"dry": {
			func(b *bench, _ *carrier) { b.plan.DryRun = true }, OK, "-", MoveNotRun, ToldNothing, "",
			[]string{"find", "acquire", "intents", "windows", "tasks", "release"},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{
					h: &hypervisor{vm: goodVM(), fail: map[string]error{}, takes: 2003 * time.Millisecond}, m: boot(t, "linux"),
					plan: Plan{RunID: "r", Epoch: 7, VM: "db1", OnDegrade: Fail, Budget: freezewindow.DefaultBudget(), LateLimit: 10 * time.Minute},
				}
				mover := &carrier{h: b.h, takes: time.Minute, report: all}
				b.plan.Mover = mover
				c.change(b, mover)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if b.cancel > 0 {
					defer time.AfterFunc(b.cancel, cancel).Stop()
				}
				n := &notebook{h: b.h}
				r, err := Runner{Hypervisor: b.h, Guests: b.m, Memory: n, Tasks: n, Origins: b.h, Log: zap.NewNop()}.Run(ctx, b.plan)
				b.m.end(t)
				if r.Outcome != c.outcome || guest.CodeOf(err) != c.code && c.code != "-" || (err == nil) != (c.code == "-") {
					t.Errorf("outcome %s, error %v, want %s and %s", r.Outcome, err, c.outcome, c.code)
				}
				if r.Mover == nil != (c.state == "") || r.Mover != nil && (r.Mover.State != c.state || r.Mover.Told != c.told) {
					t.Errorf("mover %+v, want %s, told %s", r.Mover, c.state, c.told)
				}
				if c.finding != "" && !slices.Contains(codes(r), c.finding) || c.finding == "" && len(codes(r)) > 0 {
					t.Errorf("findings %q, want %q", codes(r), c.finding)
				}
				if diff := cmp.Diff(c.calls, append([]string{}, slices.Compact(slices.Clone(b.h.calls))...)); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				if made := slices.Contains(c.calls, "create") && b.h.fail["create"] == nil; r.Snapshot.Kept != c.kept || r.Snapshot.Removed != (made && !c.kept) || c.kept != (len(b.h.snapshots) == 1) {
					t.Errorf("snapshot %+v, %v at vCenter, want it kept: %t", r.Snapshot, b.h.snapshots, c.kept)
				}
				if c.state == MoveStored && (!mover.there || mover.job.Level != string(r.Verdict.Level) || mover.job.Snapshot.Moref != "snapshot-1" || len(mover.job.Origin.Disks) != 1) {
					t.Errorf("the mover saw the snapshot: %t, with %+v", mover.there, mover.job)
				}
				open := slices.DeleteFunc(slices.Clone(n.open), func(i statefile.Intent) bool { return i.Kind == statefile.KeptSnapshot })
				if kept := len(n.open) - len(open); len(open) > 0 || (kept == 1) != c.kept && b.h.fail["intend"] == nil {
					t.Errorf("written down is %+v, want it kept: %t and nothing open", n.open, c.kept)
				}
				wellFormed(t, r)
			})
		})
	}
}

// TestRecoverKept leaves what was kept on purpose, removes it when told to, and takes it for no orphan when its run died
// between the two notes.
func TestRecoverKept(t *testing.T) {
	const name = "stillframe-r-7"
	for title, c := range map[string]struct {
		kinds  []statefile.Kind
		kept   bool
		change func(*hypervisor, *Recoverer)
		states []State
		left   int // snapshots at vCenter
		open   int
		ended  string // the run whose mover was ended
	}{
		"kept":                 {kinds: []statefile.Kind{statefile.KeptSnapshot}, states: []State{Kept}, left: 1, open: 1},
		"asked for":            {kinds: []statefile.Kind{statefile.KeptSnapshot}, kept: true, states: []State{Gone}, ended: "r"},
		"noted twice":          {kinds: []statefile.Kind{statefile.Snapshot, statefile.KeptSnapshot}, states: []State{Kept, Kept}, left: 1, open: 1},
		"twice, and asked for": {kinds: []statefile.Kind{statefile.Snapshot, statefile.KeptSnapshot}, kept: true, states: []State{Gone, Gone}, ended: "r"},
		"an orphan":            {kinds: []statefile.Kind{statefile.Snapshot}, states: []State{Gone}, ended: "r"},
		"its mover does not end": {
			kinds: []statefile.Kind{statefile.Snapshot}, states: []State{Open}, left: 1, open: 1,
			change: func(_ *hypervisor, r *Recoverer) {
				r.EndMover = func(context.Context, string) error { return codedError{code: "SF5204"} }
			},
		},
		"the VM was deleted": {
			kinds: []statefile.Kind{statefile.KeptSnapshot}, states: []State{Forgotten}, left: 1,
			change: func(h *hypervisor, r *Recoverer) { h.fail["find"], r.Forget = codedError{code: "SF2009"}, true },
		},
		"the VM was deleted under its mover": {
			kinds: []statefile.Kind{statefile.Snapshot}, states: []State{Forgotten}, left: 1, ended: "r",
			change: func(h *hypervisor, r *Recoverer) { h.fail["find"], r.Forget = codedError{code: "SF2009"}, true },
		},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hypervisor{vm: goodVM(), fail: map[string]error{}, snapshots: []inventory.Snapshot{{Name: name, Moref: "snapshot-1"}}}
				n := &notebook{h: h}
				for _, kind := range c.kinds {
					n.open = append(n.open, statefile.Intent{Kind: kind, Subject: name, Run: "r", VM: h.vm.InstanceUUID, Path: h.vm.Path})
				}
				if got := len(Unfinished(n.open)); got != len(n.open)-strings.Count(string(strings.Join(strs(c.kinds), " ")), "kept") {
					t.Errorf("%d are unfinished", got)
				}
				ended := ""
				r := Recoverer{
					Hypervisor: h, Tasks: n, Guests: &cleared{h: h}, Memory: n, Log: zap.NewNop(), Run: "recovery", TaskLimit: time.Second, Kept: c.kept,
					EndMover: func(_ context.Context, run string) error { ended = run; return nil },
				}
				if c.change != nil {
					c.change(h, &r)
				}
				got := r.Recover(t.Context(), slices.Clone(n.open))
				states := []State{}
				for _, thing := range got.Things {
					states = append(states, thing.State)
					if thing.State == Kept && !strings.Contains(thing.Text, "recover --kept") && thing.Kind == statefile.KeptSnapshot {
						t.Errorf("%+v does not say how it is removed", thing)
					}
				}
				if diff := cmp.Diff(c.states, states); diff != "" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
				if len(h.snapshots) != c.left || len(n.open) != c.open || ended != c.ended {
					t.Errorf("%d snapshots and %d notes are left, the mover of %q was ended, want %d, %d, %q", len(h.snapshots), len(n.open), ended, c.left, c.open, c.ended)
				}
				if (len(got.Leftovers) > 0) != slices.Contains(c.states, Open) {
					t.Errorf("leftovers %q", got.Leftovers)
				}
			})
		})
	}
}

func strs(kinds []statefile.Kind) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return out
}
