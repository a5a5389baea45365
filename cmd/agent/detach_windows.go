package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// detachFlag has the launcher leave once the service has said how its start went: for those whose processes end with the
// session that starts them, as those of WinRM do.
const detachFlag = "--detach"

// withoutDetach drops the flag, which the service is not started with, and says whether it was there.
func withoutDetach(args []string) (rest []string, detached bool) {
	rest = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == detachFlag })
	return rest, len(rest) < len(args)
}

// runDetached starts the service, prints what it says in its ready file, and leaves it to itself. It blocks for at most
// readyLimit and the end of a service that does not get ready.
func runDetached(s settings, args []string, stdout, stderr io.Writer) int {
	var line string
	err := elevated("SF3103")
	if err == nil {
		err = withServices(func(m *mgr.Mgr) (err error) {
			line, err = launchDetached(m, s, args)
			return err
		})
	}
	if err != nil {
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	if !strings.HasPrefix(line, "READY ") {
		return say(stdout, exitFailed, line)
	}
	return say(stdout, exitOK, line)
}

// launchDetached gives the line of the ready file. A service that is silent is ended and removed: nobody would know whom
// to speak to.
func launchDetached(m *mgr.Mgr, s settings, args []string) (line string, err error) {
	name := servicePrefix + s.deployment
	exe, err := executable()
	if err != nil {
		return "", err
	}
	service, err := installService(m, name, exe, mgr.StartManual, serviceWords(args)...)
	if err != nil {
		return "", err
	}
	err = service.Start()
	if errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		err = nil
	}
	if err = serviceError("start", name, err); err == nil {
		line, err = awaitReady(service, s.readyFile)
	}
	err = errors.Join(err, service.Close())
	if err != nil {
		err = errors.Join(err, endService(m, name))
		if len(s.allow) > 0 {
			err = errors.Join(err, forgetRules(name))
		}
	}
	return line, err
}

// serviceWords is the command line of the service that serves with the flags of run.
func serviceWords(args []string) []string {
	return append(giveSeams(), append([]string{"service", serviceFlag}, args...)...)
}

// awaitReady waits for what a service that was started says in its ready file; one that ends without a word is an error.
func awaitReady(service *mgr.Service, path string) (string, error) {
	for end := time.Now().Add(readyLimit); time.Now().Before(end); time.Sleep(servicePause) {
		status, err := service.Query() // before the file: a service that ends writes it first
		if err != nil {
			return "", serviceError("read", service.Name, err)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			return string(text), nil
		}
		if errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
			continue // the service is writing it
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("read what the service %s says: %w", service.Name, err)
		}
		if status.State == svc.Stopped {
			return "", fmt.Errorf("the service %s has ended without a word, status %d", service.Name, status.ServiceSpecificExitCode)
		}
	}
	return "", fmt.Errorf("the service %s is not ready after %v", service.Name, readyLimit)
}
