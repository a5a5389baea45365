package guests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The variables of the mailbox, and how often the lab carries them between the VM and the guest's folder.
const (
	keyDown    = "guestinfo.stillframe.down"
	keyUp      = "guestinfo.stillframe.up"
	carryEvery = 5 * time.Millisecond
)

// Variables are what a VM shares with its guest, satisfied by *vcenter.Server.
type Variables interface {
	Guestinfo(vm, key string) (string, error)
	SetGuestinfo(vm, key, value string) error
}

// Mailbox is the guest's side of guestinfo: a folder with a file for each variable, for agents of lab builds
// (STILLFRAME_LAB_MAILBOX). It is credible for what each side sees, and when it is pushed; it never emulates the hypervisor's
// port, its limits on size, or how long a VM's reconfiguration takes.
type Mailbox struct {
	variables Variables
	vm, dir   string
	stop      context.CancelFunc
	work      sync.WaitGroup
	mu        sync.Mutex
	err       error
}

// OpenMailbox carries the variables of a VM into the folder dir and back, until Close.
func OpenMailbox(ctx context.Context, v Variables, vm, dir string) (*Mailbox, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open the mailbox of %s: %q is not absolute", vm, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &Mailbox{variables: v, vm: vm, dir: dir, stop: stop}
	m.work.Go(func() { m.carry(ctx) })
	return m, nil
}

// Env is what the agent has to be started with.
func (m *Mailbox) Env() string { return "STILLFRAME_LAB_MAILBOX=" + m.dir }

// Refuse has writes of the guest refused from now on, as isolation settings of the VM do; "" allows them again.
func (m *Mailbox) Refuse(why string) error {
	path := filepath.Join(m.dir, "refuse")
	if why == "" {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(path, []byte(why), 0o600)
}

// carry brings what has changed to the other side.
func (m *Mailbox) carry(ctx context.Context) {
	ticker := time.NewTicker(carryEvery)
	defer ticker.Stop()
	var down, up string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := errors.Join(m.down(&down), m.up(&up)); err != nil {
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			return
		}
	}
}

// down puts what the VM has into the folder, whole or not at all.
func (m *Mailbox) down(last *string) error {
	text, err := m.variables.Guestinfo(m.vm, keyDown)
	if err != nil || text == *last {
		return err
	}
	*last = text
	draft := filepath.Join(m.dir, keyDown+".draft")
	if err := os.WriteFile(draft, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(m.dir, keyDown))
}

// up gives the VM what the guest has written. The orchestrator may have emptied it meanwhile, so only what is new counts.
func (m *Mailbox) up(last *string) error {
	text, err := os.ReadFile(filepath.Join(m.dir, keyUp))
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(text) == *last {
		return nil
	}
	if err != nil {
		return err
	}
	*last = string(text)
	return m.variables.SetGuestinfo(m.vm, keyUp, *last)
}

// Close ends the carrying, and gives the error that ended it before. The folder stays. It is idempotent.
func (m *Mailbox) Close() error {
	m.stop()
	m.work.Wait()
	return m.Err()
}

// Err is why the carrying has ended by itself, nil while it goes on.
func (m *Mailbox) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}
