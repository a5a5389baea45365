package freezewindow_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// simFlags are given behind -args.
var simFlags = struct {
	n               *int
	seed            *uint64
	out, mutantsOut *string
}{
	n:          flag.Int("sim.n", 20_000, "windows to simulate"),
	seed:       flag.Uint64("sim.seed", 1, "seed of the first window"),
	out:        flag.String("sim.out", "", "file for the result as JSON"),
	mutantsOut: flag.String("sim.mutants-out", "", "file for the planted bugs caught, as JSON"),
}

// tally counts windows; adding two tallies gives the same sum in any order.
type tally struct {
	windows  int
	guests   [2]int // windows by system
	fell     int
	firstBad uint64 // the lowest seed that broke an invariant, 0 = none
	worst    time.Duration
	// stopped is the longest true hold of a writer while the agent was stopped: nobody but the writer ends it.
	stopped  time.Duration
	verdicts map[string]int
	classes  map[string]int
}

func newTally() *tally { return &tally{verdicts: map[string]int{}, classes: map[string]int{}} }

func (t *tally) add(o *tally) {
	t.windows += o.windows
	for s, n := range o.guests {
		t.guests[s] += n
	}
	t.stopped = max(t.stopped, o.stopped)
	t.fell += o.fell
	t.worst = max(t.worst, o.worst)
	if o.firstBad != 0 && (t.firstBad == 0 || o.firstBad < t.firstBad) {
		t.firstBad = o.firstBad
	}
	for k, n := range o.verdicts {
		t.verdicts[k] += n
	}
	for k, n := range o.classes {
		t.classes[k] += n
	}
}

func (t *tally) count(seed uint64, j *judge) {
	t.windows++
	t.guests[j.w.system()]++
	t.worst, t.stopped = max(t.worst, j.worst), max(t.stopped, j.worstStopped)
	if j.failed() {
		t.fell += len(j.fell)
		if t.firstBad == 0 || seed < t.firstBad {
			t.firstBad = seed
		}
	}
	t.verdicts[verdictName(j)]++
	for _, c := range classes(j) {
		t.classes[c]++
	}
}

func verdictName(j *judge) string {
	prefix := ""
	if j.w.vss != nil {
		prefix = "windows/"
	}
	if !j.reported {
		return prefix + "none/orchestrator_died"
	}
	cause := string(j.report.Verdict.Cause)
	if cause == "" {
		cause = "none"
	}
	return prefix + string(j.report.Verdict.Level) + "/" + cause
}

// classes are the kinds of windows that a world must have enough of to prove anything.
func classes(j *judge) []string {
	if j.w.vss != nil {
		return windowsClasses(j)
	}
	var out []string
	add := func(is bool, name string) {
		if is {
			out = append(out, name)
		}
	}
	w, r := j.w, j.report
	cause := r.Verdict.Cause
	add(r.Verdict.Level.Consistent(), "consistent")
	add(r.Verdict.Level.Consistent() && len(w.plan.faults) > 0, "consistent in spite of faults")
	add(r.Late, "late")
	add(j.losses > 0, "link lost")
	add(j.backs > 0, "resumed")
	add(j.thawed != nil && j.thawed.ExpiredBy == "deadman", "deadman told")
	add(j.thawed != nil && j.thawed.ExpiredBy == "link_lost", "released by link loss")
	add(cause == fw.CauseCancelled, "cancelled")
	add(cause == fw.CauseSnapshotFailed, "snapshot failed")
	add(cause == fw.CauseSnapshotSlow, "snapshot slow")
	add(cause == fw.CauseFreezeSlow, "freeze slow")
	add(cause == fw.CauseNoTime, "no time")
	add(cause == fw.CauseNotReady, "not ready")
	add(cause == fw.CauseGuestError, "guest error")
	add(r.Snap == fw.SnapLost, "snapshot unknown")
	add(j.reported && j.goSent && !r.HeldAtMostKnown, "hold unknown")
	add(j.handed, "handed over")
	add(w.gone[daemon], "orchestrator died")
	add(j.agentDead, "agent killed")
	add(j.agentHurt && !j.agentDead, "agent stopped")
	add(w.dog.acted, "second net acted")
	add(j.foreign, "foreign thaw")
	add(j.service, "service stop")
	add(j.stuns > 0, "stun")
	add(r.OverrunByStun(), "overrun by stun")
	add(len(j.pauses) > 0, "orchestrator stopped")
	add(w.agent.state.Dropped > 0, "stale dropped by the agent")
	add(w.gone[daemon] && j.agentDead, "both sides dead")
	add(w.plan.kernelHang, "kernel hangs")
	return out
}

// systemsOf are the worlds of a seed: each has one with a Linux guest, every third one with a Windows guest, too.
func systemsOf(seed uint64) []system {
	if seed%3 == 0 {
		return []system{linux, windows}
	}
	return []system{linux}
}

// runSeeds simulates the worlds of n seeds from the seed first on so many cores; the result does not depend on their number.
func runSeeds(first uint64, n, cores int) *tally {
	const slice = 1000
	jobs := make(chan [2]uint64)
	var group sync.WaitGroup
	parts := make([]*tally, cores)
	for i := range parts {
		part := newTally()
		parts[i] = part
		group.Go(func() {
			for job := range jobs {
				for seed := job[0]; seed < job[1]; seed++ {
					for _, s := range systemsOf(seed) {
						part.count(seed, newWorld(s, seed, realCode(), false).simulate())
					}
				}
			}
		})
	}
	end := first + uint64(n)
	for from := first; from < end; from += slice {
		jobs <- [2]uint64{from, min(from+slice, end)}
	}
	close(jobs)
	group.Wait()
	all := newTally()
	for _, part := range parts {
		all.add(part)
	}
	return all
}

// explain runs a seed again with its event log.
func explain(seed uint64) string {
	var s strings.Builder
	for _, system := range systemsOf(seed) {
		if text, failed := explainWorld(system, seed); failed || s.Len() == 0 {
			s.WriteString(text)
		}
	}
	return s.String()
}

func explainWorld(system system, seed uint64) (text string, failed bool) {
	w := newWorld(system, seed, realCode(), true)
	j := w.simulate()
	var s strings.Builder
	for _, b := range j.fell {
		fmt.Fprintf(&s, "invariant %d (%s): %s\n", b.number, invariant(b.number), b.text)
	}
	fmt.Fprintf(&s, "%s seed %d, repeat with: go test ./pkg/freezewindow -run TestSim -args -sim.seed=%d -sim.n=1\nplan %+v %+v\n%s\n",
		system, seed, seed, w.plan, w.plan.vss, w.trace())
	return s.String(), j.failed()
}

// TestSim runs seeded windows against every invariant.
func TestSim(t *testing.T) {
	n := *simFlags.n
	all := runSeeds(*simFlags.seed, n, runtime.GOMAXPROCS(0))
	if all.fell > 0 {
		t.Errorf("%d invariants broken in %d windows, first by:\n%s", all.fell, all.windows, explain(all.firstBad))
	}
	if n == 1 && all.fell == 0 {
		t.Log(explain(*simFlags.seed))
	}
	t.Logf("%d windows, guests %v, worst hold %v, with a stopped agent %v, verdicts %v", all.windows, all.guests, all.worst, all.stopped, all.verdicts)
	if n >= 10_000 {
		tame(t, all)
	}
	if *simFlags.out == "" {
		return
	}
	out, err := json.MarshalIndent(map[string]any{
		"windows": all.windows, "linux_guests": all.guests[linux], "windows_guests": all.guests[windows],
		"worst_hold_stopped_agent_seconds": all.stopped.Seconds(), "invariants_broken": all.fell, "worst_hold_seconds": all.worst.Seconds(),
		"verdicts": all.verdicts, "classes": all.classes, "seed": *simFlags.seed,
	}, "", "  ")
	if err == nil {
		err = os.WriteFile(*simFlags.out, append(out, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// least is how many of 10,000 windows of a system must be of a class.
type least struct {
	class string
	least int
}

// tame wants enough of every kind of window.
func tame(t *testing.T, all *tally) {
	t.Helper()
	for s, list := range [][]least{linux: linuxLeast(), windows: windowsLeast()} {
		for _, want := range list {
			if got := all.classes[want.class] * 10_000 / max(all.guests[s], 1); got < want.least {
				t.Errorf("class %q: %d of 10,000 %s windows, want at least %d: the world is too tame", want.class, got, system(s), want.least)
			}
		}
	}
	t.Logf("classes %v", all.classes)
}

func linuxLeast() []least {
	return []least{
		{"consistent", 3000},
		{"consistent in spite of faults", 1700},
		{"late", 150},
		{"link lost", 1400},
		{"resumed", 600},
		{"deadman told", 80},
		{"released by link loss", 250},
		{"cancelled", 200},
		{"snapshot failed", 400},
		{"snapshot slow", 500},
		{"snapshot unknown", 120},
		{"freeze slow", 200},
		{"no time", 8},
		{"not ready", 80},
		{"guest error", 600},
		{"hold unknown", 400},
		{"handed over", 900},
		{"orchestrator died", 250},
		{"orchestrator stopped", 350},
		{"agent killed", 350},
		{"agent stopped", 350},
		{"both sides dead", 10},
		{"second net acted", 300},
		{"foreign thaw", 140},
		{"service stop", 300},
		{"stun", 1700},
		{"overrun by stun", 200},
		{"stale dropped by the agent", 200},
		{"kernel hangs", 80},
	}
}

// TestSimRepeats runs seeds twice and wants the same event log.
func TestSimRepeats(t *testing.T) {
	for i := range uint64(600) {
		s, seed := system(i%2), 1+i/2
		a, b := newWorld(s, seed, realCode(), true), newWorld(s, seed, realCode(), true)
		a.simulate()
		b.simulate()
		if a.trace() != b.trace() {
			t.Fatalf("%s seed %d: two runs differ:\n%s\n---\n%s", s, seed, a.trace(), b.trace())
		}
		plain := newWorld(s, seed, realCode(), false)
		plain.simulate()
		if plain.now != a.now || plain.seq != a.seq {
			t.Fatalf("%s seed %d: the log changes the run: ended at %v with %d items, with the log at %v with %d", s, seed, plain.now, plain.seq, a.now, a.seq)
		}
	}
}

// TestSimRegressions runs the seeds that once found a bug in the reducers; the bugs themselves are planted again by
// foundMutants.
func TestSimRegressions(t *testing.T) {
	for _, c := range []struct {
		system system
		seed   uint64
		bug    string
	}{
		{linux, 41, "held_by_guest was called known while a file system was still freezing"},
		{linux, 97, "held_at_most was called known while a file system was still freezing"},
		{linux, 106, "a foreign thaw lowered the level without a cause"},
		{linux, 410, "THAW of a GO that was lost on the road was answered for go 0, so nobody took the answer"},
		{linux, 4319, "a thaw that the agent began and the second net ended was told as a foreign thaw"},
		{linux, 5006, "a hold that was heard of after a heartbeat began with the heartbeat, so the dead-man came late"},
		{linux, 10751, "a guest that never answered lowered the level without a cause"},
		{linux, 87529, "a release that had not ended was told as one that had"},
		{linux, 239885, "an agent left while its FIFREEZE was still under way and its watchdog was dead: what it froze stayed frozen"},
		{windows, 20, "a shadow copy set that failed lowered the level without a cause"},
		{windows, 23, "a last word that never came lowered the level without a cause"},
		{windows, 3416, "a hold began when the agent heard of it, which may be long after EndPrepareSnapshots: held_by_guest was too short"},
		{windows, 6398, "the same, seen in held_at_most"},
		{windows, 10570, "was_held was told before the hold itself had said who ended it"},
		{windows, 225, "ABORT was answered with closed although the session with the writers could not be ended"},
	} {
		if j := newWorld(c.system, c.seed, realCode(), false).simulate(); j.failed() {
			text, _ := explainWorld(c.system, c.seed)
			t.Errorf("%s:\n%s", c.bug, text)
		}
	}
}

// TestSimCores wants the same result from one core as from three.
func TestSimCores(t *testing.T) {
	if diff := cmp.Diff(runSeeds(1, 3000, 1), runSeeds(1, 3000, 3), cmp.AllowUnexported(tally{})); diff != "" {
		t.Errorf("one core and three differ: %s", diff)
	}
}

// TestEmptyWindowIsUnproved is invariant 22.
func TestEmptyWindowIsUnproved(t *testing.T) {
	if v := fw.Judge(fw.State{}); v.Level != fw.Unproved {
		t.Errorf("Judge(State{}) = %s, want %s", v.Level, fw.Unproved)
	}
}
