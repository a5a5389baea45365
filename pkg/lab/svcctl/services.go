package svcctl

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Services does what a service control manager is asked for. Its errors are a Win32, or anything else for a machine that
// does not answer. It is called by several at once, and each call blocks until it is done.
type Services interface {
	Create(name, display, path string) error
	Start(name string) error
	Query(name string) (Status, error)
	Stop(name string) error
	Delete(name string) error
	Config(name string) (Config, error)
	List() ([]Entry, error)
}

// Win32 is a number of Windows.
type Win32 uint32

func (w Win32) Error() string { return fmt.Sprintf("Windows error %d", uint32(w)) }

// What a service control manager refuses with (winerror.h).
const (
	ERROR_ACCESS_DENIED             Win32 = 5
	ERROR_INVALID_HANDLE            Win32 = 6
	ERROR_GEN_FAILURE               Win32 = 31
	ERROR_INVALID_PARAMETER         Win32 = 87
	ERROR_INSUFFICIENT_BUFFER       Win32 = 122
	ERROR_INVALID_LEVEL             Win32 = 124
	ERROR_MORE_DATA                 Win32 = 234
	ERROR_SERVICE_ALREADY_RUNNING   Win32 = 1056
	ERROR_SERVICE_DOES_NOT_EXIST    Win32 = 1060
	ERROR_SERVICE_NOT_ACTIVE        Win32 = 1062
	ERROR_SERVICE_MARKED_FOR_DELETE Win32 = 1072
	ERROR_SERVICE_EXISTS            Win32 = 1073
)

// Status is a SERVICE_STATUS_PROCESS (winsvc.h).
type Status struct {
	Type, State, Accepted, Win32Exit, SpecificExit, CheckPoint, WaitHint, PID, Flags uint32
}

// Config is what a service is made of, as far as a client reads it.
type Config struct {
	Type, Start, ErrorControl uint32
	Path, Account, Display    string
}

// Entry is a service in a list.
type Entry struct {
	Name, Display string
	Status        Status
}

// States of a service (winsvc.h).
const (
	stopped = 1
	running = 4
)

// Table are services that run nothing: a start makes one "running" with a process id that no process has. It is credible for
// the order of calls, and for the errors of names that are there, not there, running and stopped.
type Table struct {
	mu      sync.Mutex
	entries []tableEntry
	pid     uint32
}

type tableEntry struct {
	Entry
	path string
}

var _ Services = (*Table)(nil)

func (t *Table) find(name string) (*tableEntry, error) {
	i := slices.IndexFunc(t.entries, func(e tableEntry) bool { return strings.EqualFold(e.Name, name) })
	if i < 0 {
		return nil, ERROR_SERVICE_DOES_NOT_EXIST
	}
	return &t.entries[i], nil
}

// Create adds a stopped service.
func (t *Table) Create(name, display, path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.find(name); err == nil {
		return ERROR_SERVICE_EXISTS
	}
	t.entries = append(t.entries, tableEntry{Entry{name, display, Status{Type: ownProcess, State: stopped}}, path})
	return nil
}

// Start makes a service running.
func (t *Table) Start(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return err
	}
	if e.Status.State == running {
		return ERROR_SERVICE_ALREADY_RUNNING
	}
	t.pid += 4
	e.Status = Status{Type: ownProcess, State: running, Accepted: 1, PID: t.pid}
	return nil
}

// Query tells how a service is.
func (t *Table) Query(name string) (Status, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return Status{}, err
	}
	return e.Status, nil
}

// Stop makes a service stopped at once.
func (t *Table) Stop(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return err
	}
	if e.Status.State != running {
		return ERROR_SERVICE_NOT_ACTIVE
	}
	e.Status = Status{Type: ownProcess, State: stopped}
	return nil
}

// Delete removes a service at once, running or not.
func (t *Table) Delete(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.find(name); err != nil {
		return err
	}
	t.entries = slices.DeleteFunc(t.entries, func(e tableEntry) bool { return strings.EqualFold(e.Name, name) })
	return nil
}

// Config tells what a service is made of.
func (t *Table) Config(name string) (Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return Config{}, err
	}
	return Config{Type: ownProcess, Start: demandStart, Path: e.path, Account: "LocalSystem", Display: e.Display}, nil
}

// List gives all services in the order in which they were made.
func (t *Table) List() ([]Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Entry
	for _, e := range t.entries {
		all = append(all, e.Entry)
	}
	return all, nil
}
