package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// minUptime is how long a guest should be up: services that start late are not ready before (our own
// figure).
const minUptime = 10 * time.Minute

func judgeTemplate(v *view) finding {
	switch {
	case !v.has("config.template"):
		return unread("config.template")
	case value[bool](v.vm, "config.template"):
		return fail("it is a template")
	}
	return fine()
}

func judgeConnection(v *view) finding {
	switch state := text(v.vm, "runtime.connectionState"); state {
	case "":
		return unread("runtime.connectionState")
	case string(types.VirtualMachineConnectionStateConnected):
		return fine()
	default:
		return fail("its connection state is " + state)
	}
}

func judgePower(v *view) finding {
	switch state := text(v.vm, "runtime.powerState"); state {
	case "":
		return unread("runtime.powerState")
	case string(types.VirtualMachinePowerStatePoweredOn):
		return fine()
	default:
		return fail("it is " + state + ", there is no guest to hold")
	}
}

func (v *view) on() bool {
	return text(v.vm, "runtime.powerState") == string(types.VirtualMachinePowerStatePoweredOn)
}

// judgeQuestion finds a VM that stands still until somebody answers, such as for a full datastore.
func judgeQuestion(v *view) finding {
	if q, ok := v.vm["runtime.question"].(types.VirtualMachineQuestionInfo); ok {
		return fail("it waits for the answer to: " + q.Text)
	}
	if slices.Contains(v.refused, "runtime.question") { // unset, it says that there is no question
		return unread("runtime.question")
	}
	return fine()
}

func (v *view) toolsRun() bool {
	return text(v.vm, "guest.toolsRunningStatus") == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
}

// judgeTools only warns: a road that needs no Tools may exist.
func judgeTools(v *view) finding {
	if !v.on() {
		return unknown("the VM is not powered on")
	}
	switch {
	case !v.has("guest.toolsRunningStatus"):
		return unread("guest.toolsRunningStatus")
	case !v.toolsRun():
		return warn("VMware Tools: " + text(v.vm, "guest.toolsRunningStatus"))
	}
	switch version := types.VirtualMachineToolsVersionStatus(text(v.vm, "guest.toolsVersionStatus2")); version {
	case types.VirtualMachineToolsVersionStatusGuestToolsTooOld, types.VirtualMachineToolsVersionStatusGuestToolsBlacklisted,
		types.VirtualMachineToolsVersionStatusGuestToolsNotInstalled:
		return warn("version of VMware Tools: " + string(version))
	default:
		return fine()
	}
}

// judgeGuestOperations fails where guest operations bring no agent in. A guest whose Tools run becomes ready within a minute of
// its boot, so that is a warning.
func judgeGuestOperations(v *view) finding {
	if !v.on() {
		return unknown("the VM is not powered on")
	}
	ready, told := v.vm["guest.guestOperationsReady"].(bool)
	switch {
	case !v.has("guest.toolsRunningStatus"):
		return unread("guest.toolsRunningStatus")
	case !v.toolsRun():
		return fail("VMware Tools do not run, guest operations need them")
	case told && !ready:
		return warn("VMware Tools run, guest operations are not ready yet")
	}
	return fine()
}

// judgeUptime reads the guest's own uptime, which restarts with a reboot inside the VM, unlike runtime.bootTime.
func judgeUptime(v *view) finding {
	if !v.on() {
		return unknown("the VM is not powered on")
	}
	seconds := value[int32](v.vm, "summary.quickStats.uptimeSeconds")
	if seconds <= 0 {
		return unread("summary.quickStats.uptimeSeconds")
	}
	up := time.Duration(seconds) * time.Second
	if up < minUptime {
		return warn(fmt.Sprintf("the guest is up for %v, less than %v", up, minUptime))
	}
	return fine()
}

func judgeFaultTolerance(v *view) finding {
	state := text(v.vm, "runtime.faultToleranceState")
	switch {
	case state != "" && state != string(types.VirtualMachineFaultToleranceStateNotConfigured):
		return fail("fault tolerance is " + state)
	case v.has("config.ftInfo"):
		return fail("it is part of a fault tolerance group")
	}
	for _, path := range []string{"runtime.faultToleranceState", "config.ftInfo"} { // unset, they say that it is off
		if slices.Contains(v.refused, path) {
			return unread(path)
		}
	}
	return fine()
}

// judgePrivileges tells each missing privilege. Cryptographer.Access is the business of judgeEncryption.
func judgePrivileges(v *view) finding {
	return v.lacks(func(privilege string) bool {
		return privilege != cryptographerAccess && !strings.HasPrefix(privilege, guestOperationsPrivileges)
	})
}

func judgeGuestPrivileges(v *view) finding {
	return v.lacks(func(privilege string) bool { return strings.HasPrefix(privilege, guestOperationsPrivileges) })
}

// lacks tells each missing privilege of those asked for.
func (v *view) lacks(asked func(privilege string) bool) finding {
	if !v.asked {
		return unknown(v.why)
	}
	var evidence []string
	for _, m := range v.missing {
		if asked(m.Privilege) {
			evidence = append(evidence, fmt.Sprintf("privilege %s is missing on %s", m.Privilege, m.Object))
		}
	}
	if len(evidence) > 0 {
		return fail(evidence...)
	}
	return fine()
}

// judgeTask finds what is queued or runs. A snapshot would queue behind it, with the guest frozen.
func judgeTask(v *view) finding {
	var evidence []string
	for _, t := range v.tasks {
		if t.State != types.TaskInfoStateQueued && t.State != types.TaskInfoStateRunning {
			continue
		}
		by := ""
		switch reason := t.Reason.(type) {
		case *types.TaskReasonUser:
			by = " by " + reason.UserName
		case *types.TaskReasonSchedule:
			by = " by the scheduled task " + reason.Name
		case *types.TaskReasonAlarm:
			by = " by the alarm " + reason.AlarmName
		}
		evidence = append(evidence, fmt.Sprintf("%s (%s) is %s%s since %s", t.DescriptionId, t.Key, t.State, by, t.QueueTime.UTC().Format(time.RFC3339)))
	}
	if len(evidence) > 0 {
		return fail(evidence...)
	}
	return fine()
}
