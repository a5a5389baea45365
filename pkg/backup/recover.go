package backup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// Limits of a recovery, each of its own step.
const (
	clearLimit     = 90 * time.Second
	uninstallLimit = 3 * time.Minute // a road, and two services that wait 30 s each
	// taskPause is between two looks: at tasks that have not ended, and at a VM without the snapshot.
	taskPause = time.Second
)

// Cleaner takes away what a dead run left in a guest.
type Cleaner interface {
	// Clear ends the agent of the folder, has it thaw what is still held when it may have been started, and removes the
	// folder. What is gone is cleared.
	Clear(ctx context.Context, vm inventory.VM, folder string, started bool) error
	// Uninstall undoes an installation of the folder's agent that was cut off, and puts the agent back that is enrolled.
	Uninstall(ctx context.Context, vm inventory.VM, folder string) error
}

// ErrStays is a Cleaner's for the folder of the enrolled agent: it was left on purpose.
var ErrStays = errors.New("the folder is that of the enrolled agent")

// Recoverer finishes what killed runs left.
type Recoverer struct {
	Hypervisor Hypervisor
	Tasks      Tasks
	Guests     Cleaner
	Memory     Memory
	Log        *zap.Logger
	// Run names this recovery among those that work on a VM.
	Run string
	// TaskLimit bounds the wait for a snapshot task that has not ended.
	TaskLimit time.Duration
	// VCenter is the host that Hypervisor works on, as intents have it. What was written down for another one is left alone.
	VCenter string
	// Forget strikes out what belongs to a VM that vCenter does not know any more.
	Forget bool
	// Kept also removes snapshots that runs kept on purpose.
	Kept bool
	// EndMover ends what the mover of a dead run left on this machine; nil when there can be none.
	EndMover func(ctx context.Context, run string) error
}

// Recovery is what was found open, and what became of it, as "stillframe recover -o json" prints it.
type Recovery struct {
	APIVersion string   `json:"api_version"`
	DryRun     bool     `json:"dry_run"`
	Things     []Thing  `json:"things"`
	Leftovers  []string `json:"leftovers"`
}

// State is what became of a thing.
type State string

// The states.
const (
	// Gone is proved to be gone; Open is there or may be; Active belongs to a run that works right now; Forgotten was struck
	// out because its VM is gone; Elsewhere is as good as open, but on another vCenter.
	Gone      State = "gone"
	Open      State = "open"
	Active    State = "active"
	Forgotten State = "forgotten"
	Elsewhere State = "elsewhere"
	// Kept is a snapshot, or the folder of an installed agent, that was left on purpose.
	Kept State = "kept"
)

// Thing is one thing that a run had been about to make.
type Thing struct {
	VM      VM             `json:"vm"`
	RunID   string         `json:"run_id"`
	Kind    statefile.Kind `json:"kind"`
	Subject string         `json:"subject"`
	Since   time.Time      `json:"since"`
	State   State          `json:"state"`
	// Code and Text say why it is open.
	Code string `json:"code"`
	Text string `json:"text"`
}

// List tells what is open without touching anything. Things are those of a VM when vm is not empty: its inventory path,
// moref, instance UUID or name, as the run that left them saw it.
func List(ctx context.Context, memory Journal, vm string) ([]statefile.Intent, error) {
	all, err := memory.Intents(ctx, "")
	if err != nil || vm == "" {
		return all, err
	}
	return slices.DeleteFunc(all, func(i statefile.Intent) bool {
		return vm != i.Path && vm != i.Moref && vm != path.Base(i.Path) && !strings.EqualFold(vm, i.VM)
	}), nil
}

// Unfinished are the intents without those of snapshots that were kept on purpose.
func Unfinished(intents []statefile.Intent) []statefile.Intent {
	return slices.DeleteFunc(slices.Clone(intents), func(i statefile.Intent) bool { return i.Kind == statefile.KeptSnapshot })
}

// NewRecovery is the recovery of intents of which nothing was done yet.
func NewRecovery(intents []statefile.Intent, dry bool) Recovery {
	r := Recovery{APIVersion: APIVersion, DryRun: dry, Things: []Thing{}, Leftovers: []string{}}
	for _, i := range intents {
		r.Things = append(r.Things, thing(i))
	}
	return r
}

func thing(i statefile.Intent) Thing {
	vm := VM{Name: path.Base(i.Path), Path: i.Path, Moref: i.Moref, InstanceUUID: i.VM}
	t := Thing{VM: vm, RunID: i.Run, Kind: i.Kind, Subject: i.Subject, Since: i.At, State: Open}
	if i.Kind == statefile.KeptSnapshot {
		t.keep()
	}
	return t
}

// keep says that the thing was left on purpose.
func (t *Thing) keep() {
	t.State, t.Text = Kept, "kept on purpose: \"stillframe recover --kept\" removes it"
}

// Vanished says whether something was left because the VM is not in the inventory, which was read to its end, any more.
func (r *Recovery) Vanished() bool {
	return slices.ContainsFunc(r.Things, func(t Thing) bool { return t.State == Open && t.Code == "SF2009" })
}

// Leave says of every thing that is still open why it is.
func (r *Recovery) Leave(err error) {
	for n := range r.Things {
		t := &r.Things[n]
		if t.State == Open && t.Text == "" && err != nil {
			t.Code, t.Text = guest.CodeOf(err), err.Error()
		}
	}
	r.name()
}

// name lists what is left.
func (r *Recovery) name() {
	r.Leftovers = []string{}
	for _, t := range r.Things {
		if t.State == Open {
			r.Leftovers = append(r.Leftovers, fmt.Sprintf("%s %s of %s: %s", t.Kind, t.Subject, t.VM.Path, t.Text))
		}
	}
}

// Recover takes each VM in turn: the guest is freed first, then the snapshot is removed. It goes on with the next VM
// whatever happens to one; what cannot be done now stays written down. A VM on which a run works is left to that run.
func (r Recoverer) Recover(ctx context.Context, intents []statefile.Intent) Recovery {
	out := NewRecovery(nil, false)
	var vms []string
	known := map[string][]statefile.Intent{}
	for _, i := range intents {
		if !slices.Contains(vms, i.VM) {
			vms = append(vms, i.VM)
		}
		known[i.VM] = append(known[i.VM], i)
	}
	for _, vm := range vms {
		out.Things = append(out.Things, r.one(ctx, vm, known[vm])...)
	}
	out.name()
	return out
}

// one recovers one VM, of which known was open a moment ago. When that cannot be read again, known is named as open.
func (r Recoverer) one(ctx context.Context, uuid string, known []statefile.Intent) []Thing {
	acquired := r.Memory.Acquire(ctx, uuid, r.Run)
	intents, err := r.Memory.Intents(ctx, uuid) // again, because a run may have ended in between
	if err != nil {
		intents = known
	}
	things := make([]Thing, len(intents))
	for n, i := range intents {
		things[n] = thing(i)
	}
	if acquired == nil {
		defer func() {
			if err := r.Memory.Release(context.WithoutCancel(ctx), uuid, r.Run); err != nil {
				r.Log.Warn("the VM stays marked as worked on until this process has ended", zap.Error(err))
			}
		}()
	}
	if err := errors.Join(acquired, err); err != nil {
		for n := range things {
			things[n].blame(err)
			if guest.CodeOf(acquired) == "SF1103" {
				things[n].State = Active
			}
		}
		return things
	}
	p := patient{Recoverer: r, intents: intents, cleared: map[string]error{}, uninstalled: map[string]error{}}
	if slices.ContainsFunc(intents, r.here) {
		p.vm, p.lost = r.find(ctx, uuid)
	}
	for _, kind := range []statefile.Kind{statefile.Installed, statefile.Folder, statefile.Process, statefile.Snapshot, statefile.KeptSnapshot} {
		for n := range things {
			if things[n].Kind == kind {
				p.finish(ctx, &things[n], intents[n])
			}
		}
	}
	return things
}

// elsewhere says whether i was written down for another vCenter: what this one does not have proves nothing there, not
// even when a copy of the VM is here. Port 443 is that of an address without any.
func (r Recoverer) elsewhere(i statefile.Intent) bool {
	here, there := strings.TrimSuffix(r.VCenter, ":443"), strings.TrimSuffix(i.VCenter, ":443")
	return here != "" && there != "" && !strings.EqualFold(here, there)
}

func (r Recoverer) here(i statefile.Intent) bool { return !r.elsewhere(i) }

func (r Recoverer) find(ctx context.Context, uuid string) (inventory.VM, error) {
	vm, err := r.Hypervisor.Find(ctx, uuid)
	if err == nil && !strings.EqualFold(vm.InstanceUUID, uuid) {
		err = &Refusal{"SF2009", fmt.Errorf("no VM has the instance UUID %s", uuid)}
	}
	return vm, err
}

// patient is one VM that is recovered.
type patient struct {
	Recoverer
	intents []statefile.Intent
	vm      inventory.VM
	// lost is why the VM was not found.
	lost error
	// cleared is what became of each folder: it has two intents.
	cleared map[string]error
	// uninstalled is what became of the folders whose agents were being installed.
	uninstalled map[string]error
}

// finish takes one thing away and strikes it out.
func (p patient) finish(ctx context.Context, t *Thing, i statefile.Intent) {
	if p.elsewhere(i) {
		t.State, t.Text = Elsewhere, fmt.Sprintf("it belongs to vCenter %s, this is %s: give that one", i.VCenter, p.VCenter)
		return
	}
	err, state := p.lost, Gone
	switch {
	case guest.CodeOf(err) == "SF2009" && p.Forget:
		if err, state = nil, Forgotten; i.Kind == statefile.Snapshot {
			err = p.unmove(ctx, i)
		}
	case !p.Kept && i.Kind == statefile.KeptSnapshot:
		return
	case !p.Kept && p.keeps(i): // its run died between the two notes, so it is no orphan
		err, state = nil, Kept
	case guest.CodeOf(err) == "SF2009":
		err = fmt.Errorf("%w: give --forget when the VM was deleted", err)
	case err != nil:
	case i.Kind == statefile.Snapshot, i.Kind == statefile.KeptSnapshot:
		err = p.unmove(ctx, i)
		if err == nil {
			err = p.snapshot(ctx, p.vm, i)
		}
	default:
		if err = p.agent(ctx, i); errors.Is(err, ErrStays) {
			err, state = nil, Kept
		}
	}
	if err == nil {
		err = p.Memory.Settle(context.WithoutCancel(ctx), i)
	}
	if err != nil {
		t.blame(err)
		return
	}
	t.State = state
	p.Log.Info("settled", zap.String("kind", string(i.Kind)), zap.String("subject", i.Subject), zap.String("vm", i.Path), zap.String("state", string(state)))
}

func (t *Thing) blame(err error) { t.Code, t.Text = guest.CodeOf(err), err.Error() }

// keeps says whether the snapshot of i was kept on purpose as well.
func (p patient) keeps(i statefile.Intent) bool {
	return i.Kind == statefile.Snapshot && slices.ContainsFunc(p.intents, func(o statefile.Intent) bool {
		return o.Kind == statefile.KeptSnapshot && o.Subject == i.Subject
	})
}

// unmove ends a mover that may still read the snapshot.
func (r Recoverer) unmove(ctx context.Context, i statefile.Intent) error {
	if r.EndMover == nil || i.Run == "" {
		return nil
	}
	return r.EndMover(ctx, i.Run)
}

// agent clears the guest of one folder and of the agent in it, or takes out an agent that was being installed.
func (p patient) agent(ctx context.Context, i statefile.Intent) error {
	folder := i.Subject
	if p.vm.PowerState != "poweredOn" {
		return &Refusal{"SF2112", fmt.Errorf("the VM is %s: nothing is held, but the folder can only be removed when it runs", p.vm.PowerState)}
	}
	if i.Kind == statefile.Installed {
		ctx, cancel := context.WithTimeout(ctx, uninstallLimit)
		defer cancel()
		p.uninstalled[folder] = p.Guests.Uninstall(ctx, p.vm, folder)
		return p.uninstalled[folder]
	}
	if err := p.uninstalled[folder]; err != nil { // its program serves, or has to take itself out first
		return err
	}
	if err, done := p.cleared[folder]; done {
		return err
	}
	started := slices.ContainsFunc(p.intents, func(i statefile.Intent) bool { return i.Kind == statefile.Process && i.Subject == folder })
	ctx, cancel := context.WithTimeout(ctx, clearLimit)
	defer cancel()
	p.cleared[folder] = p.Guests.Clear(ctx, p.vm, folder, started)
	return p.cleared[folder]
}

// snapshot waits for unfinished tasks, then removes the snapshot of exactly this name, if there is one. One that is not
// there is looked for twice, however old its intent is: the call may have been sent long after that and not have become a
// task yet.
func (r Recoverer) snapshot(ctx context.Context, vm inventory.VM, i statefile.Intent) error {
	if err := r.quiet(ctx, vm); err != nil {
		return err
	}
	found, err := r.named(ctx, vm, i.Subject)
	if err == nil && len(found) == 0 {
		if err := wait(ctx, taskPause); err != nil {
			return err
		}
		if err := r.quiet(ctx, vm); err != nil {
			return err
		}
		found, err = r.named(ctx, vm, i.Subject)
	}
	if err != nil {
		return err
	}
	for _, s := range found {
		ctx, cancel := context.WithTimeout(ctx, removeLimit)
		unsettled, err := r.Hypervisor.Remove(ctx, s)
		cancel()
		if err != nil {
			return fmt.Errorf("remove the snapshot %q: %w", s.Name, err)
		}
		if unsettled != "" {
			r.Log.Warn(unsettled, zap.String("vm", vm.Path))
		}
	}
	return nil
}

// quiet waits until no task works on the VM's snapshots, at most for the task limit.
func (r Recoverer) quiet(ctx context.Context, vm inventory.VM) error {
	for begin := time.Now(); ; {
		tasks, err := r.Tasks.Unfinished(ctx, vm)
		if err != nil {
			return err
		}
		tasks = slices.DeleteFunc(tasks, func(t inventory.Task) bool { return !t.Snapshots() })
		if len(tasks) == 0 {
			return nil
		}
		if time.Since(begin) >= r.TaskLimit {
			return &Refusal{"SF2304", fmt.Errorf("task %s (%s) is still %s: the snapshot may still appear", tasks[0].Moref, tasks[0].Kind, tasks[0].State)}
		}
		if err := wait(ctx, taskPause); err != nil {
			return err
		}
	}
}

// named lists the VM's snapshots of exactly this name.
func (r Recoverer) named(ctx context.Context, vm inventory.VM, name string) ([]inventory.Snapshot, error) {
	if !strings.HasPrefix(name, SnapshotPrefix) {
		return nil, fmt.Errorf("%q is no name of ours", name)
	}
	found, err := r.Hypervisor.FindSnapshots(ctx, vm, name)
	return slices.DeleteFunc(found, func(s inventory.Snapshot) bool { return s.Name != name }), err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
