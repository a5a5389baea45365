package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/secret"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// undoTaskLimit bounds the wait for a snapshot task that a dead run began; the undo comes again.
const undoTaskLimit = 30 * time.Second

// vcenters are the daemon's vcenters with its vCenters. They are opened when they are first needed and live until close.
type vcenters struct {
	secrets *secret.Resolver
	records records
	// reverse is where agents dial; nil without that.
	reverse *guest.Reverse
	// book has the persistent agents.
	book *enrolment.Book
	// installation goes into the description of snapshots, home is the HOME of movers.
	installation, home string
	log                *zap.Logger
	// count hears of calls, tasks and recoveries.
	count counter

	mu   sync.Mutex
	open map[string]*slot
}

// counter counts what is asked of vCenters. It must not block.
type counter interface {
	Called(vcenter, method, code string)
	TaskEnded(task string, queued, running time.Duration)
	Recovered(kind string)
}

// counted counts the calls of one vCenter.
type counted struct {
	counter
	vcenter string
}

// Called implements vsphere.Observer.
func (c counted) Called(method, code string) { c.counter.Called(c.vcenter, method, code) }

// slot has the session with one vCenter. Whoever opens it keeps only those waiting who want the same vCenter.
type slot struct {
	turn chan struct{} // has an element while somebody uses now and old
	now  *session
	// failed is true when the last attempt to log in had no success.
	failed atomic.Bool
	// up is the session that answers for the vCenter now.
	up  atomic.Pointer[session]
	old []*session // of a configuration before; runs may be at work on them
}

// take waits for its turn, at most until ctx ends: a vCenter that does not answer may keep who came before for a minute.
func (s *slot) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *slot) give() { <-s.turn }

var _ daemon.VCenters = (*vcenters)(nil)

// VCenter implements daemon.VCenters. A vCenter whose address, account or trust was changed gets a new session; runs at work
// keep the one that they have.
func (s *vcenters) VCenter(ctx context.Context, c *config.Config, name string) (daemon.VCenter, error) {
	i := slices.IndexFunc(c.VCenters, func(v config.VCenter) bool { return v.Name == name })
	if i < 0 {
		return nil, &backup.Refusal{SF: "SF1209", Err: fmt.Errorf("no vCenter %q is configured any more", name)}
	}
	s.mu.Lock()
	at, ok := s.open[name]
	if !ok {
		at = &slot{turn: make(chan struct{}, 1)}
		s.open[name] = at
	}
	s.mu.Unlock()
	if err := at.take(ctx); err != nil {
		return nil, fmt.Errorf("log in to vCenter %s: %w", name, err)
	}
	defer at.give()
	if at.now != nil && at.now.same(c.VCenters[i]) {
		return at.now, nil
	}
	made, err := s.connect(ctx, c.VCenters[i])
	at.failed.Store(err != nil)
	if err != nil {
		return nil, fmt.Errorf("log in to vCenter %s: %w", name, err)
	}
	if at.now != nil {
		at.old = append(at.old, at.now)
	}
	at.now = made
	at.up.Store(made)
	return made, nil
}

// up says of each vCenter that was spoken to whether it answered last. It does not wait for one that is logging in.
func (s *vcenters) up() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]bool{}
	for name, at := range s.open {
		if now := at.up.Load(); now != nil || at.failed.Load() {
			all[name] = now != nil && !at.failed.Load() && now.endpoint.Up()
		}
	}
	return all
}

// close logs out everywhere.
func (s *vcenters) close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, at := range s.open {
		if err := at.take(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		if at.now != nil {
			at.old = append(at.old, at.now)
		}
		for _, one := range at.old {
			errs = append(errs, one.endpoint.Close(ctx))
		}
		at.give()
	}
	errs = append(errs, reach{reverse: s.reverse}.leave())
	return errors.Join(errs...)
}

func (s *vcenters) connect(ctx context.Context, v config.VCenter) (*session, error) {
	u, err := url.Parse(v.URL)
	if err != nil {
		return nil, invalid("the address of vCenter %s is not a URL", v.Name)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/sdk"
	}
	o := vsphere.Options{
		URL: u, Agent: "stillframe/" + version, CAFile: v.CA, Thumbprint: v.Thumbprint, Insecure: v.Insecure,
		Login:    func(ctx context.Context) (*url.Userinfo, error) { return s.account(ctx, v.Username, v.Password) },
		Observer: counted{s.count, v.Name},
	}
	e, err := connect(ctx, o, s.records)
	if err != nil {
		return nil, err
	}
	return &session{vcenters: s, vcenter: v, options: o, endpoint: e, snapshots: vsphere.NewSnapshotter(e)}, nil
}

// account reads a password where its reference leads. A user name in the store's secret is used when the configuration has
// none.
func (s *vcenters) account(ctx context.Context, user string, at config.Ref) (*url.Userinfo, error) {
	found, err := s.read(ctx, at)
	if err != nil {
		return nil, err
	}
	return url.UserPassword(first(user, found.User), found.Value.Reveal()), nil
}

// read reads a secret where its reference leads.
func (s *vcenters) read(ctx context.Context, at config.Ref) (secret.Secret, error) {
	ref, err := secret.ParseRef(string(at))
	if err != nil {
		return secret.Secret{}, err
	}
	return s.secrets.Resolve(ctx, ref)
}

// session is one vCenter's.
type session struct {
	*vcenters
	vcenter   config.VCenter
	options   vsphere.Options
	endpoint  *vsphere.Endpoint
	snapshots *vsphere.Snapshotter
}

var _ daemon.VCenter = (*session)(nil)

func (s *session) same(v config.VCenter) bool {
	a, b := s.vcenter, v
	same := a.HostRoad == b.HostRoad || a.HostRoad != nil && b.HostRoad != nil && *a.HostRoad == *b.HostRoad
	a.HostRoad, b.HostRoad = nil, nil
	return same && a == b
}

// Estate implements daemon.VCenter.
func (s *session) Estate(ctx context.Context, tags bool) (inventory.Estate, error) {
	return s.endpoint.Estate(ctx, vsphere.EstateOptions{Tags: tags})
}

// paper is what a run writes down, and what is known of passwords and guests.
type paper struct {
	backup.Memory
	records
}

// Run implements daemon.VCenter.
func (s *session) Run(ctx context.Context, o daemon.Order) (backup.Result, error) {
	fail := func(err error) (backup.Result, error) { return backup.NotBegun(o.Plan.RunID, err), err }
	ctx = vsphere.Guard(ctx, o.Owned)
	ways, err := s.guests(ctx, o)
	if err != nil {
		return fail(err)
	}
	p := o.Plan
	p.VCenter, p.SnapshotRoad = s.options.URL.Host, admission.RoadPolicy(s.vcenter.SnapshotRoad)
	p.Description = s.description(o)
	if x, ok := p.Mover.(*datamover.Exec); ok {
		x.Home = s.home
	}
	var esx *url.Userinfo
	if h := s.vcenter.HostRoad; h != nil && s.vcenter.SnapshotRoad != config.RoadVCenter {
		if esx, err = s.account(ctx, h.Username, h.Password); err != nil {
			return fail(err)
		}
	}
	r := backup.Runner{
		Hypervisor: hypervisor{s.endpoint, s.snapshots}, Memory: o.Memory, Sessions: o.Sessions, Checks: ways, Tasks: s.snapshots, Origins: origins{s.endpoint, s.options},
		Hosts: newHosts(s.endpoint, s.records, esx), Guests: ways, Gate: o.Gate, Log: s.log.With(zap.String("run", p.RunID)),
	}
	return r.Run(ctx, p)
}

// description marks a snapshot as this installation's.
func (s *session) description(o daemon.Order) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	m := daemon.Mark{Installation: s.installation, RunID: o.Plan.RunID, Epoch: int64(o.Plan.Epoch)}
	if o.Plan.KeepSnapshot {
		m.Keep = o.Keep
	}
	return fmt.Sprintf("%s job=%s host=%s", m, o.Job, host)
}

func (s *session) guests(ctx context.Context, o daemon.Order) (guests, error) {
	g, err := s.ways(o)
	if err != nil {
		return g, err
	}
	if g.account = url.User(""); o.Guest.Password != "" || g.road != guest.PolicyPersistent { // an installed agent needs none
		if g.account, err = s.account(ctx, o.Guest.Username, o.Guest.Password); err != nil {
			return g, fmt.Errorf("read the guest's account: %w", err)
		}
	}
	f := agentFlags{agent: o.Guest.Agent, arch: first(o.Guest.Arch, "amd64")}
	g.payloads, err = f.payloads()
	return g, err
}

// ways are the ways into guests without an account.
func (s *session) ways(o daemon.Order) (guests, error) {
	f := reachFlags{
		address: o.Address, port: guest.DefaultPort, guestRoad: first(o.Guest.Road, string(guest.PolicyAuto)),
		winrm: winrmFlags{o.Guest.WinRMHTTPS, o.Guest.WinRMCA, o.Guest.WinRMThumbprint},
	}
	if o.Guest.AgentPort != nil {
		f.port = uint16(*o.Guest.AgentPort)
	}
	in := reach{port: f.port, address: f.address, road: guest.RoadPolicy(f.guestRoad), reverse: s.reverse, keep: o.Guest.AgentLifetime == lifetimeCached}
	var err error
	if in.winrm, err = f.winrm.read(); err == nil {
		in.channels, err = channelsOf(o.Guest.Channel, s.reverse != nil)
	}
	return guests{endpoint: s.endpoint, store: paper{o.Memory, s.records}, vcenter: s.options.URL.Host, book: s.book, reach: in, now: time.Now, epoch: o.Epoch}, err
}

// Remove implements daemon.VCenter.
func (s *session) Remove(ctx context.Context, owned func() error, instanceUUID, name string) (unmerged bool, err error) {
	ctx = vsphere.Guard(ctx, owned)
	vm, err := s.quiet(ctx, instanceUUID)
	if err != nil {
		return false, err
	}
	found, err := s.snapshots.FindSnapshots(ctx, vm, name)
	if err != nil {
		return false, err
	}
	for _, one := range found {
		if one.Name != name { // it only begins so
			continue
		}
		r, err := s.snapshots.Remove(ctx, one)
		if err != nil {
			return unmerged, err
		}
		unmerged = unmerged || r.ConsolidationNeeded
	}
	return unmerged, nil
}

// Preflight implements daemon.VCenter.
func (s *session) Preflight(ctx context.Context, o daemon.Order) ([]inventory.Check, error) {
	vm, err := s.endpoint.Find(ctx, o.Plan.VM)
	if err != nil {
		return nil, err
	}
	ways, err := s.ways(o)
	if err != nil {
		return nil, err
	}
	return ways.Preflight(ctx, vm)
}

// quiet finds a VM on whose snapshots no task works: a removal would stand in the way of a snapshot that is being made.
func (s *session) quiet(ctx context.Context, instanceUUID string) (inventory.VM, error) {
	vm, err := s.endpoint.Find(ctx, instanceUUID)
	if err != nil {
		return vm, err
	}
	if !strings.EqualFold(vm.InstanceUUID, instanceUUID) { // a VM whose name looks like it
		return vm, &backup.Refusal{SF: "SF2009", Err: fmt.Errorf("no VM has the instance UUID %s", instanceUUID)}
	}
	tasks, err := s.snapshots.Unfinished(ctx, vm)
	if err != nil {
		return vm, err
	}
	if i := slices.IndexFunc(tasks, inventory.Task.Snapshots); i >= 0 {
		return vm, &backup.Refusal{SF: "SF2304", Err: fmt.Errorf("task %s (%s) works on %s: the VM was left alone", tasks[i].Moref, tasks[i].Kind, vm.Path)}
	}
	return vm, nil
}

// Consolidate implements daemon.VCenter.
func (s *session) Consolidate(ctx context.Context, owned func() error, instanceUUID string) error {
	ctx = vsphere.Guard(ctx, owned)
	vm, err := s.quiet(ctx, instanceUUID)
	if err != nil {
		return err
	}
	needed, err := s.snapshots.Consolidate(ctx, vm)
	if needed && err == nil {
		err = errors.New("vCenter still says that the disks need consolidation")
	}
	return err
}

// Undo implements daemon.VCenter.
func (s *session) Undo(ctx context.Context, o daemon.Order, intents []statefile.Intent) (backup.Recovery, error) {
	ctx = vsphere.Guard(ctx, o.Owned)
	ways, err := s.ways(o)
	if err != nil {
		return backup.Recovery{}, err
	}
	r := backup.Recoverer{
		Hypervisor: hypervisor{s.endpoint, s.snapshots}, Tasks: s.snapshots, Memory: o.Memory,
		Guests: cleaner{ways, func() (*url.Userinfo, error) { return s.account(ctx, o.Guest.Username, o.Guest.Password) }},
		Log:    s.log.With(zap.String("run", o.Plan.RunID)), Run: o.Plan.RunID, TaskLimit: undoTaskLimit, Forget: o.Forget, EndMover: datamover.EndLeft,
	}
	done := r.Recover(ctx, intents)
	for _, t := range done.Things {
		if t.State == backup.Gone {
			s.count.Recovered(string(t.Kind))
		}
	}
	return done, nil
}
