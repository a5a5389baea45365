package main

import (
	"slices"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/lab"
	labguests "github.com/stillframe/stillframe/pkg/lab/guests"
)

// windowsDay is what has to come of one VM of a scenario whose VMs have one fault each.
type windowsDay struct {
	vm      string
	exit    int
	level   freezewindow.Level
	outcome backup.Outcome
	// codes are all findings, in their order. Where the first says it all it stands in first, and codes is empty.
	codes []string
	first string
	cause freezewindow.Cause // empty is any
	// held is the longest hold of the guest that the lab may have seen; 0 is none at all. io, where it is not 0, is how long
	// the agent says that writes were held, to 0.9 s.
	held, io time.Duration
	// died is true where agent or VSS were ended from outside, so that a session could not be.
	died bool
	// before makes the guest what it is to be; also looks at what else has to hold when it is free again.
	before, also func(t *testing.T, w *world, d windowsDay)
}

// live runs all days of a scenario beside each other.
func live(t *testing.T, scenario string, days []windowsDay) {
	t.Helper()
	lab.Need(t, lab.Mingw, lab.Wine)
	t.Parallel()
	w := start(t, scenario)
	for _, d := range days {
		t.Run(d.vm, func(t *testing.T) {
			t.Parallel()
			if d.before != nil {
				d.before(t, w, d)
			}
			d.run(t, w)
			if d.also != nil {
				d.also(t, w, d)
			}
		})
	}
}

// run does a run and checks what came of it.
func (d windowsDay) run(t *testing.T, w *world) outcome {
	t.Helper()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	o := operate(t, w.environment(d.vm), nil, append(window(d.vm), "--agent", agent)...)
	r := o.result
	if o.exit != d.exit {
		t.Errorf("exit status %d, want %d", o.exit, d.exit)
	}
	if r.Verdict.Level != d.level || r.Outcome != d.outcome || d.cause != "" && r.Verdict.Cause != d.cause {
		t.Errorf("level %q, outcome %q, cause %q, want %q, %q, %q", r.Verdict.Level, r.Outcome, r.Verdict.Cause, d.level, d.outcome, d.cause)
	}
	if codes := o.codes(); d.first == "" && !slices.Equal(codes, d.codes) || d.first != "" && (len(codes) == 0 || codes[0] != d.first) {
		t.Errorf("findings %v, want %v%s", codes, d.codes, d.first)
	}
	if said := time.Duration(r.Window.IOHeldSeconds * float64(time.Second)); d.io > 0 && (said-d.io).Abs() > 900*time.Millisecond {
		t.Errorf("the agent held writes for %v, want %v", said, d.io)
	}
	if len(r.Leftovers) > 0 {
		t.Errorf("leftovers %v", r.Leftovers)
	}
	free(t, w, d.vm, d.held)
	windowsRemoved(t, w, d.vm)
	clean(t, w, d.vm)
	d.ended(t, w)
	return o
}

// look is what the lab sees in the guest.
func (d windowsDay) look(t *testing.T, w *world) (seen labguests.Look) {
	t.Helper()
	w.get(t, "/vm/"+d.vm+"/windows", &seen)
	return seen
}

// ended checks that the registry has nothing of ours, and that each session in VSS was ended exactly once.
func (d windowsDay) ended(t *testing.T, w *world) {
	t.Helper()
	var seen labguests.Look
	await(t, "the sessions in VSS to be closed", func() bool {
		seen = d.look(t, w)
		return d.died || seen.Closed+seen.Leaked == seen.Opened
	})
	if len(seen.Registered) > 0 {
		t.Errorf("the registry still has %v", seen.Registered)
	}
	if d.died {
		return
	}
	if seen.Leaked > 0 {
		t.Errorf("%d sessions are open in the writers", seen.Leaked)
	}
	for _, s := range seen.Sessions {
		if s.Completed+s.Aborted != 1 {
			t.Errorf("a session was completed %d times and aborted %d times", s.Completed, s.Aborted)
		}
	}
}

// tried checks how many sessions a run took; that each was ended is checked for every day.
func tried(sessions int) func(*testing.T, *world, windowsDay) {
	return func(t *testing.T, w *world, d windowsDay) {
		t.Helper()
		if n := len(d.look(t, w).Sessions); n != sessions {
			t.Errorf("%d sessions were opened in VSS, want %d", n, sessions)
		}
	}
}

// happened checks that the day was the one that it is to be.
func (d windowsDay) happened(t *testing.T, w *world, event string) {
	t.Helper()
	var state lab.State
	w.get(t, "/state", &state)
	if !slices.ContainsFunc(state.Happened, func(h lab.Happening) bool { return h.Event == event && h.VM == d.vm && h.Error == "" }) {
		t.Errorf("%s did not happen to %s: %+v", event, d.vm, state.Happened)
	}
}

// short is how long a guest may be held beside a snapshot of a few seconds at most; what is more is this machine's. Where a hold
// is to end by what happens, the snapshot takes far longer than that.
const short = 8 * time.Second

// TestWindowsWriters lives days on which VSS writers have faults.
func TestWindowsWriters(t *testing.T) {
	live(t, "windows-writers", []windowsDay{
		{
			vm: "required-fails", exit: exitFailed, level: freezewindow.Crash, outcome: backup.Failed, held: short,
			codes: []string{"SF4005", "SF4424", "SF4530", "SF4937", "SF4909"},
		},
		{
			vm: "tolerated-fails", exit: exitDegraded, level: freezewindow.Application, outcome: backup.Degraded, held: short,
			codes: []string{"SF4006", "SF4424", "SF4500"},
		},
		{vm: "failed-before", exit: exitPreflight, level: freezewindow.Unproved, outcome: backup.Failed, codes: []string{"SF4013"}},
		{vm: "required-vanishes", exit: exitPreflight, level: freezewindow.Unproved, outcome: backup.Failed, codes: []string{"SF4013"}},
		{
			vm: "tolerated-vanishes", exit: exitDegraded, level: freezewindow.Application, outcome: backup.Degraded, held: short,
			codes: []string{"SF4006", "SF4426", "SF4500"},
		},
		{vm: "unknown-writer", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: short},
		{vm: "sessions-leaked", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, codes: []string{"SF4021"}, held: short},
		{
			vm: "witness-disagrees", exit: exitFailed, level: freezewindow.Crash, outcome: backup.Failed, held: short,
			codes: []string{"SF4912", "SF4909"},
		},
	})
}

// TestWindowsSets lives days on which VSS itself has faults.
func TestWindowsSets(t *testing.T) {
	live(t, "windows-sets", []windowsDay{
		{
			vm: "hold-timeout", exit: exitFailed, level: freezewindow.Crash, outcome: backup.Failed, held: short,
			codes: []string{"SF4003", "SF4937", "SF4909"}, also: nextInModeWriter,
		},
		{vm: "flush-timeout", exit: exitFailed, level: freezewindow.Unproved, outcome: backup.Failed, codes: []string{"SF4004", "SF4909"}, held: short},
		{vm: "veto", exit: exitFailed, level: freezewindow.Crash, outcome: backup.Failed, codes: []string{"SF4007", "SF4909"}, held: short},
		{vm: "class-refused", exit: exitFailed, level: freezewindow.Unproved, outcome: backup.Failed, codes: []string{"SF4107"}},
		{vm: "old-registration", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: short, before: registerOld},
		{
			vm: "coordinator-killed", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, held: short, died: true,
			first: "SF4034",
		},
		{
			vm: "provider-killed", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, held: short, died: true,
			codes: []string{"SF4009", "SF4905", "SF4909"},
		},
		{
			vm: "busy-for-a-while", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: short,
			also: tried(3),
		},
		{
			vm: "busy-for-ever", exit: exitFailed, level: freezewindow.Unproved, outcome: backup.Failed, codes: []string{"SF4008"},
			also: tried(5),
		},
		{vm: "client-edition", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: short},
	})
}

// nextInModeWriter runs the same VM once more: Windows let go of its writes, so that mode auto now holds the applications only.
func nextInModeWriter(t *testing.T, w *world, d windowsDay) {
	t.Helper()
	d.exit, d.level, d.outcome, d.codes, d.also = exitOK, freezewindow.ApplicationWriter, backup.OK, nil, nil
	o := d.run(t, w)
	if o.result.Window.Mode != freezewindow.ModeWriter || o.result.Window.IOHeldSeconds != 0 {
		t.Errorf("the next run held in mode %q, writes for %v s, want writer and none", o.result.Window.Mode, o.result.Window.IOHeldSeconds)
	}
}

// registerOld leaves in the registry what an agent of another version would have.
func registerOld(t *testing.T, w *world, d windowsDay) {
	t.Helper()
	w.post(t, "/vm/"+d.vm+"/do", `{"do": "old_registration"}`)
	if seen := d.look(t, w); len(seen.Registered) != 3 {
		t.Errorf("the registry has %v, want a provider, a class and its AppID", seen.Registered)
	}
}

// TestWindowsAgent lives days on which something happens to the agent while it holds, or beside it.
func TestWindowsAgent(t *testing.T) {
	lost := []string{"SF4009", "SF4905", "SF4909"}
	live(t, "windows-agent", []windowsDay{
		{
			vm: "service-stopped", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, held: short,
			codes: []string{"SF4002", "SF4014", "SF4909"},
		},
		{vm: "agent-killed", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, codes: lost, held: short, died: true},
		{vm: "guest-reboots", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, codes: lost, held: short, died: true},
		{vm: "other-while-held", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: 2 * short, also: otherRefused},
		{vm: "other-while-idle", exit: exitOK, level: freezewindow.Application, outcome: backup.OK, held: short, also: otherServed},
		{
			vm: "snapshot-slow", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, held: 9 * time.Second,
			codes: []string{"SF4014", "SF4937", "SF4909"}, cause: freezewindow.CauseSnapshotSlow, io: 7500 * time.Millisecond,
		},
		{
			vm: "link-silent", exit: exitBudget, level: freezewindow.Crash, outcome: backup.Failed, codes: lost, held: 10 * time.Second,
			also: ioDeadmanReleased,
		},
	})
}

// ioDeadmanReleased checks that the guest, which heard nothing any more, held its writes for 8.5 s and no longer.
func ioDeadmanReleased(t *testing.T, w *world, d windowsDay) {
	t.Helper()
	var holds lab.HoldsOf
	w.get(t, "/vm/"+d.vm+"/holds", &holds)
	if len(holds.VSS.IO) != 1 {
		t.Fatalf("writes were held %d times, want once", len(holds.VSS.IO))
	}
	if held := holds.VSS.IO[0].To.Sub(holds.VSS.IO[0].From); (held - 8500*time.Millisecond).Abs() > time.Second {
		t.Errorf("writes were held for %v, want 8.5 s", held)
	}
}

// Providers of VSS: ours, and the one that Windows has.
const (
	ownProvider    = "1ff4bafb-1cad-4364-8592-221443e14ef6"
	systemProvider = "b5946137-7b9f-4925-af80-51abd60b20d5"
)

// otherRefused: while our set is being made VSS has another product wait, and our provider is not even asked. One that is so
// slow to start that our set has been made by then gets the provider of Windows.
func otherRefused(t *testing.T, w *world, d windowsDay) {
	t.Helper()
	d.happened(t, w, "other_backup")
	seen := d.look(t, w)
	alone := slices.Equal(seen.Served, []string{ownProvider}) && seen.Asked == 1
	after := slices.Equal(seen.Served, []string{ownProvider, systemProvider}) && seen.Asked <= 2 // it is asked while it is registered
	if !alone && !after || len(seen.Sessions) != 2 {
		t.Errorf("volumes went to %v, our provider was asked %d times in %d sessions", seen.Served, seen.Asked, len(seen.Sessions))
	}
}

// otherServed: another product that asks while our provider is registered and nothing is armed gets the provider of Windows.
func otherServed(t *testing.T, w *world, d windowsDay) {
	t.Helper()
	d.happened(t, w, "other_backup")
	seen := d.look(t, w)
	if !slices.Equal(seen.Served, []string{systemProvider, ownProvider}) || seen.Asked != 2 {
		t.Errorf("volumes went to %v, our provider was asked %d times, want it asked by both and given to us only", seen.Served, seen.Asked)
	}
}
