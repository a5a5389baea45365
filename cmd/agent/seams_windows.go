package main

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vss"
)

// seams are the places where a build tagged lab differs from the product.
type seams struct {
	vmUUID     string        // empty: the one of the firmware
	listenHost string        // empty: all addresses
	idle       time.Duration // 0: the agent's own
	bootID     string        // empty: the system's
	vss        vss.Seams     // what Wine does not have
	filtered   bool          // UAC has filtered the token, which Wine never does
}
