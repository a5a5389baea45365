package guest

import (
	"net"
	"net/netip"
	"slices"
)

// OwnAddresses are those of this machine from which it reaches the guest's addresses, as its routes say: nothing is sent. A
// guest behind a translation of addresses sees others.
func OwnAddresses(of []string) []netip.Addr {
	var own []netip.Addr
	for _, address := range of {
		guest, err := netip.ParseAddr(address)
		if err != nil {
			continue
		}
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(guest, DefaultPort)))
		if err != nil {
			continue // there is no route
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		if conn.Close() == nil && !slices.Contains(own, local) {
			own = append(own, local)
		}
	}
	return own
}
