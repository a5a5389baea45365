package inventory

// CheckStatus is what one preflight check found. Its zero value is unknown: what was not looked at is not fine.
type CheckStatus string

// The statuses, from good to bad. CheckUnknown is what could not be read or does not apply.
const (
	CheckUnknown CheckStatus = ""
	CheckOK      CheckStatus = "ok"
	CheckWarn    CheckStatus = "warn"
	CheckFail    CheckStatus = "fail"
)

// String is the status as people and JSON see it.
func (s CheckStatus) String() string {
	if s == CheckUnknown {
		return "unknown"
	}
	return string(s)
}

// MarshalText writes the status as String does.
func (s CheckStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *CheckStatus) UnmarshalText(text []byte) error {
	*s = CheckStatus(text)
	if *s == "unknown" {
		*s = CheckUnknown
	}
	return nil
}

// CheckRunningTask is the ID of the one check that may pass by waiting: another task runs on the VM.
const CheckRunningTask = "running_task"

// CheckGuestOperations and CheckGuestPrivileges are the IDs of the checks that only concern guest operations: another road into the
// guest does without them.
const (
	CheckGuestOperations = "guest_operations"
	CheckGuestPrivileges = "guest_privileges"
)

// Gates are the IDs of the checks on load, which never fail: what they find passes, so that a run may warn and go on, or
// wait for a better hour.
func Gates() []string {
	return []string{"guest_uptime", "cpu_ready", "host_load", "datastore_latency", "stun", "vcenter_host"}
}

// Check is one row of the preflight table as it was found on one VM.
type Check struct {
	// ID names the row for ever, such as snapshot_depth; Title says what is true when it is ok.
	ID, Title string
	Status    CheckStatus
	// Evidence is what was seen, the most telling first. It is empty only where a check is ok.
	Evidence []string
	// Code is the code of the error catalogue that a warning or a failure of this row has.
	Code string
	// Gate is true for one of Gates.
	Gate bool
}
