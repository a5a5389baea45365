package guests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// shell runs the programs of a Linux guest (GuestProgramSpec.programPath).
const shell = "/bin/bash"

// terminateAfter is how long a program has between SIGTERM and SIGKILL when guest operations end it (unverified).
const terminateAfter = 5 * time.Second

// processManager is the GuestProcessManager.
type processManager struct {
	mo.GuestProcessManager
	unlocked
	all *Managers
}

// process is a program that was started; it stays listed after its end.
type process struct {
	pid              int
	path, args, user string
	cmd              *exec.Cmd
	start, end       time.Time
	code             int32
	done             chan struct{} // closed at its end
}

// StartProgramInGuest starts a program in its own process group, by the shell but in the shell's place: the pid is the
// program's. The environment is what the client asks for, or a plain one, and the machine's own.
func (p *processManager) StartProgramInGuest(ctx *simulator.Context, req *types.StartProgramInGuest) soap.HasFault {
	guest, user, fault := p.all.admit(ctx, req.Vm, req.Auth)
	var pid int64
	if fault == nil {
		start := p.start
		if guest.Windows != nil {
			start = p.startWindows
		}
		pid, fault = start(guest, user, req.Spec.GetGuestProgramSpec())
	}
	if fault != nil {
		return &methods.StartProgramInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.StartProgramInGuestBody{Res: &types.StartProgramInGuestResponse{Returnval: pid}}
}

func (p *processManager) start(guest *machine, user string, spec *types.GuestProgramSpec) (int64, types.BaseMethodFault) {
	if _, fault := local(spec.ProgramPath); fault != nil {
		return 0, fault
	}
	program := p.all.below(guest, spec.ProgramPath)
	switch info, err := os.Stat(program); {
	case err != nil:
		return 0, fileFault(err, spec.ProgramPath)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return 0, &types.CannotAccessFile{FileFault: types.FileFault{File: spec.ProgramPath}}
	}
	dir := filepath.Join(guest.Root, "root")
	if spec.WorkingDirectory != "" {
		at, fault := local(spec.WorkingDirectory)
		if fault != nil {
			return 0, fault
		}
		dir = filepath.Join(guest.Root, at)
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=" + user}
	if len(spec.EnvVariables) > 0 { // they define the complete set (GuestProgramSpec.envVariables)
		env = nil
		for _, v := range spec.EnvVariables {
			env = append(env, p.all.below(guest, v))
		}
	}
	quoted := "'" + strings.ReplaceAll(program, "'", `'\''`) + "'"
	line := strings.TrimSpace("exec " + quoted + " " + p.all.below(guest, spec.Arguments))
	made := &process{path: spec.ProgramPath, args: spec.Arguments, user: user, done: make(chan struct{}), cmd: &exec.Cmd{
		Path: shell, Args: []string{shell, "-c", line}, Dir: dir, Env: append(env, guest.environment()...),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}}
	if err := guest.launch(made); err != nil {
		return 0, guestFault(err)
	}
	return int64(made.pid), nil
}

// environment is what every program of the guest gets.
func (g *machine) environment() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append(slices.Clone(g.Env), guestMark+g.Root)
}

// launch starts the program and watches for its end.
func (g *machine) launch(p *process) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("start program: the guest is closed")
	}
	var log *os.File
	if g.Logs != "" {
		var err error
		log, err = os.OpenFile(filepath.Join(g.Logs, g.logName()),
			os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("open log of program: %w", err)
		}
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	err := p.cmd.Start()
	if log != nil {
		err = errors.Join(err, log.Close())
	}
	if p.cmd.Process == nil {
		return fmt.Errorf("start program: %w", err)
	}
	p.pid, p.start = p.cmd.Process.Pid, time.Now()
	g.processes = append(g.processes, p)
	g.work.Go(func() {
		p.cmd.Wait() //nolint:errcheck // the state below says all that a guest's kernel would say
		g.mu.Lock()
		p.end, p.code = time.Now(), exitCode(p.cmd.ProcessState)
		g.mu.Unlock()
		close(p.done)
	})
	return nil
}

// logName is the name of the next program's log.
func (g *machine) logName() string {
	return fmt.Sprintf("program-%03d.log", len(g.processes)+len(g.programs)+1)
}

// exitCode is what a shell would see: 128 and the signal for a program that was killed (unverified on real guests).
func exitCode(state *os.ProcessState) int32 {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(state.ExitCode())
}

// living lists the programs that have not ended, the oldest first.
func (g *machine) living() []*process {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []*process
	for _, p := range g.processes {
		if p.end.IsZero() {
			list = append(list, p)
		}
	}
	return list
}

// ListProcessesInGuest lists the programs that guest operations started, also ended ones until KeepExit has passed. A
// guest's other processes are not there. A pid that does not exist is left out.
func (p *processManager) ListProcessesInGuest(ctx *simulator.Context, req *types.ListProcessesInGuest) soap.HasFault {
	guest, _, fault := p.all.admit(ctx, req.Vm, req.Auth)
	if fault != nil {
		return &methods.ListProcessesInGuestBody{Fault_: refuse(fault)}
	}
	res := &types.ListProcessesInGuestResponse{}
	if guest.Windows != nil {
		var err error
		if res.Returnval, err = guest.listWindows(req.Pids); err != nil {
			return &methods.ListProcessesInGuestBody{Fault_: refuse(guestFault(err))}
		}
		return &methods.ListProcessesInGuestBody{Res: res}
	}
	res.Returnval = guest.listLinux(req.Pids)
	return &methods.ListProcessesInGuestBody{Res: res}
}

// listLinux lists what guest operations started.
func (g *machine) listLinux(pids []int64) []types.GuestProcessInfo {
	var list []types.GuestProcessInfo
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.processes {
		if len(pids) > 0 && !slices.Contains(pids, int64(one.pid)) {
			continue
		}
		info := types.GuestProcessInfo{
			Name: filepath.Base(one.path), Pid: int64(one.pid), Owner: one.user, StartTime: one.start,
			CmdLine: strings.TrimSpace(`"` + one.path + `" ` + one.args),
		}
		if !one.end.IsZero() {
			if g.KeepExit > 0 && time.Since(one.end) > g.KeepExit {
				continue
			}
			info.EndTime, info.ExitCode = &one.end, one.code
		}
		list = append(list, info)
	}
	return list
}

// TerminateProcessInGuest sends SIGTERM to the program, and SIGKILL when it lives on.
func (p *processManager) TerminateProcessInGuest(ctx *simulator.Context, req *types.TerminateProcessInGuest) soap.HasFault {
	guest, _, fault := p.all.admit(ctx, req.Vm, req.Auth)
	if fault == nil {
		fault = guest.end(req.Pid)
	}
	if fault != nil {
		return &methods.TerminateProcessInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.TerminateProcessInGuestBody{Res: &types.TerminateProcessInGuestResponse{}}
}

// end ends a process by the means of the guest's system.
func (g *machine) end(pid int64) types.BaseMethodFault {
	ended, err := false, error(nil)
	if g.Windows != nil {
		ended, err = g.endWindows(pid)
	} else {
		ended = g.terminate(int(pid))
	}
	switch {
	case err != nil:
		return guestFault(err)
	case !ended:
		return &types.GuestProcessNotFound{Pid: pid}
	}
	return nil
}

// terminate is false when no such program lives.
func (g *machine) terminate(pid int) bool {
	for _, p := range g.living() {
		if p.pid != pid {
			continue
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return false // os.ErrProcessDone
		}
		g.work.Go(func() {
			timer := time.NewTimer(terminateAfter)
			defer timer.Stop()
			select {
			case <-p.done:
			case <-timer.C:
				p.cmd.Process.Kill() //nolint:errcheck // it has ended after all
			}
		})
		return true
	}
	return false
}

// Kill sends a signal to every program of the VM that lives, and only to it: what it has started itself lives on.
func (m *Managers) Kill(vm string, sig syscall.Signal) error {
	return m.signal(vm, func(p *process) error { return p.cmd.Process.Signal(sig) })
}

func (m *Managers) signal(vm string, send func(*process) error) error {
	guest := m.find(vm)
	if guest == nil {
		return fmt.Errorf("signal programs of guest %q: no such guest", vm)
	}
	var errs []error
	for _, p := range guest.living() {
		if err := send(p); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal program %d of guest %q: %w", p.pid, vm, err))
		}
	}
	return errors.Join(errs...)
}

// Stun sends a signal to everything that runs in the VM's guest: the programs that guest operations started, and what
// those have started, in whatever process group. SIGSTOP and SIGCONT are a stun, SIGKILL is the end of the guest's system.
// It says to how many processes. The lab's own record writer and the network are not part of it.
func (m *Managers) Stun(vm string, sig syscall.Signal) (int, error) {
	guest := m.find(vm)
	if guest == nil {
		return 0, fmt.Errorf("signal guest %q: no such guest", vm)
	}
	var errs []error
	seen := map[int]bool{}
	for pass := 0; pass < stunPasses; pass++ { // a process may fork while we look
		fresh := 0
		for _, pid := range guest.inside() {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			fresh++
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, fmt.Errorf("signal process %d of guest %q: %w", pid, vm, err))
			}
		}
		if fresh == 0 {
			break
		}
	}
	return len(seen), errors.Join(errs...)
}

// Inside lists what Stun would signal now, by the process ids of this computer.
func (m *Managers) Inside(vm string) []int {
	guest := m.find(vm)
	if guest == nil {
		return nil
	}
	return guest.inside()
}

// stunPasses bounds how often Stun looks for processes that were forked meanwhile.
const stunPasses = 10

// inside lists the processes whose program lies below the guest's root, or that inherited a variable which only this
// guest's programs have.
func (g *machine) inside() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	mark := []byte(guestMark + g.Root + "\x00")
	if g.Windows != nil {
		mark = []byte(g.Windows.mark() + "\x00")
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if err != nil {
			continue // gone, a kernel thread, or somebody else's
		}
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if strings.HasPrefix(exe, g.Root+"/") || (err == nil && bytes.Contains(append(environ, 0), mark)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// guestMark is the variable by which a guest's processes are known; its value is the machine's root, which
// no other guest on this computer has.
const guestMark = "STILLFRAME_LAB_GUEST="

// SetEnv changes one variable of the environment that programs of the VM get from now on.
func (m *Managers) SetEnv(vm, key, value string) error {
	guest := m.find(vm)
	if guest == nil {
		return fmt.Errorf("set environment of guest %q: no such guest", vm)
	}
	guest.mu.Lock()
	defer guest.mu.Unlock()
	guest.Env = append(slices.DeleteFunc(slices.Clone(guest.Env), func(v string) bool { return strings.HasPrefix(v, key+"=") }), key+"="+value)
	return nil
}

// close kills what lives and waits for it.
func (g *machine) close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	if !first {
		return nil
	}
	var errs []error
	for _, p := range g.living() {
		if err := syscall.Kill(-p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill program %d of guest %q: %w", p.pid, g.VM, err))
		}
	}
	ended := make(chan struct{})
	go func() { g.work.Wait(); close(ended) }()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		errs = append(errs, fmt.Errorf("close guest %q: programs outlive SIGKILL by %v", g.VM, closeWait))
	}
	return errors.Join(append(errs, g.root.Close())...)
}
