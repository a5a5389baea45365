package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	// agentPort is the port at which agents listen by default.
	agentPort = 6465
	// addressDraws bounds the search for a free pair of addresses.
	addressDraws = 100
)

// addresses draws a pair of loopback addresses of 127.64.0.0/10 with a free agent port: outside is what vCenter tells,
// inside is where the agent binds. They are drawn at random, so that several labs can run on one machine.
func addresses(ctx context.Context) (outside, inside string, err error) {
	for range addressDraws {
		b, c, d := byte(64+rand.IntN(64)), byte(rand.IntN(256)), byte(1+rand.IntN(126))
		outside, inside = net.IPv4(127, b, c, d).String(), net.IPv4(127, b, c, d+127).String()
		if err = errors.Join(free(ctx, outside), free(ctx, inside)); err == nil {
			return outside, inside, nil
		}
	}
	return "", "", fmt.Errorf("find a free pair of loopback addresses in %d draws: %w", addressDraws, err)
}

func free(ctx context.Context, host string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", agentAt(host))
	if err != nil {
		return err
	}
	return l.Close()
}

func agentAt(host string) string { return net.JoinHostPort(host, strconv.Itoa(agentPort)) }
