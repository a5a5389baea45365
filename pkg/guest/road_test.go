package guest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

func TestChoose(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	denied := func(w guest.Way, account string, at time.Time) guest.Denial {
		return guest.Denial{Way: w, Account: account, Code: "SF3101", Text: "no", At: at}
	}
	every := []guest.Denial{denied(guest.WaySCM, "a", now), denied(guest.WayWinRM, "a", now), denied(guest.WayGuestOps, "a", now)}
	for name, c := range map[string]struct {
		s    guest.Situation
		want []string
	}{
		"Windows":                         {guest.Situation{System: inventory.Windows}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
		"Linux has no shares":             {guest.Situation{System: inventory.Linux}, []string{"guestops"}},
		"a system that is not known":      {guest.Situation{}, []string{"guestops"}},
		"a persistent agent":              {guest.Situation{System: inventory.Linux, Enrolled: true}, []string{"persistent", "guestops"}},
		"last good":                       {guest.Situation{System: inventory.Windows, Known: guest.Known{Good: guest.WayGuestOps}}, []string{"guestops", "adminshare+svcctl", "adminshare+winrm"}},
		"persistent before last good":     {guest.Situation{System: inventory.Windows, Enrolled: true, Known: guest.Known{Good: guest.WayWinRM}}, []string{"persistent", "adminshare+winrm", "adminshare+svcctl", "guestops"}},
		"last good was persistent":        {guest.Situation{System: inventory.Linux, Known: guest.Known{Good: guest.WayPersistent}}, []string{"guestops"}},
		"a road that the policy excludes": {guest.Situation{System: inventory.Windows, Policy: guest.PolicyAdminShare, Known: guest.Known{Good: guest.WayGuestOps}}, []string{"adminshare+svcctl", "adminshare+winrm"}},
		"one start only":                  {guest.Situation{System: inventory.Windows, Policy: guest.PolicyWinRM}, []string{"adminshare+winrm"}},
		"adminshare of a Linux guest":     {guest.Situation{System: inventory.Linux, Policy: guest.PolicyAdminShare}, nil},
		"persistent without one":          {guest.Situation{System: inventory.Windows, Policy: guest.PolicyPersistent}, nil},
		"silent ports come last":          {guest.Situation{System: inventory.Windows, Unreachable: map[guest.Way]bool{guest.WaySCM: true}}, []string{"adminshare+winrm", "guestops", "adminshare+svcctl"}},
		"all are silent":                  {guest.Situation{System: inventory.Windows, Unreachable: map[guest.Way]bool{guest.WaySCM: true, guest.WayWinRM: true, guest.WayGuestOps: true}}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
		"denied":                          {guest.Situation{System: inventory.Windows, Account: "a", Now: now, Known: guest.Known{Denied: []guest.Denial{denied(guest.WaySCM, "a", now.Add(-23*time.Hour))}}}, []string{"(adminshare+svcctl SF3101)", "adminshare+winrm", "guestops"}},
		"denied a day ago":                {guest.Situation{System: inventory.Windows, Account: "a", Now: now, Known: guest.Known{Denied: []guest.Denial{denied(guest.WaySCM, "a", now.Add(-24*time.Hour))}}}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
		"denied in the future":            {guest.Situation{System: inventory.Windows, Account: "a", Now: now, Known: guest.Known{Denied: []guest.Denial{denied(guest.WaySCM, "a", now.Add(time.Second))}}}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
		"denied to another account":       {guest.Situation{System: inventory.Windows, Account: "b", Now: now, Known: guest.Known{Denied: every}}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
		"nothing but what is denied":      {guest.Situation{System: inventory.Windows, Account: "a", Now: now, Known: guest.Known{Denied: every}}, []string{"adminshare+svcctl", "adminshare+winrm", "guestops"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, o := range c.s.Choose() {
				word := o.Way.String()
				if o.Code != "" {
					word = "(" + word + " " + o.Code + ")"
				}
				got = append(got, word)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("ways (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLearn(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	failed := func(w guest.Way, code string) guest.Attempt {
		return guest.Attempt{Way: w, Stage: guest.StagePush, Code: code, Text: "no"}
	}
	well := func(w guest.Way) guest.Attempt { return guest.Attempt{Way: w, Stage: guest.StageHello, OK: true} }
	before := guest.Known{Library: "cloudsoda", Denied: []guest.Denial{{Way: guest.WaySCM, Account: "a", Code: "SF3101", At: now.Add(-time.Hour)}}}
	for name, c := range map[string]struct {
		attempts []guest.Attempt
		good     guest.Way
		denied   []string
	}{
		"nothing was tried":         {nil, guest.Way{}, []string{"adminshare+svcctl a SF3101"}},
		"a way went well":           {[]guest.Attempt{well(guest.WayGuestOps)}, guest.WayGuestOps, []string{"adminshare+svcctl a SF3101"}},
		"the denied one went well":  {[]guest.Attempt{well(guest.WaySCM)}, guest.WaySCM, nil},
		"denied once more":          {[]guest.Attempt{failed(guest.WaySCM, "SF3105")}, guest.Way{}, []string{"adminshare+svcctl a SF3105"}},
		"another one is denied":     {[]guest.Attempt{failed(guest.WayWinRM, "SF3103")}, guest.Way{}, []string{"adminshare+svcctl a SF3101", "adminshare+winrm a SF3103"}},
		"it is not supported":       {[]guest.Attempt{failed(guest.WayWinRM, "SF3504")}, guest.Way{}, []string{"adminshare+svcctl a SF3101", "adminshare+winrm a SF3504"}},
		"out of reach is forgotten": {[]guest.Attempt{failed(guest.WayWinRM, "SF3201")}, guest.Way{}, []string{"adminshare+svcctl a SF3101"}},
		"skipped":                   {[]guest.Attempt{{Way: guest.WayWinRM, Skipped: true, Code: "SF3103"}}, guest.Way{}, []string{"adminshare+svcctl a SF3101"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := before.Learn(c.attempts, "a", now)
			var denied []string
			for _, d := range k.Denied {
				denied = append(denied, d.Way.String()+" "+d.Account+" "+d.Code)
			}
			if diff := cmp.Diff(c.denied, denied); diff != "" || k.Good != c.good || k.Library != "cloudsoda" {
				t.Errorf("Learn = good %v, library %q, want %v; denied (-want +got):\n%s", k.Good, k.Library, c.good, diff)
			}
			if len(before.Denied) != 1 || before.Denied[0].Code != "SF3101" {
				t.Error("what was known before has changed")
			}
		})
	}
}

// only makes one way of an access.
func only(r *road) []guest.Candidate {
	if r.way == (guest.Way{}) {
		r.way = guest.WayGuestOps
	}
	return []guest.Candidate{{Choice: guest.Choice{Way: r.way}, Access: r}}
}

// TestWays tries one way after the other.
func TestWays(t *testing.T) {
	first := guest.Candidate{Choice: guest.Choice{Way: guest.WayWinRM, Code: "SF3103", Text: "not tried"}}
	for name, c := range map[string]struct {
		push, start, remove string // of the first way, svcctl; guestops goes well
		code                string
		attempts            []string
	}{
		"the first goes well": {"", "", "", "", []string{"svcctl push ", "svcctl start ", "svcctl hello "}},
		"no right":            {"SF3101", "", "", "", []string{"svcctl push SF3101", "svcctl cleanup ", "guestops push ", "guestops start ", "guestops hello "}},
		"out of reach":        {"SF3202", "", "", "", []string{"svcctl push SF3202", "svcctl cleanup ", "guestops push ", "guestops start ", "guestops hello "}},
		"the start fails":     {"", "SF3401", "", "", []string{"svcctl push ", "svcctl start SF3401", "svcctl cleanup ", "guestops push ", "guestops start ", "guestops hello "}},
		"a refused password":  {"SF3001", "", "", "SF3001", []string{"svcctl push SF3001", "svcctl cleanup "}},
		"not tried again":     {"SF1104", "", "", "SF1104", []string{"svcctl push SF1104", "svcctl cleanup "}},
		"tampering":           {"SF3801", "", "", "SF3801", []string{"svcctl push SF3801", "svcctl cleanup "}},
		"the agent refuses":   {"", "SF4008", "", "SF4008", []string{"svcctl push ", "svcctl start SF4008", "svcctl cleanup "}},
		"something is left":   {"", "SF3401", "SF3308", "SF3401", []string{"svcctl push ", "svcctl start SF3401", "svcctl cleanup SF3308"}},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newScripted(t)
			broken := &road{t: t, agent: agent, listen: "127.83.7.1", failing: map[string]error{}, way: guest.WaySCM, half: true}
			for what, code := range map[string]string{"put": c.push, "start": c.start, "remove": c.remove} {
				if code != "" {
					broken.failing[what] = codedError(code)
				}
			}
			good := &road{t: t, agent: agent, listen: "127.83.7.1", failing: map[string]error{}, way: guest.WayGuestOps}
			ways := append([]guest.Candidate{first}, append(only(broken), only(good)...)...)
			dep, err := guest.Deployer{Ways: ways, Payload: guest.Payload{SHA256: program}}.Open(t.Context(), guest.Target{Addresses: []string{"127.83.7.1"}, VMUUID: vmUUID})
			if got := guest.CodeOf(err); got != c.code {
				t.Errorf("Open = %v with code %q, want %q", err, got, c.code)
			}
			want := append([]string{"winrm skipped SF3103"}, c.attempts...)
			if diff := cmp.Diff(want, story(dep)); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			if err := dep.Close(t.Context()); err != nil {
				t.Error(err)
			}
			broken.group.Wait()
			good.group.Wait()
		})
	}
}

// story names each attempt by what starts the agent, its stage and its code.
func story(d *guest.Deployment) []string {
	var words []string
	for _, a := range d.Attempts {
		stage := string(a.Stage)
		if a.Skipped {
			stage = "skipped"
		}
		words = append(words, string(a.Way.Start)+" "+stage+" "+a.Code)
	}
	return words
}

// TestBusy tries a guest that is busy four times, with pauses between.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &road{t: t, agent: &scripted{}, failing: map[string]error{"start": codedError("SF3404")}}
		begin := time.Now()
		dep, err := guest.Deployer{Ways: only(r), Payload: guest.Payload{SHA256: program}}.Open(t.Context(), guest.Target{})
		if got := guest.CodeOf(err); got != "SF3404" {
			t.Errorf("Open = %v with code %q, want SF3404", err, got)
		}
		if n := len(dep.Attempts); n != 4*3 {
			t.Errorf("%d attempts, want 4 times push, start and cleanup", n)
		}
		if took := time.Since(begin); took != 4200*time.Millisecond {
			t.Errorf("it took %v, want the pauses of 0.2, 1 and 3 s", took)
		}
	})
}
