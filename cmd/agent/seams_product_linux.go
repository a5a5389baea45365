//go:build !lab

package main

import (
	"net"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/fsfreeze"
)

// currentSeams gives the product's values; nothing in the environment changes them.
func currentSeams() seams {
	return seams{
		runDir: "/run/stillframe", homeDir: defaultHome, systemd: systemOfUnits, allMounts: true, hooksDir: "/etc/stillframe/hooks.d",
	}
}

// masked is the listener itself: only agents of the lab lie.
func masked(_ seams, l net.Listener) net.Listener { return l }

func newFreezer(s seams, onlyMount []string) agent.Freezer {
	return fsfreeze.New(fsfreeze.Options{
		Bound:  fsfreeze.Bound{OnlyMount: onlyMount, AllMounts: s.allMounts},
		RunDir: s.runDir,
	})
}

var systemOfUnits = systemd{booted: "/run/systemd/system", units: "/etc/systemd/system", systemctl: "systemctl"}
