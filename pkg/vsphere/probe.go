package vsphere

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Probe is what one connection to a server showed.
type Probe struct {
	// Address is host:port.
	Address string
	// Thumbprint is the SHA-256 of the server's certificate in hex, NotAfter its end; empty over plain http.
	Thumbprint string
	NotAfter   time.Time
}

var errNoHost = errors.New("vCenter does not say which host runs the VM")

// Probe connects once more to the endpoint itself, under its own trust. An untrusted certificate is SF2003, one that is not
// valid now SF2011, no answer SF2004.
func (e *Endpoint) Probe(ctx context.Context) (Probe, error) {
	u := e.vim.URL()
	address := net.JoinHostPort(u.Hostname(), port(u))
	if u.Scheme == "http" {
		return Probe{Address: address}, nil // the session has just used it
	}
	return probe(ctx, e.trust, address)
}

// ProbeHost connects to the ESXi host that guest file transfers of the VM go to, under the trust that they use. A direct
// ESXi endpoint is that host itself. An untrusted certificate is SF2003, no answer SF3612.
func (e *Endpoint) ProbeHost(ctx context.Context, vm inventory.VM) (Probe, error) {
	if e.IsHost() {
		return e.Probe(ctx)
	}
	host, err := e.HostOf(ctx, vm)
	if err != nil {
		return Probe{}, err
	}
	trust, err := e.trust.forHost(host.Thumbprint)
	if err != nil {
		return Probe{}, failure("read the thumbprint of the host of", vm.Name, err)
	}
	found, err := probe(ctx, trust, host.Address)
	var known *Error
	if errors.As(err, &known) && known.SF == "SF2004" {
		known.SF = "SF3612"
	}
	return found, err
}

func probe(ctx context.Context, t trust, address string) (Probe, error) {
	found := Probe{Address: address}
	conn, err := t.dial(ctx, "tcp", address)
	if err != nil {
		return found, failure("connect to", address, err)
	}
	if c, ok := conn.(*tls.Conn); ok {
		if chain := c.ConnectionState().PeerCertificates; len(chain) > 0 {
			sum := sha256.Sum256(chain[0].Raw)
			found.Thumbprint, found.NotAfter = hex.EncodeToString(sum[:]), chain[0].NotAfter
		}
	}
	return found, conn.Close()
}
