package main

import (
	"errors"

	"golang.org/x/sys/windows/svc/mgr"
)

// removeLeftovers deletes the entries of agents that are gone: demand-start services of ours, other than own, whose
// program nobody runs, not even a launcher that is about to start it. It gives the names of those that it deleted.
func removeLeftovers(m *mgr.Mgr, own string) (gone []string, err error) {
	all, err := entries(m)
	for _, e := range all {
		if e.name == own || e.pid != 0 || e.start != mgr.StartManual {
			continue
		}
		pids, lookErr := processesOf(e.exe)
		if lookErr == nil && len(pids) == 0 {
			lookErr = removeService(m, e.name)
			gone = append(gone, e.name)
		}
		err = errors.Join(err, lookErr)
	}
	return gone, err
}
