package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// TestPinInEachState wants PIN to be kept only where nothing is held and nothing is about to be.
func TestPinInEachState(t *testing.T) {
	want := map[string]string{
		"fresh": "IDLE say:SF4022", "IDLE": "IDLE KeepPin", "ARMING": "ARMING say:SF4008", "READY": "READY say:SF4008",
		"FREEZING": "FREEZING say:SF4008", "FREEZING held": "FREEZING say:SF4008", "FROZEN": "FROZEN say:SF4008",
		"THAWING": "THAWING say:SF4008", "OPEN": "OPEN KeepPin", "CLOSED failed": "CLOSED say:SF4008", "CLOSED ended": "CLOSED say:SF4008",
	}
	all := ways()
	if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, slices.Sorted(maps.Keys(all))) {
		t.Fatalf("the states are %v, wanted are %v", slices.Sorted(maps.Keys(all)), got)
	}
	asked := protocol.Fingerprint{7}
	for name, way := range all {
		t.Run(name, func(t *testing.T) {
			s, _ := agent.Start(agent.Self{Version: "1", VMUUID: vmUUID, BootID: "b", Persistent: true}, 0)
			for _, h := range way {
				s, _ = agent.Step(s, h.at, h.event)
			}
			s, commands := agent.Step(s, ms(9000), word(20, &protocol.Pin{Next: asked.String()}))
			if got := effects(s, commands); got != want[name] {
				t.Errorf("PIN gives %q, want %q", got, want[name])
			}
			if len(commands) > 0 && strings.Contains(want[name], "KeepPin") {
				if diff := cmp.Diff(agent.KeepPin{Re: 20, Renewal: agent.Renewal{Next: asked}}, commands[0]); diff != "" {
					t.Errorf("what is kept (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestPinAnswers(t *testing.T) {
	own := agent.Own{Present: protocol.Fingerprint{1}, Next: protocol.Fingerprint{2}}
	persistent := agent.Self{Version: "1", VMUUID: vmUUID, BootID: "b", Persistent: true}
	pin := func(m *protocol.Pin) []happening {
		return []happening{{ms(1000), hello(1, nil)}, {ms(2000), word(2, m)}}
	}
	cases := map[string]struct {
		self agent.Self
		way  []happening
		want string
	}{
		"kept":                      {persistent, with(pin(&protocol.Pin{}), ms(2500), agent.PinKept{Re: 2, Own: own}), "IDLE say:PIN"},
		"not kept":                  {persistent, with(pin(&protocol.Pin{}), ms(2500), agent.PinKept{Re: 2, Err: errors.New("disk full")}), "IDLE say:SF3723"},
		"not a fingerprint":         {persistent, pin(&protocol.Pin{Next: "abc"}), "IDLE say:SF3723"},
		"not its own fingerprint":   {persistent, pin(&protocol.Pin{Confirmed: strings.Repeat("0", 64)}), "IDLE say:SF3723"},
		"another while one is kept": {persistent, with(pin(&protocol.Pin{}), ms(2100), word(3, &protocol.Pin{})), "IDLE say:SF4008"},
		"another after it":          {persistent, with(pin(&protocol.Pin{}), ms(2100), agent.PinKept{Re: 2}, ms(2200), word(3, &protocol.Pin{})), "IDLE KeepPin"},
		"an agent that leaves":      {agent.Self{VMUUID: vmUUID}, pin(&protocol.Pin{}), "IDLE say:SF3722"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, commands := agent.Start(c.self, 0)
			for _, h := range c.way {
				s, commands = agent.Step(s, h.at, h.event)
			}
			if got := effects(s, commands); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.want != "IDLE say:PIN" {
				return
			}
			a := commands[0].(agent.Send).M.(*protocol.PinAnswer)
			if a.Re != 2 || a.Fingerprint != own.Present.String() || a.Next != own.Next.String() {
				t.Errorf("answer %+v, want %v and %v", a, own.Present, own.Next)
			}
		})
	}
}

// shelf is a Keeper that forgets everything with the test.
type shelf struct {
	mu     sync.Mutex
	asked  []agent.Renewal
	proved []protocol.Fingerprint
	own    agent.Own
	slow   time.Duration
}

func (k *shelf) Renew(r agent.Renewal) (agent.Own, error) {
	time.Sleep(k.slow)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, r)
	return k.own, nil
}

func (k *shelf) Proved(by protocol.Fingerprint) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proved = append(k.proved, by)
	return nil
}

// stay starts a real persistent agent, which serves until it is stopped.
func stay(t *testing.T, f *freezer, k *shelf) *machine {
	t.Helper()
	theirs, theirPin, err := protocol.NewIdentity(time.Hour)
	own, pin, err2 := protocol.NewIdentity(time.Hour)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	k.own.Present = theirPin
	m := &machine{network: newNetwork(), freezer: f, ended: make(chan struct{}), start: time.Now()}
	m.peer = guest.Peer{Dial: m.dial, Own: own, Fingerprint: theirPin, Deployment: "d", VMUUID: vmUUID, AnyProgram: true, Run: "r", Epoch: 5}
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	go func() {
		defer close(m.ended)
		a := agent.New(agent.Options{
			Version: "1", ExeSHA256: "another", VMUUID: vmUUID, BootID: "b", Freezer: f, Keeper: k, Idle: 1000 * time.Hour,
			Leaked: func() int { return 3 }, Notes: []error{errors.New("a note from before")},
		})
		for ; ctx.Err() == nil && m.err == nil; a = a.Next() {
			m.err = a.Serve(ctx, tls.NewListener(&door{network: m.network, shut: make(chan struct{})}, protocol.ServerTLS(theirs, pin)))
		}
	}()
	return m
}

// door is the listener of one session; the network outlasts it.
type door struct {
	*network
	once sync.Once
	shut chan struct{}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.shut:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.shut) })
	return nil
}

// TestPersistentAgentIsRenewed rotates over the real agent and the real session, before a window and after it.
func TestPersistentAgentIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &shelf{own: agent.Own{Next: protocol.Fingerprint{2}}, slow: 409 * time.Millisecond}
		m := stay(t, slowly(), k)
		s := m.connect(t)
		if !s.Hello.Persistent || s.Hello.LeakedSessions != 3 || s.Proved != m.peer.Fingerprint {
			t.Errorf("HELLO %+v, proved by %v", s.Hello, s.Proved)
		}
		next := protocol.Fingerprint{9}
		pins, err := s.Rotate(t.Context(), next)
		if want := (guest.Pins{Agent: m.peer.Fingerprint, Next: protocol.Fingerprint{2}}); err != nil || pins != want {
			t.Errorf("Rotate = %v, %v, want %v", pins, err, want)
		}
		report := m.window(t, s, 1009*time.Millisecond, 0)
		if report.Verdict.Level != freezewindow.Filesystem {
			t.Errorf("verdict %+v", report.Verdict)
		}
		k.mu.Lock()
		k.own = agent.Own{Present: protocol.Fingerprint{2}}
		k.mu.Unlock()
		pins, err = s.Confirm(t.Context(), protocol.Fingerprint{2})
		if want := (guest.Pins{Agent: protocol.Fingerprint{2}}); err != nil || pins != want {
			t.Errorf("Confirm = %v, %v, want %v", pins, err, want)
		}
		if err := s.End(t.Context()); err != nil {
			t.Error(err)
		}
		s.Close()
		m.stop()
		m.end(t)
		want := []agent.Renewal{{Next: next}, {Confirmed: protocol.Fingerprint{2}}}
		if !slices.Equal(k.asked, want) || len(k.proved) != 1 || k.proved[0] == (protocol.Fingerprint{}) {
			t.Errorf("asked to keep %v, proved by %v, want %v and our certificate", k.asked, k.proved, want)
		}
	})
}
