// Package smb runs real smbd of Samba as the file server of a Windows guest.
//
// Credible for the dialects of SMB, NTLMv2, signing, sealing, pipes and the NTSTATUS of refusals. Never emulates: UAC's
// filtered tokens (an account that is no administrator stands for one), antivirus, how Windows gives credits, Kerberos, DFS.
// Needs root, because smbd does.
package smb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Kind is how a server protects what goes over the wire.
type Kind string

const (
	// Encrypted demands encryption, and so SMB 3.
	Encrypted Kind = "encrypted"
	// Signing demands signatures and refuses encryption: how Windows is when nobody asked for encryption.
	Signing Kind = "signing"
	// Old speaks nothing but SMB 1.
	Old Kind = "old"
	// OldEncrypted demands encryption, which its SMB 2 does not have.
	OldEncrypted Kind = "old encrypted"
)

// State is what is wrong with an account.
type State string

const (
	// Good is an account that may log on.
	Good     State = ""
	Disabled State = "disabled"
	Locked   State = "locked"
	// Expired is an account past its end, PasswordExpired one whose password must be changed.
	Expired         State = "expired"
	PasswordExpired State = "password expired"
)

// administrator is the name of the account that is root here; every other one is one of ordinary.
const administrator = "Administrator"

// Account is somebody who may log on.
type Account struct {
	// Name is Administrator or another, as Windows would have it. There is room for ten others.
	Name, Password string
	State          State
	// Ordinary is an account that is not in Administrators, or whose token is filtered: ADMIN$ and C$ are closed to it.
	Ordinary bool
}

// Options say what a server is like.
type Options struct {
	Kind Kind
	// Dir is an existing folder that only root may enter, for all that Samba keeps. It stays.
	Dir string
	// Address is of loopback, such as 127.70.1.2; empty takes one that is free. Port is 445 when 0.
	Address string
	Port    uint16
	// Windows is the folder served as ADMIN$, Drive the one served as C$. Empty ones are not served, as where Windows has its
	// administrative shares switched off.
	Windows, Drive string
	Accounts       []Account
	// MapToGuest makes a guest of who gives a wrong password or an unknown name.
	MapToGuest bool
	// OwnPipes keeps Samba's own RPC servers away: the only pipes are those that the caller serves in Pipes.
	OwnPipes bool
}

func (o Options) check() error {
	switch o.Kind {
	case Encrypted, Signing, Old, OldEncrypted:
	default:
		return fmt.Errorf("a server of kind %q", o.Kind)
	}
	info, err := os.Stat(o.Dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder of root alone (mode 0700)", o.Dir)
	}
	if len(o.Dir) > longestDir {
		return fmt.Errorf("%s is longer than %d characters, too long for the sockets in it", o.Dir, longestDir)
	}
	for _, folder := range []string{o.Dir, o.Windows, o.Drive} {
		if strings.ContainsAny(folder, "\n%\"") || folder != "" && !filepath.IsAbs(folder) {
			return fmt.Errorf("%q is no folder for smb.conf", folder)
		}
	}
	return nil
}

// longestDir leaves room for the longest socket of Samba's, /ncalrpc/np/initshutdown, in the 107 characters of a path (unix(7)).
const longestDir = 80

const (
	// startLimit bounds a server's start, which takes 0.3 s; stopLimit its end.
	startLimit = 20 * time.Second
	stopLimit  = 10 * time.Second
	// politeLimit is how long a server may take to end by itself.
	politeLimit = 3 * time.Second
	pause       = 10 * time.Millisecond
)

// Server is one running smbd with all that it started.
type Server struct {
	dir     string
	address netip.AddrPort
	cmd     *exec.Cmd
	ended   chan struct{} // closed when smbd itself has ended

	closing sync.Once
	closed  error
}

// Start makes a server and waits until it listens. It never outlives this process; the caller closes it.
func Start(ctx context.Context, o Options) (s *Server, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start a %s smbd: %w", o.Kind, err)
		}
	}()
	if err := o.check(); err != nil {
		return nil, err
	}
	members, err := o.members()
	if err != nil {
		return nil, err
	}
	address, err := o.where(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it took longer than %s", startLimit))
	defer cancel()
	s = &Server{dir: o.Dir, address: address, ended: make(chan struct{})}
	if err := o.write(address, members); err != nil {
		return nil, err
	}
	for _, m := range members {
		if err := s.enrol(ctx, m); err != nil {
			return nil, err
		}
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	if err := s.wait(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// where is the address to listen at.
func (o Options) where(ctx context.Context) (netip.AddrPort, error) {
	port := o.Port
	if port == 0 {
		port = 445
	}
	if o.Address == "" {
		return freeAddress(ctx, port)
	}
	ip, err := netip.ParseAddr(o.Address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !ip.Is4() || !ip.IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("%s is no IPv4 address of loopback", ip)
	}
	return netip.AddrPortFrom(ip, port), nil
}

func (s *Server) launch() error {
	log, err := os.Create(filepath.Join(s.dir, "smbd.out"))
	if err != nil {
		return err
	}
	// In a process group of its own: at its end smbd signals the one that it leads. What it has started ends with it.
	s.cmd = exec.Command(program("smbd"), "--foreground", "--no-process-group", "-s", s.config(), "-l", filepath.Join(s.dir, "log")) //nolint:noctx // it lives until Close
	s.cmd.Env = append(os.Environ(), mark+s.dir)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(s.cmd.Start(), log.Close()); err != nil {
		return fmt.Errorf("%w (on Debian as root: apt install samba)", err)
	}
	go func() {
		defer close(s.ended)
		s.cmd.Wait() //nolint:errcheck // how it ended is nobody's concern
	}()
	return nil
}

// wait returns when the server takes connections.
func (s *Server) wait(ctx context.Context) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", s.address.String())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it has ended: %s", s.said())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w: %s", context.Cause(ctx), err, s.said())
		case <-time.After(pause):
		}
	}
}

// said is the end of what smbd wrote.
func (s *Server) said() string {
	var all []string
	for _, name := range []string{"smbd.out", "log/log.smbd"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			all = append(all, err.Error())
		}
		all = append(all, string(text[max(0, len(text)-2000):]))
	}
	return strings.TrimSpace(strings.Join(all, "\n"))
}

// Address is where the server listens.
func (s *Server) Address() netip.AddrPort { return s.address }

// Pipes is the folder in which smbd looks for the sockets of its pipes, each named in lower case.
func (s *Server) Pipes() string { return filepath.Join(s.dir, "ncalrpc", "np") }

func (s *Server) config() string { return filepath.Join(s.dir, "smb.conf") }

// Stall makes the server stand still: connections are taken by the kernel, and nothing is answered. Should this process be
// killed meanwhile, processes that served a client stay as they are.
func (s *Server) Stall() error { return s.signal(syscall.SIGSTOP) }

// Continue ends a Stall.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

// Close ends the server and all that it started, and waits for that. It is idempotent.
func (s *Server) Close() error {
	s.closing.Do(func() {
		if err := s.end(); err != nil {
			s.closed = fmt.Errorf("close the smbd at %s: %w", s.address, err)
		}
	})
	return s.closed
}

func (s *Server) end() error {
	err := errors.Join(s.Continue(), s.signalOne(s.cmd.Process.Pid, syscall.SIGTERM))
	select {
	case <-s.ended:
	case <-time.After(politeLimit):
		err = errors.Join(err, s.signalOne(s.cmd.Process.Pid, syscall.SIGKILL))
		<-s.ended
	}
	for begin := time.Now(); ; {
		left, listErr := s.Processes()
		if listErr != nil || len(left) == 0 {
			return errors.Join(err, listErr)
		}
		if time.Since(begin) > stopLimit {
			return errors.Join(err, fmt.Errorf("still running: %v", left))
		}
		err = errors.Join(err, s.signal(syscall.SIGKILL))
		<-time.After(pause)
	}
}

func (s *Server) signal(sig syscall.Signal) error {
	all, err := s.Processes()
	for _, p := range all {
		err = errors.Join(err, kill(p.PID, sig))
	}
	return err
}

// signalOne signals smbd itself, unless it has ended.
func (s *Server) signalOne(pid int, sig syscall.Signal) error {
	select {
	case <-s.ended:
		return nil
	default:
		return kill(pid, sig)
	}
}

func kill(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}
