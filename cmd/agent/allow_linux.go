package main

import (
	"net"
	"net/netip"
	"slices"
)

// allowed lets in connections of the addresses that --allow names, and of everyone where it names none. Linux has no firewall
// that is there for certain, so the agent itself hangs up, before TLS says a word.
func allowed(l net.Listener, addresses []netip.Addr) net.Listener {
	if len(addresses) == 0 {
		return l
	}
	return &allowing{l, addresses}
}

type allowing struct {
	net.Listener
	addresses []netip.Addr
}

// Accept implements net.Listener.
func (a *allowing) Accept() (net.Conn, error) {
	for {
		conn, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, ok := conn.RemoteAddr().(*net.TCPAddr)
		if ok && slices.Contains(a.addresses, from.AddrPort().Addr().Unmap()) {
			return conn, nil
		}
		if err := conn.Close(); err != nil {
			continue // it has gone by itself
		}
	}
}
