package smb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// mark is a variable that every process of a server has, with its folder, and no other process.
const mark = "STILLFRAME_LAB_SMB="

// Process is one of a server's.
type Process struct {
	PID     int
	Command string
}

func (p Process) String() string { return fmt.Sprintf("%d %s", p.PID, p.Command) }

// Processes lists all that the server started, itself included.
func (s *Server) Processes() ([]Process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, folder := range folders {
		environ, err := os.ReadFile(filepath.Join(folder, "environ"))
		if gone(err) || err == nil && !slices.Contains(strings.Split(string(environ), "\x00"), mark+s.dir) {
			continue
		}
		command, commandErr := os.ReadFile(filepath.Join(folder, "cmdline"))
		pid, pidErr := strconv.Atoi(filepath.Base(folder))
		if gone(commandErr) {
			continue
		}
		if err := errors.Join(err, commandErr, pidErr); err != nil {
			return nil, err
		}
		found = append(found, Process{PID: pid, Command: string(bytes.TrimSpace(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))})
	}
	return found, nil
}

// gone says that a process has ended, or is another user's.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ESRCH)
}
