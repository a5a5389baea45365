package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// thawFlag makes a service of the command thaw, for those who can have programs run only by the service control manager.
const thawFlag = "--thaw"

// runThawService does what runThaw does, as the service that args name. The service's own exit code is that of runThaw; its
// entry is removed at the end, and lasts as long as somebody who waits for that code has it open.
func runThawService(args []string, stderr io.Writer) int {
	if len(args) != 1 || !strings.HasPrefix(args[0], servicePrefix) || !isDeployment(args[0]) {
		return say(stderr, exitUsage, fmt.Sprintf("service: %s wants the name of the service, which begins with %s\n", thawFlag, servicePrefix))
	}
	name := args[0]
	h := handler{status: exitFailed, serve: func(context.Context) int { return thawAsService(name) }}
	if err := svc.Run(name, &h); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("service: reach the service control manager: %v\n", err))
	}
	return h.status
}

// thawAsService is never cut short: it is bounded, and a guest may be held until it ends.
func thawAsService(name string) int {
	exe, err := executable()
	var held bool
	if err == nil {
		held, err = endAgents(exe, name, io.Discard)
	}
	err = errors.Join(err, withServices(func(m *mgr.Mgr) error { return removeService(m, name) }))
	switch {
	case err != nil: // as runThaw: what is not certain is no success
		return exitFailed
	case held:
		return exitThawed
	}
	return exitOK
}
