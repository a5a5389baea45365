package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// persistentFlag follows serviceFlag on the command line of the persistent agent's service.
const persistentFlag = "--persistent"

// readyLimit is how long a service that was started may take to say how its start went.
const readyLimit = 30 * time.Second

// persistentArgs gives the flags that `run` would have.
func persistentArgs(args []string) ([]string, error) {
	dir, err := persistentDir()
	return append(args, "--deployment", persistent, "--ready-file", filepath.Join(dir, readyFileName)), err
}

// runInstall makes this executable, where it lies, the persistent agent of one orchestrator, and prints what the agent
// says when it is ready. An older installation is replaced; the identity stays.
func runInstall(args []string, stdout, stderr io.Writer) int {
	full, err := persistentArgs(args)
	if err == nil {
		_, err = parseSettings(full)
	}
	if err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("install: %v\n%s", err, usage))
	}
	line, err := install(args)
	if err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("install: %s\n", errorLine(err)))
	}
	status := exitOK
	if !strings.HasPrefix(line, "READY ") {
		status = exitFailed
	}
	return max(status, say(stdout, status, line))
}

func install(args []string) (line string, err error) {
	exe, err := executable()
	if err != nil {
		return "", err
	}
	dir, err := persistentDir()
	if err != nil {
		return "", err
	}
	name, ready := servicePrefix+persistent, readyFile{filepath.Join(dir, readyFileName)}
	err = withServices(func(m *mgr.Mgr) error {
		if err := endService(m, name); err != nil {
			return err
		}
		if err := errors.Join(makeHome(dir), ready.remove()); err != nil {
			return err
		}
		s, err := installService(m, name, exe, mgr.StartAutomatic, serviceWords(append([]string{persistentFlag}, args...))...)
		if err != nil {
			return err
		}
		if err = serviceError("start", name, s.Start()); err == nil {
			line, err = awaitReady(s, ready.path)
		}
		return errors.Join(err, s.Close())
	})
	return line, err
}

// runUninstall removes all that install and the agent made, but not the executable. It may be repeated.
func runUninstall(args []string, _, stderr io.Writer) int {
	if len(args) > 0 {
		return say(stderr, exitUsage, "uninstall: it takes no arguments\n")
	}
	exe, err := executable()
	dir, dirErr := persistentDir()
	if err = errors.Join(err, dirErr); err == nil {
		err = withServices(func(m *mgr.Mgr) error {
			return errors.Join(endService(m, servicePrefix+persistent), removeRegistration(m, exe), forgetRules(servicePrefix+persistent))
		})
	}
	if err == nil {
		err = removeHome(dir)
	}
	if err == nil { // the folder above may hold pushed agents
		err = os.Remove(filepath.Dir(dir))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, windows.ERROR_DIR_NOT_EMPTY) {
			err = nil
		}
	}
	if err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("uninstall: %v\n", err))
	}
	return exitOK
}

// endService stops a service, ends its process if it does not stop, and deletes its entry.
func endService(m *mgr.Mgr, name string) error {
	all, err := entries(m)
	if err != nil {
		return err
	}
	for _, e := range all {
		if !strings.EqualFold(e.name, name) {
			continue
		}
		if e.pid != 0 {
			if _, err := stopService(m, name, serviceStop); err != nil {
				return err
			}
			if err := endProcess(e.pid, e.exe, endLimit); err != nil {
				return err
			}
		}
	}
	return removeService(m, name)
}
