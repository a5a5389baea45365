package lab

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/disks"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// keptImages is how many images of removed snapshots a world keeps for each VM, for judges.
const keptImages = 4

// Guest is a VM's inside, with the lab's own witness of its holds.
type Guest interface {
	Name() string
	// Kind is linux, wine or scripted.
	Kind() string
	// Disk is the file that holds the live disk.
	Disk() string
	// Env is what an agent needs to find this guest's freezer.
	Env() []string
	// Count checks the records in an image of the disk, as it lies.
	Count(ctx context.Context, image string) (guests.Tally, error)
	Acknowledged() uint64
	AcknowledgedBefore(t time.Time) uint64
	Holds() []guests.Hold
	Between(from, to time.Time) (guests.Hold, bool)
	LongestStall() time.Duration
	Rescues() []time.Time
	Err() error
	// Thaw releases the guest behind the back of who holds it; held is false when nobody did.
	Thaw() (held bool, err error)
	Close(ctx context.Context) error
}

var (
	_ Guest         = (*guests.Linux)(nil)
	_ Guest         = (*guests.Scripted)(nil)
	_ Guest         = (*guests.Wine)(nil)
	_ vcenter.Disks = (*disks.Store)(nil)
)

// Options says where a world lives.
type Options struct {
	// Dir is an existing directory of the world's own, by its absolute path. It stays after Close.
	Dir string
	// Self starts a program whose main calls guests.Helper; only linux guests need it.
	Self []string
	// Programs is the folder of winelab's programs; empty builds them, in the tree that the working directory lies in. Only
	// wine guests need it.
	Programs string
}

// machine is one VM of a running world.
type machine struct {
	vm              VM
	uuid, instance  string
	user, password  string
	outside, inside string
	dir             string
	guest           Guest // nil for a VM without one
	proxy           *guests.Proxy
	postgres        *guests.Postgres // nil without one; the guest closes it
	smallRoot       bool
	doors           *doors // nil for a guest with guest operations only
	mailbox         *guests.Mailbox
	stunned         atomic.Bool // once: something may stand still when the world closes
}

// World is a running scenario.
type World struct {
	scenario Scenario
	dir      string
	user     string
	password string
	caFile   string
	machines []*machine
	disks    *disks.Store
	managers *guests.Managers
	vcenter  *vcenter.Server

	detached func() context.Context

	events eventLog
	done   sync.WaitGroup
	stop   chan struct{}

	closing sync.Once
	closed  error
}

// Start builds the world of a scenario. ctx bounds the start only; the caller closes the world, which also undoes a
// start that did not work.
func Start(ctx context.Context, s Scenario, o Options) (*World, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("start scenario %q: %w", s.Name, err)
	}
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("start scenario %q: directory %q is not absolute", s.Name, o.Dir)
	}
	w := &World{scenario: s, dir: o.Dir, stop: make(chan struct{}), detached: func() context.Context { return context.WithoutCancel(ctx) }}
	w.events.fired = make([]bool, len(s.Events))
	w.user, w.password = orElse(s.VCenter.User, "administrator@vsphere.local"), orElse(s.VCenter.Password, crand.Text())
	if err := w.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start scenario %q: %w", s.Name, err), w.Close(ctx))
	}
	return w, nil
}

func (w *World) start(ctx context.Context, o Options) error {
	var err error
	if w.disks, err = disks.New(filepath.Join(w.dir, "images"), keptImages); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(w.scenario.Seed, 0))
	for i, vm := range w.scenario.VMs {
		m := &machine{
			vm: vm, uuid: uuid(random), instance: uuid(random), dir: filepath.Join(w.dir, "vms", fmt.Sprintf("%02d", i)),
			user: orElse(vm.User, vm.administrator()), password: orElse(vm.Password, crand.Text()),
		}
		w.machines = append(w.machines, m)
		if !vm.hasGuest() {
			continue
		}
		if err := w.startGuest(ctx, m, o); err != nil {
			return err
		}
	}
	if err := w.startManagers(ctx); err != nil {
		return err
	}
	if err := w.startVCenter(ctx); err != nil {
		return err
	}
	if err := w.openMailboxes(ctx); err != nil {
		return err
	}
	w.schedule("start", "") //nolint:contextcheck // what an event brings back later outlives whoever asked for it
	return nil
}

// startGuest starts one VM's inside, with the network before it.
func (w *World) startGuest(ctx context.Context, m *machine, o Options) (err error) {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	if m.outside, m.inside, err = addresses(ctx); err != nil {
		return err
	}
	if m.proxy, err = guests.StartProxy(ctx, agentAt(m.outside), agentAt(m.inside)); err != nil {
		return err
	}
	if err := m.proxy.Shape(m.vm.Network.shape()); err != nil {
		return err
	}
	m.proxy.OnOpen(func() { w.schedule("link.opened", m.vm.Name) }) //nolint:contextcheck // what an event brings back later outlives whoever asked for it
	switch m.vm.Guest {
	case "linux":
		g, err := guests.StartLinux(ctx, guests.LinuxOptions{Name: m.vm.Name, Dir: m.dir, SizeBytes: m.vm.diskSize(), Self: o.Self})
		if err != nil {
			return err
		}
		m.guest = g
	case "wine":
		if err := m.startWine(ctx, o.Programs); err != nil {
			return err
		}
	case "scripted":
		g, err := guests.StartScripted(ctx, guests.ScriptedOptions{Name: m.vm.Name, Dir: m.dir, Rest: m.vm.Rest})
		if err != nil {
			return err
		}
		g.OnEnd(func() { w.schedule("hold.end", m.vm.Name) }) //nolint:contextcheck // as above
		m.guest = g
	}
	if err := m.startApplications(ctx); err != nil {
		return err
	}
	w.disks.Attach(m.vm.Name, m.guest.Disk())
	return nil
}

// startManagers gives guest operations a folder, a user and an environment for each guest.
func (w *World) startManagers(ctx context.Context) error {
	var err error
	if w.managers, err = guests.NewManagers(); err != nil {
		return err
	}
	for _, m := range w.machines {
		if m.guest == nil {
			continue
		}
		root, run, logs := filepath.Join(m.dir, "root"), filepath.Join(m.dir, "run"), filepath.Join(m.dir, "logs")
		windows, _ := m.guest.(*guests.Wine)
		for _, dir := range []string{root, run, logs} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
		}
		if m.vm.RootSize > 0 {
			if err := guests.MountRoot(ctx, root, int64(m.vm.RootSize)); err != nil {
				return err
			}
			m.smallRoot = true
		}
		err := w.managers.Add(guests.Machine{
			VM: m.instance, Root: m.root(), Windows: windows, Logs: logs, Users: map[string]string{m.user: m.password},
			Env: append(slices.Concat(m.guest.Env(), m.vm.Agent.env(), m.hooksEnv(), m.vm.Ways.env()),
				"STILLFRAME_LAB_VM_UUID="+m.uuid, "STILLFRAME_LAB_LISTEN_HOST="+m.inside, "STILLFRAME_LAB_RUN_DIR="+run),
		})
		if err != nil {
			return err
		}
		if err := w.openDoors(ctx, m); err != nil {
			return fmt.Errorf("open the ways into %s: %w", m.vm.Name, err)
		}
	}
	return nil
}

// openMailboxes gives guests the VM's guestinfo.
func (w *World) openMailboxes(ctx context.Context) error {
	for _, m := range w.machines {
		if m.vm.Mailbox == "" {
			continue
		}
		dir := filepath.Join(m.dir, "guestinfo")
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			m.mailbox, err = guests.OpenMailbox(context.WithoutCancel(ctx), w.vcenter, m.vm.Name, dir)
		}
		if err == nil && m.vm.Mailbox == "refused" {
			err = m.mailbox.Refuse("the VM's settings do not let the guest set guestinfo")
		}
		if err != nil {
			return err
		}
		key, value, _ := strings.Cut(m.mailbox.Env(), "=")
		if err := w.managers.SetEnv(m.instance, key, value); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) startVCenter(ctx context.Context) error {
	o := vcenter.Options{About: w.scenario.VCenter.About, RTT: w.scenario.VCenter.RTT, User: w.user, Password: w.password, Disks: w.disks}
	o.Seed, o.TaskSlots, o.Missing = w.scenario.Seed, w.scenario.VCenter.TaskSlots, w.scenario.VCenter.Role.Missing
	o.HostUser, o.HostPassword, o.HostRTT = w.scenario.VCenter.HostUser, w.scenario.VCenter.HostPassword, w.scenario.VCenter.HostRTT
	o.Clusters, o.Hosts = w.scenario.VCenter.Clusters, w.scenario.VCenter.Hosts
	if w.scenario.VCenter.GuestOperations != "stock" {
		o.Guests = w.managers
	}
	for _, m := range w.machines {
		o.VMs = append(o.VMs, m.spec())
	}
	var err error
	if w.vcenter, err = vcenter.Start(ctx, o); err != nil {
		return err
	}
	if w.caFile, err = w.vcenter.CAFile(w.dir); err != nil {
		return err
	}
	for _, m := range w.machines {
		if m.vm.CallFault == "" {
			continue
		}
		name := m.vm.Name
		if m.vm.Folder != "" {
			name = m.vm.Folder + "/" + name
		}
		err := w.vcenter.Plan(vcenter.Rule{Method: "CreateSnapshotEx_Task", VM: name, Action: vcenter.Fault, Fault: m.vm.CallFault})
		if err != nil {
			return err
		}
	}
	for i, f := range w.scenario.VCenter.Plan {
		if err := w.plan(f); err != nil {
			return fmt.Errorf("vcenter.plan[%d]: %w", i, err)
		}
	}
	w.vcenter.OnTask(w.onTask)
	w.vcenter.OnCall(func(method, vm string) { w.schedule("call."+method, vm) }) //nolint:contextcheck // what an event brings back later outlives whoever asked for it
	return nil
}

func (w *World) plan(f Fault) error {
	rule, err := f.rule()
	if err != nil {
		return err
	}
	return w.vcenter.Plan(rule)
}

// onTask is told by vCenter what a snapshot task does, in the task's own goroutine.
func (w *World) onTask(vm, method, stage string) {
	switch method {
	case "CreateSnapshotEx_Task", "CreateSnapshot_Task":
		if m := w.machine(vm); m != nil && stage == "cut" && m.vm.Stun > 0 {
			w.stunAround(m)
		}
		w.schedule("task."+stage, vm)
	case "RemoveSnapshot_Task":
		w.schedule("remove."+stage, vm)
	}
}

// stunAround stops everything in the guest before the snapshot's instant, and lets it go on in due time.
func (w *World) stunAround(m *machine) {
	_, err := w.managers.Stun(m.instance, syscall.SIGSTOP)
	w.note("stun", m.vm.Name, err)
	w.done.Go(func() {
		w.pause(m.vm.Stun) // cut short when the world closes
		_, err := w.managers.Stun(m.instance, syscall.SIGCONT)
		w.note("end of stun", m.vm.Name, err)
	})
}

func (n Network) shape() guests.Shape {
	return guests.Shape{CutToGuest: n.CutToGuest, CutFromGuest: n.CutFromGuest, Cuts: n.Cuts, Slice: n.Slice, Pause: n.Pause}
}

// env is how an agent of a build tagged lab is told.
func (a Agent) env() []string {
	var env []string
	if a.Lie != "" {
		env = append(env, "STILLFRAME_LAB_LIE="+a.Lie)
	}
	if a.Prepare > 0 {
		env = append(env, "STILLFRAME_LAB_PREPARE="+a.Prepare.String())
	}
	if a.Freeze > 0 {
		env = append(env, "STILLFRAME_LAB_FREEZE="+a.Freeze.String())
	}
	if a.Release > 0 {
		env = append(env, "STILLFRAME_LAB_RELEASE="+a.Release.String())
	}
	if a.Busy > 0 {
		env = append(env, "STILLFRAME_LAB_BUSY="+a.Busy.String())
	}
	if a.FramesToGuest != "" {
		env = append(env, "STILLFRAME_LAB_FRAMES_TO_GUEST="+a.FramesToGuest)
	}
	if a.FramesFromGuest != "" {
		env = append(env, "STILLFRAME_LAB_FRAMES_FROM_GUEST="+a.FramesFromGuest)
	}
	return env
}

// spec is what vCenter knows of a machine.
func (m *machine) spec() vcenter.VM {
	family := ""
	if m.vm.Guest == "wine" || m.vm.Ways.any() {
		family = "windowsGuest"
	}
	power := map[string]string{"off": "poweredOff", "suspended": "suspended"}[m.vm.Power]
	return vcenter.VM{
		Name: m.vm.Name, Folder: m.vm.Folder, UUID: m.uuid, InstanceUUID: m.instance, Address: m.outside, GuestFamily: family,
		PowerState: orElse(power, "poweredOn"), ToolsAbsent: m.vm.Tools == "absent",
		Create: m.vm.Snapshot.task(), Remove: m.vm.Remove.task(), HostCreate: m.vm.HostSnapshot.task(), Conditions: m.vm.Conditions, Missing: m.vm.Role.Missing,
		Cluster: m.vm.Cluster, Host: m.vm.Host, Pool: m.vm.Pool, Tags: m.vm.Tags, Attributes: m.vm.Attributes,
	}
}

func (p Plan) task() vcenter.TaskPlan {
	return vcenter.TaskPlan{
		Queue: p.Queue, Run: p.Run, Cut: p.Cut, Fault: p.Fault, FaultCount: p.FaultCount, Spread: p.Spread, Worst: p.Worst, Hang: p.Hang,
	}
}

// VCenter is the world's vCenter. The world closes it.
func (w *World) VCenter() *vcenter.Server { return w.vcenter }

// Disks is the world's disk store.
func (w *World) Disks() *disks.Store { return w.disks }

// Guest is the guest of a VM; ok is false when there is none of that name.
func (w *World) Guest(name string) (g Guest, ok bool) {
	m := w.machine(name)
	if m == nil {
		return nil, false
	}
	return m.guest, true
}

// machine is the machine with a guest of that name, or nil.
func (w *World) machine(name string) *machine {
	for _, m := range w.machines {
		if m.vm.Name == name && m.guest != nil {
			return m
		}
	}
	return nil
}

// Ready is what a started world tells the one who started it.
type Ready struct {
	// VCenter is the SDK's URL without a user.
	VCenter    string       `json:"vcenter"`
	User       string       `json:"user"`
	Password   string       `json:"password"`
	Thumbprint string       `json:"thumbprint"`
	CAFile     string       `json:"ca_file"`
	Admin      string       `json:"admin,omitempty"`
	Guests     []ReadyGuest `json:"guests"`
	PID        int          `json:"pid"`
}

// ReadyGuest is one VM of a started world.
type ReadyGuest struct {
	Name         string `json:"name"`
	Folder       string `json:"folder"`
	Kind         string `json:"kind"`
	User         string `json:"user"`
	Password     string `json:"password"`
	UUID         string `json:"uuid"`
	InstanceUUID string `json:"instance_uuid"`
	// Outside is where the orchestrator reaches the agent, Inside where the agent listens; empty without a guest.
	Outside string `json:"outside,omitempty"`
	Inside  string `json:"inside,omitempty"`
	// Disk is the file of the live disk.
	Disk string `json:"disk,omitempty"`
	// Root is the folder that stands for the guest's /, or for C: of a wine guest.
	Root string `json:"root,omitempty"`
	// WinRMThumbprint is the SHA-256 of the certificate of its WinRM, where that is https.
	WinRMThumbprint string `json:"winrm_thumbprint,omitempty"`
}

// Ready describes the world; Admin is left to the one who serves it.
func (w *World) Ready() Ready {
	r := Ready{
		VCenter: w.vcenter.URL().String(), User: w.user, Password: w.password,
		Thumbprint: w.vcenter.Thumbprint(), CAFile: w.caFile, Guests: []ReadyGuest{}, PID: os.Getpid(),
	}
	for _, m := range w.machines {
		g := ReadyGuest{
			Name: m.vm.Name, Folder: m.vm.Folder, Kind: "none", User: m.user, Password: m.password,
			UUID: m.uuid, InstanceUUID: m.instance, Outside: m.outside, Inside: m.inside,
		}
		if m.guest != nil {
			g.Kind, g.Disk, g.Root = m.guest.Kind(), m.guest.Disk(), m.root()
		}
		if m.doors != nil {
			g.WinRMThumbprint = m.doors.thumbprint
		}
		r.Guests = append(r.Guests, g)
	}
	return r
}

// Close ends everything: vCenter first, then what runs in the guests, then the guests. It is idempotent, works on a
// half-built world, and leaves no mount, loop device or process. The directory stays.
func (w *World) Close(ctx context.Context) error {
	w.closing.Do(func() { w.closed = w.close(context.WithoutCancel(ctx)) })
	return w.closed
}

func (w *World) close(ctx context.Context) error {
	close(w.stop)
	w.done.Wait()
	var errs []error
	for _, m := range w.machines {
		if m.mailbox != nil {
			errs = append(errs, m.mailbox.Close())
		}
	}
	if w.vcenter != nil {
		errs = append(errs, w.vcenter.Close())
	}
	if w.managers != nil {
		for _, m := range w.machines {
			if m.stunned.Load() {
				_, err := w.managers.Stun(m.instance, syscall.SIGCONT)
				errs = append(errs, err)
			}
		}
		errs = append(errs, w.managers.Close())
	}
	for _, m := range w.machines {
		if m.smallRoot {
			errs = append(errs, guests.UnmountRoot(ctx, filepath.Join(m.dir, "root")))
		}
		if m.proxy != nil {
			errs = append(errs, m.proxy.Close())
		}
		errs = append(errs, m.doors.close(ctx))
		if m.guest != nil {
			errs = append(errs, m.guest.Close(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close scenario %q: %w", w.scenario.Name, err)
	}
	return nil
}

// uuid draws a random UUID (RFC 9562, version 4).
func uuid(random *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
