package guest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/mailbox"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

// road is an access in memory; the agent that it starts is the scripted one, on a real socket.
type road struct {
	t       *testing.T
	agent   *scripted
	listen  string // host of the agent's socket, empty for none
	deaf    bool   // an agent that is to dial does not
	texts   *texts // of a mailbox
	line    *mailbox.Line
	failing map[string]error
	cancel  context.CancelFunc // ends the caller's context in Start
	half    bool               // Put fails with the folder made
	kept    bool               // the program of a former deployment is there
	way     guest.Way

	calls   []string
	present bool // something of ours is in the guest
	removed guest.Remote
	group   sync.WaitGroup
	socket  net.Listener
}

type codedError string

func (c codedError) Error() string { return "the guest says " + string(c) }
func (c codedError) Code() string  { return string(c) }

func (r *road) Way() guest.Way { return r.way }

func (r *road) Put(context.Context, guest.Payload) (guest.Remote, error) {
	r.calls = append(r.calls, "put")
	remote := guest.Remote{Deployment: "d", Dir: "/x/d", Exe: "/x/d/agent"}
	if err := r.failing["put"]; err != nil {
		if r.half {
			r.present = true
			return remote, err
		}
		return guest.Remote{}, err
	}
	r.present = true
	return remote, nil
}

func (r *road) Reuse(_ context.Context, _ guest.Payload, deployment string) (guest.Remote, bool, error) {
	r.calls = append(r.calls, "reuse "+deployment)
	remote := guest.Remote{Deployment: deployment, Dir: "/x/" + deployment, Exe: "/x/" + deployment + "/agent"}
	if err := r.failing["reuse"]; err != nil || !r.kept {
		return remote, false, err
	}
	r.present = true
	return remote, true, nil
}

func (r *road) Start(ctx context.Context, _ guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	r.calls = append(r.calls, "start")
	id := guest.Identity{PID: 4711, Fingerprint: r.agent.pin, Port: 1}
	if r.cancel != nil {
		r.cancel()
	}
	if b.Mailbox && r.failing["start"] == nil {
		r.agent.peerPin = b.Peer
		r.line = mailbox.Open(ctx, side{r.texts, 1}, "d", mailbox.Options{Called: true, AckAfter: time.Millisecond, RepeatAfter: time.Second, Linger: time.Second})
		r.group.Go(func() {
			for {
				conn, err := r.line.Accept()
				if err != nil {
					return
				}
				r.group.Go(func() { r.agent.serve(conn) })
			}
		})
		return guest.Identity{PID: 4711, Fingerprint: r.agent.pin}, nil
	}
	if b.DialTo != "" && r.failing["start"] == nil {
		return r.dial(ctx, b)
	}
	if r.listen == "" || r.failing["start"] != nil {
		return id, r.failing["start"]
	}
	var err error
	if r.socket, err = net.Listen("tcp", net.JoinHostPort(r.listen, "0")); err != nil {
		r.t.Fatal(err)
	}
	r.agent.peerPin = b.Peer
	r.group.Go(func() {
		for {
			conn, err := r.socket.Accept()
			if err != nil {
				return
			}
			r.group.Go(func() { r.agent.serve(conn) })
		}
	})
	id.Port = r.socket.Addr().(*net.TCPAddr).AddrPort().Port()
	return id, nil
}

// dial has the agent dial.
func (r *road) dial(ctx context.Context, b guest.Bootstrap) (guest.Identity, error) {
	r.agent.peerPin = b.Peer
	if !r.deaf {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.DialTo)
		if err != nil {
			r.t.Fatal(err)
		}
		r.group.Go(func() { r.agent.talk(tls.Client(conn, protocol.ClientTLS(r.agent.own, b.Peer, "d"))) })
	}
	return guest.Identity{PID: 4711, Fingerprint: r.agent.pin}, nil
}

func (r *road) Rescue(ctx context.Context, _ guest.Remote) (bool, error) {
	r.calls = append(r.calls, "rescue")
	return false, errors.Join(ctx.Err(), r.failing["rescue"])
}

func (r *road) Remove(ctx context.Context, remote guest.Remote) error {
	r.calls = append(r.calls, "remove")
	r.present, r.removed = false, remote
	if r.line != nil {
		if err := r.line.Close(); err != nil {
			r.t.Error(err)
		}
	}
	if r.socket != nil {
		if err := r.socket.Close(); err != nil {
			r.t.Error(err)
		}
	}
	return errors.Join(ctx.Err(), r.failing["remove"])
}

// tries names the attempts as stage and code, "ok" when it went well.
func tries(d *guest.Deployment) []string {
	out := []string{}
	for _, a := range d.Attempts {
		end := "ok"
		if !a.OK {
			end = a.Code
		}
		if a.Way != guest.WayGuestOps || a.OK != (a.Text == "") || a.Took < 0 {
			end += "?"
		}
		out = append(out, string(a.Stage)+" "+end)
	}
	return out
}

func TestDeploy(t *testing.T) {
	const here, nobody = "127.83.7.1", "127.83.7.2"
	cases := map[string]struct {
		change    func(*road, *guest.Deployer, *guest.Target)
		code      string
		attempts  []string
		calls     []string
		cancelled bool
	}{
		"well": {
			change:   func(*road, *guest.Deployer, *guest.Target) {},
			attempts: []string{"push ok", "start ok", "hello ok"}, calls: []string{"put", "start"},
		},
		"the push fails": {
			change: func(r *road, _ *guest.Deployer, _ *guest.Target) { r.failing["put"] = codedError("SF3604") },
			code:   "SF3604", attempts: []string{"push SF3604"}, calls: []string{"put"},
		},
		"the push fails halfway": {
			change: func(r *road, _ *guest.Deployer, _ *guest.Target) {
				r.failing["put"], r.half = codedError("SF3801"), true
			},
			code: "SF3801", attempts: []string{"push SF3801", "cleanup ok"}, calls: []string{"put", "remove"},
		},
		"the start fails": {
			change: func(r *road, _ *guest.Deployer, _ *guest.Target) { r.failing["start"] = codedError("SF3703") },
			code:   "SF3703", attempts: []string{"push ok", "start SF3703", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"no address": {
			change: func(_ *road, _ *guest.Deployer, g *guest.Target) { g.Addresses = nil },
			code:   "SF3701", attempts: []string{"push ok", "start ok", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"no address that is one": {
			change: func(_ *road, _ *guest.Deployer, g *guest.Target) {
				g.Addresses = []string{"", "guest.example", "0.0.0.0", "::", "224.0.0.1", "169.254.3.4", "fe80::1", "127.0.0.1:6465"}
			},
			code: "SF3701", attempts: []string{"push ok", "start ok", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"the second address answers": {
			change:   func(_ *road, _ *guest.Deployer, g *guest.Target) { g.Addresses = []string{nobody, here} },
			attempts: []string{"push ok", "start ok", "hello SF3701", "hello ok"}, calls: []string{"put", "start"},
		},
		"no address answers": {
			change: func(_ *road, _ *guest.Deployer, g *guest.Target) { g.Addresses = []string{nobody, "127.83.7.3"} },
			code:   "SF3701", attempts: []string{"push ok", "start ok", "hello SF3701", "hello SF3701", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"another machine answers": {
			change: func(r *road, _ *guest.Deployer, _ *guest.Target) { r.agent.pin[0]++ },
			code:   "SF3702", attempts: []string{"push ok", "start ok", "hello SF3702", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"another VM answers": {
			change: func(_ *road, _ *guest.Deployer, g *guest.Target) { g.VMUUID = "00000000-a0c1-8d9e-0011-223344556677" },
			code:   "SF3704", attempts: []string{"push ok", "start ok", "hello SF3704", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"another program answers": {
			change: func(_ *road, d *guest.Deployer, _ *guest.Target) { d.Payload.SHA256[0]++ },
			code:   "SF3704", attempts: []string{"push ok", "start ok", "hello SF3704", "cleanup ok"}, calls: []string{"put", "start", "remove"},
		},
		"the clean-up fails too": {
			change: func(r *road, _ *guest.Deployer, _ *guest.Target) {
				r.failing["start"], r.failing["remove"] = codedError("SF3703"), codedError("SF3501")
			},
			code: "SF3703", attempts: []string{"push ok", "start SF3703", "cleanup SF3501"}, calls: []string{"put", "start", "remove"},
		},
		"cancelled: no further address, but removed": {
			change: func(_ *road, _ *guest.Deployer, g *guest.Target) { g.Addresses = []string{nobody, here} },
			code:   "SF3701", attempts: []string{"push ok", "start ok", "hello SF3701", "cleanup ok"}, calls: []string{"put", "start", "remove"}, cancelled: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &road{t: t, agent: newScripted(t), listen: here, failing: map[string]error{}}
			d := guest.Deployer{Ways: only(r), Payload: guest.Payload{Name: "agent", SHA256: program, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(nil)), nil
			}}}
			target := guest.Target{Addresses: []string{here}, VMUUID: vmUUID, Run: "r", Epoch: 5}
			c.change(r, &d, &target)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.cancelled {
				r.cancel = cancel
			}
			dep, err := d.Open(ctx, target)
			if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
				t.Errorf("Open = %v with code %q, want %q", err, got, c.code)
			}
			if diff := cmp.Diff(c.attempts, tries(dep)); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.calls, r.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if (err == nil) != (dep.Session != nil) || (err == nil) != r.present {
				t.Errorf("Open = %v with session %t and something in the guest %t", err, dep.Session != nil, r.present)
			}
			if err == nil && dep.Session.Hello.AgentVersion != "1" {
				t.Errorf("the agent introduced itself as %+v", dep.Session.Hello)
			}
			for range 2 { // idempotent
				if err := dep.Close(t.Context()); err != nil {
					t.Errorf("Close = %v, want nil", err)
				}
			}
			if n := len(c.calls); err == nil && (len(r.calls) != n+1 || r.removed.PID != 4711) {
				t.Errorf("after Close the calls are %q with %+v removed, want one removal of process 4711", r.calls, r.removed)
			}
			if r.present {
				t.Error("something is left in the guest")
			}
			r.group.Wait()
		})
	}
}

// TestDeployCannotReplace wants a program that is not the payload, and stays, told of, and no reason to go without a backup.
func TestDeployCannotReplace(t *testing.T) {
	r := &road{t: t, agent: newScripted(t), listen: "127.83.7.1", way: guest.WayGuestOps, failing: map[string]error{"remove": codedError("SF3307")}}
	d := guest.Deployer{Ways: only(r), Payload: guest.Payload{SHA256: program}, Keep: true, Kept: "c"}
	dep, err := d.Open(t.Context(), guest.Target{Addresses: []string{"127.83.7.1"}, VMUUID: vmUUID})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"push ok", "cleanup SF3307", "push ok", "start ok", "hello ok"}, tries(dep)); diff != "" || dep.Kept() != "d" || dep.Left != nil {
		t.Errorf("it keeps %q, left is %v, attempts (-want +got):\n%s", dep.Kept(), dep.Left, diff)
	}
	r.failing["remove"] = nil
	if err := dep.Close(t.Context()); err != nil {
		t.Error(err)
	}
	r.group.Wait()
}

// TestDeployKeeps has a program stay in the guest, and used again.
func TestDeployKeeps(t *testing.T) {
	for name, c := range map[string]struct {
		keep      bool
		before    string
		change    func(*road)
		rescued   bool
		discarded bool
		code      string
		calls     []string
		kept      string
	}{
		"the first time":           {keep: true, calls: []string{"put", "start", "remove"}, kept: "d"},
		"once more":                {keep: true, before: "d", change: func(r *road) { r.kept = true }, calls: []string{"reuse d", "start", "remove"}, kept: "d"},
		"for the last time":        {before: "d", change: func(r *road) { r.kept = true }, calls: []string{"reuse d", "start", "remove"}},
		"it is gone":               {keep: true, before: "c", calls: []string{"reuse c", "remove", "put", "start", "remove"}, kept: "d"},
		"nobody remembers it":      {keep: true, discarded: true, calls: []string{"put", "start", "remove"}, kept: "d"},
		"the guest does not say":   {keep: true, before: "d", change: func(r *road) { r.failing["reuse"] = codedError("SF3501") }, code: "SF3501", calls: []string{"reuse d"}},
		"it does not start":        {keep: true, before: "d", change: func(r *road) { r.kept, r.failing["start"] = true, codedError("SF3703") }, code: "SF3703", calls: []string{"reuse d", "start", "remove"}},
		"nobody answers":           {keep: true, change: func(r *road) { r.agent.pin[0]++ }, code: "SF3702", calls: []string{"put", "start", "remove"}},
		"what had to be rescued":   {keep: true, rescued: true, calls: []string{"put", "start", "rescue", "remove"}, kept: "d"},
		"nothing of it was wanted": {calls: []string{"put", "start", "remove"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &road{t: t, agent: newScripted(t), listen: "127.83.7.1", failing: map[string]error{}}
			if c.change != nil {
				c.change(r)
			}
			d := guest.Deployer{Ways: only(r), Payload: guest.Payload{SHA256: program}, Keep: c.keep, Kept: c.before}
			dep, err := d.Open(t.Context(), guest.Target{Addresses: []string{"127.83.7.1"}, VMUUID: vmUUID})
			if guest.CodeOf(err) != c.code || dep.Kept() != c.kept {
				t.Errorf("Open = %v and keeps %q, want code %q and %q", err, dep.Kept(), c.code, c.kept)
			}
			if c.rescued {
				if _, err := dep.Rescue(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if c.discarded {
				dep.Discard()
			}
			if err := dep.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.calls, r.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if want := c.kept != "" && !c.rescued && !c.discarded; r.removed.Keep != want {
				t.Errorf("removed %+v, want it kept: %t", r.removed, want)
			}
			r.group.Wait()
		})
	}
}

func TestDeployReverse(t *testing.T) {
	cases := map[string]struct {
		change   func(*road)
		code     string
		attempts []string
	}{
		"well":              {func(*road) {}, "", []string{"push ok", "start ok", "hello ok"}},
		"the start fails":   {func(r *road) { r.failing["start"] = codedError("SF3703") }, "SF3703", []string{"push ok", "start SF3703", "cleanup ok"}},
		"it does not dial":  {func(r *road) { r.deaf = true }, "SF3701", []string{"push ok", "start ok", "hello SF3701", "cleanup ok"}},
		"another one dials": {func(r *road) { r.agent.pin[0]++ }, "SF3702", []string{"push ok", "start ok", "hello SF3702", "cleanup ok"}},
		"the clean-up fails too": {func(r *road) {
			r.failing["start"], r.failing["remove"] = codedError("SF3703"), codedError("SF3501")
		}, "SF3703", []string{"push ok", "start SF3703", "cleanup SF3501"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // two of them wait for 5 s
			reverser, err := guest.Listen(t.Context(), "127.83.7.4:0")
			if err != nil {
				t.Fatal(err)
			}
			r := &road{t: t, agent: newScripted(t), failing: map[string]error{}}
			c.change(r)
			d := guest.Deployer{
				Ways: only(r), Channels: []guest.Channel{guest.ChannelReverse}, Payload: guest.Payload{SHA256: program}, Reverse: &guest.Reverse{Reverser: reverser, Address: reverser.Addr().String()},
			}
			dep, err := d.Open(t.Context(), guest.Target{VMUUID: vmUUID})
			if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
				t.Errorf("Open = %v with code %q, want %q", err, got, c.code)
			}
			if diff := cmp.Diff(c.attempts, tries(dep)); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			for i, a := range dep.Attempts[1:] {
				if a.Channel != guest.ChannelReverse {
					t.Errorf("attempt %d was for the channel %q, want reverse", i+1, a.Channel)
				}
			}
			if err := dep.Close(t.Context()); err != nil {
				t.Errorf("Close = %v, want nil", err)
			}
			if again, err := reverser.Expect("d"); err != nil {
				t.Errorf("the deployment is still waited for: %v", err)
			} else {
				again.Close()
			}
			if err := reverser.Close(); err != nil {
				t.Error(err)
			}
			r.group.Wait()
		})
	}
}

// texts are a mailbox in memory.
type texts struct {
	mu     sync.Mutex
	text   [2]string
	change chan struct{}
	closes int
}

// side is one side of it.
type side struct {
	*texts
	n int
}

func (s side) Put(_ context.Context, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text[s.n] = text
	close(s.change)
	s.change = make(chan struct{})
	return nil
}

func (s side) Next(ctx context.Context, last string) (string, error) {
	for {
		s.mu.Lock()
		text, change := s.text[1-s.n], s.change
		s.mu.Unlock()
		if text != last {
			return text, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func (s side) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes++
	s.text = [2]string{}
	return nil
}

func TestDeployMailbox(t *testing.T) {
	cases := map[string]struct {
		change   func(*road)
		box      error
		code     string
		attempts []string
	}{
		"well":              {func(*road) {}, nil, "", []string{"push ok", "start ok", "hello ok"}},
		"no mailbox":        {func(*road) {}, codedError("SF2101"), "SF2101", []string{"push ok", "cleanup ok"}},
		"refused":           {func(r *road) { r.failing["start"] = codedError("SF3850") }, nil, "SF3850", []string{"push ok", "start SF3850", "cleanup ok"}},
		"another one is in": {func(r *road) { r.agent.pin[0]++ }, nil, "SF3702", []string{"push ok", "start ok", "hello SF3702", "cleanup ok"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &road{t: t, agent: newScripted(t), failing: map[string]error{}, texts: &texts{change: make(chan struct{})}}
				c.change(r)
				d := guest.Deployer{Ways: only(r), Channels: []guest.Channel{guest.ChannelMailbox}, Payload: guest.Payload{SHA256: program}, Mailbox: func(context.Context) (guest.Box, error) {
					return side{r.texts, 0}, c.box
				}}
				dep, err := d.Open(t.Context(), guest.Target{VMUUID: vmUUID})
				if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
					t.Errorf("Open = %v with code %q, want %q", err, got, c.code)
				}
				if diff := cmp.Diff(c.attempts, tries(dep)); diff != "" {
					t.Errorf("attempts (-want +got):\n%s", diff)
				}
				if last := dep.Attempts[len(dep.Attempts)-1]; c.box == nil && (last.Channel != guest.ChannelMailbox || dep.Mailbox() == nil) {
					t.Errorf("the last attempt was for the channel %q, mailbox %v", last.Channel, dep.Mailbox())
				}
				if err := errors.Join(dep.Close(t.Context()), dep.Close(t.Context())); err != nil {
					t.Errorf("Close = %v, want nil", err)
				}
				if r.line != nil {
					r.line.Wait(t.Context())
				}
				if c.box == nil && r.texts.closes == 0 || r.texts.text != [2]string{} {
					t.Errorf("the mailbox was closed %d times and has %.40q", r.texts.closes, r.texts.text)
				}
				r.group.Wait()
			})
		})
	}
}

// Close tells what it could not remove, whatever became of the run's context.
func TestDeploymentCloseTells(t *testing.T) {
	r := &road{t: t, agent: newScripted(t), listen: "127.83.7.1", failing: map[string]error{}}
	d := guest.Deployer{Ways: only(r), Payload: guest.Payload{SHA256: program}}
	dep, err := d.Open(t.Context(), guest.Target{Addresses: []string{"127.83.7.1"}, VMUUID: vmUUID})
	if err != nil {
		t.Fatal(err)
	}
	r.failing["remove"] = codedError("SF3501")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = dep.Close(ctx)
	if guest.CodeOf(err) != "SF3950" || !errors.Is(err, codedError("SF3501")) || errors.Is(err, context.Canceled) {
		t.Errorf("Close = %v, want SF3950 around the road's own error, not the end of the context", err)
	}
	r.group.Wait()
}

// A guest that may be frozen keeps the agent, which alone can thaw it, until a rescue went well.
func TestDeploymentCloseRescuesFirst(t *testing.T) {
	for name, c := range map[string]struct {
		first, again error
		code         string
		calls        []string
	}{
		"it went well":         {nil, nil, "", []string{"put", "start", "rescue", "remove"}},
		"it went well at last": {codedError("SF3703"), nil, "", []string{"put", "start", "rescue", "rescue", "remove"}},
		"it failed twice":      {codedError("SF3703"), codedError("SF3501"), "SF4919", []string{"put", "start", "rescue", "rescue"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &road{t: t, agent: newScripted(t), listen: "127.83.7.1", failing: map[string]error{"rescue": c.first}}
			t.Cleanup(func() {
				if c.code != "" { // else Remove has closed it
					if err := r.socket.Close(); err != nil {
						t.Error(err)
					}
				}
				r.group.Wait()
			})
			dep, err := guest.Deployer{Ways: only(r), Payload: guest.Payload{SHA256: program}}.Open(t.Context(), guest.Target{Addresses: []string{"127.83.7.1"}, VMUUID: vmUUID})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dep.Rescue(t.Context()); !errors.Is(err, c.first) {
				t.Errorf("Rescue = %v, want %v", err, c.first)
			}
			r.failing["rescue"] = c.again
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = dep.Close(ctx)
			if guest.CodeOf(err) != c.code || !errors.Is(err, c.again) || (dep.Left != nil) != (c.code != "") {
				t.Errorf("Close = %v with %v left, want code %q", err, dep.Left, c.code)
			}
			if err := dep.Close(ctx); err != nil {
				t.Errorf("Close again = %v, want nil", err)
			}
			if diff := cmp.Diff(c.calls, r.calls); diff != "" || r.present != (c.code != "") {
				t.Errorf("something is in the guest: %t; calls (-want +got):\n%s", r.present, diff)
			}
		})
	}
}

// The pin is the whole of the trust: a certificate that is well in every other way is refused.
func TestConnectNeedsThePin(t *testing.T) {
	a := newScripted(t)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		conn, err := socket.Accept()
		if err != nil {
			return
		}
		a.serve(conn)
	})
	other, _, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	peer := a.target()
	peer.Own = other // the agent does not know it
	peer.Dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", socket.Addr().String())
	}
	if _, err := guest.Connect(t.Context(), peer); guest.CodeOf(err) != "SF3706" {
		t.Errorf("Connect = %v, want SF3706", err)
	}
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
}

// TestDeployNamesWhatEndedIt has two ways fail: the first one's error has the code, unless the second one's ends all ways.
func TestDeployNamesWhatEndedIt(t *testing.T) {
	for _, c := range []struct{ first, second, want string }{
		{"SF3101", "SF3601", "SF3101"},
		{"SF3101", "SF3001", "SF3001"},
		{"SF3401", "SF3801", "SF3801"},
	} {
		var d guest.Deployer
		for way, code := range map[guest.Way]string{guest.WaySCM: c.first, guest.WayGuestOps: c.second} {
			d.Ways = append(d.Ways, guest.Candidate{Choice: guest.Choice{Way: way}, Access: &road{t: t, way: way, failing: map[string]error{"put": codedError(code)}}})
		}
		slices.SortFunc(d.Ways, func(a, b guest.Candidate) int { return strings.Compare(string(a.Way.Road), string(b.Way.Road)) })
		dep, err := d.Open(t.Context(), guest.Target{})
		if got := guest.CodeOf(err); got != c.want || len(dep.Attempts) != 2 || !strings.Contains(err.Error(), c.first) || !strings.Contains(err.Error(), c.second) {
			t.Errorf("%s, then %s: Open = %v with code %q after %d attempts, want %q and both told", c.first, c.second, err, got, len(dep.Attempts), c.want)
		}
	}
}
