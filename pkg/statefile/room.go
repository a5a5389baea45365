package statefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// leastRoom is what the state file of a small installation and its next content take beside each other.
const leastRoom = 256 << 10

// Room says whether the next run could write its state, without writing anything: its folder must have room for the file
// once more.
func (s *Store) Room(ctx context.Context) error {
	fail := func(err error) error {
		return &Error{SF: "SF1101", Op: "look for room in the state folder " + s.dir, Err: err}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	need := uint64(leastRoom)
	if info, err := os.Stat(filepath.Join(s.dir, fileName)); err == nil {
		need = max(need, 2*uint64(info.Size()))
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return fail(err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	switch {
	case fs.Flags&readOnly != 0:
		return fail(syscall.EROFS)
	case free < need:
		return fail(fmt.Errorf("%d bytes are free, a run needs %d: %w", free, need, syscall.ENOSPC))
	case fs.Files > 0 && fs.Ffree == 0:
		return fail(errors.New("its file system has no room for another file"))
	}
	return nil
}

// readOnly is ST_RDONLY of statfs(2).
const readOnly = 1
