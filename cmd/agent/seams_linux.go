package main

import "time"

// seams are the places where a build tagged lab differs from the product.
type seams struct {
	runDir     string        // where the list of armed mounts lies
	vmUUID     string        // empty: the one of the firmware
	listenHost string        // empty: all addresses
	idle       time.Duration // 0: the agent's own
	// onlyMount is one more allow-list.
	onlyMount []string
	// allMounts says that without any allow-list everything that can be frozen may be.
	allMounts bool
	// freezer is the address of a scripted freezer; empty: real file systems.
	freezer string
}
