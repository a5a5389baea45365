package vsphere

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// ourPrefix begins the name of every snapshot that we make; no other is ever removed.
const ourPrefix = "stillframe-"

const (
	removeTries      = 3
	consolidateTries = 3
	busyPause        = time.Second // doubled each try
)

var (
	errSpent      = errors.New("prepared for one snapshot only")
	errNotOurs    = errors.New("its name is not ours")
	errNoSnapshot = errors.New("the task succeeded without naming its snapshot")
)

// Snapshotter makes, finds and removes the snapshots of one endpoint. It never asks for quiescing or memory, never removes
// all snapshots of a VM. It is safe for concurrent use and needs no closing.
type Snapshotter struct{ e *Endpoint }

// NewSnapshotter makes a Snapshotter on e, which stays the caller's.
func NewSnapshotter(e *Endpoint) *Snapshotter { return &Snapshotter{e: e} }

// Prepared is one snapshot about to be made: the request is built, the session alive, the connection warm, the long poll
// that will tell the task's end in flight. Whoever prepared it closes it.
type Prepared struct {
	e       *Endpoint
	watcher *watcher
	vm      inventory.VM
	name    string
	call    func(context.Context) (types.ManagedObjectReference, error)
	spent   atomic.Bool
}

// Prepare does everything that can be done before the freeze. The name must begin with stillframe-. Create should follow
// within 5 s.
func (s *Snapshotter) Prepare(ctx context.Context, vm inventory.VM, name, description string) (*Prepared, error) {
	op, subject := "prepare snapshot", name+" of "+vm.Name
	if !strings.HasPrefix(name, ourPrefix) {
		return nil, fmt.Errorf("%s %s: %w", op, subject, errNotOurs)
	}
	w, err := arm(ctx, s.e)
	if err != nil {
		return nil, failure(op, subject, err)
	}
	p := &Prepared{e: s.e, watcher: w, vm: vm, name: name, call: s.request(vm, name, description)}
	if err := s.e.Ready(ctx); err != nil {
		return nil, errors.Join(failure(op, subject, err), w.close(ctx))
	}
	return p, nil
}

// request builds the one call of the window: CreateSnapshotEx_Task, or its predecessor before API 6.5.
func (s *Snapshotter) request(vm inventory.VM, name, description string) func(context.Context) (types.ManagedObjectReference, error) {
	if before65(s.e.vim.ServiceContent.About.ApiVersion) {
		old := &types.CreateSnapshot_Task{This: vmRef(vm.Moref), Name: name, Description: description, Memory: false, Quiesce: false}
		return func(ctx context.Context) (types.ManagedObjectReference, error) {
			res, err := methods.CreateSnapshot_Task(ctx, once{s.e}, old)
			if err != nil {
				return types.ManagedObjectReference{}, err
			}
			return res.Returnval, nil
		}
	}
	req := &types.CreateSnapshotEx_Task{This: vmRef(vm.Moref), Name: name, Description: description, Memory: false}
	return func(ctx context.Context) (types.ManagedObjectReference, error) {
		res, err := methods.CreateSnapshotEx_Task(ctx, once{s.e}, req)
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return res.Returnval, nil
	}
}

// before65 says whether an API version such as 6.0 is older than 6.5. One that cannot be read is taken as new.
func before65(version string) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	minor, err := strconv.Atoi(second)
	if err != nil {
		minor = 0
	}
	return major < 6 || major == 6 && minor < 5
}

// Create makes the snapshot: one request now, one beside the task, then the push. It calls accepted with the task's moref
// as soon as vCenter has accepted the call; accepted must not block. It returns when the task has ended, however late, or
// when ctx ends. On an error OutcomeUnknown of the *Error says whether the snapshot may exist, or appear yet; the caller
// then looks with FindSnapshots. The timing is filled as far as things went. It makes no login and can be called once.
func (p *Prepared) Create(ctx context.Context, accepted func(task string)) (inventory.Snapshot, inventory.Timing, error) {
	var timing inventory.Timing
	if p.spent.Swap(true) {
		return inventory.Snapshot{}, timing, p.failed(errSpent, false)
	}
	task, err := p.send(ctx, &timing)
	if err != nil {
		return inventory.Snapshot{}, timing, p.failed(err, !timing.Sent.IsZero() && !answered(err))
	}
	timing.Accepted = time.Now()
	p.watcher.track(task)
	if accepted != nil {
		accepted(task.Value)
	}
	info, ended, err := p.watcher.follow(ctx, task)
	if err != nil {
		return inventory.Snapshot{}, timing, p.failed(err, true)
	}
	timing.PushSeen, timing.Queued = ended, info.QueueTime
	if info.StartTime != nil {
		timing.Started = *info.StartTime
	}
	if info.CompleteTime != nil {
		timing.Completed = *info.CompleteTime
	}
	if err := taskError(info); err != nil {
		return inventory.Snapshot{}, timing, p.failed(err, lostSight(err))
	}
	p.watcher.e.ended("create_snapshot", info)
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		return inventory.Snapshot{}, timing, p.failed(errNoSnapshot, true)
	}
	return inventory.Snapshot{Name: p.name, Moref: ref.Value, VM: p.vm.Moref}, timing, nil
}

// send makes the call. Sent stays zero when nothing was written to the connection.
func (p *Prepared) send(ctx context.Context, timing *inventory.Timing) (types.ManagedObjectReference, error) {
	var written, begun atomic.Pointer[time.Time]
	now := func(into *atomic.Pointer[time.Time]) {
		t := time.Now()
		into.Store(&t)
	}
	task, err := p.call(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) {
			if begun.Load() == nil {
				now(&begun)
			}
		},
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			if i.Err == nil {
				now(&written)
			}
		},
	}))
	for _, t := range []*time.Time{written.Load(), begun.Load()} {
		if t != nil && timing.Sent.IsZero() {
			timing.Sent = *t
		}
	}
	return task, err
}

// failed is the error of Create. Whatever ended the waiting without an answer of vCenter is SF2207: look for a late snapshot.
func (p *Prepared) failed(err error, unknown bool) error {
	e := read(err).failed("take snapshot", p.name+" of "+p.vm.Name, err)
	e.unknown = unknown
	if e.Fault == "" && unknown {
		e.SF = "SF2207"
	}
	return e
}

// answered says whether vCenter itself answered with a fault, as opposed to a lost answer or a proxy's.
func answered(err error) bool { return read(err).fault != "" && !lostSight(err) }

// lostSight says whether the fault is one after which the snapshot may appear all the same.
func lostSight(err error) bool {
	code := read(err).code
	return code == "SF2207" || code == "SF2004"
}

// taskError is the error of a task that ended, nil when it succeeded.
func taskError(info types.TaskInfo) error {
	switch {
	case info.State != types.TaskInfoStateError:
		return nil
	case info.Error == nil || info.Error.Fault == nil:
		return soap.WrapVimFault(&types.UnexpectedFault{})
	}
	return &taskFault{*info.Error}
}

// taskFault is the fault of a task together with its localized message.
type taskFault struct{ f types.LocalizedMethodFault }

func (t *taskFault) Error() string {
	if t.f.LocalizedMessage == "" {
		return "task failed"
	}
	return "task failed: " + t.f.LocalizedMessage
}

// Fault lets govmomi's fault package look into it.
func (t *taskFault) Fault() types.BaseMethodFault { return t.f.Fault }

// Close ends the watching; call it after the window, never inside. It is idempotent and blocks for at most 7 s.
func (p *Prepared) Close(ctx context.Context) error {
	return failure("stop watching snapshot", p.name+" of "+p.vm.Name, p.watcher.close(ctx))
}

// FindSnapshots lists the VM's snapshots whose names begin with prefix, parents before children.
func (s *Snapshotter) FindSnapshots(ctx context.Context, vm inventory.VM, prefix string) ([]inventory.Snapshot, error) {
	all, err := s.list(ctx, vm.Moref)
	if err != nil {
		return nil, failure("list snapshots of", vm.Name, err)
	}
	var found []inventory.Snapshot
	for _, snap := range all {
		if strings.HasPrefix(snap.Name, prefix) {
			found = append(found, snap)
		}
	}
	return found, nil
}

func (s *Snapshotter) list(ctx context.Context, vm string) ([]inventory.Snapshot, error) {
	p, err := s.e.properties(ctx, vmRef(vm), "snapshot")
	if err != nil {
		return nil, err
	}
	var all []inventory.Snapshot
	for node := range nodes(value[types.VirtualMachineSnapshotInfo](p, "snapshot")) {
		all = append(all, inventory.Snapshot{Name: node.Name, Moref: node.Snapshot.Value, VM: vm})
	}
	return all, nil
}

// nodes are all snapshots of a VM, parents before children.
func nodes(info types.VirtualMachineSnapshotInfo) iter.Seq[types.VirtualMachineSnapshotTree] {
	return func(yield func(types.VirtualMachineSnapshotTree) bool) {
		for level := info.RootSnapshotList; len(level) > 0; {
			var next []types.VirtualMachineSnapshotTree
			for _, node := range level {
				if !yield(node) {
					return
				}
				next = append(next, node.ChildSnapshotList...)
			}
			level = next
		}
	}
}
