package protocol_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

type identity struct {
	cert tls.Certificate
	pin  protocol.Fingerprint
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	cert, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return identity{cert, pin}
}

// meet has both sides shake hands over an in-memory connection and exchange one byte each way, so that each side's
// refusal reaches the other. It runs in a bubble, because two sides that refuse at once wait for their limits.
func meet(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	limit := time.Now().Add(10 * time.Second)
	if err := errors.Join(a.SetDeadline(limit), b.SetDeadline(limit)); err != nil {
		t.Fatal(err)
	}
	exchange := func(conn net.Conn, first bool) error {
		one := make([]byte, 1)
		if first {
			if _, err := conn.Write([]byte{'q'}); err != nil {
				return err
			}
		}
		if _, err := conn.Read(one); err != nil {
			return err
		}
		if !first {
			_, err := conn.Write([]byte{'a'})
			return err
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(a, server)
		err := conn.Handshake()
		if err == nil {
			err = exchange(conn, false)
		}
		done <- errors.Join(err, a.Close())
	}()
	conn := tls.Client(b, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		// The server may still refuse us: TLS 1.3 tells it only with the first read.
		clientErr = exchange(conn, true)
	}
	clientErr = errors.Join(clientErr, b.Close())
	return <-done, clientErr
}

func TestPins(t *testing.T) {
	agent, peer, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	zero := protocol.Fingerprint{}
	change := func(c *tls.Config, f func(*tls.Config)) *tls.Config { f(c); return c }
	cases := map[string]struct {
		server, client *tls.Config
		ok             bool
		pin            bool // one side says ErrFingerprint
	}{
		"both pins are right": {
			server: protocol.ServerTLS(agent.cert, peer.pin), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), ok: true,
		},
		"the agent expects somebody else": {
			server: protocol.ServerTLS(agent.cert, stranger.pin), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), pin: true,
		},
		"the agent expects nobody": {
			server: protocol.ServerTLS(agent.cert, zero), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), pin: true,
		},
		"the orchestrator expects somebody else": {
			server: protocol.ServerTLS(agent.cert, peer.pin), client: protocol.ClientTLS(peer.cert, stranger.pin, "d"), pin: true,
		},
		"the orchestrator expects nobody": {
			server: protocol.ServerTLS(agent.cert, peer.pin), client: protocol.ClientTLS(peer.cert, zero, "d"), pin: true,
		},
		"the agent lets in two, the peer is the second": {
			server: protocol.ServerTLS(agent.cert, stranger.pin, peer.pin), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), ok: true,
		},
		"the agent lets in nobody at all": {
			server: protocol.ServerTLS(agent.cert), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), pin: true,
		},
		"the second of two is nobody": {
			server: protocol.ServerTLS(agent.cert, stranger.pin, zero), client: protocol.ClientTLS(peer.cert, agent.pin, "d"), pin: true,
		},
		"the agent serves its next certificate": {
			server: protocol.ServerTLS(agent.cert, peer.pin), client: protocol.ClientTLS(peer.cert, stranger.pin, "d", agent.pin), ok: true,
		},
		"the client has no certificate": {
			server: protocol.ServerTLS(agent.cert, peer.pin),
			client: change(protocol.ClientTLS(peer.cert, agent.pin, "d"), func(c *tls.Config) { c.Certificates = nil }),
		},
		"the client speaks TLS 1.2 only": {
			server: protocol.ServerTLS(agent.cert, peer.pin),
			client: change(protocol.ClientTLS(peer.cert, agent.pin, "d"), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
		},
		"the server speaks TLS 1.2 only": {
			server: change(protocol.ServerTLS(agent.cert, peer.pin), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
			client: protocol.ClientTLS(peer.cert, agent.pin, "d"),
		},
		"the client speaks another protocol": {
			server: protocol.ServerTLS(agent.cert, peer.pin),
			client: change(protocol.ClientTLS(peer.cert, agent.pin, "d"), func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
		},
		"the server speaks another protocol": {
			server: change(protocol.ServerTLS(agent.cert, peer.pin), func(c *tls.Config) { c.NextProtos = []string{"stillframe/0"} }),
			client: protocol.ClientTLS(peer.cert, agent.pin, "d"),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var serverErr, clientErr error
			synctest.Test(t, func(t *testing.T) { serverErr, clientErr = meet(t, c.server, c.client) })
			if c.ok {
				if serverErr != nil || clientErr != nil {
					t.Errorf("server: %v, client: %v, want both to succeed", serverErr, clientErr)
				}
				return
			}
			if serverErr == nil || clientErr == nil {
				t.Errorf("server: %v, client: %v, want both to fail", serverErr, clientErr)
			}
			if got := errors.Is(serverErr, protocol.ErrFingerprint) || errors.Is(clientErr, protocol.ErrFingerprint); got != c.pin {
				t.Errorf("server: %v, client: %v, want ErrFingerprint: %t", serverErr, clientErr, c.pin)
			}
		})
	}
}

func TestFingerprintText(t *testing.T) {
	pin := newIdentity(t).pin
	for name, c := range map[string]struct {
		text string
		want protocol.Fingerprint
		bad  bool
	}{
		"its own form":   {text: pin.String(), want: pin},
		"upper case":     {text: strings.ToUpper(pin.String()), want: pin},
		"none":           {},
		"zeros":          {text: strings.Repeat("0", 64), bad: true},
		"too short":      {text: pin.String()[2:], bad: true},
		"too long":       {text: pin.String() + "00", bad: true},
		"not hex":        {text: strings.Repeat("x", 64), bad: true},
		"with a newline": {text: pin.String() + "\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := protocol.ParseFingerprint(c.text); got != c.want || (err != nil) != c.bad {
				t.Errorf("ParseFingerprint(%q) = %v, %v, want %v", c.text, got, err, c.want)
			}
		})
	}
}

func TestIdentitiesDiffer(t *testing.T) {
	a, b := newIdentity(t), newIdentity(t)
	if a.pin == b.pin || a.pin == (protocol.Fingerprint{}) {
		t.Errorf("two identities have the fingerprints %v and %v, want two different ones", a.pin, b.pin)
	}
}

// TestPinsWithoutClocks: certificates between agent and orchestrator are matched by their fingerprints alone. A guest whose
// clock was lost, or one of the two that was set by hours or years, is let in all the same.
func TestPinsWithoutClocks(t *testing.T) {
	const year = 365 * 24 * time.Hour
	offs := []time.Duration{0, -time.Hour, time.Hour, -30 * year, 60 * year}
	for _, agentOff := range offs {
		for _, ourOff := range offs {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				agent, peer := newIdentity(t), newIdentity(t)
				server, client := protocol.ServerTLS(agent.cert, peer.pin), protocol.ClientTLS(peer.cert, agent.pin, "d")
				server.Time = func() time.Time { return now.Add(agentOff) }
				client.Time = func() time.Time { return now.Add(ourOff) }
				if serverErr, clientErr := meet(t, server, client); serverErr != nil || clientErr != nil {
					t.Errorf("the agent's clock off by %v, ours by %v: %v, %v, want none", agentOff, ourOff, serverErr, clientErr)
				}
			})
		}
	}
}
