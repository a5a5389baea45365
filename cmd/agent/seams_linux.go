package main

import "time"

// seams are the places where a build tagged lab differs from the product.
type seams struct {
	runDir     string        // where the list of armed mounts lies
	homeDir    string        // of a persistent agent
	systemd    systemd       // where units are kept, and who is told
	vmUUID     string        // empty: the one of the firmware
	listenHost string        // empty: all addresses
	idle       time.Duration // 0: the agent's own
	// onlyMount is one more allow-list.
	onlyMount []string
	// allMounts says that without any allow-list everything that can be frozen may be.
	allMounts bool
	// hooksDir is the folder of the hooks, empty for none; hooksOwner the user that they belong to besides root.
	hooksDir   string
	hooksOwner uint32
	// freezer is the address of a scripted freezer; empty: real file systems.
	freezer string
	// bootID is the guest's boot id; empty: the kernel's.
	bootID string
	// lie, prepare and release are the lab's: what the agent lies about, and how long its scripted freezer takes to prepare
	// and to release.
	lie                      string
	prepare, freeze, release time.Duration
	// toGuest and fromGuest are what the lab does to frames.
	toGuest, fromGuest string
}
