package guests

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// Silence is a TCP port that answers nothing, not even that it is closed: what a firewall does that drops. Its queue of
// connections is full, so that the kernel drops every further attempt (tcp(7), tcp_abort_on_overflow is off by default).
type Silence struct{ files []int }

// StartSilence takes the port. The caller closes it.
func StartSilence(address netip.AddrPort) (*Silence, error) {
	s := &Silence{}
	if err := s.start(address); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s silent: %w", address, err), s.Close())
	}
	return s, nil
}

// fillers are connections that nobody accepts: a queue of length 0 holds one.
const fillers = 2

func (s *Silence) start(address netip.AddrPort) error {
	at := &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	listener, err := s.socket()
	if err != nil {
		return err
	}
	if err := errors.Join(os.NewSyscallError("bind", syscall.Bind(listener, at)), os.NewSyscallError("listen", syscall.Listen(listener, 0))); err != nil {
		return err
	}
	for range fillers {
		filler, err := s.socket()
		if err != nil {
			return err
		}
		if err := syscall.Connect(filler, at); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
			return os.NewSyscallError("connect", err)
		}
	}
	return nil
}

func (s *Silence) socket() (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err == nil {
		s.files = append(s.files, fd)
	}
	return fd, os.NewSyscallError("socket", err)
}

// Close gives the port back.
func (s *Silence) Close() error {
	var errs []error
	for _, fd := range s.files {
		errs = append(errs, os.NewSyscallError("close", syscall.Close(fd)))
	}
	s.files = nil
	return errors.Join(errs...)
}
