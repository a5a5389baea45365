package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// runLauncher has a service serve, because VSS wants a requestor under LocalSystem that no session's end touches. It
// lasts as long as the service, so that the one who started it sees the end, and may be killed: the service goes on and
// removes itself. The service writes the ready file; the launcher does only when there is no service.
func runLauncher(args []string, stdout, stderr io.Writer) int {
	args, detached := withoutDetach(args)
	s, err := parseSettings(args)
	if err == nil && len(s.onlyMount) > 0 {
		err = errors.New("--only-mount is of Linux")
	}
	if err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("run: %v\n%s", err, usage))
	}
	if detached {
		return runDetached(s, args, stdout, stderr)
	}
	status := exitFailed
	err = withServices(func(m *mgr.Mgr) error {
		status, err = launch(m, s, args)
		return err
	})
	if err != nil {
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	return status
}

// launch installs and starts the service, waits for its end and removes it.
func launch(m *mgr.Mgr, s settings, args []string) (int, error) {
	ready, name := readyFile{s.readyFile}, servicePrefix+s.deployment
	exe, err := executable()
	if err != nil {
		return exitFailed, errors.Join(err, ready.write(errorLine(err)))
	}
	service, err := installService(m, name, exe, mgr.StartManual, serviceWords(args)...)
	if err != nil {
		return exitFailed, errors.Join(err, ready.write(errorLine(err)))
	}
	err = service.Start()
	if errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		err = nil
	}
	if err != nil {
		err = serviceError("start", name, err)
		told := ready.write(errorLine(err))
		if errors.Is(told, fs.ErrExist) {
			told = nil // by the service itself
		}
		return exitFailed, errors.Join(err, told, service.Close(), removeService(m, name))
	}
	status, err := awaitService(service)
	if len(s.allow) > 0 { // of a service that was killed
		err = errors.Join(err, forgetRules(name))
	}
	return int(status), errors.Join(err, service.Close(), removeService(m, name))
}
