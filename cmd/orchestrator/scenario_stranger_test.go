package main

import (
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// TestStranger has somebody else answer in the agent's place: he is found out, nothing is said to him, and no other way is tried.
func TestStranger(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	own, _, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.61.7.9:6465", &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan int, 64)
	go func() {
		defer close(heard)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			heard <- overhear(conn)
		}
	}()
	env := w.environment("vm")
	o := operate(t, env, nil, append(window("vm"), "--guest-address", "127.61.7.9")...)
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if codes := o.codes(); o.exit != exitAuth || !slices.Equal(codes, []string{"SF3702"}) || len(o.result.Leftovers) > 0 {
		t.Errorf("exit status %d, findings %v, left %v, want %d with SF3702 and nothing", o.exit, codes, o.result.Leftovers, exitAuth)
	}
	calls := 0
	for n := range heard {
		if calls++; n > 0 {
			t.Errorf("the stranger heard %d bytes", n)
		}
	}
	if calls != 1 {
		t.Errorf("the stranger was called %d times, want once", calls)
	}
	clean(t, w, "vm")
	free(t, w, "vm", 0)
	if r, exit := recovery(t, env); exit != exitOK || len(r.Things) > 0 {
		t.Errorf("recover: exit status %d, things %v, want nothing", exit, r.Things)
	}
}

// overhear gives how many bytes somebody says, after whatever belongs to TLS.
func overhear(conn net.Conn) int {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0
	}
	n, err := conn.Read(make([]byte, 64))
	if err != nil {
		return 0
	}
	return n
}
