package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// identityLife bounds a session: 24 h of transfer, and what comes before and after.
const identityLife = 26 * time.Hour

// listen opens the control port on the address host, empty for all, and gives the port that the system chose for 0. It
// does without names, whose resolver would weigh a quarter of a megabyte.
func listen(host string, port int, config *tls.Config) (net.Listener, int, error) {
	address := net.TCPAddr{IP: net.ParseIP(host), Port: port}
	if address.IP == nil && host != "" {
		return nil, 0, fmt.Errorf("listen: %q is no address", host)
	}
	l, err := net.ListenTCP("tcp", &address)
	if err != nil {
		code := "SF3703"
		if errors.Is(err, addressInUse) {
			code = "SF3705"
		}
		return nil, 0, &agent.CodedError{Code: code, Err: fmt.Errorf("listen: %w", err)}
	}
	return tls.NewListener(l, config), l.Addr().(*net.TCPAddr).Port, nil
}
