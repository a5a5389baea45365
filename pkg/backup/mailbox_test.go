package backup

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/mailbox"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// post is a way into the guest without any network: the agent is started, and spoken to through two texts, of which the
// orchestrator's takes slow.
type post struct {
	t      *testing.T
	m      *machine
	h      *hypervisor
	family string
	slow   time.Duration
	line   *mailbox.Line
	stop   context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	text   [2]string
	change chan struct{}
	modes  []string // that the guest was armed for
	early  int      // texts while the snapshot was made
}

// byPost has the bench's guest reached by mailbox.
func byPost(t *testing.T, b *bench, family string, slow time.Duration) *post {
	t.Helper()
	p := &post{t: t, m: b.m, h: b.h, family: family, slow: slow, change: make(chan struct{}), ended: make(chan struct{})}
	b.m.post = p
	return p
}

func (p *post) open(ctx context.Context) (*guest.Deployment, error) {
	d := guest.Deployer{Ways: []guest.Candidate{{Choice: guest.Choice{Way: guest.WayGuestOps}, Access: p}}, Channels: []guest.Channel{guest.ChannelMailbox}, Payload: guest.Payload{SHA256: sha256.Sum256([]byte("the agent"))}, Mailbox: func(context.Context) (guest.Box, error) {
		return texts{p, 0, p.slow}, nil
	}}
	return d.Open(ctx, guest.Target{VMUUID: vmUUID, Run: "r", Epoch: 5})
}

func (p *post) Way() guest.Way { return guest.WayGuestOps }

func (*post) Reuse(context.Context, guest.Payload, string) (guest.Remote, bool, error) {
	return guest.Remote{}, false, nil
}

func (p *post) Put(context.Context, guest.Payload) (guest.Remote, error) {
	return guest.Remote{Deployment: "d", Dir: "/x/d", Exe: "/x/d/agent"}, nil
}

// arming is the machine that tells what it is armed for.
type arming struct {
	*machine
	p *post
}

func (a arming) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	a.p.mu.Lock()
	a.p.modes = append(a.p.modes, r.Mode)
	a.p.mu.Unlock()
	return a.machine.Prepare(ctx, r)
}

func (p *post) Start(ctx context.Context, _ guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	own, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil || !b.Mailbox {
		return guest.Identity{}, errors.Join(err, errors.New("the agent is not to use the mailbox"))
	}
	sum := sha256.Sum256([]byte("the agent"))
	a := agent.New(agent.Options{
		Version: "1.2.3", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: arming{p.m, p}, Slow: true,
		OS: protocol.OS{Family: p.family, Edition: "Debian", Version: "12"},
	})
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.line = mailbox.Open(ctx, texts{p, 1, time.Millisecond}, "d", mailbox.Options{Called: true, AckAfter: 23 * time.Millisecond, RepeatAfter: 5 * time.Second, Linger: 2 * time.Second})
	go func() {
		defer close(p.ended)
		if err := a.Serve(ctx, tls.NewListener(p.line, protocol.ServerTLS(own, b.Peer))); err != nil {
			p.t.Error(err)
		}
		p.stop()
		p.line.Wait(ctx)
	}()
	return guest.Identity{Fingerprint: pin, PID: 4711}, nil
}

func (p *post) Rescue(context.Context, guest.Remote) (bool, error) { return false, nil }

func (p *post) Remove(context.Context, guest.Remote) error {
	if p.stop != nil {
		p.stop()
		<-p.ended
	}
	return nil
}

// texts are one side of the mailbox.
type texts struct {
	p    *post
	side int
	slow time.Duration
}

func (x texts) Put(ctx context.Context, text string) error {
	if x.side == 0 && x.p.h.busy() {
		x.p.mu.Lock()
		x.p.early++
		x.p.mu.Unlock()
	}
	select {
	case <-time.After(x.slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.text[x.side] = text
	close(x.p.change)
	x.p.change = make(chan struct{})
	return nil
}

func (x texts) Next(ctx context.Context, last string) (string, error) {
	for {
		x.p.mu.Lock()
		text, change := x.p.text[1-x.side], x.p.change
		x.p.mu.Unlock()
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

func (x texts) Close(context.Context) error {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.text = [2]string{}
	return nil
}

func TestRunByMailbox(t *testing.T) {
	cases := map[string]struct {
		family string
		change func(*bench)
		slow   time.Duration
		level  freezewindow.Level
		code   string
		modes  []string
	}{
		"a Linux":                        {"linux", func(*bench) {}, 701 * time.Millisecond, freezewindow.Filesystem, "", []string{"fs"}},
		"the snapshot takes too long":    {"linux", func(b *bench) { b.h.takes = 16 * time.Second }, 701 * time.Millisecond, freezewindow.Crash, "", []string{"fs"}},
		"vCenter is slow":                {"linux", func(*bench) {}, 2701 * time.Millisecond, freezewindow.Filesystem, "", []string{"fs"}},
		"vCenter is too slow":            {"linux", func(*bench) {}, 3401 * time.Millisecond, freezewindow.Unproved, "SF4011", nil},
		"a Windows is held in writer":    {osWindows, func(b *bench) { b.h.vm.GuestFamily = "windowsGuest" }, 701 * time.Millisecond, freezewindow.Unproved, "", []string{"writer"}},
		"a Windows that wants io is not": {osWindows, func(b *bench) { b.h.vm.GuestFamily, b.plan.Mode = "windowsGuest", admission.IOOnly }, 701 * time.Millisecond, freezewindow.Unproved, "SF4010", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var p *post
			play(t, func(b *bench) {
				p = byPost(t, b, c.family, c.slow)
				c.change(b)
			}, func(t *testing.T, b *bench, r Result, err error) {
				t.Helper()
				if c.level != freezewindow.Unproved && r.Verdict.Level != c.level || c.code != "" && guest.CodeOf(err) != c.code && codeOf(err) != c.code {
					t.Errorf("level %s, error %v, want %s, %q", r.Verdict.Level, err, c.level, c.code)
				}
				if len(p.modes) != len(c.modes) || len(c.modes) > 0 && p.modes[0] != c.modes[0] {
					t.Errorf("the guest was armed for %q, want %q", p.modes, c.modes)
				}
				if p.early != 0 {
					t.Errorf("%d texts were written while the snapshot was made", p.early)
				}
				if p.text != [2]string{} {
					t.Errorf("the mailbox is left with %.40q", p.text)
				}
				if c.modes != nil && r.Guest.Channel != "mailbox" {
					t.Errorf("the channel is %q, want mailbox", r.Guest.Channel)
				}
				if b.m.held {
					t.Error("the guest is still held")
				}
				wellFormed(t, r)
			})
		})
	}
}
