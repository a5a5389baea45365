// Package guests gives the VMs of the lab their inside.
package guests

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// HomePrefix is the guest folder that programs and their arguments see below the machine's root: wherever a program path,
// an argument or an environment value of a guest operation begins with it, the managers write the machine's root before
// it. No other path in arguments is touched. Paths of file operations are always below the root.
const HomePrefix = "/var/lib/stillframe"

// transferPath is where the front sends file transfers; it is vcenter.TransferPath.
const transferPath = "/labGuestFile/"

// closeWait bounds how long Close waits for killed programs.
const closeWait = 2 * time.Second

// Machine is a VM's guest as guest operations see it: a folder, users, and programs that really run.
type Machine struct {
	// VM is the VM's instance UUID or its name.
	VM string
	// Root is the folder that stands for the guest's /. It must exist, be absolute and need no quoting in a shell.
	Root string
	// Windows is the guest behind Root where that is a Windows; nil for Linux.
	Windows *Wine
	// Env is given to every program besides what the client asks for, and wins over it.
	Env []string
	// Users are the names and passwords that may log on.
	Users map[string]string
	// Logs is a folder for the programs' output, one file a program; empty throws the output away.
	Logs string
	// KeepExit is how long a finished program stays in ListProcessesInGuest; 0 is for ever.
	KeepExit time.Duration
}

// Process is a program that guest operations started and that still lives.
type Process struct {
	PID int
	// Path is the program's path as the client gave it.
	Path string
}

// Logons counts credentials that were checked, by every guest operation.
type Logons struct{ Good, Refused int }

// Managers are the guest managers of one vCenter; they implement vcenter.Guests. They are credible for the shape of the
// calls, credentials, exit codes and transfers; they never emulate the latency of hostd and Tools, or token
// filtering. All methods may be called concurrently.
type Managers struct {
	home *regexp.Regexp

	mu        sync.Mutex
	machines  map[string]*machine
	transfers map[string]transfer // by one-time token
}

// machine is a Machine at work.
type machine struct {
	Machine
	root *os.Root

	mu        sync.Mutex
	processes []*process
	programs  []windowsProgram // of a Windows guest
	logons    Logons
	closed    bool
	work      sync.WaitGroup
}

// NewManagers takes the machines; more can be added later. The caller ends them with Close, and keeps the roots.
func NewManagers(machines ...Machine) (*Managers, error) {
	m := &Managers{
		// The prefix is replaced where a path begins: at the start, after a blank, a quote, =, : or a redirection.
		home:     regexp.MustCompile(`(^|[\s'"=:<>])` + regexp.QuoteMeta(HomePrefix) + `($|[/\s'":])`),
		machines: map[string]*machine{}, transfers: map[string]transfer{},
	}
	for _, one := range machines {
		if err := m.Add(one); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// Environment is what every program in a VM's guest is given besides what its starter asks for.
func (m *Managers) Environment(vm string) []string {
	m.mu.Lock()
	one := m.machines[vm]
	m.mu.Unlock()
	if one == nil {
		return nil
	}
	return one.environment()
}

// Add gives a VM its guest. It refuses a VM that has one already.
func (m *Managers) Add(one Machine) error {
	if one.VM == "" || !filepath.IsAbs(one.Root) || strings.ContainsFunc(one.Root, needsQuoting) {
		return fmt.Errorf("add guest %q: root %q must be absolute and need no quoting", one.VM, one.Root)
	}
	root, err := os.OpenRoot(one.Root)
	if err != nil {
		return fmt.Errorf("open root of guest %q: %w", one.VM, err)
	}
	folders := []string{"var/lib", "tmp", "root"} // what every Linux guest has
	if one.Windows != nil {
		folders = nil // it was furnished by Wine
	}
	for _, dir := range folders {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return errors.Join(fmt.Errorf("prepare root of guest %q: %w", one.VM, err), root.Close())
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.machines[one.VM] != nil {
		return errors.Join(fmt.Errorf("add guest %q: it is there already", one.VM), root.Close())
	}
	m.machines[one.VM] = &machine{Machine: one, root: root}
	return nil
}

func needsQuoting(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,@%", r)
}

// Install puts the managers in place of the simulator's, and the authentication manager where it has none.
func (m *Managers) Install(r *simulator.Registry) {
	refs := map[string]types.ManagedObjectReference{}
	for _, kind := range []string{"Auth", "Process", "File"} {
		refs[kind] = types.ManagedObjectReference{Type: "Guest" + kind + "Manager", Value: "guestOperations" + kind + "Manager"}
	}
	auth, process, file := &authManager{all: m}, &processManager{all: m}, &fileManager{all: m}
	auth.Self, process.Self, file.Self = refs["Auth"], refs["Process"], refs["File"]
	r.Put(auth)
	r.Put(process)
	r.Put(file)
	for _, object := range r.AllReference("GuestOperationsManager") {
		operations := object.(*simulator.GuestOperationsManager)
		a, p, f := refs["Auth"], refs["Process"], refs["File"]
		operations.AuthManager, operations.ProcessManager, operations.FileManager = &a, &p, &f
	}
}

// unlocked keeps the simulator from doing guest operations one after the other.
type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}

// admit finds the guest of a VM and checks the credentials, as vCenter, hostd and Tools would in this order.
func (m *Managers) admit(ctx *simulator.Context, ref types.ManagedObjectReference, auth types.BaseGuestAuthentication,
) (*machine, string, types.BaseMethodFault) {
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, "", &types.ManagedObjectNotFound{Obj: ref}
	}
	var name, instance, tools string
	var power types.VirtualMachinePowerState
	ctx.WithLock(vm, func() {
		name, instance, power, tools = vm.Name, vm.Config.InstanceUuid, vm.Runtime.PowerState, vm.Guest.ToolsRunningStatus
	})
	if power != types.VirtualMachinePowerStatePoweredOn {
		return nil, "", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOn, ExistingState: power,
		}
	}
	guest := m.find(instance, name)
	if guest == nil || tools != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		return nil, "", &types.GuestOperationsUnavailable{}
	}
	user, fault := guest.logOn(auth)
	return guest, user, fault
}

// find is the first machine known by one of the names; nil when there is none.
func (m *Managers) find(names ...string) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if guest := m.machines[name]; guest != nil {
			return guest
		}
	}
	return nil
}

// Processes lists the programs of a VM that still live, the oldest first.
func (m *Managers) Processes(vm string) []Process {
	guest := m.find(vm)
	if guest == nil {
		return nil
	}
	var list []Process
	for _, p := range guest.living() {
		list = append(list, Process{PID: p.pid, Path: p.path})
	}
	return list
}

// Logons counts the credentials that the VM's guest has checked.
func (m *Managers) Logons(vm string) Logons {
	guest := m.find(vm)
	if guest == nil {
		return Logons{}
	}
	guest.mu.Lock()
	defer guest.mu.Unlock()
	return guest.logons
}

// Close kills every program that still lives with its process group, and waits for them up to 2 s. Idempotent.
func (m *Managers) Close() error {
	m.mu.Lock()
	all := make([]*machine, 0, len(m.machines))
	for _, guest := range m.machines {
		all = append(all, guest)
	}
	m.mu.Unlock()
	var errs []error
	for _, guest := range all {
		errs = append(errs, guest.close())
	}
	return errors.Join(errs...)
}

// locate is the path below the machine's root, by the rules of its system.
func (g *machine) locate(guestPath string) (string, types.BaseMethodFault) {
	if g.Windows != nil {
		return locateWindows(g.root, guestPath)
	}
	return local(guestPath)
}

// join is the path of a name in a folder of the guest.
func (g *machine) join(dir, name string) string {
	if g.Windows != nil {
		return strings.TrimRight(dir, `\`) + `\` + name
	}
	return path.Join(dir, name)
}

// guestFault is what went wrong inside the guest, beyond what the faults of guest operations name.
func guestFault(err error) types.BaseMethodFault {
	return &types.GuestOperationsFault{VimFault: types.VimFault{MethodFault: types.MethodFault{
		FaultCause: &types.LocalizedMethodFault{Fault: &types.SystemErrorFault{Reason: err.Error()}, LocalizedMessage: err.Error()},
	}}}
}

// local is the path below the machine's root, as os.Root wants it; a path that is not absolute or steps up is refused.
func local(guestPath string) (string, types.BaseMethodFault) {
	if !strings.HasPrefix(guestPath, "/") || strings.ContainsRune(guestPath, 0) {
		return "", &types.InvalidArgument{InvalidProperty: "path"}
	}
	for part := range strings.SplitSeq(guestPath, "/") {
		if part == ".." {
			return "", &types.InvalidArgument{InvalidProperty: "path"}
		}
	}
	return filepath.Clean("." + guestPath), nil
}

// below writes the root before HomePrefix wherever a path in text begins with it.
func (m *Managers) below(guest *machine, text string) string {
	return m.home.ReplaceAllString(text, "${1}"+strings.ReplaceAll(guest.Root, "$", "$$")+HomePrefix+"${2}")
}

// refuse is a fault in the place of an answer.
func refuse(f types.BaseMethodFault) *soap.Fault { return simulator.Fault("", f) }

// transferURL names the front by '*': the client puts in the address it knows.
func transferURL(token string) string {
	return (&url.URL{Scheme: "https", Host: "*", Path: transferPath, RawQuery: url.Values{"token": {token}}.Encode()}).String()
}
