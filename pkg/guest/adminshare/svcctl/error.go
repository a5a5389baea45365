package svcctl

import (
	"errors"
	"fmt"
)

// ErrTooLong is returned for a request that does not fit into one PDU, such as one with a very long path. Nothing was sent.
var ErrTooLong = errors.New("the request is too long")

// What the service control manager says that callers branch on (winerror.h).
const (
	ERROR_ACCESS_DENIED             = 5
	ERROR_SERVICE_ALREADY_RUNNING   = 1056
	ERROR_SERVICE_DOES_NOT_EXIST    = 1060
	ERROR_SERVICE_NOT_ACTIVE        = 1062
	ERROR_SERVICE_SPECIFIC_ERROR    = 1066
	ERROR_SERVICE_MARKED_FOR_DELETE = 1072
	ERROR_SERVICE_EXISTS            = 1073
)

const errorMoreData = 234

// codes are the codes of the error catalogue for what Windows says of a service (winerror.h). The agent has the same numbers
// in cmd/agent/servicecode.go; tests hold both to the catalogue.
var codes = map[uint32]string{
	2:    "SF3406", // ERROR_FILE_NOT_FOUND
	3:    "SF3406", // ERROR_PATH_NOT_FOUND
	5:    "SF3102", // ERROR_ACCESS_DENIED
	112:  "SF3306", // ERROR_DISK_FULL
	225:  "SF3403", // ERROR_VIRUS_INFECTED
	577:  "SF3403", // ERROR_INVALID_IMAGE_HASH
	1053: "SF3401", // ERROR_SERVICE_REQUEST_TIMEOUT
	1055: "SF3404", // ERROR_SERVICE_DATABASE_LOCKED
	1058: "SF3402", // ERROR_SERVICE_DISABLED
	1067: "SF3401", // ERROR_PROCESS_ABORTED
	1068: "SF3402", // ERROR_SERVICE_DEPENDENCY_FAIL
	1069: "SF3402", // ERROR_SERVICE_LOGON_FAILED
	1072: "SF3404", // ERROR_SERVICE_MARKED_FOR_DELETE
	1073: "SF3409", // ERROR_SERVICE_EXISTS
	1260: "SF3403", // ERROR_ACCESS_DISABLED_BY_POLICY
	1275: "SF3410", // ERROR_DRIVER_BLOCKED
	1722: "SF3407", // RPC_S_SERVER_UNAVAILABLE
}

// Error is a number of Windows with which the service control manager refused a call, or with which a service ended.
type Error struct {
	// Op is what was tried, as a verb phrase.
	Op    string
	Win32 uint32
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: the service control manager says Windows error %d", e.Op, e.Win32)
}

// Code is the code of the error catalogue; for a number without one it is SF3703, no READY in time, as the agent's is.
func (e *Error) Code() string {
	if code, ok := codes[e.Win32]; ok {
		return code
	}
	return "SF3703"
}

// Win32 finds the number of Windows that an error carries, 0 when it carries none.
func Win32(err error) uint32 {
	var e *Error
	if errors.As(err, &e) {
		return e.Win32
	}
	return 0
}

// Statuses of a fault (C706 appendix E, MS-RPCE 2.2.2.11).
const (
	accessDenied     = 0x5
	unknownCall      = 0x1c010002 // nca_s_op_rng_error
	unknownInterface = 0x1c010003 // nca_s_unk_if
)

// Fault is what RPC itself said instead of the service control manager.
type Fault struct {
	Op     string
	Status uint32
}

func (f *Fault) Error() string {
	switch f.Status {
	case unknownCall, unknownInterface:
		return fmt.Sprintf("%s: RPC fault %#08x: what answers is not the service control manager of Windows", f.Op, f.Status)
	default:
		return fmt.Sprintf("%s: RPC fault %#08x", f.Op, f.Status)
	}
}

// Code is the code of the error catalogue.
func (f *Fault) Code() string {
	switch f.Status {
	case accessDenied:
		return "SF3102"
	case unknownCall, unknownInterface:
		return "SF3405"
	default:
		return "SF3408"
	}
}

// Violation is an answer that no service control manager gives: a confused peer, or one that sits in between.
type Violation struct {
	Op string
	// What came instead.
	What string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s: the service control manager's pipe broke the protocol with %s", v.Op, v.What)
}

// Code is the code of the error catalogue.
func (v *Violation) Code() string { return "SF3901" }
