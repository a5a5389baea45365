package main

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
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
			heard <- listen(conn)
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

// listen gives how many bytes somebody says, after whatever belongs to TLS.
func listen(conn net.Conn) int {
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

// TestKeptOnLinux keeps a program from run to run, does not believe a READY that somebody has put beside it, and takes it away
// when nothing is to be kept any more.
func TestKeptOnLinux(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	env := w.environment("vm")
	run := func(lifetime string) outcome {
		return operate(t, env, nil, append(window("vm"), "--agent-lifetime", lifetime)...)
	}
	files := func() []string {
		found, err := filepath.Glob(filepath.Join(w.guest(t, "vm").Root, "var/lib/stillframe/agent/*/*"))
		if err != nil {
			t.Error(err)
		}
		return found
	}
	well := func(o outcome) {
		t.Helper()
		if o.exit != exitOK || len(o.result.Leftovers) > 0 {
			t.Errorf("exit status %d, left %v", o.exit, o.result.Leftovers)
		}
	}
	well(run(lifetimeCached))
	first := files()
	well(run(lifetimeCached))
	if again := files(); len(first) != 2 || filepath.Base(first[0]) != guest.KeptFile || !slices.Equal(again, first) {
		t.Fatalf("kept are %q, then %q, want the program and its mark, twice the same", first, again)
	}
	planted := filepath.Join(filepath.Dir(first[0]), "ready")
	if err := os.WriteFile(planted, []byte("READY "+protocol.Fingerprint{7}.String()+" 6465\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := run(lifetimeCached); o.exit == exitOK || len(o.result.Leftovers) > 0 || len(files()) > 0 {
		t.Errorf("with a READY that was planted: exit status %d, left %v, files %v, want a failure and nothing", o.exit, o.result.Leftovers, files())
	}
	well(run(lifetimeCached))
	if fresh := files(); len(fresh) != 2 || filepath.Dir(fresh[0]) == filepath.Dir(first[0]) {
		t.Errorf("kept are %q after %q, want a fresh folder", fresh, first)
	}
	well(run(lifetimeRun))
	clean(t, w, "vm")
}
