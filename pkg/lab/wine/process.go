package wine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Processes lists what runs in prefixes at or below dir, Wine's own included, as "pid command".
func Processes(dir string) ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range all {
		raw, err := os.ReadFile(file)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !inPrefix(raw, dir) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil && !gone(err) {
			return nil, err
		}
		pid := filepath.Base(filepath.Dir(file))
		found = append(found, fmt.Sprintf("%s %s", pid, bytes.TrimSpace(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))))
	}
	return found, nil
}

// gone says that a process ended, or is another user's.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ESRCH)
}

func inPrefix(environ []byte, dir string) bool {
	for _, v := range strings.Split(string(environ), "\x00") {
		if prefix, ok := strings.CutPrefix(v, "WINEPREFIX="); ok && (prefix == dir || strings.HasPrefix(prefix, dir+"/")) {
			return true
		}
	}
	return false
}
