package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	toolsGrace    = 60 * time.Second // guest operations may be unavailable for so long just after boot
	toolsPause    = 500 * time.Millisecond
	waitPollFirst = 50 * time.Millisecond
	waitPollLast  = 500 * time.Millisecond
	maxListPages  = 200
)

var (
	errNoGuestManagers = errors.New("this endpoint offers no guest operations")
	errProcessUnknown  = errors.New("the process is unknown: it ended and aged out, or never was")
	errTooLarge        = errors.New("the file is too large")
)

// GuestOps runs programs and moves files inside one VM through VMware Tools, as one guest account. Never use it inside a
// freeze window. It is safe for concurrent use and needs no closing. A refused guest account is SF3001 after exactly one
// attempt, remembered until the secret changes. Where the endpoint has no guest operations everything is SF3601.
type GuestOps struct {
	e       *Endpoint
	vm      inventory.VM
	account *credential

	mu       sync.Mutex
	managers *guestManagers
}

type guestManagers struct{ auth, files, processes types.ManagedObjectReference }

// NewGuestOps makes the guest operations of one VM. auth is asked for the account at each operation.
func NewGuestOps(e *Endpoint, vm inventory.VM, auth func(context.Context) (*url.Userinfo, error)) *GuestOps {
	return &GuestOps{e: e, vm: vm, account: &credential{source: auth}}
}

// find reads the three managers once. The stock simulator has no AuthManager, and panics when its others are used.
func (g *GuestOps) find(ctx context.Context) (guestManagers, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.managers != nil {
		return *g.managers, nil
	}
	ops := g.e.vim.ServiceContent.GuestOperationsManager
	if ops == nil {
		return guestManagers{}, g.unavailable()
	}
	p, err := g.e.properties(ctx, *ops, "authManager", "fileManager", "processManager")
	if err != nil {
		return guestManagers{}, err
	}
	var m guestManagers
	var auth, files, processes bool
	m.auth, auth = p["authManager"].(types.ManagedObjectReference)
	m.files, files = p["fileManager"].(types.ManagedObjectReference)
	m.processes, processes = p["processManager"].(types.ManagedObjectReference)
	if !auth || !files || !processes {
		return guestManagers{}, g.unavailable()
	}
	g.managers = &m
	return m, nil
}

func (g *GuestOps) unavailable() error {
	return &Error{Op: "look for guest operations of", Subject: g.vm.Name, SF: "SF3601", Err: errNoGuestManagers}
}

// operation is one call with the managers and the guest account.
type operation func(m guestManagers, auth types.BaseGuestAuthentication) error

// do runs one operation. With patient it is repeated for at most toolsGrace while VMware Tools are not ready; only for what
// changes nothing in the guest.
func (g *GuestOps) do(ctx context.Context, op, subject string, patient bool, call operation) error {
	m, err := g.find(ctx)
	if err != nil {
		return guestFailure(op, subject, err)
	}
	for start := time.Now(); ; {
		err := g.attempt(ctx, m, op, subject, call)
		if err == nil || !patient || !transient(err) || time.Since(start) >= toolsGrace || !pause(ctx, toolsPause) {
			return err
		}
	}
}

func (g *GuestOps) attempt(ctx context.Context, m guestManagers, op, subject string, call operation) error {
	user, err := g.account.read(ctx)
	switch {
	case errors.Is(err, errNoCredential):
		return &Error{Op: op, Subject: subject, SF: "SF1002", Err: fmt.Errorf("guest account: %w", err)}
	case err != nil:
		return secretFailure(op, subject, err)
	}
	password, _ := user.Password()
	err = call(m, &types.NamePasswordAuthentication{Username: user.Username(), Password: password})
	refused := isFault[*types.InvalidGuestLogin](err)
	err = guestFailure(op, subject, err)
	if refused {
		g.account.refuse(user, err)
	}
	return err
}

// transient says whether VMware Tools may answer soon: their guest operations are not up yet, or VIX error 3016.
func transient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.SF == "SF3601" && (e.Fault == "GuestOperationsUnavailable" || e.Fault == "SystemError")
}

// Validate proves the guest account with one logon. It waits for at most 60 s for VMware Tools.
func (g *GuestOps) Validate(ctx context.Context) error {
	return g.do(ctx, "log on to guest", g.vm.Name, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		_, err := methods.ValidateCredentialsInGuest(ctx, g.e.vim, &types.ValidateCredentialsInGuest{
			This: m.auth, Vm: vmRef(g.vm.Moref), Auth: auth,
		})
		return err
	})
}

// MakeDir makes one directory, and its parents where they are missing. That it exists itself is an error (fs.ErrExist).
func (g *GuestOps) MakeDir(ctx context.Context, path string) error {
	return g.do(ctx, "make guest directory", path, false, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		_, err := methods.MakeDirectoryInGuest(ctx, g.e.vim, &types.MakeDirectoryInGuest{
			This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, DirectoryPath: path, CreateParentDirectories: true,
		})
		return err
	})
}

// Upload writes a new file of size bytes from r. That it exists is an error (fs.ErrExist). On Linux its mode is 0700. The
// bytes go to the VM's ESXi host.
func (g *GuestOps) Upload(ctx context.Context, path string, size int64, r io.Reader) error {
	var attributes types.BaseGuestFileAttributes = &types.GuestPosixFileAttributes{Permissions: 0o700}
	if g.windows() {
		attributes = &types.GuestWindowsFileAttributes{}
	}
	const op = "upload to guest"
	var to string
	err := g.do(ctx, op, path, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		res, err := methods.InitiateFileTransferToGuest(ctx, g.e.vim, &types.InitiateFileTransferToGuest{
			This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, GuestFilePath: path, FileAttributes: attributes, FileSize: size,
		})
		if err != nil {
			return err
		}
		to = res.Returnval
		return nil
	})
	if err != nil {
		return err
	}
	return guestFailure(op, path, g.put(ctx, to, size, r))
}

// Fetch reads a file of at most limit bytes. A missing one is fs.ErrNotExist.
func (g *GuestOps) Fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	const op = "fetch from guest"
	var from string
	err := g.do(ctx, op, path, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		res, err := methods.InitiateFileTransferFromGuest(ctx, g.e.vim, &types.InitiateFileTransferFromGuest{
			This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, GuestFilePath: path,
		})
		if err != nil {
			return err
		}
		from = res.Returnval.Url
		return nil
	})
	if err != nil {
		return nil, err
	}
	data, err := g.get(ctx, from, limit)
	return data, guestFailure(op, path, err)
}

// Start starts a program, with one call. env entries are NAME=value; none means the environment of VMware Tools. It does not
// wait. It is never repeated: after an error other than a fault the program may run all the same.
func (g *GuestOps) Start(ctx context.Context, path string, args, env []string) (pid int64, err error) {
	err = g.do(ctx, "start in guest", path, false, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		res, err := methods.StartProgramInGuest(ctx, g.e.vim, &types.StartProgramInGuest{
			This: m.processes, Vm: vmRef(g.vm.Moref), Auth: auth, Spec: &types.GuestProgramSpec{
				ProgramPath: path, Arguments: commandLine(g.windows(), args), EnvVariables: env,
			},
		})
		if err != nil {
			return err
		}
		pid = res.Returnval
		return nil
	})
	return pid, err
}

func (g *GuestOps) windows() bool {
	return g.vm.System() == inventory.Windows
}

// Wait waits for the end of a process that Start started, asking 50 ms to 500 ms apart, until ctx ends. Exit codes age out
// after minutes in the guest: SF3606 then.
func (g *GuestOps) Wait(ctx context.Context, pid int64) (exitCode int, err error) {
	for wait := waitPollFirst; ; wait = min(2*wait, waitPollLast) {
		p, err := g.process(ctx, pid)
		if err != nil {
			return 0, err
		}
		if p.EndTime != nil {
			return int(p.ExitCode), nil
		}
		if !pause(ctx, wait) {
			return 0, fmt.Errorf("wait for guest process %d: %w", pid, context.Cause(ctx))
		}
	}
}

// Running says whether a process runs. One that is unknown does not.
func (g *GuestOps) Running(ctx context.Context, pid int64) (bool, error) {
	p, err := g.process(ctx, pid)
	if processGone(err) {
		return false, nil
	}
	return err == nil && p.EndTime == nil, err
}

func (g *GuestOps) process(ctx context.Context, pid int64) (types.GuestProcessInfo, error) {
	var found types.GuestProcessInfo
	subject := strconv.FormatInt(pid, 10)
	err := g.do(ctx, "ask for guest process", subject, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		res, err := methods.ListProcessesInGuest(ctx, g.e.vim, &types.ListProcessesInGuest{
			This: m.processes, Vm: vmRef(g.vm.Moref), Auth: auth, Pids: []int64{pid},
		})
		if err != nil {
			return err
		}
		for _, p := range res.Returnval {
			if p.Pid == pid {
				found = p
				return nil
			}
		}
		return &Error{Op: "ask for guest process", Subject: subject, SF: "SF3606", Fault: "GuestProcessNotFound", Err: errProcessUnknown}
	})
	return found, err
}

func processGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Fault == "GuestProcessNotFound"
}

// List gives the names in one directory, without . and .., in no order.
func (g *GuestOps) List(ctx context.Context, dir string) ([]string, error) {
	var names []string
	index := int32(0)
	for range maxListPages {
		var page types.GuestListFileInfo
		err := g.do(ctx, "list guest directory", dir, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
			res, err := methods.ListFilesInGuest(ctx, g.e.vim, &types.ListFilesInGuest{
				This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, FilePath: dir, Index: index,
			})
			if err != nil {
				return err
			}
			page = res.Returnval
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, f := range page.Files {
			if f.Path != "." && f.Path != ".." {
				names = append(names, f.Path)
			}
		}
		index += int32(len(page.Files))
		if page.Remaining <= 0 || len(page.Files) == 0 {
			return names, nil
		}
	}
	return nil, &Error{Op: "list guest directory", Subject: dir, SF: "SF3605", Err: errTooLarge}
}

// Remove removes one file, or one empty directory. What is not there is success.
func (g *GuestOps) Remove(ctx context.Context, path string, dir bool) error {
	err := g.do(ctx, "remove in guest", path, false, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		var err error
		if dir {
			_, err = methods.DeleteDirectoryInGuest(ctx, g.e.vim, &types.DeleteDirectoryInGuest{
				This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, DirectoryPath: path,
			})
		} else {
			_, err = methods.DeleteFileInGuest(ctx, g.e.vim, &types.DeleteFileInGuest{
				This: m.files, Vm: vmRef(g.vm.Moref), Auth: auth, FilePath: path,
			})
		}
		return err
	})
	var e *Error
	if errors.As(err, &e) && e.Fault == "FileNotFound" {
		return nil
	}
	return err
}

// Terminate ends a process. One that is unknown is success.
func (g *GuestOps) Terminate(ctx context.Context, pid int64) error {
	subject := strconv.FormatInt(pid, 10)
	err := g.do(ctx, "end guest process", subject, false, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		_, err := methods.TerminateProcessInGuest(ctx, g.e.vim, &types.TerminateProcessInGuest{
			This: m.processes, Vm: vmRef(g.vm.Moref), Auth: auth, Pid: pid,
		})
		return err
	})
	if processGone(err) {
		return nil
	}
	return err
}
