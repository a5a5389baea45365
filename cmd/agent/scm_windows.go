package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent"
)

// Waiting for a service.
const (
	servicePause = 200 * time.Millisecond // between two looks at its state
	serviceStop  = 5 * time.Second        // from the request to stop to the end of its process
	serviceExit  = 10 * time.Second       // from STOPPED to the end of its process
)

// serviceError gives what the service control manager said its code of the catalogue.
func serviceError(op, name string, err error) error {
	var number windows.Errno
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s the service %s: %w", op, name, err)
	if errors.As(err, &number) {
		return &agent.CodedError{Code: serviceCode(uint32(number)), Err: err}
	}
	return err
}

// withServices runs f with a connection to the service control manager, which needs an administrator.
func withServices(f func(m *mgr.Mgr) error) error {
	m, err := mgr.Connect()
	if err != nil {
		return serviceError("reach the manager of", "agent", err)
	}
	err = f(m)
	return errors.Join(err, m.Disconnect())
}

// installService makes an entry for an own process under LocalSystem. An entry of the same command line is kept; one of
// another is SF3409.
func installService(m *mgr.Mgr, name, exe string, start uint32, args ...string) (*mgr.Service, error) {
	s, err := m.CreateService(name, exe, mgr.Config{
		ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: start, ErrorControl: mgr.ErrorNormal,
		DisplayName: name, Description: "Stillframe's agent: freezes this guest for a backup.",
	}, args...)
	if !errors.Is(err, windows.ERROR_SERVICE_EXISTS) {
		return s, serviceError("install", name, err)
	}
	old, openErr := m.OpenService(name)
	if openErr != nil {
		return nil, serviceError("open", name, openErr)
	}
	words, _, readErr := serviceCommand(old)
	if readErr == nil && slices.Equal(words, append([]string{exe}, args...)) {
		return old, nil
	}
	return nil, errors.Join(serviceError("install", name, err), readErr, old.Close())
}

// removeService deletes an entry; one that is not there, or deleted already, is fine. It goes when its process has ended
// and the last handle is closed.
func removeService(m *mgr.Mgr, name string) error {
	s, err := m.OpenService(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil
	}
	if err != nil {
		return serviceError("open", name, err)
	}
	err = s.Delete()
	if errors.Is(err, windows.ERROR_SERVICE_MARKED_FOR_DELETE) {
		err = nil
	}
	return errors.Join(serviceError("remove", name, err), s.Close())
}

// entry is what the service control manager knows of one of our services.
type entry struct {
	name  string
	exe   string
	start uint32
	pid   uint32 // 0: it does not run
}

// entries lists our services.
func entries(m *mgr.Mgr) ([]entry, error) {
	names, err := m.ListServices()
	if err != nil {
		return nil, serviceError("list", servicePrefix+"*", err)
	}
	var all []entry
	for _, name := range names {
		if len(name) < len(servicePrefix) || !strings.EqualFold(name[:len(servicePrefix)], servicePrefix) {
			continue
		}
		e, err := readEntry(m, name)
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) || errors.Is(err, windows.ERROR_SERVICE_MARKED_FOR_DELETE) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func readEntry(m *mgr.Mgr, name string) (entry, error) {
	e := entry{name: name}
	s, err := m.OpenService(name)
	if err != nil {
		return e, serviceError("open", name, err)
	}
	words, start, err := serviceCommand(s)
	status, statusErr := s.Query()
	if err := errors.Join(err, statusErr, s.Close()); err != nil {
		return e, serviceError("read", name, err)
	}
	if len(words) > 0 {
		e.exe = words[0]
	}
	e.start, e.pid = start, status.ProcessId
	return e, nil
}

// serviceCommand gives the command line of a service, and how it starts. It does without mgr.Service.Config, which asks
// for more than Wine knows.
func serviceCommand(s *mgr.Service) (words []string, start uint32, err error) {
	size := uint32(1 << 10)
	for range 2 {
		buffer := make([]byte, size)
		config := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buffer[0]))
		err = windows.QueryServiceConfig(s.Handle, config, size, &size)
		if err == nil {
			words, err = windows.DecomposeCommandLine(windows.UTF16PtrToString(config.BinaryPathName))
			return words, config.StartType, err
		}
		if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
			break
		}
	}
	return nil, 0, fmt.Errorf("ask for the command line: %w", err)
}

// stopService asks a service to stop and waits for it; false when it still runs at the limit.
func stopService(m *mgr.Mgr, name string, limit time.Duration) (stopped bool, err error) {
	s, err := m.OpenService(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return true, nil
	}
	if err != nil {
		return false, serviceError("open", name, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	_, err = s.Control(svc.Stop)
	if errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return true, nil
	}
	if err != nil && !errors.Is(err, windows.ERROR_SERVICE_CANNOT_ACCEPT_CTRL) { // it is about to start, or to stop
		return false, serviceError("stop", name, err)
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(servicePause) {
		status, err := s.Query()
		if err != nil {
			return false, serviceError("read", name, err)
		}
		if status.State == svc.Stopped {
			return true, nil
		}
	}
	return false, nil
}

// awaitService blocks until the process of a service that was started has ended, and gives its exit status.
func awaitService(s *mgr.Service) (status uint32, err error) {
	var process windows.Handle // 0 as long as its process is not known, or not ours to wait for
	defer func() {
		if process != 0 {
			err = errors.Join(err, windows.CloseHandle(process))
		}
	}()
	for {
		state, err := s.Query()
		if err != nil {
			return 0, serviceError("read", s.Name, err)
		}
		stopped, pause := state.State == svc.Stopped, servicePause
		if stopped {
			pause = serviceExit
		}
		if process == 0 && state.ProcessId != 0 {
			process, err = windows.OpenProcess(windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION, false, state.ProcessId)
			if err != nil {
				process = 0 // its state is all that is seen
			}
		}
		switch {
		case process != 0:
			ended, err := waitProcess(process, pause)
			if err != nil {
				return 0, err
			}
			if ended {
				err := windows.GetExitCodeProcess(process, &status)
				return status, err
			}
			if stopped {
				return 0, fmt.Errorf("the service %s has stopped, its process has not ended", s.Name)
			}
		case stopped && state.ServiceSpecificExitCode != 0:
			return state.ServiceSpecificExitCode, nil
		case stopped:
			return state.Win32ExitCode, nil
		default:
			time.Sleep(pause)
		}
	}
}

// executable is the path of this program.
func executable() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the own executable: %w", err)
	}
	return exe, nil
}
