package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const (
	ours   = "00112233445566778899aabbccddeeff"
	others = "ffeeddccbbaa99887766554433221100"
	vmUUID = "42136b27-a0c1-8d9e-0011-223344556677"
	// What the agent is compiled to, written out once more.
	deadman = 18 * time.Second
)

// happening is one event with its time since the agent's start.
type happening struct {
	at    time.Duration
	event agent.Event
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func hello(link int, change func(*protocol.Hello)) agent.Hello {
	h := &protocol.Hello{MinV: 1, MaxV: 1, Nonce: "n", VMUUID: vmUUID, Run: "r", Epoch: 5}
	h.V, h.T, h.S, h.Q = 1, protocol.WordHello, ours, 1
	if change != nil {
		change(h)
	}
	return agent.Hello{Link: link, M: h}
}

// word is m as frame q of our session.
func word(q uint64, m protocol.Message) agent.Event {
	h := m.Head()
	h.V, h.S, h.Q = 1, ours, q
	h.T = map[string]protocol.Word{
		"*protocol.Arm": protocol.WordArm, "*protocol.Go": protocol.WordGo, "*protocol.Thaw": protocol.WordThaw,
		"*protocol.Heartbeat": protocol.WordHeartbeat, "*protocol.Complete": protocol.WordComplete, "*protocol.Abort": protocol.WordAbort,
		"*protocol.Hello": protocol.WordHello, "*protocol.Pin": protocol.WordPin, "*protocol.Envelope": "SLEEP",
	}[fmt.Sprintf("%T", m)]
	return agent.Msg{M: m}
}

func volumes() []protocol.Volume {
	return []protocol.Volume{{ID: "8:1", Mounts: []string{"/data"}, Supported: true}}
}

func thawEnded(ok bool) agent.Event {
	return agent.ThawEnded{Release: agent.Release{Results: []protocol.ThawResult{{Mount: "/data", OK: ok}}}}
}

// with appends (time, event) pairs to a way.
func with(way []happening, pairs ...any) []happening {
	way = slices.Clone(way)
	for i := 0; i < len(pairs); i += 2 {
		way = append(way, happening{pairs[i].(time.Duration), pairs[i+1].(agent.Event)})
	}
	return way
}

// ways lead into each state; the last frame of each has a sequence below 10. The hold begins at 4.1 s and everything is
// held at 4.3 s, so that the dead-man is due at 22.1 s.
func ways() map[string][]happening {
	w := map[string][]happening{"fresh": nil}
	w["IDLE"] = with(nil, ms(1000), hello(1, nil))
	w["ARMING"] = with(w["IDLE"], ms(2000), word(2, &protocol.Arm{Mode: "fs"}))
	w["READY"] = with(w["ARMING"], ms(3000), agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}})
	w["FREEZING"] = with(w["READY"], ms(4000), word(3, &protocol.Go{Go: 7, HoldMS: 20000}))
	w["FREEZING held"] = with(w["FREEZING"], ms(4100), agent.HoldStarted{})
	w["FROZEN"] = with(w["FREEZING held"], ms(4300), agent.FreezeEnded{})
	w["THAWING"] = with(w["FROZEN"], ms(6000), word(4, &protocol.Thaw{Go: 7, Reason: "snapshot_done"}))
	w["OPEN"] = with(w["THAWING"], ms(6050), thawEnded(true))
	w["CLOSED failed"] = with(w["THAWING"], ms(6050), thawEnded(false))
	w["CLOSED ended"] = with(w["OPEN"], ms(7000), word(5, &protocol.Complete{OK: "all"}))
	return w
}

func follow(way []happening) (s agent.State, last []agent.Command) {
	s, last = agent.Start(agent.Self{Version: "1", VMUUID: vmUUID, BootID: "b"}, 0)
	for _, h := range way {
		s, last = agent.Step(s, h.at, h.event)
	}
	return s, last
}

// effects names what the commands do, leaving timers out.
func effects(s agent.State, commands []agent.Command) string {
	out := []string{string(s.Name)}
	for _, c := range commands {
		switch c := c.(type) {
		case agent.SetTimer, agent.StopTimer:
		case agent.Send:
			w := string(c.M.Head().T)
			if e, ok := c.M.(*protocol.Error); ok {
				w = e.Code
			}
			out = append(out, "say:"+w)
		case agent.Refuse:
			out = append(out, "refuse:"+c.M.Code)
		default:
			out = append(out, strings.TrimPrefix(fmt.Sprintf("%T", c), "agent."))
		}
	}
	return strings.Join(out, " ")
}

// TestStepTable is each state against each event that matters: the next state, the words that are said, and what the
// freezer is asked for.
func TestStepTable(t *testing.T) {
	events := map[string]func() agent.Event{
		"ARM":          func() agent.Event { return word(10, &protocol.Arm{Mode: "fs"}) },
		"GO":           func() agent.Event { return word(10, &protocol.Go{Go: 9, HoldMS: 20000}) },
		"same GO":      func() agent.Event { return word(10, &protocol.Go{Go: 7, HoldMS: 20000}) },
		"THAW":         func() agent.Event { return word(10, &protocol.Thaw{Go: 7}) },
		"HEARTBEAT":    func() agent.Event { return word(10, &protocol.Heartbeat{}) },
		"COMPLETE":     func() agent.Event { return word(10, &protocol.Complete{OK: "all"}) },
		"ABORT":        func() agent.Event { return word(10, &protocol.Abort{Reason: "x"}) },
		"unknown word": func() agent.Event { return word(10, &protocol.Envelope{}) },
		"late HELLO":   func() agent.Event { return word(10, &protocol.Hello{}) },
		"link lost":    func() agent.Event { return agent.LinkLost{} },
		"service stop": func() agent.Event { return agent.ServiceStop{} },
		"deadman":      func() agent.Event { return agent.Fired{Timer: agent.TimerDeadman} },
		"prehold":      func() agent.Event { return agent.Fired{Timer: agent.TimerPrehold} },
		"arm limit":    func() agent.Event { return agent.Fired{Timer: agent.TimerArm} },
		"ready limit":  func() agent.Event { return agent.Fired{Timer: agent.TimerReady} },
		"silence":      func() agent.Event { return agent.Fired{Timer: agent.TimerSilence} },
		"idle limit":   func() agent.Event { return agent.Fired{Timer: agent.TimerIdle} },
		"open limit":   func() agent.Event { return agent.Fired{Timer: agent.TimerOpen} },
		"leave":        func() agent.Event { return agent.Fired{Timer: agent.TimerLeave} },
		"prepared":     func() agent.Event { return agent.PreparedEvent{Prepared: agent.Prepared{Volumes: volumes()}} },
		"not prepared": func() agent.Event { return agent.PreparedEvent{Err: errors.New("no")} },
	}
	// want gives for each event what it does in each state; "" stands for all states that are not named, and "=" for
	// the state itself.
	want := map[string]map[string]string{
		"ARM":          {"IDLE": "ARMING Prepare", "": "= say:SF4008"},
		"GO":           {"READY": "FREEZING Freeze", "": "= say:SF4022"},
		"HEARTBEAT":    {"": "= say:HEARTBEAT"},
		"COMPLETE":     {"OPEN": "CLOSED say:COMPLETE Finish", "": "= say:SF4020"},
		"unknown word": {"": "= say:SF3704"},
		"late HELLO":   {"": "= say:SF3704"},
		"same GO": {
			"IDLE": "= say:SF4022", "ARMING": "= say:SF4022", "READY": "FREEZING Freeze",
			"FREEZING": "= say:HEARTBEAT", "FREEZING held": "= say:HEARTBEAT", "THAWING": "= say:HEARTBEAT",
			"FROZEN": "= say:FROZEN", "": "= say:THAWED",
		},
		"THAW": {
			"FREEZING": "THAWING Thaw", "FREEZING held": "THAWING Thaw", "FROZEN": "THAWING Thaw", "THAWING": "=", "": "= say:THAWED",
		},
		"ABORT": {
			"FREEZING": "THAWING say:ABORT Thaw", "FREEZING held": "THAWING say:ABORT Thaw", "FROZEN": "THAWING say:ABORT Thaw",
			"THAWING": "= say:ABORT", "": "CLOSED say:ABORT Finish",
		},
		"link lost": {
			"ARMING": "CLOSED Finish", "READY": "CLOSED Finish",
			"FREEZING": "THAWING Thaw", "FREEZING held": "THAWING Thaw", "FROZEN": "THAWING Thaw", "CLOSED ended": "= Leave", "": "=",
		},
		"service stop": {
			"FREEZING": "THAWING Thaw", "FREEZING held": "THAWING Thaw", "FROZEN": "THAWING Thaw", "THAWING": "=", "": "CLOSED Finish Leave",
		},
		"deadman":     {"FREEZING": "THAWING Thaw", "FREEZING held": "THAWING Thaw", "FROZEN": "THAWING Thaw", "": "="},
		"prehold":     {"FREEZING": "THAWING Thaw", "": "="},
		"arm limit":   {"ARMING": "CLOSED say:SF4001 Finish", "": "="},
		"ready limit": {"READY": "CLOSED say:SF4001 Finish", "": "="},
		"silence": {
			"ARMING": "CLOSED say:SF4001 Finish", "READY": "CLOSED say:SF4001 Finish",
			"FREEZING": "=", "FREEZING held": "=", "FROZEN": "=", "THAWING": "=", "": "CLOSED Finish Leave",
		},
		"idle limit":   {"IDLE": "CLOSED Finish Leave", "": "="},
		"prepared":     {"ARMING": "READY say:READY", "": "= Finish"},
		"not prepared": {"ARMING": "CLOSED say:SF4001 Finish", "": "= Finish"},
	}
	for event, rows := range want {
		t.Run(event, func(t *testing.T) {
			for state, way := range ways() {
				if state == "fresh" {
					continue
				}
				want, named := rows[state]
				if !named {
					want = rows[""]
				}
				want = strings.ReplaceAll(want, "=", strings.Fields(state)[0])
				s, commands := follow(with(way, ms(8000), events[event]()))
				if got := effects(s, commands); got != want {
					t.Errorf("in %s: %q, want %q", state, got, want)
				}
			}
		})
	}
}

// find gives the last word of its kind that the commands say.
func find[M protocol.Message](t *testing.T, commands []agent.Command) M {
	t.Helper()
	for _, c := range slices.Backward(commands) {
		if s, ok := c.(agent.Send); ok {
			if m, ok := s.M.(M); ok {
				return m
			}
		}
	}
	var none M
	t.Fatalf("%v say no %T", commands, none)
	return none
}

func TestThawedTellsTheTruth(t *testing.T) {
	type facts struct {
		WasHeld, Expired, Finished bool
		ExpiredBy                  string
		Held, Arrived              time.Duration
	}
	w := ways()
	thaw := func() agent.Event { return word(8, &protocol.Thaw{Go: 7}) }
	cases := map[string]struct {
		way  []happening
		want facts
	}{
		"THAW while frozen":                      {with(w["THAWING"], ms(6050), thawEnded(true)), facts{true, false, true, "none", ms(1950), ms(1900)}},
		"not released by us":                     {with(w["THAWING"], ms(6050), thawEnded(false)), facts{true, false, false, "none", ms(1950), ms(1900)}},
		"THAW a moment before the dead-man":      {with(w["FROZEN"], ms(22099), thaw(), ms(22110), thawEnded(true)), facts{true, false, true, "none", ms(18010), ms(17999)}},
		"THAW as the dead-man is due":            {with(w["FROZEN"], ms(22100), thaw(), ms(22110), thawEnded(true)), facts{false, true, true, "deadman", ms(18010), ms(18000)}},
		"THAW after the dead-man was due":        {with(w["FROZEN"], ms(22105), thaw(), ms(22110), thawEnded(true)), facts{false, true, true, "deadman", ms(18010), ms(18005)}},
		"dead-man":                               {with(w["FROZEN"], ms(22100), agent.Fired{Timer: agent.TimerDeadman}, ms(22110), thawEnded(true)), facts{false, true, true, "deadman", ms(18010), 0}},
		"dead-man while freezing":                {with(w["FREEZING held"], ms(22100), agent.Fired{Timer: agent.TimerDeadman}, ms(22105), agent.FreezeEnded{}, ms(22110), thawEnded(true), ms(22111), agent.ThawEnded{}), facts{false, true, false, "deadman", ms(18011), 0}},
		"frozen as the dead-man is due":          {with(w["FREEZING held"], ms(22100), agent.FreezeEnded{}, ms(22110), thawEnded(true)), facts{false, true, false, "deadman", ms(18010), 0}},
		"THAW before all is held":                {with(w["FREEZING held"], ms(5000), thaw(), ms(5010), agent.FreezeEnded{}, ms(5020), thawEnded(true), ms(5030), agent.ThawEnded{}), facts{false, false, false, "none", ms(930), ms(900)}},
		"link lost while freezing":               {with(w["FREEZING held"], ms(5000), agent.LinkLost{}, ms(5010), agent.FreezeEnded{}, ms(5020), thawEnded(true), ms(5030), agent.ThawEnded{}), facts{false, true, false, "link_lost", ms(930), 0}},
		"link lost while frozen":                 {with(w["FROZEN"], ms(5000), agent.LinkLost{}, ms(5010), thawEnded(true)), facts{false, true, true, "link_lost", ms(910), 0}},
		"service stop while frozen":              {with(w["FROZEN"], ms(5000), agent.ServiceStop{}, ms(5010), thawEnded(true)), facts{false, true, true, "service_stop", ms(910), 0}},
		"second net gone while frozen":           {with(w["FROZEN"], ms(5000), agent.NetLost{}, ms(5010), thawEnded(true)), facts{false, true, true, "system", ms(910), 0}},
		"ABORT while frozen":                     {with(w["FROZEN"], ms(5000), word(8, &protocol.Abort{}), ms(5010), thawEnded(true)), facts{false, true, true, "system", ms(910), 0}},
		"the freezer failed before any hold":     {with(w["FREEZING"], ms(5000), agent.FreezeEnded{Err: errors.New("EBUSY")}, ms(5010), agent.ThawEnded{}), facts{false, false, false, "none", 0, 0}},
		"the freezer failed with half of it":     {with(w["FREEZING held"], ms(5000), agent.FreezeEnded{Err: errors.New("EBUSY")}, ms(5010), thawEnded(true)), facts{false, false, false, "none", ms(910), 0}},
		"nothing was held in time":               {with(w["FREEZING"], ms(34000), agent.Fired{Timer: agent.TimerPrehold}, ms(34100), agent.ThawEnded{}, ms(40000), agent.FreezeEnded{}, ms(40010), agent.ThawEnded{}), facts{false, false, false, "none", 0, 0}},
		"held only after it was asked to thaw":   {with(w["FREEZING"], ms(5000), thaw(), ms(5010), agent.ThawEnded{}, ms(6000), agent.HoldStarted{}, ms(6010), agent.FreezeEnded{}, ms(6020), thawEnded(true)), facts{false, false, false, "none", ms(20), -ms(1000)}},
		"THAW twice, the second resends":         {with(w["OPEN"], ms(9000), thaw()), facts{true, false, true, "none", ms(1950), ms(1900)}},
		"THAW before GO, the agent held nothing": {with(w["READY"], ms(3500), thaw()), facts{false, false, false, "none", 0, 0}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, commands := follow(c.way)
			m := find[*protocol.Thawed](t, commands)
			us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
			got := facts{m.WasHeld, m.Expired, m.Finished, m.ExpiredBy, us(m.HeldUS), us(m.ThawArrivedUS)}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("THAWED (-want +got):\n%s", diff)
			}
			if m.Go != 7 || !m.Final {
				t.Errorf("THAWED of go %d, final %t, want 7 and true", m.Go, m.Final)
			}
			if s.Holding {
				t.Error("THAWED was said while something is held")
			}
		})
	}
}

func TestGoFreezesOnce(t *testing.T) {
	w := ways()
	freezes := func(way []happening) (n int) {
		s, _ := agent.Start(agent.Self{VMUUID: vmUUID}, 0)
		for _, h := range way {
			var commands []agent.Command
			s, commands = agent.Step(s, h.at, h.event)
			if slices.Contains(commands, agent.Command(agent.Freeze{})) {
				n++
			}
		}
		return n
	}
	same := func(q uint64) agent.Event { return word(q, &protocol.Go{Go: 7, HoldMS: 20000}) }
	cases := map[string]struct {
		way  []happening
		want int
	}{
		"once":                        {w["FROZEN"], 1},
		"again while freezing":        {with(w["FREEZING"], ms(4010), same(10)), 1},
		"again while frozen":          {with(w["FROZEN"], ms(5000), same(10), ms(5001), same(11)), 1},
		"again after the thaw":        {with(w["OPEN"], ms(8000), same(10)), 1},
		"after its own THAW":          {with(w["READY"], ms(3100), word(9, &protocol.Thaw{Go: 7}), ms(3200), same(10)), 0},
		"after another's THAW":        {with(w["READY"], ms(3100), word(9, &protocol.Thaw{Go: 6}), ms(3200), same(10)), 1},
		"THAW came even before READY": {with(w["ARMING"], ms(2100), word(8, &protocol.Thaw{Go: 7}), ms(3000), agent.PreparedEvent{}, ms(3200), same(10)), 0},
		"without an id":               {with(w["READY"], ms(3100), word(9, &protocol.Go{HoldMS: 20000})), 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := freezes(c.way); got != c.want {
				t.Errorf("the freezer was asked %d times to freeze, want %d", got, c.want)
			}
		})
	}
}

func TestGoRateLimit(t *testing.T) {
	ready, _ := follow(ways()["READY"])
	for n := range 12 {
		ready.GoTimes = append(ready.GoTimes, time.Duration(n)*time.Second)
	}
	cases := map[string]struct {
		at   time.Duration
		want string
	}{
		"the thirteenth within the hour":   {time.Hour - 1, "READY say:SF4023"},
		"when the oldest is an hour away":  {time.Hour, "FREEZING Freeze"},
		"when all of them are hours away ": {3 * time.Hour, "FREEZING Freeze"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, commands := agent.Step(ready, c.at, word(9, &protocol.Go{Go: 77, HoldMS: 20000}))
			if got := effects(s, commands); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if len(s.GoTimes) > 12 {
				t.Errorf("%d times are kept, want at most 12", len(s.GoTimes))
			}
		})
	}
}

func TestDeadmanNeverMovesLater(t *testing.T) {
	w := ways()
	deadmanOf := func(commands []agent.Command) (at time.Duration) {
		for _, c := range commands {
			if set, ok := c.(agent.SetTimer); ok && set.Timer == agent.TimerDeadman {
				at = set.At
			}
		}
		return at
	}
	_, commands := follow(w["FREEZING held"])
	if got := deadmanOf(commands); got != ms(4100)+deadman {
		t.Errorf("the dead-man is armed for %v, want %v", got, ms(4100)+deadman)
	}
	later := map[string]agent.Event{
		"heartbeat": word(10, &protocol.Heartbeat{}),
		"same GO":   word(10, &protocol.Go{Go: 7, HoldMS: 60000}),
		"other GO":  word(10, &protocol.Go{Go: 8, HoldMS: 60000}),
		"ARM":       word(10, &protocol.Arm{Budget: protocol.Limits{DeadmanMS: 60000}}),
		"resume":    hello(2, func(h *protocol.Hello) { h.Resume, h.Q = true, 10 }),
	}
	for name, e := range later {
		s, commands := follow(with(w["FROZEN"], ms(9000), e))
		if got := deadmanOf(commands); got != 0 || s.Name != agent.Frozen || s.Deadman != deadman {
			t.Errorf("%s while frozen: state %s, dead-man %v of the hold, armed anew %v, want nothing changed", name, s.Name, s.Deadman, got)
		}
	}
}

func TestLowerLimitsAreTaken(t *testing.T) {
	cases := map[string]struct {
		arm, hold int64
		want      time.Duration
	}{
		"nothing asked": {0, 0, deadman},
		"more asked":    {60000, 60000, deadman},
		"ARM asks less": {9000, 20000, 9 * time.Second},
		"GO asks less":  {0, 5000, 5 * time.Second},
		"negative":      {-1, -1, deadman},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			way := with(ways()["IDLE"], ms(2000), word(2, &protocol.Arm{Mode: "fs", Budget: protocol.Limits{DeadmanMS: c.arm}}),
				ms(3000), agent.PreparedEvent{}, ms(4000), word(3, &protocol.Go{Go: 7, HoldMS: c.hold}), ms(4100), agent.HoldStarted{})
			s, commands := follow(way)
			if want := (agent.SetTimer{Timer: agent.TimerDeadman, At: ms(4100) + c.want}); !slices.Contains(commands, agent.Command(want)) || s.Deadman != c.want {
				t.Errorf("%v with dead-man %v, want %v", commands, s.Deadman, want)
			}
		})
	}
}

func TestHello(t *testing.T) {
	w := ways()
	resume := func(h *protocol.Hello) { h.Resume, h.Q = true, 10 }
	cases := map[string]struct {
		way    []happening
		change func(*protocol.Hello)
		want   string
	}{
		"first":                          {w["fresh"], nil, "IDLE Adopt say:HELLO"},
		"uuid in the other byte order":   {w["fresh"], func(h *protocol.Hello) { h.VMUUID = "276b1342-c1a0-9e8d-0011-223344556677" }, "IDLE Adopt say:HELLO"},
		"another while nothing is armed": {w["IDLE"], func(h *protocol.Hello) { h.S = others }, "IDLE Adopt say:HELLO"},
		"resume while frozen":            {w["FROZEN"], resume, "FROZEN Adopt say:HELLO"},
		"resume after the thaw":          {w["OPEN"], resume, "OPEN Adopt say:HELLO"},
		"resume with a higher epoch":     {w["OPEN"], func(h *protocol.Hello) { resume(h); h.Epoch = 6 }, "OPEN Adopt say:HELLO"},
		"wrong uuid":                     {w["fresh"], func(h *protocol.Hello) { h.VMUUID = "42136b27-a0c1-8d9e-0011-223344556678" }, "IDLE refuse:SF3704"},
		"no uuid":                        {w["fresh"], func(h *protocol.Hello) { h.VMUUID = "" }, "IDLE refuse:SF3704"},
		"versions of the future":         {w["fresh"], func(h *protocol.Hello) { h.MinV, h.MaxV = 2, 3 }, "IDLE refuse:SF3704"},
		"versions of the past":           {w["fresh"], func(h *protocol.Hello) { h.MinV, h.MaxV = 0, 0 }, "IDLE refuse:SF3704"},
		"session of another length":      {w["fresh"], func(h *protocol.Hello) { h.S = "abc" }, "IDLE refuse:SF4022"},
		"resume of nothing":              {w["fresh"], resume, "IDLE refuse:SF4022"},
		"older epoch":                    {w["IDLE"], func(h *protocol.Hello) { h.Epoch = 4 }, "IDLE refuse:SF4022"},
		"older epoch resumes":            {w["FROZEN"], func(h *protocol.Hello) { resume(h); h.Epoch = 4 }, "FROZEN refuse:SF4022"},
		"another session resumes":        {w["FROZEN"], func(h *protocol.Hello) { resume(h); h.S = others }, "FROZEN refuse:SF4022"},
		"replayed resume":                {w["FROZEN"], func(h *protocol.Hello) { h.Resume, h.Q = true, 3 }, "FROZEN refuse:SF4022"},
		"busy arming":                    {w["ARMING"], func(h *protocol.Hello) { h.S = others }, "ARMING refuse:SF4008"},
		"busy frozen":                    {w["FROZEN"], func(h *protocol.Hello) { h.S = others }, "FROZEN refuse:SF4008"},
		"busy open":                      {w["OPEN"], func(h *protocol.Hello) { h.S, h.Epoch = others, 6 }, "OPEN refuse:SF4008"},
		"our own, replayed, while ready": {w["READY"], nil, "READY refuse:SF4008"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before, _ := follow(c.way)
			s, commands := follow(with(c.way, ms(9000), hello(2, c.change)))
			if got := effects(s, commands); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if strings.Contains(c.want, "refuse") && (s.Session != before.Session || s.Epoch != before.Epoch || s.LastQ != before.LastQ || s.Dropped != before.Dropped+1) {
				t.Errorf("a refused HELLO changed session %q, epoch %d or sequence %d", s.Session, s.Epoch, s.LastQ)
			}
		})
	}
}

func TestStaleFramesChangeNothing(t *testing.T) {
	foreign := func(m protocol.Message) agent.Event {
		e := word(10, m)
		m.Head().S = others
		return e
	}
	cases := map[string]struct {
		event agent.Event
		want  string
	}{
		"THAW replayed":             {word(3, &protocol.Thaw{Go: 7}), "FROZEN"},
		"THAW with sequence 0":      {word(0, &protocol.Thaw{Go: 7}), "FROZEN"},
		"ABORT replayed":            {word(2, &protocol.Abort{}), "FROZEN"},
		"THAW of another session":   {foreign(&protocol.Thaw{Go: 7}), "FROZEN say:SF4022"},
		"ABORT of another session":  {foreign(&protocol.Abort{}), "FROZEN say:SF4022"},
		"THAW of another go":        {word(10, &protocol.Thaw{Go: 6}), "FROZEN say:SF4022"},
		"THAW without a go":         {word(10, &protocol.Thaw{}), "FROZEN say:SF4022"},
		"the idle timer":            {agent.Fired{Timer: agent.TimerIdle}, "FROZEN"},
		"silence: a stun is silent": {agent.Fired{Timer: agent.TimerSilence}, "FROZEN"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before, _ := follow(ways()["FROZEN"])
			s, commands := follow(with(ways()["FROZEN"], ms(9000), c.event))
			if got := effects(s, commands); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if s.Dropped != before.Dropped+1 {
				t.Errorf("Dropped is %d, want %d", s.Dropped, before.Dropped+1)
			}
		})
	}
	if s, commands := follow(with(nil, ms(10), agent.Msg{M: &protocol.Go{Go: 7}})); effects(s, commands) != "IDLE say:SF4022" {
		t.Errorf("a word before any HELLO: %q, want it refused", effects(s, commands))
	}
}

func TestCodedErrorsOfTheFreezer(t *testing.T) {
	no := &agent.CodedError{Code: "SF4019", Err: errors.New("a hook failed")}
	for name, way := range map[string][]happening{
		"prepare": with(ways()["ARMING"], ms(3000), agent.PreparedEvent{Err: fmt.Errorf("arm: %w", no)}),
		"freeze":  with(ways()["FREEZING"], ms(5000), agent.FreezeEnded{Err: fmt.Errorf("go: %w", no)}),
	} {
		_, commands := follow(way)
		if m := find[*protocol.Error](t, commands); m.Code != "SF4019" || !m.Fatal || !strings.Contains(m.Text, "a hook failed") {
			t.Errorf("%s: ERROR %s, fatal %t, %q, want SF4019, fatal, with the text", name, m.Code, m.Fatal, m.Text)
		}
	}
}

func TestStepRaisesTime(t *testing.T) {
	s, commands := follow(with(ways()["FROZEN"], ms(100), word(10, &protocol.Heartbeat{})))
	b := find[*protocol.Heartbeat](t, commands)
	if b.HoldUS != 200_000 || b.LeftUS != 17_800_000 || s.Name != agent.Frozen {
		t.Errorf("held for %d us, %d us left, want 200000 and 17800000: an event from before the last one is raised to it", b.HoldUS, b.LeftUS)
	}
}

// A release that our own process made too late was made by the second net: it is not told as somebody else's thaw.
func TestLateReleaseIsTheSecondNets(t *testing.T) {
	way := with(ways()["THAWING"], ms(23000), thawEnded(false))
	s, _ := follow(way)
	if s.Stored == nil || !s.Stored.Expired || s.Stored.ExpiredBy != string(agent.ByDeadman) || s.Stored.Finished {
		t.Errorf("THAWED = %+v, want expired by the dead-man", s.Stored)
	}
	s, _ = follow(with(ways()["THAWING"], ms(21000), thawEnded(false)))
	if s.Stored == nil || s.Stored.Expired {
		t.Errorf("THAWED = %+v, want a foreign thaw: the second net was not due", s.Stored)
	}
}
