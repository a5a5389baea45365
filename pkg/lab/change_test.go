package lab_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab"
)

func TestAdminChanges(t *testing.T) {
	w := startWorld(t, "name: x\nseed: 1\nvms: [{name: vm, guest: scripted}]")
	for _, c := range []struct {
		path, body string
		code       int
		says       string
	}{
		{"/rtt", `{"rtt": "1ms"}`, 204, ""},
		{"/rtt", `{"rtt": "-1ms"}`, 400, "below 0"},
		{"/rtt", `{"rrt": "1ms"}`, 400, "rrt"},
		{"/plan", `{"method": "Login", "do": "fault", "fault": "InvalidLogin", "count": 1}`, 204, ""},
		{"/plan", `{"method": "Login", "do": "dance"}`, 400, "dance"},
		{"/vm/vm/power", `{"state": "off"}`, 204, ""},
		{"/vm/vm/power", `{"state": "half"}`, 400, "half"},
		{"/vm/vm/power", `{"state": "on"}`, 204, ""},
		{"/vm/vm/tools", `{"state": "absent"}`, 204, ""},
		{"/vm/vm/address", `{"address": "127.0.0.9"}`, 204, ""},
		{"/vm/nobody/address", `{"address": "127.0.0.9"}`, 400, "nobody"},
		{"/vm/vm/stun", `{"for": "10ms"}`, 204, ""},
		{"/vm/vm/proxy", `{"slice": 1}`, 204, ""},
		{"/vm/vm/proxy", `{"slice": -1}`, 400, "below 0"},
		{"/vm/vm/snapshot", `{"run": "1s", "hang": true}`, 204, ""},
		{"/vm/vm/remove", `{"run": "1s", "fault": "NoSuchFault"}`, 400, "NoSuchFault"},
		{"/vm/vm/do", `{"do": "thaw"}`, 400, "nothing was held"},
		{"/vm/vm/do", `{"do": "reboot"}`, 204, ""},
		{"/vm/vm/do", `{"do": "end_tasks"}`, 204, ""},
		{"/vm/vm/do", `{"do": "dance"}`, 400, "dance"},
		{"/vm/nobody/do", `{"do": "thaw"}`, 400, "nobody"},
		{"/vcenter/drop_sessions", ``, 204, ""},
		{"/vcenter/silence", `{"for": "10ms"}`, 204, ""},
		{"/vcenter/speak", ``, 204, ""},
		{"/vcenter/clock", `{"by": "-1h"}`, 204, ""},
		{"/vcenter/silence", `{"by": "-1h"}`, 400, "vcenter_clock"},
		{"/vm/vm/do", `{"do": "stall_to_guest", "for": "10ms"}`, 204, ""},
		{"/vcenter/stop", ``, 204, ""},
		{"/vcenter/start", ``, 204, ""},
		{"/vcenter/dance", ``, 400, "vcenter_dance"},
	} {
		rec := httptest.NewRecorder()
		w.Admin().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "POST", c.path, strings.NewReader(c.body)))
		if rec.Code != c.code || !strings.Contains(rec.Body.String(), c.says) {
			t.Errorf("POST %s %s = %d %q, want %d with %q", c.path, c.body, rec.Code, rec.Body, c.code, c.says)
		}
	}
	rec := httptest.NewRecorder()
	w.Admin().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "DELETE", "/plan", nil))
	operator(t, w, "vm") // it is back, and the fault that was planned for the login is forgotten
}

func TestScenarioExpands(t *testing.T) {
	s, err := lab.ParseScenario([]byte(`
name: x
defaults: {guest: scripted, snapshot: {run: 1s, spread: 0.5}, stun: 5ms}
vms:
  - {name: "bulk-###-x", count: 12}
  - {name: own, guest: none, snapshot: {run: 2s}, stun: 7ms}
`))
	if err != nil {
		t.Fatal(err)
	}
	last, own := s.VMs[11], s.VMs[12]
	if len(s.VMs) != 13 || last.Name != "bulk-012-x" || last.Guest != "scripted" || last.Snapshot.Spread != 0.5 || last.Stun == 0 {
		t.Errorf("%d VMs, the twelfth %+v", len(s.VMs), last)
	}
	if own.Guest != "none" || own.Snapshot.Spread != 0 || own.Stun == last.Stun {
		t.Errorf("defaults won over %+v", own)
	}
	for text, want := range map[string]string{
		"vms: [{name: a, count: 3}]":                                                          "no #",
		"vms: [{name: \"a#\", count: 20000}]":                                                 "20000",
		"vms: [{name: a, agent: {lie: big}}]":                                                 "agent.lie",
		"vms: [{name: a, agent: {freeze: -1s}}]":                                              "below 0",
		"vms: [{name: a, agent: {release: -1s}}]":                                             "below 0",
		"vms: [{name: a, agent: {frames_to_guest: shuffled}}]":                                "agent.frames_to_guest",
		"vms: [{name: a, agent: {frames_from_guest: oversized}}]":                             "agent.frames_from_guest",
		"vms: [{name: a, guest: linux}]\nevents: [{at: hold.end, vm: a, do: stall_to_guest}]": "scripted",
		"vms: [{name: a}]\nevents: [{at: start, do: vcenter_stop, by: 1h}]":                   "vcenter_clock",
		"vcenter: {plan: [{do: dance}]}\nvms: [{name: a}]":                                    "dance",
		"vms: [{name: a}]\nevents: [{at: start, do: thaw}]":                                   "no VM with a guest",
		"vms: [{name: a, network: {slice: -1}}]":                                              "below 0",
		"vms: [{name: a, guest: scripted}]\nevents: [{at: call., do: x}]":                     "at \"call.\"",
	} {
		if _, err := lab.ParseScenario([]byte("name: x\n" + text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: ParseScenario = %v, want an error with %q", text, err, want)
		}
	}
}
