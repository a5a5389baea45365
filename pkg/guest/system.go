package guest

import (
	"fmt"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Refuse says why there can be no agent in a VM's guest, nil when nothing speaks against one. The code is SF4910: a snapshot
// of such a guest is crash-consistent, whoever takes it.
func Refuse(vm inventory.VM) error {
	if !vm.OldWindows() {
		return nil
	}
	return &Error{SF: "SF4910", Op: "choose an agent", Err: fmt.Errorf(
		"the guest is a %s, and the agent needs Windows 10, Server 2016 or newer of 64 bits", vm.GuestID)}
}
