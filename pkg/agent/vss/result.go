package vss

import (
	"errors"
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// The codes of the error catalogue that this package gives besides those of the HRESULTs.
const (
	codeNotReached   = "SF4001" // freeze_not_reached
	codeDeadman      = "SF4002" // deadman_fired
	codeNotReady     = "SF4013" // admission_guest_not_ready
	codeRequestorBug = "SF4031" // requestor_bug
	codeDisconnected = "SF4034" // vss_service_disconnected
	codeNotStarted   = "SF4107" // com_server_not_started
	codeNoVolume     = "SF4202" // volume_no_provider
	codeIncomplete   = "SF4203" // volume_set_incomplete
	codeTooMany      = "SF4212" // volume_too_many
)

// coded makes a coded error of a formatted one.
func coded(code, format string, args ...any) error {
	return &agent.CodedError{Code: code, Err: fmt.Errorf(format, args...)}
}

// withCode gives err the code of the HRESULT in it, unless it has a code; where the catalogue has none, otherwise.
func withCode(err error, otherwise string) error {
	var already *agent.CodedError
	if err == nil || errors.As(err, &already) {
		return err
	}
	var hr vsscode.HRESULT
	switch {
	case !errors.As(err, &hr) || hr.Code() == "":
	case hr == vsscode.RPC_S_SERVER_UNAVAILABLE: // inside the guest it is VSS that is gone, not the guest
		otherwise = codeDisconnected
	default:
		otherwise = hr.Code()
	}
	return &agent.CodedError{Code: otherwise, Err: err}
}

// notStarted gives the error of a volume that VSS could not add a code of its own where our provider has not been given any:
// VSS says then that the provider behaved unexpectedly, while COM never reached it.
func notStarted(err error, served []string) error {
	if len(served) == 0 && errors.Is(err, vsscode.VSS_E_UNEXPECTED_PROVIDER_ERROR) {
		return coded(codeNotStarted, "COM did not start our provider for VSS, which never called it: %w", err)
	}
	return err
}

// setEnded is the error of a set that ended before the hold was entered.
func setEnded(result vsscode.HRESULT, phase provider.Phase) error {
	const what = "the shadow copy set ended before anything was held"
	switch {
	case phase == provider.Deadman:
		return coded(codeDeadman, "%s: the dead-man fired while the writers were freezing: %w", what, result)
	case result.Failed():
		return withCode(fmt.Errorf("%s: %w", what, result), codeNotReached)
	}
	return coded(codeNotReached, "%s: %w", what, result)
}

// finished says whether a set ended well: VSS says so, the hold was ended by Thaw, and each volume was served by our own
// provider to the end.
func finished(result vsscode.HRESULT, phase provider.Phase, f provider.Facts, volumes []string) bool {
	served := func(v string) bool {
		return slices.ContainsFunc(f.Served, func(s string) bool { return sameVolume(s, v) })
	}
	return result == vsscode.VSS_S_ASYNC_FINISHED && phase == provider.Thawed && !f.Aborted && f.Committed == len(volumes) &&
		len(f.Served) == len(volumes) && !slices.ContainsFunc(volumes, func(v string) bool { return !served(v) })
}

// expired says who ended a hold that was entered, "" when Thaw did or we ourselves gave it up.
func expired(p provider.Phase) agent.ExpiredBy {
	switch p {
	case provider.Deadman:
		return agent.ByDeadman
	case provider.IODeadman:
		return agent.ByIODeadman
	case provider.System:
		return agent.BySystem
	default:
		return ""
	}
}

// succeeded says whether a component is called a success: the transfer was one, its writer was well, and, in a full backup
// that must not let applications cut their logs, never.
func succeeded(c agent.Completion, kind vsscode.BackupType, key string, s status) bool {
	wanted := c.OK == "all" || (c.OK == "list" && slices.Contains(c.Components, key))
	return wanted && s.well() && (kind != vsscode.Full || c.Truncate)
}

// typeOf reads the job's backup type.
func typeOf(word string) (vsscode.BackupType, error) {
	switch word {
	case "", "copy":
		return vsscode.Copy, nil
	case "full":
		return vsscode.Full, nil
	}
	return 0, coded(codeRequestorBug, "backup type %q is neither copy nor full", word)
}

// modeOf reads the mode of a hold.
func modeOf(word string) (provider.Mode, error) {
	switch word {
	case "io":
		return provider.IO, nil
	case "writer":
		return provider.Writer, nil
	}
	return 0, coded(codeRequestorBug, "mode %q is neither io nor writer", word)
}
