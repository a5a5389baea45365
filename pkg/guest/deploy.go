package guest

import (
	"context"
	"errors"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// DefaultPort is the agent's control port in the guest.
const DefaultPort = 6465

// Limits of a deployment, no two equal. A start and a rescue may first run the post-thaw hooks that a dead agent owes: 5 s
// to make sure that it is dead, 30 s for the hooks.
const (
	pushLimit    = 60 * time.Second
	startLimit   = 66 * time.Second
	cleanupLimit = 25 * time.Second
	rescueLimit  = 59 * time.Second
	// certificateLife outlives every run: 24 h of transfer at most.
	certificateLife = 48 * time.Hour
	// keepAlive is the time between two signs of life of TCP on an idle connection.
	keepAlive = 15 * time.Second
)

// busyPauses are the waits before further tries of a way on which the guest was busy.
var busyPauses = []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second}

// Candidate is a way with what goes it. Access is nil for one that is not tried.
type Candidate struct {
	Choice
	Access Access
}

// Deployer puts the agent into a guest and opens a session with it.
type Deployer struct {
	// Ways are tried in their order, until one goes well.
	Ways    []Candidate
	Payload Payload
	// Keep leaves the agent's program in the guest after a deployment that went well; Kept is the deployment that did so
	// before, empty for none.
	Keep bool
	Kept string
	// Port is the TCP port that the agent listens on; 0 lets the guest choose.
	Port uint16
	// OnlyMounts bounds what may be frozen; empty means every supported file system.
	OnlyMounts []string
	// Channels are tried in their order on each way, the next one where the agent runs and cannot be spoken with; none is the
	// direct one only.
	Channels []Channel
	// Reverse is where agents dial, for ChannelReverse.
	Reverse *Reverse
	// Mailbox gives the box through which both sides speak, for ChannelMailbox. It is closed with the deployment.
	Mailbox func(ctx context.Context) (Box, error)
}

// Target is the guest to go to.
type Target struct {
	// Addresses are tried in their order.
	Addresses []string
	// VMUUID is the VM's SMBIOS uuid, Run the run's id, Epoch the installation's epoch.
	VMUUID, Run string
	Epoch       uint64
}

// Deployment is an agent that was put into a guest, with its session. The owner closes it.
type Deployment struct {
	Session *Session
	access  Access
	remote  Remote
	// Left is what could not be removed from the guest; nil when nothing was left.
	Left error
	// Attempts are all tries so far.
	Attempts []Attempt
	// held is true after a Rescue that failed: the guest may be frozen, and only the agent in it can thaw it.
	held bool
	line line
}

// Open pushes the agent, starts it and connects to it, by the first way that goes well. With an error everything that was
// put into the guest is removed again. No other way is tried after a refused password, after a sign of tampering, when the
// agent itself refused to serve, or when something could not be removed. An error that ends it so is the first of those of all
// ways, and has the code; else the first way's is. The Deployment is never nil: its Attempts are kept
// whatever happened.
func (d Deployer) Open(ctx context.Context, t Target) (*Deployment, error) {
	dep := &Deployment{}
	var all error
	for _, w := range d.Ways {
		if w.Access == nil {
			dep.Attempts = append(dep.Attempts, Attempt{Way: w.Way, Skipped: true, Code: w.Code, Text: w.Text})
			continue
		}
		dep.access = w.Access
		err := d.byChannels(ctx, dep, t)
		if err == nil {
			return dep, nil
		}
		if ClassOf(CodeOf(err)).Final() {
			all = errors.Join(err, all)
			break
		}
		all = errors.Join(all, err)
		if dep.Left != nil || ctx.Err() != nil {
			break
		}
	}
	if all == nil {
		all = &Error{SF: "SF3020", Op: "choose a way into the guest", Err: errors.New("the policy and the guest leave none")}
	}
	return dep, all
}

// codeUnreached is that of an agent which runs, and cannot be spoken with: another channel may help.
const codeUnreached = "SF3701"

// byChannels tries one way with each channel: the agent is started anew for another one.
func (d Deployer) byChannels(ctx context.Context, dep *Deployment, t Target) (err error) {
	var all error
	for _, c := range d.channels(dep.access.Way()) {
		if err = d.patiently(ctx, dep, t, c); err == nil {
			return nil
		}
		all = errors.Join(all, err)
		if CodeOf(err) != codeUnreached || dep.Left != nil || ctx.Err() != nil {
			return all
		}
	}
	return all
}

// patiently tries one way with one channel, and again while the guest is busy.
func (d Deployer) patiently(ctx context.Context, dep *Deployment, t Target, c Channel) error {
	for try := 0; ; try++ {
		err := d.enter(ctx, dep, t, c)
		if err == nil {
			return nil
		}
		if left := dep.Close(ctx); left != nil {
			return errors.Join(err, left)
		}
		if try == len(busyPauses) || ClassOf(CodeOf(err)) != ClassBusy {
			return err
		}
		select {
		case <-time.After(busyPauses[try]):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// enter tries one way once.
func (d Deployer) enter(ctx context.Context, dep *Deployment, t Target, c Channel) error {
	own, fingerprint, err := protocol.NewIdentity(certificateLife)
	if err != nil {
		return err
	}
	if err := d.put(ctx, dep); err != nil {
		return err
	}
	if dep.line, err = d.line(ctx, dep.remote.Deployment, c); err != nil {
		return err
	}
	var identity Identity
	err = dep.try(ctx, StageStart, startLimit, func(ctx context.Context) (err error) {
		dep.remote.Started = true
		b := Bootstrap{Peer: fingerprint, Port: d.Port, OnlyMounts: d.OnlyMounts}
		if d.Payload.System == inventory.Windows { // the others have no firewall of their own to open
			b.Allow = OwnAddresses(t.Addresses)
		}
		identity, err = dep.access.Start(ctx, dep.remote, dep.line.tell(b))
		return err
	})
	dep.remote.PID = identity.PID
	if err != nil {
		return err
	}
	if identity.Own != nil {
		own = *identity.Own
	}
	peer := Peer{
		Own: own, Fingerprint: identity.Fingerprint, Next: identity.Next, Deployment: dep.remote.Deployment,
		VMUUID: t.VMUUID, SHA256: d.Payload.SHA256, AnyProgram: identity.AnyProgram, Run: t.Run, Epoch: t.Epoch,
	}
	err = dep.connect(ctx, peer, identity, t.Addresses)
	dep.remote.Keep = d.Keep && err == nil && dep.remote.Dir != "" // a persistent agent has no folder of ours
	return err
}

// put finds the program that was kept in the guest, or pushes it. A program that is not the payload is taken away first; that it
// cannot be is one attempt in the report, and no reason to go without a backup.
func (d Deployer) put(ctx context.Context, dep *Deployment) error {
	if d.Kept != "" && dep.access.Way() != WayPersistent {
		var old Remote
		same := false
		err := dep.try(ctx, StagePush, pushLimit, func(ctx context.Context) (err error) {
			old, same, err = dep.access.Reuse(ctx, d.Payload, d.Kept)
			return err
		})
		if same {
			dep.remote = old
		}
		if same || err != nil {
			return err
		}
		left := dep.try(ctx, StageCleanup, cleanupLimit, func(ctx context.Context) error { return dep.access.Remove(ctx, old) })
		if left != nil && ctx.Err() != nil {
			return left
		}
	}
	return dep.try(ctx, StagePush, pushLimit, func(ctx context.Context) (err error) {
		dep.remote, err = dep.access.Put(ctx, d.Payload)
		return err
	})
}

// Discard has the program removed when the deployment is closed, whatever was to be kept.
func (dep *Deployment) Discard() { dep.remote.Keep = false }

// Kept is the deployment whose program is to stay in the guest when this one is closed; empty for none.
func (dep *Deployment) Kept() string {
	if !dep.remote.Keep {
		return ""
	}
	return dep.remote.Deployment
}

// Way is the one that was taken last.
func (dep *Deployment) Way() Way {
	if dep.access == nil {
		return Way{}
	}
	return dep.access.Way()
}

// connect tries the ways to the agent in their order.
func (dep *Deployment) connect(ctx context.Context, peer Peer, id Identity, addresses []string) error {
	peers, all := dep.line.peers(peer, id, addresses)
	for _, peer := range peers {
		err := dep.try(ctx, StageHello, dep.line.limit(), func(ctx context.Context) (err error) {
			dep.Session, err = Connect(ctx, peer)
			return err
		})
		if err == nil {
			dep.remote.Greeted = true
			return nil
		}
		all = errors.Join(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return all
}

// try does one stage within its limit and records it.
func (dep *Deployment) try(ctx context.Context, stage Stage, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	err := do(ctx)
	a := Attempt{Way: dep.access.Way(), Channel: dep.line.channel(), Stage: stage, OK: err == nil, Took: time.Since(begin)}
	if err != nil {
		a.Code, a.Text = CodeOf(err), err.Error()
	}
	dep.Attempts = append(dep.Attempts, a)
	return err
}

// Rescue has the guest release whatever a dead agent left frozen. It is worth calling whenever the agent never said that
// the guest is free; it does nothing to a guest that is.
func (dep *Deployment) Rescue(ctx context.Context) (released bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rescueLimit)
	defer cancel()
	released, err = dep.access.Rescue(ctx, dep.remote)
	dep.held = err != nil
	dep.remote.Keep = false // what had to be rescued is not used again
	return released, err
}

// Close ends the session's connection and removes the agent from the guest, whatever became of ctx, within 25 s. After a
// Rescue that failed it tries that again first, within 59 s more; when it fails again, the agent stays in the guest for a
// later recovery, and the error has the code SF4919.
func (dep *Deployment) Close(ctx context.Context) error {
	if dep.Session != nil {
		dep.Session.Close()
		dep.Session = nil
	}
	err := dep.remove(ctx)
	if left := dep.line.close(ctx); left != nil {
		return errors.Join(err, left)
	}
	return err
}

// remove takes the agent out of the guest.
func (dep *Deployment) remove(ctx context.Context) error {
	if dep.remote.Dir == "" {
		return nil
	}
	remote := dep.remote
	if dep.held {
		err := dep.try(context.WithoutCancel(ctx), StageCleanup, rescueLimit, func(ctx context.Context) error {
			_, err := dep.Rescue(ctx)
			return err
		})
		if err != nil {
			dep.remote = Remote{}
			dep.Left = &Error{SF: "SF4919", Op: "thaw the guest once more, for which the agent stays in " + remote.Dir, Err: err}
			return dep.Left
		}
	}
	dep.remote = Remote{}
	err := dep.try(context.WithoutCancel(ctx), StageCleanup, cleanupLimit, func(ctx context.Context) error {
		return dep.access.Remove(ctx, remote)
	})
	if err != nil {
		dep.Left = &Error{SF: "SF3950", Op: "remove the agent from " + remote.Dir + " in the guest", Err: err}
		return dep.Left
	}
	return nil
}
