package guests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// TestMain lets the test binary be the lab's child processes, and fails when the tests leave a mount, a loop device or a
// child behind.
func TestMain(m *testing.M) {
	if code, ok := guests.Helper(os.Args[1:]); ok {
		os.Exit(code)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "stillframe-guests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv("TMPDIR", dir); err != nil { // so that what is left can be told from what others do
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	for _, left := range leftovers(dir) {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		code = 1
	}
	if code == 0 {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// leftovers lists mounts and loop devices below dir, and processes whose arguments name it.
func leftovers(dir string) []string {
	var left []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			left = append(left, "mount "+line)
		}
	}
	for _, pattern := range []string{"/sys/block/loop*/loop/backing_file", "/proc/[0-9]*/cmdline"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return append(left, err.Error())
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err == nil && strings.Contains(string(raw), dir) { // a file that has gone names nothing
				left = append(left, file+": "+strings.ReplaceAll(string(raw), "\x00", " "))
			}
		}
	}
	return left
}

// self starts the test binary as a child of the lab.
func self(t *testing.T) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe}
}
