package com

import (
	"fmt"

	"golang.org/x/sys/windows"
)

const (
	packetPrivacy    = 6          // RPC_C_AUTHN_LEVEL_PKT_PRIVACY (rpcdce.h)
	identify         = 2          // RPC_C_IMP_LEVEL_IDENTIFY (rpcdce.h)
	tooLate          = 0x80010119 // RPC_E_TOO_LATE
	anyAuthenticator = -1         // COLE_DEFAULT number of services: the system chooses
)

// Secure says who may call into this process, by a security descriptor in SDDL. It comes once in a process, before any
// other use of COM but Enter.
func Secure(sddl string) error {
	relative, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return fmt.Errorf("read the security descriptor %s: %w", sddl, err)
	}
	sd, err := relative.ToAbsolute() // CoInitializeSecurity takes no self-relative one
	if err != nil {
		return fmt.Errorf("make the security descriptor %s absolute: %w", sddl, err)
	}
	switch hr := coInitializeSecurity(sd, anyAuthenticator, nil, 0, packetPrivacy, identify, 0, 0, 0); hr {
	case 0:
		return nil
	case tooLate:
		return &Error{Op: "set the security of COM, which something else in this process did before", HRESULT: hr}
	default:
		return &Error{Op: "set the security of COM", HRESULT: hr}
	}
}
