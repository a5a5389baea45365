package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// processesOf lists the processes that run the program exe, other than this one.
func processesOf(exe string) ([]uint32, error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var pids []uint32
	row := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &row); err == nil; err = windows.Process32Next(snapshot, &row) {
		// szExeFile is the name of the file; a program that was started by its short name (8.3) is not found.
		if !strings.EqualFold(windows.UTF16ToString(row.ExeFile[:]), filepath.Base(exe)) || row.ProcessID == windows.GetCurrentProcessId() {
			continue
		}
		image, err := imageOf(row.ProcessID)
		if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
			continue // it has ended
		}
		if err != nil {
			return nil, errors.Join(err, windows.CloseHandle(snapshot))
		}
		if sameFile(image, exe) {
			pids = append(pids, row.ProcessID)
		}
	}
	if errors.Is(err, windows.ERROR_NO_MORE_FILES) {
		err = nil
	}
	return pids, errors.Join(err, windows.CloseHandle(snapshot))
}

// sameFile says whether two paths name one file; files that are gone are compared by name.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	two, otherErr := os.Stat(b)
	if err != nil || otherErr != nil {
		return strings.EqualFold(a, b)
	}
	return os.SameFile(one, two)
}

// exists says whether there is such a file; one that cannot be looked at is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// imageOf gives the path of the program that a process runs.
func imageOf(pid uint32) (string, error) {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return "", fmt.Errorf("look at the process %d: %w", pid, err)
	}
	image, err := openedImage(process)
	return image, errors.Join(err, windows.CloseHandle(process))
}

func openedImage(process windows.Handle) (string, error) {
	path := make([]uint16, windows.MAX_LONG_PATH)
	size := uint32(len(path))
	if err := windows.QueryFullProcessImageName(process, 0, &path[0], &size); err != nil {
		return "", fmt.Errorf("ask for the program of a process: %w", err)
	}
	return windows.UTF16ToString(path[:size]), nil
}

// endProcess terminates a process of exe and waits for its end; one that has ended, or whose number has gone to another
// program meanwhile, is fine.
func endProcess(pid uint32, exe string, limit time.Duration) error {
	process, err := openProcess(pid)
	if process == 0 || err != nil {
		return err
	}
	_, _, err = endOpened(process, exe, limit)
	return errors.Join(err, windows.CloseHandle(process))
}

// openProcess opens a process to end it, and to read how it ended; 0 when it has ended.
func openProcess(pid uint32) (windows.Handle, error) {
	process, err := windows.OpenProcess(windows.PROCESS_TERMINATE|windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open the process %d: %w", pid, err)
	}
	return process, nil
}

// endOpened has a process of exe ended within limit, by force when it has not ended by itself, and gives the exit status of
// one that had.
func endOpened(process windows.Handle, exe string, limit time.Duration) (status uint32, forced bool, err error) {
	ended, err := waitProcess(process, 0)
	if err != nil {
		return 0, false, err
	}
	if ended {
		if err := windows.GetExitCodeProcess(process, &status); err != nil {
			return 0, false, fmt.Errorf("ask how a process ended: %w", err)
		}
		return status, false, nil
	}
	image, err := openedImage(process)
	if err != nil || !sameFile(image, exe) {
		return 0, false, err
	}
	terminated := windows.TerminateProcess(process, exitFailed)
	ended, err = waitProcess(process, limit)
	if !ended && err == nil {
		err = errors.Join(terminated, fmt.Errorf("a process does not end within %v", limit))
	}
	return 0, true, err
}

// waitProcess waits for the end of a process; false when it still lives at the limit.
func waitProcess(process windows.Handle, limit time.Duration) (ended bool, err error) {
	event, err := windows.WaitForSingleObject(process, uint32(limit.Milliseconds()))
	switch {
	case err != nil:
		return false, fmt.Errorf("wait for a process: %w", err)
	case event == windows.WAIT_OBJECT_0:
		return true, nil
	}
	return false, nil
}
