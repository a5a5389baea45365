// Package provider is a VSS software provider that makes no shadow copy: it holds the guest while somebody else does.
//
// VSS calls it from threads of its own. Where the mode says so, one of these calls does not return before Thaw, or
// before its own deadline: that call is the hold. A deadline needs neither the network nor another goroutine.
package provider

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// Mode is where the guest is held; the zero value is refused.
type Mode uint8

// The modes.
const (
	// IO holds in CommitSnapshots: VSS holds all writes to the volumes of the set.
	IO Mode = 1 + iota
	// Writer holds in PreCommitSnapshots: the applications are quiet, the file system is not held.
	Writer
)

// Order is what one shadow copy set asks of the provider.
type Order struct {
	// Set is the id that StartSnapshotSet gave.
	Set com.GUID
	// Volumes are \\?\Volume{guid}\ names; no other volume is ever supported.
	Volumes []string
	Mode    Mode
	// Deadman ends the hold, from the return of EndPrepareSnapshots; IODeadman, in mode IO, from the entry of
	// CommitSnapshots. Neither is ever moved.
	Deadman, IODeadman time.Duration
	// Flush, in mode Writer, empties the volumes' caches right before the hold. It ends early when stop is closed, and
	// says full, partial or none.
	Flush func(stop <-chan struct{}) string
}

func (o Order) check() error {
	switch {
	case o.Mode != IO && o.Mode != Writer:
		return errors.New("the order has no mode")
	case len(o.Volumes) == 0:
		return errors.New("the order has no volume")
	case o.Deadman <= 0, o.Mode == IO && o.IODeadman <= 0:
		return errors.New("the order has no dead-man")
	case o.Mode == Writer && o.Flush == nil:
		return errors.New("the order has no flush")
	}
	return nil
}

// Provider decides what VSS is answered. One process serves one.
type Provider struct {
	start time.Time
	ring  ring

	mu   sync.Mutex
	set  *Set // nil while nothing is armed
	open bool // volumes may be added
}

// New makes a Provider for which nothing is armed: it supports no volume.
func New() *Provider { return &Provider{start: time.Now()} }

// Arm makes the provider support the volumes of the order, until Shut, and gives the set's state. It fails while another
// set is armed. The caller disarms the set.
func (p *Provider) Arm(o Order) (*Set, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set != nil {
		return nil, errors.New("another set is armed")
	}
	s, err := p.newSet(o)
	if err != nil {
		return nil, err
	}
	p.set, p.open = s, true
	return s, nil
}

// Shut ends the time in which volumes are supported.
func (p *Provider) Shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
}

// Disarm forgets the set, after its hold has been released and its function has returned.
func (p *Provider) Disarm(s *Set) error {
	s.Veto()
	s.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set != s {
		return nil
	}
	p.set, p.open = nil, false
	return s.forget()
}

// Warm runs the hold once for no time at all, so that nothing is met for the first time while a guest is held.
func (p *Provider) Warm() error {
	s, err := p.newSet(Order{Mode: IO})
	if err != nil {
		return err
	}
	if hr := s.hold(p.now(), Deadman); hr != vsscode.VSS_E_PROVIDER_VETO {
		err = fmt.Errorf("a hold of no time ended with %w", hr)
	}
	return errors.Join(err, s.forget())
}

// Trace gives the ring's lines, oldest first.
func (p *Provider) Trace() []Line { return p.ring.lines() }

// now is the time since the provider's start, never 0: that means "not yet" in a Set.
func (p *Provider) now() time.Duration { return time.Since(p.start) + 1 }

func (p *Provider) note(what string, hr vsscode.HRESULT) { p.ring.note(p.now(), what, hr) }

// answer notes what VSS is answered.
func (p *Provider) answer(what string, hr vsscode.HRESULT) vsscode.HRESULT {
	p.note(what, hr)
	return hr
}

// armed gives the set with this id, or nil.
func (p *Provider) armed(id com.GUID) *Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil || p.set.order.Set != id {
		return nil
	}
	return p.set
}

// supports answers IsVolumeSupported: only an armed volume, and only while our own requestor adds volumes. Any other
// answer would give this provider to every backup product of the machine.
func (p *Provider) supports(volume string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	yes := p.set != nil && p.open && p.set.has(volume)
	if yes {
		p.note("IsVolumeSupported: yes", vsscode.S_OK)
	} else {
		p.note("IsVolumeSupported: no", vsscode.S_OK)
	}
	return yes
}

// beginPrepare takes a volume into the set. A foreign set's id means that ours died without notice: VSS makes one set at
// a time.
func (p *Provider) beginPrepare(set com.GUID, volume string) vsscode.HRESULT {
	p.mu.Lock()
	defer p.mu.Unlock()
	const what = "BeginPrepareSnapshot"
	switch {
	case p.set == nil:
		return p.answer(what, vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER)
	case p.set.order.Set != set:
		p.set.Abandon()
		return p.answer(what, vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER)
	case !p.set.has(volume):
		return p.answer(what, vsscode.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER)
	}
	return p.answer(what, p.set.begin(volume))
}

// inSet runs one callback of a set; VSS knows no such set unless it is the armed one.
func (p *Provider) inSet(id com.GUID, what string, call func(*Set) vsscode.HRESULT) vsscode.HRESULT {
	s := p.armed(id)
	if s == nil {
		return p.answer(what, vsscode.VSS_E_OBJECT_NOT_FOUND)
	}
	return p.answer(what, call(s))
}

// sameVolume compares two volume names as Windows does.
func sameVolume(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, `\`), strings.TrimSuffix(b, `\`))
}
