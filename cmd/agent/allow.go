package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// addAllowed is the flag --allow: addresses of the orchestrator, apart by commas; it may be repeated.
func (s *settings) addAllowed(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" || address.IsUnspecified() || address.IsMulticast() {
			return fmt.Errorf("%.50q is not an address that somebody can come from", text)
		}
		s.allow = append(s.allow, address.Unmap())
	}
	return nil
}
