// Package persistent is the way to an agent that was installed in the guest once.
package persistent

import (
	"context"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/guest"
)

// Deployment is what a persistent agent calls itself.
const Deployment = "persistent"

// Access is the way to one agent. It puts nothing into the guest, and so takes nothing away.
type Access struct {
	book  *enrolment.Book
	agent enrolment.Agent
	// alive connects to the agent and says what it does.
	alive func(ctx context.Context, id guest.Identity) error
}

var _ guest.Access = (*Access)(nil)

// New makes the way. alive opens a session with the agent and ends it again; it is nil where nobody asks for a rescue.
func New(book *enrolment.Book, agent enrolment.Agent, alive func(ctx context.Context, id guest.Identity) error) *Access {
	return &Access{book, agent, alive}
}

// Way is persistent.
func (a *Access) Way() guest.Way { return guest.WayPersistent }

// Put has nothing to do: the agent is there.
func (a *Access) Put(context.Context, guest.Payload) (guest.Remote, error) {
	return guest.Remote{Deployment: Deployment}, nil
}

// Reuse has nothing to do either.
func (a *Access) Reuse(context.Context, guest.Payload, string) (r guest.Remote, same bool, err error) {
	return guest.Remote{}, false, nil
}

// Start has nothing to do either: it tells by what the agent is known, and by what it knows us.
func (a *Access) Start(context.Context, guest.Remote, guest.Bootstrap) (guest.Identity, error) {
	own, err := a.book.Identity(a.agent.Own)
	if err != nil {
		return guest.Identity{}, err
	}
	id := guest.Identity{Port: a.agent.Port, Own: &own.Certificate, AnyProgram: true}
	if id.Fingerprint, err = protocol.ParseFingerprint(a.agent.Fingerprint); err != nil {
		return id, fmt.Errorf("read what is known of the agent: %w", err)
	}
	if id.Next, err = protocol.ParseFingerprint(a.agent.Next); err != nil {
		return id, fmt.Errorf("read what is known of the agent: %w", err)
	}
	return id, nil
}

const rescuePause = 2 * time.Second

// Rescue asks the agent whether it lives, until ctx ends. One that does lets go of the guest by its own dead-man, whoever is
// gone; one that was killed is started again by its system, and thaws what the dead one left before it answers. Nobody can say
// whether that was needed.
func (a *Access) Rescue(ctx context.Context, r guest.Remote) (released bool, err error) {
	id, err := a.Start(ctx, r, guest.Bootstrap{})
	if err != nil || a.alive == nil {
		return false, err
	}
	for {
		if err = a.alive(ctx, id); err == nil {
			return false, nil
		}
		select {
		case <-time.After(rescuePause):
		case <-ctx.Done():
			return false, fmt.Errorf("ask the persistent agent whether it lives: %w", err)
		}
	}
}

// Remove has nothing to do.
func (a *Access) Remove(context.Context, guest.Remote) error { return nil }
