package guest

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"
)

// probeLimit bounds the look at a port.
const probeLimit = time.Second

// Probe dials each port at each address at once, within a second, and gives for each port the addresses that took the
// connection, in their order.
func Probe(ctx context.Context, addresses []string, ports ...uint16) map[uint16][]string {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	taken := make([]bool, len(addresses)*len(ports))
	var group sync.WaitGroup
	for i, port := range ports {
		for j, address := range addresses {
			group.Go(func() {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
				if err != nil {
					return
				}
				taken[i*len(addresses)+j] = conn.Close() == nil
			})
		}
	}
	group.Wait()
	open := map[uint16][]string{}
	for i, port := range ports {
		for j, address := range addresses {
			if taken[i*len(addresses)+j] {
				open[port] = append(open[port], address)
			}
		}
	}
	return open
}
