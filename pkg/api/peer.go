package api

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// peerOf asks the kernel who is at the other end of a unix socket. Whoever could open the socket, which its mode and group
// decide, is an administrator. The answer is of the moment of connecting and cannot be forged.
func peerOf(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil {
		return Caller{}, err
	}
	if failed != nil {
		return Caller{}, failed
	}
	name := "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
		name += " (" + u.Username + ")"
	}
	return Caller{Name: name, Where: fmt.Sprintf("socket, pid %d", cred.Pid), Scopes: []Scope{Admin}}, nil
}

// withPeer keeps who is at the other end of a connection for the requests that come by it.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if held, ok := c.(*heldConn); ok {
		c = held.Conn
	}
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	peer, err := peerOf(unix)
	if err != nil { // the peer is gone or the kernel does not say: then it may nothing
		peer = Caller{Name: "unknown peer", Where: "socket"}
	}
	return context.WithValue(ctx, peerKey, peer)
}
