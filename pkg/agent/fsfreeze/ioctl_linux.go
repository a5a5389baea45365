package fsfreeze

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// The requests of linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int). The argument is not used.
const (
	fifreeze = 0xC0045877
	fithaw   = 0xC0045878
)

// errLate is returned when a system call took longer than its limit; it goes on in its goroutine.
var errLate = errors.New("no answer in time")

// freeze holds the file system of an open directory. It blocks until all dirty data is written, which can take long.
func freeze(dir *os.File) error { return ioctl(dir, fifreeze) }

// thaw releases it: EINVAL means that it was not frozen.
func thaw(dir *os.File) error { return ioctl(dir, fithaw) }

func ioctl(dir *os.File, request uint) error {
	defer runtime.KeepAlive(dir) // its number must not become another file's
	for {
		err := unix.IoctlSetInt(int(dir.Fd()), request, 0)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// within runs f in a goroutine of its own and waits for it at most for the limit, or until cancelled is closed; nil
// means never. A late f goes on, and what it returns is dropped.
func within[T any](cancelled <-chan struct{}, limit time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var none T
	select {
	case r := <-done:
		return r.value, r.err
	case <-cancelled:
		return none, context.Canceled
	case <-timer.C:
		return none, errLate
	}
}

// thawWithin is thaw with a limit, so that one dead device does not keep the others frozen. After errLate the call still
// uses dir.
func thawWithin(dir *os.File, limit time.Duration) error {
	_, err := within(nil, limit, func() (struct{}, error) { return struct{}{}, thaw(dir) })
	return err
}

// openDir opens a mount point for its ioctls, within the limit: on a dead network or device open can hang for ever. A
// file that is opened late is closed by the garbage collector.
func openDir(ctx context.Context, point string, limit time.Duration) (*os.File, error) {
	return within(ctx.Done(), limit, func() (*os.File, error) {
		return os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY, 0)
	})
}

// mountID gives the mount that an open file came through, the id of its line in mountinfo.
func mountID(file *os.File) (int, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(file.Fd())))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, errors.New("no mnt_id in fdinfo")
}

// errno names a system error, such as EINVAL, for a report.
func errno(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e) + ": " + e.Error()
	}
	return err.Error()
}

// readMounts reads this process's mountinfo.
func readMounts() ([]mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(text))
}

// isDir tells whether a mount point is a directory. It is asked only for local file systems.
func isDir(point string) bool {
	info, err := os.Stat(point)
	return err == nil && info.IsDir()
}

// volume describes a file system for the protocol. Sizes are 0 when the system does not tell.
func volume(fs fileSystem) protocol.Volume {
	v := protocol.Volume{
		ID: fs.device, Mounts: mountsOf(fs), FS: fs.fsType, Disks: []protocol.Disk{},
		Supported: fs.supported, Why: fs.why,
	}
	var st unix.Statfs_t
	if fs.supported && unix.Statfs(fs.at.point, &st) == nil {
		v.Size = int64(st.Blocks) * st.Bsize
		v.Free = int64(st.Bavail) * st.Bsize
	}
	return v
}

// maxMountsTold bounds the mount points of one file system in HELLO and READY: containers make thousands of them.
const maxMountsTold = 16

// mountsOf lists the mount points of a file system, the one that names it in the results of its release first.
func mountsOf(fs fileSystem) []string {
	mounts := []string{fs.at.point}
	for _, p := range fs.points {
		if p != fs.at.point && len(mounts) < maxMountsTold {
			mounts = append(mounts, p)
		}
	}
	return mounts
}

// backingFiles gives the image files that a block device lies on: of a loop device its file; a partition and a mapped
// device are followed to what is below them, at most eight layers.
func backingFiles(device string) []string {
	return backingBelow("/sys/dev/block/"+device, 8)
}

func backingBelow(sys string, layers int) []string {
	if layers == 0 {
		return nil
	}
	if file, err := os.ReadFile(sys + "/loop/backing_file"); err == nil {
		return []string{strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), " (deleted)")}
	}
	if _, err := os.Stat(sys + "/partition"); err == nil {
		return backingBelow(sys+"/..", layers-1)
	}
	slaves, err := os.ReadDir(sys + "/slaves")
	if err != nil {
		return nil // not a block device: btrfs, for example
	}
	var files []string
	for _, s := range slaves {
		files = append(files, backingBelow(sys+"/slaves/"+s.Name(), layers-1)...)
	}
	return files
}
