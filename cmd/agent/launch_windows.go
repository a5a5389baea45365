package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent"
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
	if err := elevated("SF3104"); err != nil {
		return say(stderr, exitFailed, errorLine(errors.Join(err, readyFile{s.readyFile}.write(errorLine(err))))+"\n")
	}
	err = withServices(func(m *mgr.Mgr) error {
		status, err = launch(m, s, args)
		return err
	})
	if err != nil {
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	return status
}

// elevated refuses a token that UAC has filtered, as Windows' services would with less to say: code is that of the way by which
// the token came. A token that cannot be read is left to them.
func elevated(code string) error {
	t, err := ownToken()
	if err != nil {
		return nil
	}
	if _, err := fitToken(t); err != nil {
		return &agent.CodedError{Code: code, Err: err}
	}
	return nil
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
