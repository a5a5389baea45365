package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// The rights that a local account gets over the network depend on these (Microsoft KB951016).
const policiesPath = `SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System`

// policies reads what UAC is told.
func policies() ([]policy, error) {
	all := []policy{{"EnableLUA", "absent"}, {"FilterAdministratorToken", "absent"}, {"LocalAccountTokenFilterPolicy", "absent"}}
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, policiesPath, registry.QUERY_VALUE)
	if err != nil {
		return all, unlessAbsent(err)
	}
	for i, p := range all {
		value, _, valueErr := key.GetIntegerValue(p.Name)
		if valueErr == nil {
			all[i].Value = strconv.FormatUint(value, 10)
		}
		err = errors.Join(err, unlessAbsent(valueErr))
	}
	return all, errors.Join(err, key.Close())
}

// ownToken reads the rights of this process.
func ownToken() (token, error) {
	var t token
	handle := windows.GetCurrentProcessToken() // it is not closed
	user, err := handle.GetTokenUser()
	if err == nil {
		t.SID = user.User.Sid.String()
		t.BuiltInAdministrator = strings.HasPrefix(t.SID, "S-1-5-21-") && strings.HasSuffix(t.SID, "-500")
		account, domain, _, lookupErr := user.User.Sid.LookupAccount("")
		t.User, err = domain+`\`+account, lookupErr
	}
	t.Elevated = handle.IsElevated()
	integrity, levelErr := integrityOf(handle)
	t.Integrity = integrity
	if currentSeams().filtered {
		t.BuiltInAdministrator, t.Elevated, t.Integrity = false, false, "medium"
	}
	if err = errors.Join(err, levelErr); err != nil {
		return t, fmt.Errorf("read the own token: %w", err)
	}
	return t, nil
}

// integrityOf names the integrity level by the last part of its SID (winnt.h, SECURITY_MANDATORY_*_RID).
func integrityOf(t windows.Token) (string, error) {
	buffer := make([]byte, 256) // TOKEN_MANDATORY_LABEL and a SID of at most 68 bytes
	var size uint32
	if err := windows.GetTokenInformation(t, windows.TokenIntegrityLevel, &buffer[0], uint32(len(buffer)), &size); err != nil {
		return "", err
	}
	sid := (*windows.Tokenmandatorylabel)(unsafe.Pointer(&buffer[0])).Label.Sid
	level := sid.SubAuthority(uint32(sid.SubAuthorityCount()) - 1)
	switch {
	case level >= 0x4000:
		return "system", nil
	case level >= 0x3000:
		return "high", nil
	case level >= 0x2000:
		return "medium", nil
	}
	return "low", nil
}
