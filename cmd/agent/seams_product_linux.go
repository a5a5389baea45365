//go:build !lab

package main

import (
	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/fsfreeze"
)

// currentSeams gives the product's values; nothing in the environment changes them.
func currentSeams() seams { return seams{runDir: "/run/stillframe", allMounts: true} }

func newFreezer(s seams, onlyMount []string) agent.Freezer {
	return fsfreeze.New(fsfreeze.Options{
		Bound:  fsfreeze.Bound{OnlyMount: onlyMount, AllMounts: s.allMounts},
		RunDir: s.runDir,
	})
}
