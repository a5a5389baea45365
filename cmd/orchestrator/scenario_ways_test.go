package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab"
	labguests "github.com/stillframe/stillframe/pkg/lab/guests"
)

// waysWorlds lets two of these worlds be there at a time: each has up to ten Windows guests.
var waysWorlds = make(chan struct{}, 2)

// startWays starts one of these worlds when there is room for it, and gives the room back when its tests are over.
func startWays(t *testing.T, scenario string) *world {
	t.Helper()
	waysWorlds <- struct{}{}
	t.Cleanup(func() { <-waysWorlds }) // after the guests' own tests
	return start(t, scenario)
}

// wayDay is a guest into which one way does not lead, run after run.
type wayDay struct {
	vm   string
	runs []wayRun
}

// wayRun is one run of a wayDay.
type wayRun struct {
	args []string
	// password is the one that is tried; empty is the right one.
	password string
	exit     int
	// code is the error's; empty where the run is to go well.
	code string
	// way is the one by which it goes well.
	way guest.Way
	// before are the codes of the attempts of other ways, in their order, "skipped " before those that were not tried.
	before []string
	// shares, commands and operations are how many logons this run tries at the share, at WinRM, and by guest operations; nil
	// is not counted.
	logons *[3]int
}

// liveWays runs all days of a scenario.
func liveWays(t *testing.T, scenario string, days []wayDay) {
	t.Helper()
	lab.Need(t, lab.Mingw, lab.Wine, lab.Smbd)
	t.Parallel()
	w := startWays(t, scenario)
	for half := range 2 { // two of its guests live at once: Windows' programs are many
		t.Run(fmt.Sprint(half), func(t *testing.T) {
			t.Parallel()
			for i, d := range days {
				if i%2 == half {
					t.Run(d.vm, func(t *testing.T) { d.live(t, w) })
				}
			}
		})
	}
}

// live does the runs of a day.
func (d wayDay) live(t *testing.T, w *world) {
	t.Helper()
	for _, r := range d.runs {
		r.live(t, w, d.vm)
	}
}

// live does a run, checks what came of it, and that nothing of it is left.
func (r wayRun) live(t *testing.T, w *world, vm string) {
	t.Helper()
	var before [3]int
	if r.logons != nil {
		before = w.logons(t, vm)
	}
	r.during(t, w, vm, nil)
	if r.logons != nil {
		after := w.logons(t, vm)
		if [3]int{after[0] - before[0], after[1] - before[1], after[2] - before[2]} != *r.logons {
			t.Errorf("%q: logons before %v, after %v, want %v more", r.args, before, after, *r.logons)
		}
	}
	nothingLeft(t, w, r.environment(t, w, vm), vm)
}

// during does a run, with something beside it, and checks what came of it.
func (r wayRun) during(t *testing.T, w *world, vm string, beside func(*os.Process)) outcome {
	t.Helper()
	agent, err := windowsAgent()
	if err != nil {
		t.Fatal(err)
	}
	o := operate(t, r.environment(t, w, vm), beside, append(append(window(vm), "--agent", agent), r.args...)...)
	r.check(t, o)
	if r.code == "" {
		free(t, w, vm, short)
	} else if !w.everHeld(t, vm) {
		free(t, w, vm, 0)
	}
	return o
}

// environment is the operator's. Each guest has a state of its own: the breaker goes by the account's name, which they share.
func (r wayRun) environment(t *testing.T, w *world, vm string) map[string]string {
	t.Helper()
	env := w.environment(vm)
	if r.password != "" {
		env["GOVC_GUEST_LOGIN"] = w.guest(t, vm).User + ":" + r.password
	}
	env["STILLFRAME_STATE_DIR"] += "-" + vm
	return env
}

// check checks exit status, code and attempts of a run.
func (r wayRun) check(t *testing.T, o outcome) {
	t.Helper()
	level, result := freezewindow.Unproved, backup.Failed
	if r.code == "" {
		level, result = freezewindow.Application, backup.OK
	}
	if o.exit != r.exit || o.result.Verdict.Level != level || o.result.Outcome != result {
		t.Errorf("%q: exit status %d, level %q, outcome %q, want %d, %q, %q", r.args, o.exit, o.result.Verdict.Level, o.result.Outcome, r.exit, level, result)
	}
	if codes := o.codes(); r.code != "" && (!slices.Equal(codes, []string{r.code}) || !strings.Contains(o.stderr, "("+r.code+")")) || r.code == "" && len(codes) > 0 {
		t.Errorf("%q: findings %v, want %q and nothing else", r.args, codes, r.code)
	}
	var last guest.Way
	before := []string{}
	for _, a := range o.result.Guest.Attempts {
		switch {
		case a.OK && a.Stage == string(guest.StageHello):
			last = guest.Way{Road: guest.Road(a.Road), Start: guest.Start(a.Start)}
		case a.Skipped:
			before = append(before, "skipped "+a.Code)
		case !a.OK:
			before = append(before, a.Code)
		}
	}
	if last != r.way || r.before != nil && !slices.Equal(before, r.before) {
		t.Errorf("%q: it went by %q after %q, want %q after %q", r.args, last, before, r.way, r.before)
	}
	if len(o.result.Leftovers) > 0 {
		t.Errorf("%q: leftovers %q", r.args, o.result.Leftovers)
	}
}

// logons counts who tried an account: at the share, at WinRM, by guest operations.
func (w *world) logons(t *testing.T, vm string) [3]int {
	t.Helper()
	var seen lab.WaysOf
	w.get(t, "/vm/"+vm+"/ways", &seen)
	var calls []lab.Call
	w.get(t, "/calls", &calls)
	n := 0
	for _, c := range calls {
		if c.Method == "ValidateCredentialsInGuest" && c.VM == vm {
			n++
		}
	}
	return [3]int{seen.ShareLogons, seen.WinRMLogons, n}
}

// everHeld says whether the lab saw the guest held in any run so far.
func (w *world) everHeld(t *testing.T, vm string) bool {
	t.Helper()
	var holds lab.HoldsOf
	w.get(t, "/vm/"+vm+"/holds", &holds)
	return len(holds.Holds) > 0
}

// nothingLeft checks that the guest has no folder, process, service or registration of ours, and that nothing is written down
// as open.
func nothingLeft(t *testing.T, w *world, env map[string]string, vm string) {
	t.Helper()
	windowsRemoved(t, w, vm)
	removed(t, w, vm)
	var seen labguests.Look
	w.get(t, "/vm/"+vm+"/windows", &seen)
	if len(seen.Registered)+len(seen.Rules) > 0 {
		t.Errorf("the registry still has %v, the firewall %v", seen.Registered, seen.Rules)
	}
	if o := operate(t, env, nil, "recover", "--dry-run"); o.exit != exitOK || !strings.Contains(o.stdout, "nothing to recover") {
		t.Errorf("recover --dry-run: exit status %d", o.exit)
	}
}

// pinned is a run with one road only.
func pinned(road string, more ...string) []string { return append([]string{"--road", road}, more...) }

// well is a run by any road that goes well on the last of them.
func well(way guest.Way, before ...string) wayRun { return wayRun{way: way, before: before} }

// TestWindowsLogons tries accounts that are not let in, or not far enough.
func TestWindowsLogons(t *testing.T) {
	once := func(code string) []wayRun {
		return []wayRun{
			{exit: exitAuth, code: code, logons: &[3]int{1, 0, 0}, before: []string{code}},
			{exit: exitAuth, code: "SF1104", logons: &[3]int{}, before: []string{"SF1104"}},
			{args: pinned("adminshare+winrm"), exit: exitAuth, code: "SF1104", logons: &[3]int{}},
			{args: pinned("guestops"), exit: exitAuth, code: "SF1104", logons: &[3]int{}},
		}
	}
	wrong := once("SF3001")
	for i := range wrong {
		wrong[i].password = "never-was"
	}
	liveWays(t, "windows-logons", []wayDay{
		// A changed password is tried at once.
		{vm: "wrong-password", runs: append(wrong, well(guest.WaySCM))},
		{vm: "disabled", runs: once("SF3002")},
		{vm: "locked", runs: once("SF3003")},
		{vm: "expired", runs: once("SF3004")},
		{vm: "filtered", runs: []wayRun{
			{args: pinned("adminshare"), exit: exitAuth, code: "SF3101", before: []string{"SF3101", "SF3101"}, logons: &[3]int{2, 0, 0}},
			{exit: exitAuth, code: "SF3104", before: []string{"skipped SF3101", "skipped SF3101", "SF3104"}, logons: &[3]int{0, 0, 1}},
		}},
		{vm: "no-manager", runs: []wayRun{
			{args: pinned("adminshare+svcctl"), exit: exitAuth, code: "SF3102"},
			{args: pinned("adminshare+winrm"), exit: exitAuth, code: "SF3103"},
			well(guest.WayGuestOps, "skipped SF3102", "skipped SF3103"),
		}},
	})
}

// TestWindowsShares tries shares that are not what they should be.
func TestWindowsShares(t *testing.T) {
	liveWays(t, "windows-shares", []wayDay{
		{vm: "no-admin", runs: []wayRun{
			{args: pinned("adminshare+svcctl"), exit: exitPreflight, code: "SF3301"},
			{args: pinned("adminshare+winrm"), exit: exitPreflight, code: "SF3301"},
			well(guest.WayGuestOps, "skipped SF3301", "skipped SF3301"),
		}},
		{vm: "smb1", runs: []wayRun{
			{args: pinned("adminshare"), exit: exitPreflight, code: "SF3302", before: []string{"SF3302", "SF3302"}},
			well(guest.WayGuestOps, "skipped SF3302", "skipped SF3302"),
		}},
		{vm: "old-encrypted", runs: []wayRun{
			{args: pinned("adminshare"), exit: exitAuth, code: "SF3105", before: []string{"SF3105", "SF3105"}},
			well(guest.WayGuestOps, "skipped SF3105", "skipped SF3105"),
		}},
		// The first session shows that nothing is encrypted; the library that fits is remembered.
		{vm: "signing", runs: []wayRun{well(guest.WaySCM), well(guest.WaySCM)}},
		{vm: "full", runs: []wayRun{
			{args: pinned("adminshare+svcctl"), exit: exitFailed, code: "SF3306"},
			{exit: exitFailed, code: "SF3306"},
		}},
		{vm: "silent", runs: []wayRun{
			{args: pinned("adminshare"), exit: exitPreflight, code: "SF3201"},
			well(guest.WayGuestOps),
		}},
		{vm: "refusing", runs: []wayRun{
			{args: pinned("adminshare"), exit: exitPreflight, code: "SF3202"},
			well(guest.WayGuestOps),
		}},
	})
}

// TestWindowsServices tries service control managers that refuse, lie, or say nothing.
func TestWindowsServices(t *testing.T) {
	next := func(exit int, code string, before ...string) []wayRun {
		if len(before) == 0 {
			before = []string{code}
		}
		return []wayRun{{args: pinned("adminshare+svcctl"), exit: exit, code: code, before: before}, well(guest.WayWinRM, before...)}
	}
	liveWays(t, "windows-services", []wayDay{
		{vm: "no-answer-of-service", runs: next(exitFailed, "SF3401")},
		{vm: "marked", runs: next(exitFailed, "SF3404", "SF3404", "SF3404", "SF3404", "SF3404")},
		{vm: "exists", runs: next(exitFailed, "SF3409")},
		{vm: "blocked", runs: next(exitFailed, "SF3403")},
		{vm: "no-windows", runs: []wayRun{
			{args: pinned("adminshare+svcctl"), exit: exitPreflight, code: "SF3405"},
			well(guest.WayWinRM, "skipped SF3405"),
		}},
		{vm: "hangs", runs: []wayRun{{args: pinned("adminshare+svcctl"), exit: exitFailed, code: "SF3204"}, well(guest.WaySCM)}},
		{vm: "pipe-cut", runs: []wayRun{{args: pinned("adminshare+svcctl"), exit: exitFailed, code: "SF3408"}, well(guest.WaySCM)}},
		{vm: "quarantine", runs: next(exitFailed, "SF3406")},
	})
}

// TestWindowsCommands tries a WinRM that is off, refuses, or is not to be believed.
func TestWindowsCommands(t *testing.T) {
	days := []wayDay{{vm: "certificate", runs: []wayRun{
		{args: pinned("adminshare+winrm", "--winrm-https"), exit: exitAuth, code: "SF3503"},
		{args: []string{"--winrm-https"}, way: guest.WayGuestOps, before: []string{"SF3102", "SF3503"}},
	}}}
	for vm, code := range map[string]string{"https-off": "SF3202", "https-silent": "SF3201"} {
		days = append(days, wayDay{vm: vm, runs: []wayRun{{args: pinned("adminshare+winrm", "--winrm-https"), exit: exitPreflight, code: code}}})
	}
	for vm, d := range map[string]struct {
		exit int
		code string
		auto []string
	}{
		"off":          {exitPreflight, "SF3202", []string{"SF3102"}}, // its port is silent, so that guest operations come first
		"silent":       {exitPreflight, "SF3201", []string{"SF3102"}},
		"no-logon":     {exitAuth, "SF3103", []string{"skipped SF3103", "SF3102"}},
		"no-negotiate": {exitPreflight, "SF3007", []string{"skipped SF3007", "SF3102"}},
		"error":        {exitFailed, "SF3513", []string{"SF3102", "SF3513"}},
		"stall":        {exitFailed, "SF3204", []string{"SF3102", "SF3204"}},
		"quota":        {exitFailed, "SF3502", []string{"SF3102", "SF3502", "SF3502", "SF3502", "SF3502"}},
		"unsealed":     {exitPreflight, "SF3505", []string{"skipped SF3505", "SF3102"}},
	} {
		days = append(days, wayDay{vm: vm, runs: []wayRun{
			{args: pinned("adminshare+winrm"), exit: d.exit, code: d.code}, well(guest.WayGuestOps, d.auto...),
		}})
	}
	liveWays(t, "windows-commands", days)
}
