package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAllowedAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // empty: refused
	}{
		"one":            {[]string{"10.0.0.5"}, "10.0.0.5"},
		"two":            {[]string{"10.0.0.5", "fd00::1"}, "10.0.0.5 fd00::1"},
		"two in one":     {[]string{"10.0.0.5,fd00::1"}, "10.0.0.5 fd00::1"},
		"mapped":         {[]string{"::ffff:10.0.0.5"}, "10.0.0.5"},
		"a name":         {[]string{"orchestrator"}, ""},
		"a network":      {[]string{"10.0.0.0/8"}, ""},
		"any":            {[]string{"any"}, ""},
		"everybody":      {[]string{"0.0.0.0"}, ""},
		"a link's own":   {[]string{"fe80::1%eth0"}, ""},
		"multicast":      {[]string{"224.0.0.1"}, ""},
		"nothing":        {[]string{""}, ""},
		"a comma's rest": {[]string{"10.0.0.5,"}, ""},
		"another rule":   {[]string{"10.0.0.5 action=allow"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--peer", strings.Repeat("ab", 32), "--deployment", "d1", "--ready-file", "/tmp/none/ready"}
			for _, a := range c.args {
				args = append(args, "--allow", a)
			}
			s, err := parseSettings(args)
			var got []string
			for _, a := range s.allow {
				got = append(got, a.String())
			}
			if strings.Join(got, " ") != c.want || (err == nil) != (c.want != "") {
				t.Errorf("--allow %q = %v, %v, want %q", c.args, got, err, c.want)
			}
		})
	}
}

// TestOnlyTheAllowedAreHeard comes from two addresses of this machine.
func TestOnlyTheAllowedAreHeard(t *testing.T) {
	for name, c := range map[string]struct {
		allow []string
		from  string
		want  string
	}{
		"everyone":      {nil, "127.0.0.2", "hello"},
		"the one":       {[]string{"127.0.0.1", "127.0.0.2"}, "127.0.0.2", "hello"},
		"somebody else": {[]string{"127.0.0.1"}, "127.0.0.2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			plain, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var addresses []netip.Addr
			for _, a := range c.allow {
				addresses = append(addresses, netip.MustParseAddr(a))
			}
			l := allowed(plain, addresses)
			served := make(chan error, 1)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						served <- nil
						return
					}
					_, err = io.WriteString(conn, "hello")
					if err = errors.Join(err, conn.Close()); err != nil {
						served <- err
						return
					}
				}
			}()
			for _, from := range slices.Compact([]string{c.from, "127.0.0.1"}) { // the second is always heard
				conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", plain.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				want := "hello"
				if from == c.from {
					want = c.want
				}
				got, err := io.ReadAll(conn)
				if string(got) != want || err != nil && want != "" {
					t.Errorf("from %s = %q, %v, want %q", from, got, err, want)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(l.Close(), <-served); err != nil {
				t.Error(err)
			}
		})
	}
}
