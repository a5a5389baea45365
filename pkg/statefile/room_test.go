package statefile_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// TestRoom: a folder without room for the next run says so before the run does.
func TestRoom(t *testing.T) {
	lab.Need(t, lab.Root)
	for name, c := range map[string]struct {
		flags uintptr
		size  string
		want  error
	}{
		"room":      {0, "size=4m", nil},
		"full":      {0, "size=64k", syscall.ENOSPC},
		"read-only": {syscall.MS_RDONLY, "size=4m", syscall.EROFS},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := statefile.Open(dir, statefile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("tmpfs", dir, "tmpfs", c.flags, c.size); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			if err := s.Room(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("Room = %v, want %v", err, c.want)
			}
		})
	}
}
