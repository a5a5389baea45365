package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// The variables of a mailbox: what we write, and what the guest does. VMware keeps guestinfo.* for such use.
const (
	keyDown = "guestinfo.stillframe.down"
	keyUp   = "guestinfo.stillframe.up"
	// pathUp is the one property that is watched.
	pathUp = `config.extraConfig["` + keyUp + `"]`
)

const (
	mailboxTries   = 4
	mailboxPause   = 500 * time.Millisecond // doubled each try
	mailboxLimit   = 31 * time.Second       // one text, tries and all
	mailboxEmptied = 17 * time.Second
)

var (
	errMailboxClosed = errors.New("the mailbox is closed")
	errMailboxLimit  = errors.New("the VM was not reconfigured in time")
	errMailboxLost   = errors.New("vCenter does not tell of changes any more")
)

// Mailbox is a pair of variables of one VM, of which we write one and its guest the other. Writing is a task of vCenter;
// what the guest writes is pushed. Whoever can read the VM can read both, and any user of the guest can write: what they
// carry has to prove itself. It needs VirtualMachine.Config.AdvancedConfig. Whoever opens it closes it.
type Mailbox struct {
	e  *Endpoint
	vm inventory.VM

	mu      sync.Mutex
	watcher *watcher
	text    string // of the guest
	change  chan struct{}
	closed  bool
}

// OpenMailbox empties both variables and watches the guest's. What an earlier run left there may still be told first.
func OpenMailbox(ctx context.Context, e *Endpoint, vm inventory.VM) (*Mailbox, error) {
	m := &Mailbox{e: e, vm: vm, change: make(chan struct{})}
	w, err := m.watch(ctx)
	if err != nil {
		return nil, m.failed("watch guestinfo of", err)
	}
	m.watcher = w
	if err := m.reconfigure(ctx, option(keyDown, ""), option(keyUp, "")); err != nil {
		return nil, errors.Join(m.failed("empty guestinfo of", err), w.close(ctx))
	}
	return m, nil
}

func (m *Mailbox) failed(op string, err error) error { return failure(op, m.vm.Name, err) }

// watch arms a watcher with a filter on the guest's variable.
func (m *Mailbox) watch(ctx context.Context) (*watcher, error) {
	w, err := arm(ctx, m.e)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.other = m.pushed
	w.mu.Unlock()
	if err := w.filter(ctx, vmRef(m.vm.Moref), pathUp); err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	return w, nil
}

// pushed takes in what vCenter tells of the variable: the whole option, its value alone, or that it is gone.
func (m *Mailbox) pushed(o types.ObjectUpdate) {
	for _, c := range o.ChangeSet {
		if !strings.HasPrefix(c.Name, pathUp) {
			continue
		}
		text := ""
		switch v := c.Val.(type) {
		case types.OptionValue:
			text = optionText(v.Value)
		case *types.OptionValue:
			text = optionText(v.Value)
		case string:
			text = v
		}
		m.mu.Lock()
		m.text = text
		close(m.change)
		m.change = make(chan struct{})
		m.mu.Unlock()
	}
}

func optionText(v any) string {
	s, _ := v.(string)
	return s
}

func option(key, value string) types.BaseOptionValue {
	return &types.OptionValue{Key: key, Value: value}
}

// Put gives the guest another text, and returns when vCenter has it. It blocks for at most 31 s. A VM that is busy is tried
// again.
func (m *Mailbox) Put(ctx context.Context, text string) error {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return errMailboxClosed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mailboxLimit, errMailboxLimit)
	defer cancel()
	return m.failed("write guestinfo of", m.reconfigure(ctx, option(keyDown, text)))
}

// reconfigure sets variables, an empty one is removed.
func (m *Mailbox) reconfigure(ctx context.Context, options ...types.BaseOptionValue) error {
	wait := mailboxPause
	for try := 1; ; try++ {
		err := m.once(ctx, &types.ReconfigVM_Task{This: vmRef(m.vm.Moref), Spec: types.VirtualMachineConfigSpec{ExtraConfig: options}})
		if code := read(err).code; err == nil || try == mailboxTries || code != "SF2201" && code != "SF2205" || !pause(ctx, wait) {
			return err
		}
		wait *= 2
	}
}

// once is one task, whose end is pushed.
func (m *Mailbox) once(ctx context.Context, req *types.ReconfigVM_Task) error {
	res, err := methods.ReconfigVM_Task(ctx, m.e.vim, req)
	if err != nil {
		return err
	}
	m.mu.Lock()
	w := m.watcher
	m.mu.Unlock()
	defer w.forget(res.Returnval)
	w.track(res.Returnval)
	info, _, err := w.follow(ctx, res.Returnval)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", res.Returnval.Value, err)
	}
	m.e.ended("reconfigure", info)
	return taskError(info)
}

// Next blocks until the guest's text is another one than last, and gives it. When the session was lost it watches anew.
func (m *Mailbox) Next(ctx context.Context, last string) (string, error) {
	for {
		m.mu.Lock()
		text, change, w, closed := m.text, m.change, m.watcher, m.closed
		m.mu.Unlock()
		switch {
		case closed:
			return "", errMailboxClosed
		case text != last:
			return text, nil
		}
		select {
		case <-change:
		case <-w.polled:
			if err := m.renew(ctx, w); err != nil {
				return "", m.failed("watch guestinfo of", err)
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// renew puts a new watcher in the place of one that has ended.
func (m *Mailbox) renew(ctx context.Context, old *watcher) error {
	err := old.close(ctx)
	w, again := m.watch(ctx)
	if again != nil {
		return errors.Join(errMailboxLost, err, again)
	}
	m.mu.Lock()
	closed := m.closed
	if !closed {
		m.watcher = w
	}
	m.mu.Unlock()
	if closed {
		return errors.Join(errMailboxClosed, w.close(ctx))
	}
	return nil
}

// Close empties both variables and ends the watching, within 24 s. It is idempotent.
func (m *Mailbox) Close(ctx context.Context) error {
	m.mu.Lock()
	closed, w := m.closed, m.watcher
	m.closed = true
	m.mu.Unlock()
	if closed {
		return nil
	}
	limit, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), mailboxEmptied, errMailboxLimit)
	defer cancel()
	err := m.reconfigure(limit, option(keyDown, ""), option(keyUp, ""))
	return errors.Join(m.failed("empty guestinfo of", err), m.failed("stop watching guestinfo of", w.close(ctx)))
}
