// Package vcenter runs a simulated vCenter behind a TLS front of our own.
//
// It is credible for the order, count, races and faults of SOAP calls, for sessions and for the inventory. It never
// emulates real latency, stun, locks, quiescing, licences, vMotion, or the certificates of hosts: those are steps of the
// acceptance on real hardware. Several servers may live in one process, but they must not be started at the same instant:
// the simulator shares its option table between models.
package vcenter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
)

// TransferPath is the path below which the front hands requests to Options.Guests: the guest file transfers.
const TransferPath = "/labGuestFile/"

// closeLimit bounds Close: what has not ended by then is named in its error.
const closeLimit = 15 * time.Second

// Options says what the simulated vCenter is. The zero value is a vCenter 8.0.3 without VMs to which nobody can log in.
type Options struct {
	// About is the version it reports; empty is 8.0.3.
	About string
	// RTT is added to every exchange, one half before and one half after; 0 or more.
	RTT time.Duration
	// User and Password are the only login that is accepted. Both must be set.
	User, Password string
	VMs            []VM
	// Disks is told when a snapshot is cut or dropped; nil when the VMs have no bytes.
	Disks Disks
	// Guests answers guest operations; nil leaves the simulator's own managers, which answer nothing useful.
	Guests Guests
	// Addr is the listen address; empty is 127.0.0.1:0.
	Addr string
	// Seed is what the times of tasks with a spread hang on.
	Seed uint64
	// TaskSlots is how many snapshot tasks run at once over all VMs, the others stay queued; 0 is no limit.
	TaskSlots int
	// Missing are the privileges that the role of the one account lacks on every object.
	Missing []string
	// Clusters is how many clusters there are, DC0_C0 onwards, Hosts how many hosts each has, DC0_C0_H0 onwards; 0 is one.
	Clusters, Hosts int
	// HostUser and HostPassword are the account of every ESXi host; with a password each host also answers for itself, see
	// Host. HostRTT is added to each exchange with one.
	HostUser, HostPassword string
	HostRTT                time.Duration
}

// VM describes one virtual machine.
type VM struct {
	// Name is the display name. Two VMs may share it when their folders differ.
	Name string
	// Folder is the path below the datacenter's VM folder, such as "prod/db"; empty is the VM folder itself.
	Folder string
	// UUID and InstanceUUID are config.uuid and config.instanceUuid; empty lets the simulator choose.
	UUID, InstanceUUID string
	// GuestFamily is guest.guestFamily; empty is linuxGuest.
	GuestFamily string
	// GuestID is config.guestId, and guest.guestId while VMware Tools run; empty is a Linux or Windows of today.
	GuestID string
	// Address is guest.ipAddress, also told in guest.net; empty leaves both empty.
	Address string
	// PowerState is poweredOn, poweredOff or suspended; empty is poweredOn.
	PowerState string
	// ToolsAbsent leaves VMware Tools not running in a VM that is powered on.
	ToolsAbsent bool
	// Create and Remove are the plans of the VM's snapshot tasks.
	Create, Remove TaskPlan
	// HostCreate is the plan of creations that were asked for at the host itself; the zero plan is that of Create.
	HostCreate TaskPlan
	// Conditions are what is not as it should be with the VM, by the names of Conditions.
	Conditions []string
	// Missing are the privileges that the role of the one account lacks on this VM.
	Missing []string
	// Cluster, such as DC0_C1, and Host, such as DC0_C1_H0, are where it runs; empty is the first cluster, and its first host.
	Cluster, Host string
	// Pool is the path of a resource pool below the cluster's own, such as silver/web; empty is the cluster's own.
	Pool string
	// Tags are its tags, written category/name; Attributes its custom attributes.
	Tags       []string
	Attributes map[string]string
}

// TaskPlan says how a snapshot task goes. The zero value succeeds at once.
type TaskPlan struct {
	// Queue is how long the task stays queued, Run how long it runs.
	Queue, Run time.Duration
	// Cut is the instant within Run at which the snapshot is really taken or dropped; 0 is the middle of Run.
	Cut time.Duration
	// Spread makes Queue, Run and Cut vary from task to task, all by the same factor exp(Spread*z) with z drawn from a
	// normal distribution: the median stays, the tail is heavy. 0 is none; 1 makes one task in 50 take 8 times as long.
	Spread float64
	// Worst bounds the run of a task with a spread; 0 is 20 times Run.
	Worst time.Duration
	// Hang keeps the task running at its Cut, before anything happens, until EndTasks.
	Hang bool
	// Fault is the vSphere fault type in which the task ends, such as FileLocked; empty is success.
	Fault string
	// FaultCount is how many tasks end in Fault before the plan turns to success; 0 is all of them.
	FaultCount int
	// NeedsConsolidation sets runtime.consolidationNeeded when the task has succeeded.
	NeedsConsolidation bool
}

// Disks is told of snapshots by the name of the VM and of the snapshot, in the running task at its instant. An error
// makes the task end in GenericVmConfigFault. The context ends when the server is closed.
type Disks interface {
	Cut(ctx context.Context, vm, snapshot string) error
	Drop(ctx context.Context, vm, snapshot string) error
}

// Guests answers guest operations.
type Guests interface {
	// Install puts the managers in place of the simulator's, before the front listens.
	Install(r *simulator.Registry)
	// ServeHTTP answers file transfers below TransferPath.
	http.Handler
}

// Server is a running vCenter. All its methods may be called concurrently.
type Server struct {
	model    *simulator.Model
	hidden   *simulator.Server // the simulator's own listener, which nobody is told about
	address  string
	guests   Guests
	disks    Disks
	machines []*machine

	lifetime func() context.Context // ends with Close
	cancel   context.CancelFunc
	work     sync.WaitGroup // requests, tasks
	gates    *gates
	calls    recorder
	rules    rules

	seed  uint64
	slots chan struct{} // nil without a limit

	missing []string // privileges
	tags    tags

	user, password         string
	hosts                  []*Host // empty unless they answer for themselves
	hostUser, hostPassword string

	mu          sync.Mutex
	http        *http.Server // nil while stopped
	certificate *certificate
	outage      outage
	rtt         time.Duration
	off         time.Duration // of vCenter's wall clock from this machine's
	hooks       []func(vm, method, stage string)
	watchers    []func(method, vm string)
	lastTask    int
	closed      bool
}

// Start builds the inventory and listens. ctx bounds the start only; the caller ends the server with Close.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.User == "" || o.Password == "" {
		return nil, errors.New("start lab vcenter: user and password must be set")
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for lab vcenter: %w", err)
	}
	cert, err := newCertificate(listener.Addr())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{
		address: listener.Addr().String(), certificate: cert, outage: newOutage(),
		guests: o.Guests, disks: o.Disks, rtt: o.RTT, seed: o.Seed, missing: o.Missing, user: o.User, password: o.Password,
		hostUser: o.HostUser, hostPassword: o.HostPassword,
		lifetime: func() context.Context { return lifetime }, cancel: cancel,
	}
	s.gates = newGates(s.dispatch)
	if o.TaskSlots > 0 {
		s.slots = make(chan struct{}, o.TaskSlots)
	}
	if err := s.populate(ctx, o, cert.sha1); err != nil {
		cancel()
		if s.model != nil && s.model.Service != nil {
			s.model.Remove()
		}
		return nil, errors.Join(err, listener.Close(), s.stopHosts())
	}
	s.model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(o.User, o.Password)}
	s.hidden = s.model.Service.NewServer()
	s.listen(listener, cert) //nolint:contextcheck // it serves for as long as the server lives
	for _, h := range s.hosts {
		h.serve() //nolint:contextcheck // as above
	}
	return s, nil
}

// Close cuts every client, ends tasks that still run, and removes the simulator's files. It returns within 2 s and is
// idempotent; something that would not end is an error.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	err := errors.Join(s.Stop(), s.stopHosts())
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		s.hidden.Close()
		s.model.Remove()
		close(ended)
	}()
	timer := time.NewTimer(closeLimit)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		err = errors.Join(err, fmt.Errorf("close lab vcenter: requests or tasks still run after %v", closeLimit))
	}
	if err != nil {
		return fmt.Errorf("close lab vcenter: %w", err)
	}
	return nil
}

func (s *Server) stopHosts() error {
	var errs []error
	for _, h := range s.hosts {
		errs = append(errs, h.Stop())
	}
	return errors.Join(errs...)
}

// URL is the SDK's address, without a user.
func (s *Server) URL() *url.URL {
	return &url.URL{Scheme: "https", Host: s.address, Path: "/sdk"}
}

// Thumbprint is the SHA-256 of the front's certificate as upper-case hex pairs with colons.
func (s *Server) Thumbprint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate.sha256
}

// SetRTT changes the round trip time of exchanges that begin from now on.
func (s *Server) SetRTT(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rtt = d
}

// OnTask adds a hook that is told when a snapshot task of a VM is queued, running, at its cut, and done. Method is the SOAP method,
// such as CreateSnapshotEx_Task. Hooks run outside all locks in the task's own goroutine: one that blocks holds the task up.
func (s *Server) OnTask(hook func(vm, method, stage string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, hook)
}

func (s *Server) tell(vm, method, stage string) {
	s.mu.Lock()
	hooks := append([]func(vm, method, stage string){}, s.hooks...)
	s.mu.Unlock()
	for _, hook := range hooks {
		hook(vm, method, stage)
	}
}

// pause sleeps for d; false when ctx or the server ended first.
func (s *Server) pause(ctx context.Context, d time.Duration) bool {
	life := s.lifetime()
	if d <= 0 {
		return ctx.Err() == nil && life.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-life.Done():
		return false
	}
}
