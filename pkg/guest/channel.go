package guest

import (
	"context"
	"errors"
	"net"
	"time"
)

// The channels beside the direct one.
const (
	// ChannelReverse is a connection that the agent makes to the orchestrator.
	ChannelReverse Channel = "reverse"
	// ChannelMailbox is the VM's own configuration, which both sides write: no network at all.
	ChannelMailbox Channel = "mailbox"
)

// Reverse is what it takes for an agent to dial out.
type Reverse struct {
	Reverser *Reverser
	// Address is where the guest reaches the Reverser: an IP address and a port.
	Address string
}

// line is how one deployment's words go. The zero line is the direct one.
type line struct {
	reverse *Reverse
	caller  *Caller // of reverse
	mailbox *Mailbox
}

// line is made before the agent is started, so that it cannot dial too early.
func (d Deployer) line(ctx context.Context, deployment string, c Channel) (w line, err error) {
	switch {
	case c == ChannelReverse && d.Reverse != nil:
		w.reverse = d.Reverse
		w.caller, err = d.Reverse.Reverser.Expect(deployment)
	case c == ChannelMailbox && d.Mailbox != nil:
		box, err := d.Mailbox(ctx)
		if err != nil {
			return w, err
		}
		w.mailbox = OpenMailbox(ctx, box, deployment)
	}
	return w, err
}

// channels are those that may be tried on a way, in their order. A persistent agent listens.
func (d Deployer) channels(w Way) []Channel {
	if len(d.Channels) == 0 || w == WayPersistent {
		return []Channel{ChannelDirect}
	}
	return d.Channels
}

func (w line) channel() Channel {
	if w.reverse != nil {
		return ChannelReverse
	}
	if w.mailbox != nil {
		return ChannelMailbox
	}
	return ChannelDirect
}

// tell adds to the bootstrap what the agent has to know.
func (w line) tell(b Bootstrap) Bootstrap {
	if w.reverse != nil {
		b.DialTo, b.Port = w.reverse.Address, 0
	}
	if w.mailbox != nil {
		b.Mailbox, b.Port = true, 0
	}
	return b
}

// peers are the peer with each address of the agent that can be tried, in their order.
func (w line) peers(p Peer, id Identity, addresses []string) ([]Peer, error) {
	if w.reverse != nil {
		w.caller.Prove(p.Own, id.Fingerprint)
		p.Await = w.caller.Await
		return []Peer{p}, nil
	}
	if w.mailbox != nil {
		p.Dial, p.Slow = w.mailbox.Dial, true
		return []Peer{p}, nil
	}
	var out []Peer
	for _, endpoint := range endpoints(addresses, id.Port) {
		p.Dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialLimit, KeepAlive: keepAlive}).DialContext(ctx, "tcp", endpoint)
		}
		out = append(out, p)
	}
	if out == nil {
		return nil, &Error{SF: "SF3701", Op: "connect to the agent", Err: errors.New("VMware Tools report no address of the guest that can be reached")}
	}
	return out, nil
}

// limit is how long one try to connect may take.
func (w line) limit() time.Duration {
	if w.mailbox != nil {
		return slow().dial + slow().hello
	}
	return dialLimit + helloLimit
}

// close ends what the line waits for, and empties the mailbox. It is idempotent.
func (w line) close(ctx context.Context) error {
	if w.caller != nil {
		w.caller.Close()
	}
	if w.mailbox != nil {
		return w.mailbox.Close(ctx)
	}
	return nil
}

// Channel is how words reach the agent.
func (dep *Deployment) Channel() Channel { return dep.line.channel() }

// Mailbox is the deployment's, nil where words go another way. Windows with it are made with Around and Budget.
func (dep *Deployment) Mailbox() *Mailbox { return dep.line.mailbox }
