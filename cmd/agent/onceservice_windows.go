package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/windows/svc"
)

// onceFlag makes a service of one command, for those who can have programs run only by the service control manager.
const onceFlag = "--once"

// runOnceService does one of the commands thaw, install and uninstall, as the service that the first of args names. The service's own exit code is
// the command's status. Its entry is left to the one who made it, who reads that code of it and deletes it then; one that nobody
// deleted is a leftover like others.
func runOnceService(args []string, stderr io.Writer) int {
	if len(args) < 2 || !strings.HasPrefix(args[0], servicePrefix) || !isDeployment(args[0]) {
		return say(stderr, exitUsage, fmt.Sprintf("service: %s wants the name of the service, which begins with %s, and a command\n", onceFlag, servicePrefix))
	}
	name, command := args[0], args[1]
	does := map[string]func([]string) int{
		"thaw":      func(args []string) int { return thawAsService(args, name) },
		"install":   func(args []string) int { return runInstall(args, io.Discard, io.Discard) },
		"uninstall": func(args []string) int { return runUninstall(args, io.Discard, io.Discard) },
	}[command]
	if does == nil {
		return say(stderr, exitUsage, fmt.Sprintf("service: %s does thaw, install and uninstall, not %q\n", onceFlag, command))
	}
	h := handler{status: exitFailed, serve: func(context.Context) int { return does(args[2:]) }}
	if err := svc.Run(name, &h); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("service: reach the service control manager: %v\n", err))
	}
	return h.status
}

// thawAsService is runThaw for a service, which neither counts nor ends itself. It is never cut short: it is bounded, and a guest
// may be held until it ends.
func thawAsService(args []string, name string) int {
	exe, err := executable()
	if len(args) > 0 {
		err = errors.Join(err, errors.New("it takes no arguments"))
	}
	var held bool
	if err == nil {
		held, err = endAgents(exe, name, io.Discard)
	}
	switch {
	case err != nil:
		return exitFailed
	case held:
		return exitThawed
	}
	return exitOK
}
