package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/mailbox"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// boxOptions are how the guest's side of a mailbox behaves: a text of the guest is a matter of a millisecond or two.
var boxOptions = mailbox.Options{Called: true, AckAfter: 25 * time.Millisecond, RepeatAfter: 5 * time.Second, Linger: 2 * time.Second}

// channel opens the way to the orchestrator that the flags name: a port that it listens on, at the address host, its own
// dials to the orchestrator, or the mailbox. It gives the port, 0 where there is none, and tells the options of what is
// peculiar to the way.
func channel(ctx context.Context, s settings, host string, port int, own tls.Certificate, o *agent.Options) (net.Listener, int, error) {
	switch {
	case s.mailbox:
		return openMailbox(ctx, s, own, o)
	case !s.dial.IsValid():
		return listen(host, port, protocol.ServerTLS(own, s.peer))
	}
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	dial := func(ctx context.Context) (net.Conn, error) {
		return dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, s.dial)
	}
	return agent.NewCaller(ctx, dial, protocol.ClientTLS(own, s.peer, s.deployment)), 0, nil
}

// openMailbox fails with SF3850 where the guest may not use guestinfo.
func openMailbox(ctx context.Context, s settings, own tls.Certificate, o *agent.Options) (net.Listener, int, error) {
	info, err := openGuestinfo()
	if err != nil {
		return nil, 0, refusedBox(err)
	}
	box, err := openBox(info)
	if err != nil {
		return nil, 0, err
	}
	o.Slow, o.Urgent = true, box.quick.Store
	return tls.NewListener(mailbox.Open(ctx, box, s.deployment, boxOptions), protocol.ServerTLS(own, s.peer)), 0, nil
}

// parseDial reads the one address that the agent may dial: no name, which could come to mean another machine.
func parseDial(text string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(text)
	if err != nil || address.Addr().IsUnspecified() || address.Addr().IsMulticast() || address.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not the address and port of one machine, such as 192.0.2.1:6466", text)
	}
	return address, nil
}
