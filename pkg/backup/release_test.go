package backup

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

// entry is a road into a guest on this machine, whose rescues fail with the errors in turn; the agent is the real one.
type entry struct {
	t       *testing.T
	rescues []error
	calls   []string
	stop    context.CancelFunc
	ended   chan struct{}
}

// end ends the agent.
func (e *entry) end() { e.stop(); <-e.ended }

func (e *entry) Way() guest.Way { return guest.WayGuestOps }

func (*entry) Reuse(context.Context, guest.Payload, string) (guest.Remote, bool, error) {
	return guest.Remote{}, false, nil
}

func (e *entry) Put(context.Context, guest.Payload) (guest.Remote, error) {
	return guest.Remote{Deployment: "d", Dir: "/x/d", Exe: "/x/d/agent"}, nil
}

//nolint:contextcheck // the agent outlives the call that starts it
func (e *entry) Start(_ context.Context, _ guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	own, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		return guest.Identity{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return guest.Identity{}, err
	}
	sum := sha256.Sum256([]byte("the agent"))
	a := agent.New(agent.Options{
		Version: "1.2.3", ExeSHA256: hex.EncodeToString(sum[:]), VMUUID: vmUUID, BootID: "b", Freezer: &machine{},
		OS: protocol.OS{Family: "linux", Edition: "Debian", Version: "12"},
	})
	e.ended = make(chan struct{})
	ctx, stop := context.WithCancel(e.t.Context())
	e.stop = stop
	e.t.Cleanup(e.end)
	go func() {
		defer close(e.ended)
		if err := a.Serve(ctx, tls.NewListener(l, protocol.ServerTLS(own, b.Peer))); err != nil {
			e.t.Error(err)
		}
	}()
	return guest.Identity{PID: 7, Fingerprint: pin, Port: l.Addr().(*net.TCPAddr).AddrPort().Port()}, nil
}

func (e *entry) Rescue(context.Context, guest.Remote) (bool, error) {
	e.calls = append(e.calls, "rescue")
	err := e.rescues[0]
	e.rescues = e.rescues[1:]
	return err == nil, err
}

func (e *entry) Remove(context.Context, guest.Remote) error {
	e.calls = append(e.calls, "remove")
	return nil
}

// TestReleaseFromOutside has a window end without the agent's last word: as long as the guest could not be asked from
// outside, the agent stays there and is named.
func TestReleaseFromOutside(t *testing.T) {
	no := codedError{code: "SF3608"}
	for name, c := range map[string]struct {
		rescues []error
		code    string // of the release, "-" for none
		left    bool
		calls   []string
	}{
		"at once":       {[]error{nil}, "-", false, []string{"rescue", "remove"}},
		"in the end":    {[]error{no, nil}, "SF4919", false, []string{"rescue", "rescue", "remove"}},
		"not even then": {[]error{no, no}, "SF4919", true, []string{"rescue", "rescue"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{t: t, rescues: c.rescues}
			d := guest.Deployer{Ways: []guest.Candidate{{Choice: guest.Choice{Way: guest.WayGuestOps}, Access: e}}, Payload: guest.Payload{SHA256: sha256.Sum256([]byte("the agent"))}}
			deployment, err := d.Open(t.Context(), guest.Target{Addresses: []string{"127.0.0.1"}, VMUUID: vmUUID, Run: "r", Epoch: 5})
			if err != nil {
				t.Fatal(err)
			}
			x := &run{Runner: Runner{Log: zap.NewNop()}, vm: goodVM(), guest: deployment, result: newResult(Plan{})}
			x.undo.push("leave the guest", deployment.Close)
			if err := x.release(t.Context(), freezewindow.Report{SelfReleased: true}, time.Now()); codeOf(err) != c.code {
				t.Errorf("release = %v, want %s", err, c.code)
			}
			left := x.undo.run(t.Context())
			if (left != nil) != c.left || c.left && (codeOf(left) != "SF4919" || !strings.Contains(left.Error(), "/x/d")) {
				t.Errorf("undo = %v, want SF4919 and the folder: %t", left, c.left)
			}
			if len(x.result.Leftovers) > 0 {
				t.Errorf("leftovers %q, want those of the undo only", x.result.Leftovers)
			}
			if !slices.Equal(e.calls, c.calls) {
				t.Errorf("calls %q, want %q", e.calls, c.calls)
			}
		})
	}
}

// TestEndOfAnAgentThatDied has an agent die before it answered the end of its session, when no window took place and after
// a good one: what it may owe to the applications of the guest is done from outside, or told.
func TestEndOfAnAgentThatDied(t *testing.T) {
	no, why := codedError{code: "SF3608"}, codedError{code: "SF4004"}
	good := freezewindow.Report{HeldAtMostKnown: true}
	for name, c := range map[string]struct {
		dies    bool
		rescues []error
		code    string // of the release, "-" for none
		left    bool
		calls   []string
	}{
		"it answered":   {false, nil, "-", false, []string{"remove"}},
		"at once":       {true, []error{nil}, "-", false, []string{"rescue", "remove"}},
		"in the end":    {true, []error{no, nil}, "SF4919", false, []string{"rescue", "rescue", "remove"}},
		"not even then": {true, []error{no, no}, "SF4919", true, []string{"rescue", "rescue"}},
	} {
		for where, release := range map[string]bool{"no window": false, "after a window": true} {
			t.Run(name+", "+where, func(t *testing.T) {
				e := &entry{t: t, rescues: c.rescues}
				d := guest.Deployer{Ways: []guest.Candidate{{Choice: guest.Choice{Way: guest.WayGuestOps}, Access: e}}, Payload: guest.Payload{SHA256: sha256.Sum256([]byte("the agent"))}}
				deployment, err := d.Open(t.Context(), guest.Target{Addresses: []string{"127.0.0.1"}, VMUUID: vmUUID, Run: "r", Epoch: 5})
				if err != nil {
					t.Fatal(err)
				}
				x := &run{Runner: Runner{Log: zap.NewNop()}, vm: goodVM(), guest: deployment, result: newResult(Plan{})}
				x.undo.push("leave the guest", deployment.Close)
				if c.dies {
					e.end()
				}
				if release {
					if err := x.release(t.Context(), good, time.Now()); codeOf(err) != c.code {
						t.Errorf("release = %v, want %s", err, c.code)
					}
				} else if err := x.leave(t.Context(), why); codeOf(err) != "SF4004" || strings.Contains(err.Error(), "may owe") != (c.code != "-") {
					t.Errorf("leave = %v, want SF4004 first and a rescue that failed: %t", err, c.code != "-")
				}
				if left := x.undo.run(t.Context()); (left != nil) != c.left || c.left && codeOf(left) != "SF4919" {
					t.Errorf("undo = %v, want SF4919: %t", left, c.left)
				}
				if !slices.Equal(e.calls, c.calls) {
					t.Errorf("calls %q, want %q", e.calls, c.calls)
				}
			})
		}
	}
}
