//go:build lab

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// openGuestinfo takes the folder STILLFRAME_LAB_MAILBOX for the variables of the hypervisor, where there is one.
func openGuestinfo() (guestinfo, error) {
	if dir := os.Getenv("STILLFRAME_LAB_MAILBOX"); dir != "" {
		return labGuestinfo(dir), nil
	}
	return openBackdoor()
}

// labGuestinfo is a folder with a file for each variable. A file "refuse" in it says why none may be written, as isolation
// settings of a VM do.
type labGuestinfo string

func (g labGuestinfo) read(key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(g), key))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

func (g labGuestinfo) write(key, value string) error {
	if why, err := os.ReadFile(filepath.Join(string(g), "refuse")); err == nil {
		return errors.New(string(why))
	}
	draft := filepath.Join(string(g), key+".draft")
	if err := os.WriteFile(draft, []byte(value), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(string(g), key))
}
