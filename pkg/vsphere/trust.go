package vsphere

import (
	"bytes"
	"context"
	"crypto/sha1" // SHA-1 thumbprints are what vCenter shows; the pin is compared, nothing is signed
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// trust says which certificates are accepted. Its zero value is the system's roots.
type trust struct {
	roots    *x509.CertPool // nil: the system's roots
	pins     [][]byte       // SHA-1 or SHA-256 sums of a leaf certificate
	pinOnly  bool           // the chain is not asked, only the pins
	insecure bool
	now      func() time.Time // nil: this machine's clock
}

// pinError says that a certificate is not the pinned one.
type pinError struct{ got string }

func (e *pinError) Error() string {
	return "certificate is not the pinned one, its SHA-256 thumbprint is " + e.got
}

// newTrust builds the one trust root of an endpoint.
func newTrust(caFile, thumbprint string, insecure bool) (trust, error) {
	switch {
	case insecure:
		return trust{insecure: true}, nil
	case thumbprint != "":
		pin, err := parsePin(thumbprint)
		if err != nil {
			return trust{}, err
		}
		return trust{pins: [][]byte{pin}, pinOnly: true}, nil
	case caFile != "":
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return trust{}, fmt.Errorf("read CA file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return trust{}, fmt.Errorf("read CA file %s: no PEM certificate in it", caFile)
		}
		return trust{roots: pool}, nil
	}
	return trust{}, nil
}

// parsePin reads a SHA-1 (40 digits) or SHA-256 (64 digits) thumbprint in hex, with or without colons.
func parsePin(s string) ([]byte, error) {
	sum, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(s))
	if err != nil {
		return nil, fmt.Errorf("read thumbprint %q: %w", s, err)
	}
	if len(sum) != sha1.Size && len(sum) != sha256.Size {
		return nil, fmt.Errorf("read thumbprint %q: %d hex digits, want 40 (SHA-1) or 64 (SHA-256)", s, 2*len(sum))
	}
	return sum, nil
}

// forHost is the trust for another host of the same vCenter: the endpoint's rule, or the thumbprint that vCenter tells of
// that host. Where the endpoint itself is trusted by a pin, only the host's thumbprint counts.
func (t trust) forHost(thumbprint string) (trust, error) {
	if t.insecure {
		return t, nil
	}
	h := trust{roots: t.roots, pinOnly: t.pinOnly, now: t.now}
	if thumbprint == "" {
		return h, nil
	}
	pin, err := parsePin(thumbprint)
	if err != nil {
		return trust{}, err
	}
	h.pins = [][]byte{pin}
	return h, nil
}

// config is the TLS client configuration for one server name. The pin is checked in the same handshake.
func (t trust) config(name string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: t.roots, Time: t.now}
	if t.insecure {
		c.InsecureSkipVerify = true // asked for explicitly: Options.Insecure
		return c
	}
	if !t.pinOnly && len(t.pins) == 0 {
		return c
	}
	c.InsecureSkipVerify = true // VerifyConnection below replaces the chain check
	c.VerifyConnection = func(s tls.ConnectionState) error { return t.verify(name, s.PeerCertificates) }
	return c
}

// verify checks pins first, then the chain unless only pins count.
func (t trust) verify(name string, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return &pinError{got: "missing"}
	}
	leaf := chain[0]
	long, short := sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw)
	for _, p := range t.pins {
		if bytes.Equal(p, long[:]) || bytes.Equal(p, short[:]) {
			return nil
		}
	}
	if t.pinOnly || name == "" {
		return &pinError{got: hex.EncodeToString(long[:])}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	options := x509.VerifyOptions{DNSName: name, Roots: t.roots, Intermediates: between}
	if t.now != nil {
		options.CurrentTime = t.now()
	}
	_, err := leaf.Verify(options)
	return err
}

// dial opens one TLS connection, bounded by dialLimit and handshakeLimit as well as by ctx. govmomi's own dialer ignores
// its context and has no limit.
func (t trust) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("split address: %w", err)
	}
	raw, err := newDialer().DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeLimit, errHandshakeLimit)
	defer cancel()
	conn := tls.Client(raw, t.config(host))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("shake hands with %s: %w", addr, errors.Join(err, raw.Close()))
	}
	return conn, nil
}

func newDialer() *net.Dialer { return &net.Dialer{Timeout: dialLimit, KeepAlive: dialKeepAlive} }
