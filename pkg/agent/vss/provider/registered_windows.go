package provider

import (
	"strings"
)

// Registered reads what COM knows of the provider; ok is false when there is none.
func Registered() (r Registration, ok bool, err error) {
	command, err := readString(classPath()+`\LocalServer32`, "")
	if err != nil || command == "" {
		return Registration{}, false, err
	}
	r.Exe, _, _ = strings.Cut(strings.TrimPrefix(command, `"`), `"`)
	r.Service, err = readString(applicationPath(), "LocalService")
	return r, true, err
}

// References is how many references to the provider's objects there are, COM's own to the class included.
func References() int { return int(references.Load()) }
