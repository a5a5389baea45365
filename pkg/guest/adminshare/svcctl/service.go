package svcctl

import "fmt"

// State is what a service does (winsvc.h).
type State uint32

const (
	Stopped         State = 1
	StartPending    State = 2
	StopPending     State = 3
	Running         State = 4
	ContinuePending State = 5
	PausePending    State = 6
	Paused          State = 7
)

func (s State) String() string {
	names := [...]string{"", "stopped", "start pending", "stop pending", "running", "continue pending", "pause pending", "paused"}
	if s == 0 || int(s) >= len(names) {
		return fmt.Sprintf("state %d", uint32(s))
	}
	return names[s]
}

// Status is how a service is (SERVICE_STATUS_PROCESS of winsvc.h).
type Status struct {
	State State
	// Win32Exit is how it ended, or could not start: a number of Windows. ERROR_SERVICE_SPECIFIC_ERROR says that SpecificExit
	// is a number of its own.
	Win32Exit, SpecificExit uint32
	// PID is its process, 0 when there is none.
	PID uint32
}

const (
	controlStop = 1
	// statusSize is that of a SERVICE_STATUS_PROCESS.
	statusSize = 36
	// configSize is the most that may be asked for (MS-SCMR 3.1.4.17), and enough for any command line of ours.
	configSize = 8 << 10
)

// Service is an open service. Close gives it back; the service itself stays as it is.
type Service struct {
	calls  *association
	name   string
	handle handle
	closed bool
}

// Start has the service started, without arguments. Windows answers when its process has reported, or did not within 30 s.
func (s *Service) Start() error {
	r, err := s.calls.ask("start the service "+s.name, callStart, stub{}.handle(s.handle).number(0).null())
	if err != nil {
		return err
	}
	return r.end()
}

// Query asks how the service is.
func (s *Service) Query() (Status, error) {
	op := "query the service " + s.name
	const processInfo = 0 // SC_STATUS_PROCESS_INFO
	r, err := s.calls.ask(op, callQueryStatusEx, stub{}.handle(s.handle).number(processInfo).number(statusSize))
	if err != nil {
		return Status{}, err
	}
	buffer := reply{rest: r.bytes()}
	r.number() // how much is missing
	if err := r.end(); err != nil {
		return Status{}, err
	}
	var fields [statusSize / 4]uint32
	for i := range fields {
		fields[i] = buffer.number()
	}
	if buffer.short {
		return Status{}, s.calls.violation(op, "a status that is not whole")
	}
	return Status{State: State(fields[1]), Win32Exit: fields[3], SpecificExit: fields[4], PID: fields[7]}, nil
}

// ImagePath gives the command line that the service runs.
func (s *Service) ImagePath() (string, error) {
	r, err := s.calls.ask("read the command line of the service "+s.name, callQueryConfig, stub{}.handle(s.handle).number(configSize))
	if err != nil {
		return "", err
	}
	// QUERY_SERVICE_CONFIGW of MS-SCMR 2.2.15: nine fields, and what the five pointers among them point to, in their order.
	var pointers [5]bool
	path := ""
	for i, field := 0, 0; field < 9; field++ {
		n := r.number()
		switch field {
		case 3, 4, 6, 7, 8: // path, group, dependencies, account, display name
			pointers[i] = n != 0
			i++
		}
	}
	for i, there := range pointers {
		if !there {
			continue
		}
		r.align()
		if t := r.text(); i == 0 {
			path = t
		}
	}
	r.number() // how much is missing
	return path, r.end()
}

// Stop asks the service to stop, and does not wait for it. One that does not run gives ERROR_SERVICE_NOT_ACTIVE.
func (s *Service) Stop() error {
	r, err := s.calls.ask("stop the service "+s.name, callControl, stub{}.handle(s.handle).number(controlStop))
	if err != nil {
		return err
	}
	for range 7 { // SERVICE_STATUS
		r.number()
	}
	return r.end()
}

// Delete has the entry removed once the service has stopped and every handle of it is closed, this one included.
func (s *Service) Delete() error {
	r, err := s.calls.ask("delete the service "+s.name, callDelete, stub{}.handle(s.handle))
	if err != nil {
		return err
	}
	return r.end()
}

// Close gives the handle back. It is idempotent.
func (s *Service) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.calls.closeHandle("close the service "+s.name, s.handle)
}
