package inventory

import (
	"strconv"
	"strings"
)

// System is the operating system of a guest, as far as it decides how the agent gets in and works.
type System string

// The systems that have an agent. The zero System is one that vCenter does not name, or that has none.
const (
	Linux   System = "linux"
	Windows System = "windows"
)

// System tells from what VMware Tools report, and before they do from the VM's configuration.
func (vm VM) System() System {
	switch {
	case strings.EqualFold(vm.GuestFamily, "windowsGuest"):
		return Windows
	case strings.EqualFold(vm.GuestFamily, "linuxGuest"):
		return Linux
	case vm.GuestFamily == "" && strings.HasPrefix(strings.ToLower(vm.GuestID), "win"):
		return Windows
	}
	return ""
}

// firstWindows is the generation in vSphere's ids (windows9Server64Guest) of Windows 10 and Server 2016, the first that a
// program of today's Go runs on. Later ids count generations (11) or years (2019).
const firstWindows = 9

// OldWindows says whether the guest is a Windows that cannot run the agent: one before Windows 10 and Server 2016, or one
// of 32 bits. It is false for other systems, and when the id is not known.
func (vm VM) OldWindows() bool {
	id := strings.ToLower(vm.GuestID)
	if vm.System() != Windows || !strings.HasPrefix(id, "win") {
		return false
	}
	digits, found := strings.CutPrefix(id, "windows")
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	generation, err := strconv.Atoi(digits)
	return !found || err != nil || generation < firstWindows || !strings.Contains(id, "64")
}
