package vsphere

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"
)

// Error is a failure of vSphere that an operator can meet.
type Error struct {
	// Op is what was tried, as a verb phrase.
	Op string
	// Subject is what it was tried on: a VM, a snapshot, a host, a path in the guest.
	Subject string
	// SF is the code of the error catalogue, such as SF2201.
	SF string
	// Fault is the vSphere fault's type name, such as TaskInProgress; empty when vSphere did not answer with a fault.
	Fault string
	// MessageKeys are the keys of the fault's messages. They are not localized, unlike its texts.
	MessageKeys []string
	// Err is the cause.
	Err error

	unknown bool
}

// Error says what was tried on what, then the cause.
func (e *Error) Error() string {
	if e.Subject == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Subject, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

// OutcomeUnknown is true when the call may have taken effect, or may still do so, although it gave an error: the answer
// was lost, the waiting was given up, or vCenter itself lost sight of the task (Timedout, a host that went away). The
// caller then looks for the snapshot by name. It is false when vCenter refused or the task failed.
func (e *Error) OutcomeUnknown() bool { return e.unknown }

// Is makes the guest's file faults the errors of package io/fs.
func (e *Error) Is(target error) bool {
	switch e.Fault {
	case "FileNotFound":
		return target == fs.ErrNotExist
	case "FileAlreadyExists":
		return target == fs.ErrExist
	}
	return false
}

// faultCodes gives the code of each fault type that we know by name (error catalogue).
var faultCodes = map[string]string{
	"InvalidLogin":                    "SF2001",
	"NotAuthenticated":                "SF2002",
	"HostCommunication":               "SF2004",
	"HostNotConnected":                "SF2004",
	"HostNotReachable":                "SF2004",
	"RestrictedVersion":               "SF2005",
	"ManagedObjectNotFound":           "SF2006",
	"UnexpectedFault":                 "SF2007",
	"MethodNotFound":                  "SF2007",
	"SystemError":                     "SF2008",
	"NoPermission":                    "SF2101",
	"TaskInProgress":                  "SF2201",
	"VAppTaskInProgress":              "SF2201",
	"TooManySnapshotLevels":           "SF2202",
	"MultipleSnapshotsNotSupported":   "SF2202",
	"SnapshotDisabled":                "SF2203",
	"MethodDisabled":                  "SF2203",
	"SnapshotIncompatibleDeviceInVm":  "SF2204",
	"MemorySnapshotOnIndependentDisk": "SF2204",
	"SnapshotLocked":                  "SF2205",
	"ConcurrentAccess":                "SF2205",
	"ResourceInUse":                   "SF2205",
	"NoDiskSpace":                     "SF2206",
	"InsufficientStorageSpace":        "SF2206",
	"Timedout":                        "SF2207",
	"InvalidPowerState":               "SF2208",
	"InvalidState":                    "SF2208",
	"QuestionPending":                 "SF2208",
	"ApplicationQuiesceFault":         "SF2209",
	"FilesystemQuiesceFault":          "SF2209",
	"RequestCanceled":                 "SF2211",
	"SnapshotNoChange":                "SF2213",
	"InsufficientResourcesFault":      "SF2214",
	"FileLocked":                      "SF2301",
	"FileNotFound":                    "SF2303",
	"InvalidSnapshotFormat":           "SF2303",
	"CannotAccessFile":                "SF2306",
	"SnapshotMoveNotSupported":        "SF2307",
	"MissingController":               "SF2308",
	"InvalidGuestLogin":               "SF3001",
	"GuestAuthenticationChallenge":    "SF3010",
	"GuestMultipleMappings":           "SF3011",
	"GuestPermissionDenied":           "SF3104",
	"GuestOperationsUnavailable":      "SF3601",
	"ToolsUnavailable":                "SF3601",
	"GuestComponentsOutOfDate":        "SF3602",
	"OperationDisabledByGuest":        "SF3602",
	"TooManyGuestLogons":              "SF3603",
	"OperationNotSupportedByGuest":    "SF3605",
	"GuestProcessNotFound":            "SF3606",
}

// guestFileCodes replaces faultCodes where the fault is about a file inside the guest.
var guestFileCodes = map[string]string{
	"FileNotFound":      "SF3406",
	"FileAlreadyExists": "SF3607",
	"CannotAccessFile":  "SF3608",
	"FileFault":         "SF3608",
}

// reading is what one look at an error found.
type reading struct {
	code, fault, detail string
	keys                []string
}

// read finds the most telling fault in err: the first whose type has a code of its own, else the first of all, by its
// base type. Texts are never matched, they are localized.
func read(err error) reading {
	var r reading
	faultsIn(err, func(f types.BaseMethodFault, _ string, messages []types.LocalizableMessage) bool {
		for _, m := range messages {
			r.keys = append(r.keys, m.Key)
		}
		name := typeName(f)
		code, own := faultCodes[name]
		switch {
		case own:
			r.code, r.fault, r.detail = code, name, detail(f)
		case r.fault == "":
			r.code, r.fault, r.detail = baseCode(f), name, detail(f)
		}
		return own
	})
	if s, ok := faultAs[*types.SystemError](err); ok && strings.Contains(s.Reason, "(3016, 0)") {
		r.code = "SF3601" // VIX error 3016: VMware Tools not running, while polling
	}
	return r
}

// baseCode gives the code of a fault that is known only by what it derives from.
func baseCode(f types.BaseMethodFault) string {
	switch f.(type) {
	case types.BaseTaskInProgress:
		return "SF2201"
	case types.BaseSnapshotFault, types.BaseVmConfigFault:
		return "SF2210"
	case types.BaseFileFault:
		return "SF2305"
	case types.BaseInvalidState:
		return "SF2208"
	case types.BaseInsufficientResourcesFault:
		return "SF2214"
	case types.BaseHostCommunication, types.BaseHostConnectFault:
		return "SF2004"
	case types.BaseNoPermission:
		return "SF2101"
	case types.BaseGuestOperationsFault:
		return "SF3605"
	}
	return "SF2007"
}

// detail says in plain words what a fault carries besides its type.
func detail(f types.BaseMethodFault) string {
	switch f := f.(type) {
	case *types.NoPermission:
		if f.Object == nil {
			return "privilege " + f.PrivilegeId
		}
		return fmt.Sprintf("privilege %s on %s", f.PrivilegeId, f.Object.Value)
	case *types.TaskInProgress:
		return "busy with " + f.Task.Value
	case *types.MethodDisabled:
		return "disabled by " + f.Source
	case *types.ManagedObjectNotFound:
		return f.Obj.Value + " is gone"
	case *types.RestrictedVersion:
		return "the licence forbids it"
	case *types.SystemError:
		return f.Reason
	case types.BaseFileFault:
		return f.GetFileFault().File
	}
	return ""
}

func typeName(f types.BaseMethodFault) string {
	t := reflect.TypeOf(f)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// faultsIn shows every fault in err's tree and its causes to visit, until that returns true. govmomi's fault.In does the
// same for one error, but panics on an error whose Unwrap gives nil, as *net.DNSError's does.
func faultsIn(err error, visit fault.OnFaultFn) {
	var carriers []error
	for queue := []error{err}; len(queue) > 0; queue = queue[1:] {
		switch e := queue[0].(type) { //nolint:errorlint // the tree is walked here, each error by itself
		case nil:
		case interface{ Fault() types.BaseMethodFault }, types.HasLocalizedMethodFault, types.BaseMethodFault:
			carriers = append(carriers, queue[0])
		case interface{ Unwrap() error }:
			queue = append(queue, e.Unwrap())
		case interface{ Unwrap() []error }:
			queue = append(queue, e.Unwrap()...)
		}
	}
	done := false
	for _, c := range carriers {
		fault.In(c, func(f types.BaseMethodFault, text string, messages []types.LocalizableMessage) bool {
			done = done || visit(f, text, messages)
			return done
		})
	}
}

// faultAs finds the fault of exactly type T in err, causes included.
func faultAs[T types.BaseMethodFault](err error) (T, bool) {
	var found T
	ok := false
	faultsIn(err, func(f types.BaseMethodFault, _ string, _ []types.LocalizableMessage) bool {
		found, ok = f.(T)
		return ok
	})
	return found, ok
}

// isFault says whether err carries a fault of exactly type T.
func isFault[T types.BaseMethodFault](err error) bool {
	_, ok := faultAs[T](err)
	return ok
}

// failure makes an error of a vSphere call the operator's: it finds the code. A cancelled context stays without one, an
// error that has one keeps it.
func failure(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	var known interface{ Code() string }
	if errors.As(err, &known) || errors.Is(err, errNotOurs) {
		return err
	}
	r := read(err)
	if r.fault == "" && errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s %s: %w", op, subject, err)
	}
	return r.failed(op, subject, err)
}

// guestFailure is failure for what happens inside the guest.
func guestFailure(op, subject string, err error) error {
	err = failure(op, subject, err)
	var known *Error
	if errors.As(err, &known) {
		if code, ok := guestFileCodes[known.Fault]; ok {
			known.SF = code
		} else if known.SF == "SF2305" { // some other fault about a file
			known.SF = "SF3608"
		}
	}
	return err
}

func (r reading) failed(op, subject string, err error) *Error {
	if r.fault == "" {
		r.code = transportCode(err)
	}
	if r.fault != "" && r.detail != "" {
		err = fmt.Errorf("%s (%s): %w", r.fault, r.detail, err)
	} else if r.fault != "" {
		err = fmt.Errorf("%s: %w", r.fault, err)
	}
	return &Error{Op: op, Subject: subject, SF: r.code, Fault: r.fault, MessageKeys: r.keys, Err: err}
}

// transportCode tells an untrusted certificate, and one that is not valid at this time, from everything else that keeps an
// answer away.
func transportCode(err error) string {
	var (
		pin       *pinError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired { // "not yet" is the same reason
		return "SF2011"
	}
	if errors.As(err, &pin) || errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &name) ||
		errors.As(err, &invalid) {
		return "SF2003"
	}
	return "SF2004"
}

// isNetwork says whether err is one after which asking again makes sense: no fault, no certificate, no cancellation.
func isNetwork(err error) bool {
	if read(err).fault != "" || transportCode(err) != "SF2004" || errors.Is(err, context.Canceled) {
		return false
	}
	var u *url.Error
	var n net.Error
	return errors.As(err, &u) || errors.As(err, &n)
}
