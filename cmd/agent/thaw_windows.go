package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// endLimit bounds the end of a process after it was terminated.
const endLimit = 5 * time.Second

// runThaw ends every other process of this executable, the services by the service control manager first, so that they
// release, abort and revoke by themselves, and say whether they held. When a process that holds has to be terminated, VSS
// sees its provider and its requestor die and releases the writers; it is taken for one that held.
func runThaw(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		return say(stderr, exitUsage, "thaw: it takes no arguments\n")
	}
	exe, err := executable()
	var held bool
	if err == nil {
		held, err = endAgents(exe, "", stdout)
	}
	switch {
	case err != nil:
		return say(stderr, exitFailed, fmt.Sprintf("thaw: %v\n", err))
	case held:
		return say(stdout, exitThawed, "the agent held the guest, and was ended\n")
	}
	return exitOK
}

// endAgents ends the other processes of exe, says whether one of them held, and removes what they registered. own is the
// service that this process is of, empty for none.
func endAgents(exe, own string, stdout io.Writer) (held bool, err error) {
	before, err := processesOf(exe)
	if err != nil {
		return false, err
	}
	var processes []windows.Handle
	for _, pid := range before {
		process, openErr := openProcess(pid)
		if err = errors.Join(err, openErr); process != 0 {
			processes = append(processes, process)
		}
	}
	stopped := false // what is left of a service that has stopped is its launcher, which holds nothing
	err = errors.Join(err, withServices(func(m *mgr.Mgr) (err error) {
		stopped, err = stopServices(m, exe, own, stdout)
		return err
	}))
	for _, process := range processes {
		status, forced, endErr := endOpened(process, exe, endLimit)
		held = held || status == exitThawed || forced && !stopped
		err = errors.Join(err, endErr, windows.CloseHandle(process))
	}
	err = errors.Join(err, withServices(func(m *mgr.Mgr) error { return removeRegistration(m, exe) }))
	if ruleErr := forgetRulesOf(exe); ruleErr != nil { // nothing is held any more, which is what was asked
		say(stdout, exitOK, "note: "+ruleErr.Error()+"\n")
	}
	return held, err
}

// stopServices stops the services of exe other than own, removes those that a launcher made, and says whether all that ran
// have stopped.
func stopServices(m *mgr.Mgr, exe, own string, stdout io.Writer) (all bool, err error) {
	list, err := entries(m)
	ran, stopped := 0, 0
	for _, e := range list {
		if !sameFile(e.exe, exe) || strings.EqualFold(e.name, own) {
			continue
		}
		if e.pid != 0 {
			ran++
			ended, stopErr := stopService(m, e.name, serviceStop)
			err = errors.Join(err, stopErr)
			if ended {
				stopped++
			} else {
				say(stdout, exitOK, e.name+": it does not stop, and is terminated\n")
			}
		}
		if e.start == mgr.StartManual {
			err = errors.Join(err, removeService(m, e.name))
		}
	}
	return ran > 0 && stopped == ran, err
}
