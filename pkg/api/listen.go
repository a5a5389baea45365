package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"
)

// socketMode lets owner and group open the socket; all who can are administrators.
const socketMode = 0o660

// ListenError is why the API cannot be offered.
type ListenError struct {
	Where string
	Err   error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Where, e.Err) }

func (e *ListenError) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *ListenError) Code() string { return "SF1712" }

// Listen opens the socket and, if there is one, the TCP address. Serve closes them. An error is a *ListenError, and then
// nothing is open.
func (s *Server) Listen(ctx context.Context) error {
	unix, err := listenUnix(s.o.Socket, s.o.Group)
	if err != nil {
		return &ListenError{s.o.Socket, err}
	}
	s.open = []net.Listener{limited(unix)}
	if s.o.Address == "" {
		return nil
	}
	tcp, err := listenTCP(ctx, s.o.Address, s.o.TLS)
	if err != nil {
		err = errors.Join(err, unix.Close())
		s.open = nil
		return &ListenError{s.o.Address, err}
	}
	s.open = append(s.open, tcp)
	return nil
}

// Addr is where the TCP listener is, nil without one; it tells the port when the configured one is 0.
func (s *Server) Addr() net.Addr {
	if len(s.open) < 2 {
		return nil
	}
	return s.open[1].Addr()
}

// listenUnix makes the socket. It is born with mode 0600 and gets its group before its mode, so that it is never open to
// more than it should be.
func listenUnix(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, err
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, err
		}
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if gid >= 0 {
		err = os.Lchown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, socketMode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clearSocket removes the socket of a daemon that was killed. One that somebody still answers on is not touched, nor is
// anything that is no socket.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something else by that name")
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		return errors.Join(errors.New("another daemon answers on it"), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// errOpen is what is said about an address that others can reach without TLS.
var errOpen = errors.New("beyond loopback a certificate is needed: without one, tokens would cross the network in clear")

func listenTCP(ctx context.Context, address string, config *tls.Config) (net.Listener, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	// A name may stand for another address tomorrow, so only localhost is taken for one.
	if ip := net.ParseIP(name); config == nil && name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, errOpen
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if at, ok := l.Addr().(*net.TCPAddr); config == nil && (!ok || !at.IP.IsLoopback()) {
		return nil, errors.Join(errOpen, l.Close())
	}
	if config == nil {
		return limited(l), nil
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2", "http/1.1"}
	return tls.NewListener(limited(l), config), nil
}

// limited bounds the open connections of a listener; who comes later waits in the kernel's queue.
func limited(l net.Listener) net.Listener {
	return &boundedListener{Listener: l, slots: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

type boundedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &heldConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// heldConn is a connection that holds a slot until it is closed.
type heldConn struct {
	net.Conn
	release func()
}

func (c *heldConn) Close() error {
	c.release()
	return c.Conn.Close()
}
