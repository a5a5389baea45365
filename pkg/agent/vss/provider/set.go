package provider

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// Phase is where a hold stands. It moves by compare-and-swap only, so that exactly one of Thaw and the deadlines ends it.
type Phase uint32

// The phases.
const (
	// Waiting: the hold has not been entered.
	Waiting Phase = iota
	Holding
	// Thawed: Thaw ended the hold. All further ones are vetoes.
	Thawed
	Deadman
	IODeadman
	// System: VSS ended the set, or died.
	System
	// Vetoed: Thaw came before the hold was entered.
	Vetoed
)

// Set is the state of one armed shadow copy set.
type Set struct {
	p     *Provider
	order Order
	gate  gate
	phase atomic.Uint32
	// clock is when EndPrepareSnapshots returned, since the provider's start; 0 before.
	clock atomic.Int64

	prepared, entered, left chan struct{}
	stop                    chan struct{} // closed when a flush is in vain
	stopped                 sync.Once

	mu      sync.Mutex
	holds   bool // hold() has begun
	served  []string
	flush   string
	since   time.Duration
	until   time.Duration
	commits int // volumes that PostCommitSnapshots told of, -1 for none
	aborted bool
}

// Facts are what a set's callbacks told.
type Facts struct {
	// Served are the volumes that BeginPrepareSnapshot gave us.
	Served []string
	// Flush is full, partial or none; in mode IO, where VSS flushes, it is full once the hold was entered.
	Flush string
	// Committed is the count that PostCommitSnapshots brought, -1 when it did not come.
	Committed int
	// Aborted says that AbortSnapshots came.
	Aborted bool
	// Prepared is when EndPrepareSnapshots returned: the start of the hold's clock; zero before.
	Prepared time.Time
	// Entered is when the hold began, Held how long it lasted; both zero when it was not entered.
	Entered time.Time
	Held    time.Duration
}

func (p *Provider) newSet(o Order) (*Set, error) {
	g, err := newGate()
	if err != nil {
		return nil, err
	}
	return &Set{
		p: p, order: o, gate: g, flush: "none", commits: -1,
		prepared: make(chan struct{}), entered: make(chan struct{}), left: make(chan struct{}), stop: make(chan struct{}),
	}, nil
}

// Prepared is closed when EndPrepareSnapshots returns: the writers freeze from now on.
func (s *Set) Prepared() <-chan struct{} { return s.prepared }

// Entered is closed when the hold begins, Left when its function returns.
func (s *Set) Entered() <-chan struct{} { return s.entered }

// Left is closed when the hold function returns.
func (s *Set) Left() <-chan struct{} { return s.left }

// Phase is where the hold stands.
func (s *Set) Phase() Phase { return Phase(s.phase.Load()) }

// Thaw ends the hold well when it is still held; before it was entered, it makes the next callback veto. It says where
// the hold stands then. Wait for Left when that is not Vetoed.
func (s *Set) Thaw() (Phase, error) {
	err := s.end(Thawed, Vetoed)
	return s.Phase(), err
}

// Veto ends the set from our side without success: a hold is released, and every further callback vetoes.
func (s *Set) Veto() { s.give(Vetoed) }

// Abandon ends the set because VSS gave it up.
func (s *Set) Abandon() { s.give(System) }

func (s *Set) give(up Phase) {
	if err := s.end(up, up); err != nil { // the hold's own deadline ends it
		s.p.note("release", vsscode.E_FAIL)
	}
}

// end moves a hold to held, or one that was not entered to waiting. The lock keeps the gate from being closed between the
// move and the opening.
func (s *Set) end(held, waiting Phase) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.move(Waiting, waiting) {
		s.inVain()
		return nil
	}
	if s.move(Holding, held) {
		return s.gate.open()
	}
	return nil
}

// forget closes the gate; no hold function runs any more.
func (s *Set) forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate.close()
}

// Overdue says that the dead-man has fired before the hold was entered, so that all further callbacks veto. The requestor
// asks again and again while the set is made.
func (s *Set) Overdue() bool {
	clock := time.Duration(s.clock.Load())
	if clock == 0 || s.p.now() < clock+s.order.Deadman {
		return false
	}
	if s.move(Waiting, Deadman) {
		s.inVain()
	}
	return s.Phase() == Deadman && !s.Held()
}

// Facts tells what has happened so far.
func (s *Set) Facts() Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Facts{Served: slices.Clone(s.served), Flush: s.flush, Committed: s.commits, Aborted: s.aborted}
	if clock := time.Duration(s.clock.Load()); clock > 0 {
		f.Prepared = s.p.start.Add(clock)
	}
	if s.since > 0 {
		f.Entered = s.p.start.Add(s.since)
	}
	if s.until > 0 {
		f.Held = s.until - s.since
	}
	return f
}

func (s *Set) move(from, to Phase) bool { return s.phase.CompareAndSwap(uint32(from), uint32(to)) }

func (s *Set) inVain() { s.stopped.Do(func() { close(s.stop) }) }

func (s *Set) has(volume string) bool {
	return slices.ContainsFunc(s.order.Volumes, func(v string) bool { return sameVolume(v, volume) })
}

func (s *Set) begin(volume string) vsscode.HRESULT {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Phase() != Waiting {
		return vsscode.VSS_E_PROVIDER_VETO
	}
	s.served = append(s.served, volume)
	return vsscode.S_OK
}

// endPrepare starts the hold's clock: the next thing that VSS does is to freeze the writers.
func (s *Set) endPrepare() vsscode.HRESULT {
	if s.Phase() != Waiting || !s.clock.CompareAndSwap(0, int64(s.p.now())) {
		return vsscode.VSS_E_PROVIDER_VETO
	}
	close(s.prepared)
	return vsscode.S_OK
}

func (s *Set) preCommit() vsscode.HRESULT {
	if s.Overdue() || s.Phase() != Waiting || s.clock.Load() == 0 {
		return vsscode.VSS_E_PROVIDER_VETO
	}
	if s.order.Mode == IO {
		return vsscode.S_OK
	}
	flushed := s.order.Flush(s.stop)
	s.mu.Lock()
	s.flush = flushed
	s.mu.Unlock()
	return s.hold(time.Duration(s.clock.Load())+s.order.Deadman, Deadman)
}

func (s *Set) commit() vsscode.HRESULT {
	if s.order.Mode == Writer {
		if s.Phase() != Thawed {
			return vsscode.VSS_E_PROVIDER_VETO
		}
		return vsscode.S_OK
	}
	if s.Overdue() || s.Phase() != Waiting || s.clock.Load() == 0 {
		return vsscode.VSS_E_PROVIDER_VETO
	}
	s.mu.Lock()
	s.flush = "full" // VSS flushed the file systems before it held them
	s.mu.Unlock()
	deadline, by := time.Duration(s.clock.Load())+s.order.Deadman, Deadman
	if io := s.p.now() + s.order.IODeadman; io < deadline {
		deadline, by = io, IODeadman
	}
	return s.hold(deadline, by)
}

func (s *Set) postCommit(volumes int) vsscode.HRESULT {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits = volumes
	return vsscode.S_OK
}

func (s *Set) abort() vsscode.HRESULT {
	s.mu.Lock()
	s.aborted = true
	s.mu.Unlock()
	s.Abandon()
	return vsscode.S_OK
}

// hold keeps the calling thread until the set is thawed or its deadline comes. The system's timer ends it. By is who ends
// it at the deadline.
func (s *Set) hold(deadline time.Duration, by Phase) vsscode.HRESULT {
	s.mu.Lock()
	if s.holds || !s.move(Waiting, Holding) {
		s.mu.Unlock()
		return vsscode.VSS_E_PROVIDER_VETO
	}
	s.holds, s.since = true, s.p.now()
	s.mu.Unlock()
	s.p.note("hold", vsscode.S_OK)
	close(s.entered)
	defer close(s.left)
	defer s.move(Holding, System) // whatever went wrong below: this thread holds no more
	for s.Phase() == Holding {
		left := max(deadline-s.p.now(), 0)
		woken, err := s.gate.wait(uint32((left + time.Millisecond - 1) / time.Millisecond))
		switch {
		case err != nil:
			s.move(Holding, System)
		case !woken && s.p.now() >= deadline:
			s.move(Holding, by)
		}
	}
	s.mu.Lock()
	s.until = s.p.now()
	s.mu.Unlock()
	if s.Phase() != Thawed {
		return vsscode.VSS_E_PROVIDER_VETO
	}
	return vsscode.S_OK
}

// Wait returns when no hold function runs: at once when the hold was never entered.
func (s *Set) Wait() {
	if s.Held() {
		<-s.left
	}
}

// Held says whether the hold was ever entered.
func (s *Set) Held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds
}
