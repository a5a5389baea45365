// Package svcctl controls the services of a Windows machine over a pipe to its service control manager.
//
// It speaks MS-SCMR in DCE/RPC version 5. RPC itself does not authenticate: whoever opened the pipe did, over SMB, which also
// signs what goes through it. That real Windows takes this on the pipe, as it does of the classic tools, is unproved for
// Windows Server 2025.
//
// Calls block until the pipe answers; the owner of the connection closes it to end them. After an error of the pipe or a
// *Violation no further call is tried, since a late answer could be taken for another one's.
package svcctl

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"
)

// Numbers of the calls (MS-SCMR 3.1.4).
const (
	callClose         = 0
	callControl       = 1
	callDelete        = 2
	callCreate        = 12
	callEnum          = 14
	callOpenManager   = 15
	callOpenService   = 16
	callQueryConfig   = 17
	callStart         = 19
	callQueryStatusEx = 40
)

const (
	// managerAccess is SC_MANAGER_CONNECT, CREATE_SERVICE and ENUMERATE_SERVICE (MS-SCMR 3.1.4).
	managerAccess = 0x1 | 0x2 | 0x4
	// serviceAccess is SERVICE_QUERY_CONFIG, QUERY_STATUS, START, STOP and DELETE: all that a Service does.
	serviceAccess = 0x1 | 0x4 | 0x10 | 0x20 | 0x10000
)

// A service as we make it (MS-SCMR 3.1.4.12): a process of its own, started on demand, whose failure does not trouble the
// machine's start.
const (
	ownProcess  = 0x10
	demandStart = 3
	errorIgnore = 0
)

const (
	// enumTypes and enumStates ask for services that are no drivers, in any state (MS-SCMR 3.1.4.15).
	enumTypes, enumStates = 0x30, 3
	// enumBuffer is what one call lists into, enumCalls how many there are at most: some 30,000 services.
	enumBuffer, enumCalls = 64 << 10, 64
	// enumEntry is the size of an ENUM_SERVICE_STATUSW on the wire: two offsets and a status.
	enumEntry = 36
	// nameUnits is the longest name of a service in UTF-16 (MS-SCMR 3.1.4.12).
	nameUnits = 256
)

// handle is a context handle: an opaque number of the peer's.
type handle [20]byte

// Manager is an open service control manager. It and its services are for one caller at a time.
type Manager struct {
	calls  *association
	handle handle
	closed bool
}

// Open binds the pipe and opens the service control manager for connecting, creating and listing. The pipe stays the
// caller's, who closes it after the manager. A read of the pipe asks for up to 64 KiB and must return what is there. Errors
// are *Error, *Fault and *Violation, and those of the pipe.
func Open(pipe io.ReadWriter) (*Manager, error) {
	calls, err := bind(pipe)
	if err != nil {
		return nil, err
	}
	const op = "open the service control manager"
	r, err := calls.ask(op, callOpenManager, stub{}.null().null().number(managerAccess))
	if err != nil {
		return nil, err
	}
	m := &Manager{calls: calls, handle: r.handle()}
	if err := r.end(); err != nil {
		return nil, err
	}
	return m, nil
}

// ask makes a call and gives its reply for reading.
func (a *association) ask(op string, number uint16, s stub) (*reply, error) {
	out, err := a.call(op, number, s)
	return &reply{calls: a, op: op, rest: out}, err
}

// Create makes the entry of a service that runs the command line path as LocalSystem in a process of its own, started on
// demand. The caller quotes a program with blanks in its path. The entry stays when m is closed.
func (m *Manager) Create(name, display, path string) (*Service, error) {
	op := "create the service " + name
	if nul(name) || nul(display) || nul(path) {
		return nil, fmt.Errorf("%s: a name or path with a NUL", op)
	}
	s := stub{}.handle(m.handle).text(name).pointer().text(display).number(serviceAccess)
	s = s.number(ownProcess).number(demandStart).number(errorIgnore).text(path)
	s = s.null().null()    // neither group nor tag
	s = s.null().number(0) // no dependencies
	s = s.null()           // LocalSystem,
	s = s.null().number(0) // which has no password
	r, err := m.calls.ask(op, callCreate, s)
	if err != nil {
		return nil, err
	}
	if r.number() != 0 { // the tag that nobody asked for
		r.number()
	}
	return m.service(name, r)
}

// service takes the handle that a reply brought.
func (m *Manager) service(name string, r *reply) (*Service, error) {
	s := &Service{calls: m.calls, name: name, handle: r.handle()}
	if err := r.end(); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenService opens a service of ours for all that a Service does. Windows refuses that for some of its own services.
func (m *Manager) OpenService(name string) (*Service, error) {
	op := "open the service " + name
	if nul(name) {
		return nil, fmt.Errorf("%s: a name with a NUL", op)
	}
	r, err := m.calls.ask(op, callOpenService, stub{}.handle(m.handle).text(name).number(serviceAccess))
	if err != nil {
		return nil, err
	}
	return m.service(name, r)
}

// List gives the names of all services.
func (m *Manager) List() ([]string, error) {
	const op = "list the services"
	var names []string
	resume := uint32(0)
	for range enumCalls {
		s := stub{}.handle(m.handle).number(enumTypes).number(enumStates).number(enumBuffer).pointer().number(resume)
		r, err := m.calls.ask(op, callEnum, s)
		if err != nil {
			return nil, err
		}
		buffer := r.bytes()
		r.number() // how much is missing
		count, next := r.number(), resume
		if r.number() != 0 {
			next = r.number()
		}
		err = r.end()
		more := Win32(err) == errorMoreData
		if err != nil && !more {
			return nil, err
		}
		some, wrong := listed(buffer, count)
		if wrong != "" {
			return nil, m.calls.violation(op, "%s", wrong)
		}
		names = append(names, some...)
		if !more {
			return names, nil
		}
		if count == 0 || next == resume {
			return nil, m.calls.violation(op, "a list that does not go on")
		}
		resume = next
	}
	return nil, fmt.Errorf("%s: there are more than %d", op, len(names))
}

// listed reads the names of count services in a buffer, which holds offsets into itself. wrong is what is wrong with it.
func listed(buffer []byte, count uint32) (names []string, wrong string) {
	if uint64(count)*enumEntry > uint64(len(buffer)) {
		return nil, fmt.Sprintf("%d services in %d bytes", count, len(buffer))
	}
	for i := range int(count) {
		at := binary.LittleEndian.Uint32(buffer[i*enumEntry:])
		if uint64(at) >= uint64(len(buffer)) {
			return nil, "a name outside its buffer"
		}
		name := text(buffer[at:min(int(at)+2*nameUnits+2, len(buffer))])
		if name == "" || len(utf16.Encode([]rune(name))) > nameUnits {
			return nil, "a service's name of no proper length"
		}
		names = append(names, name)
	}
	return names, ""
}

// Close gives the manager's handle back; the pipe stays open. It is idempotent.
func (m *Manager) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	return m.calls.closeHandle("close the service control manager", m.handle)
}

func (a *association) closeHandle(op string, h handle) error {
	r, err := a.ask(op, callClose, stub{}.handle(h))
	if err != nil {
		return err
	}
	r.handle() // nothing any more
	return r.end()
}
