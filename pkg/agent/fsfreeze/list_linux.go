package fsfreeze

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// listName is the file in RunDir that names what may be frozen: the second net, for when the agent and its watchdog
// were both killed.
const listName = "frozen"

// list is the open file of armed mounts. Its owner holds an flock on it, which the kernel drops when the owner dies; so
// a list without a lock was left by a dead agent.
type list struct {
	path string
	file *os.File
}

// openList opens the list and takes its lock; flags is os.O_CREATE or 0. A living owner gives ErrHeldByAnother.
func openList(dir string, flags int) (*list, error) {
	path := filepath.Join(dir, listName)
	for range 3 {
		file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = fmt.Errorf("%w: %s", ErrHeldByAnother, path)
			}
			return nil, errors.Join(err, file.Close())
		}
		mine, err1 := file.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return &list{path: path, file: file}, nil
		}
		if err := file.Close(); err != nil { // its last owner removed it between our open and our lock
			return nil, err
		}
	}
	return nil, fmt.Errorf("open %s: it keeps being replaced", path)
}

// write replaces the content by these mount points, in the order of freezing, one a line.
func (l *list) write(points []string) error {
	var b strings.Builder
	for _, p := range points {
		b.WriteString(escape(p) + "\n")
	}
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(b.String()), 0)
	return err
}

// read gives the mount points in the order of freezing.
func (l *list) read() ([]string, error) {
	text, err := io.ReadAll(io.LimitReader(l.file, 1<<20))
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if p := unescape(strings.TrimSuffix(line, "\n")); p != "" {
			points = append(points, p)
		}
	}
	return points, nil
}

// close drops the lock; remove says that nothing on the list is frozen any more.
func (l *list) close(remove bool) error {
	var err error
	if remove {
		err = os.Remove(l.path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, l.file.Close())
}

// ThawListed releases every mount on the list that a dead agent left in dir, the last frozen first, and removes the
// list. Without a list there is nothing to do. A mount that was not frozen any more is no error; one that cannot be
// released is, and then the list stays. It blocks for at most 9 s a mount. ErrHeldByAnother: the owner lives.
func ThawListed(ctx context.Context, dir string) ([]protocol.ThawResult, error) {
	l, err := openList(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the list of frozen mounts: %w", err)
	}
	points, err := l.read()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the list of frozen mounts: %w", err), l.close(false))
	}
	slices.Reverse(points)
	var results []protocol.ThawResult
	var failed error
	for _, p := range points {
		r := protocol.ThawResult{Mount: p, OK: true}
		if err := thawPoint(ctx, p); err != nil {
			r.OK, r.Error = false, errno(err)
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
				failed = errors.Join(failed, fmt.Errorf("thaw %s: %w", p, err))
			}
		}
		results = append(results, r)
	}
	if failed != nil {
		failed = &agent.CodedError{Code: codeThaw, Err: failed}
	}
	return results, errors.Join(failed, l.close(failed == nil))
}

// thawPoint opens a mount point, which a freeze does not hinder, and releases it.
func thawPoint(ctx context.Context, point string) error {
	limit := defaultLimits()
	file, err := openDir(ctx, point, limit.open)
	if err != nil {
		return err
	}
	err = thawWithin(file, limit.thaw)
	if errors.Is(err, errLate) {
		return err
	}
	return errors.Join(err, file.Close())
}
