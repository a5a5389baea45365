package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// gate bounds how many guests of a vCenter, a host and a datastore are armed, frozen, and rid of their snapshots at once, and
// how many logons there are with one account. Host and datastores are those of the last inventory.
func (d *Daemon) gate(ctx context.Context, c *config.Config, run catalog.Run, vm catalog.VM, account string) (backup.Gate, error) {
	e, err := d.see(ctx, c, vm.VCenter, false, estateAge)
	if err != nil {
		return backup.Gate{}, err
	}
	var m inventory.Member
	if i := slices.IndexFunc(e.Members, func(m inventory.Member) bool { return m.InstanceUUID == vm.InstanceUUID }); i >= 0 {
		m = e.Members[i]
	}
	l := c.Limits
	arm := places("arm", vm.VCenter, m, l.VCenter.Arm, l.Host.Arm, l.Datastore.Arm)
	window := places("win", vm.VCenter, m, l.VCenter.Window, l.Host.Window, l.Datastore.Window)
	enter := func(all []admission.Place) func(context.Context) (func(), error) {
		return func(ctx context.Context) (func(), error) { return d.room.Enter(ctx, all) }
	}
	inside := func(ctx context.Context) (func(), error) {
		leave, err := enter(window)(ctx)
		if err != nil {
			return nil, err
		}
		if d.Queue.Fresh(vm.VCenter) > freshLimit {
			leave()
			return nil, errors.New("this node does not know any more that it owns the vCenter")
		}
		if d.tends(vm.ID) {
			leave()
			return nil, errors.New("a snapshot of the VM is being removed")
		}
		d.opened(OpenWindow{Run: run, VM: vm, Since: time.Now(), Budget: c.Window.Hold.Duration})
		return leave, nil
	}
	logon := []admission.Place{{Name: "logon of " + account, Most: l.GuestLogons}}
	remove := removals(c, vm.VCenter, m)
	return backup.Gate{
		Logon: enter(logon), Arm: enter(arm), Window: inside, Thawed: func() { d.closed(run.ID) }, Remove: enter(remove), Wait: l.WindowWait.Duration,
	}, nil
}

// removals bounds how many snapshots are removed at once.
func removals(c *config.Config, vcenter string, m inventory.Member) []admission.Place {
	return places("remove", vcenter, m, c.Limits.VCenter.Runs, c.Limits.Host.Remove, c.Limits.Datastore.Remove)
}

// OpenWindow is a window in which a guest may be held right now.
type OpenWindow struct {
	Run catalog.Run
	VM  catalog.VM
	// Since is right before GO; Budget the longest hold.
	Since  time.Time
	Budget time.Duration
}

// Windows are open on this node right now, the oldest first.
func (d *Daemon) Windows() []OpenWindow {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.SortedFunc(maps.Values(d.windows), func(a, b OpenWindow) int { return a.Since.Compare(b.Since) })
}

func (d *Daemon) opened(w OpenWindow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.windows[w.Run.ID] = w
}

func (d *Daemon) closed(run string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.windows, run)
}

func places(what, vcenter string, m inventory.Member, ofVCenter, ofHost, ofDatastore int) []admission.Place {
	all := []admission.Place{{Name: what + " vCenter " + vcenter, Most: ofVCenter}}
	if m.Host != "" {
		all = append(all, admission.Place{Name: what + " host " + m.Host + " of " + vcenter, Most: ofHost})
	}
	for _, name := range m.Datastores {
		all = append(all, admission.Place{Name: what + " datastore " + name + " of " + vcenter, Most: ofDatastore})
	}
	return all
}
