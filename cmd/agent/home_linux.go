package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
)

// makeHome makes the folder, which nobody but root may look into: the key of the agent lies there.
func makeHome(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s must be a folder of the agent's user alone (mode 0700)", dir)
	}
	return nil
}

// lock is held by the one process that serves from the home, and by the one that removes it. The lock is the folder's own, so
// that no file stays.
func (h *home) lock() (release func() error, err error) { return lockHome(h.dir) }

func lockHome(dir string) (release func() error, err error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = &agent.CodedError{Code: "SF3725", Err: fmt.Errorf("a persistent agent serves from %s already: stop it first", dir)}
		}
		return nil, errors.Join(err, folder.Close())
	}
	return folder.Close, nil
}

// writeSecret makes a file that nobody else can read, durably.
func writeSecret(path string, content []byte) error { return writeNew(path, content, 0o600) }

// writePublic makes a file that everybody can read, durably.
func writePublic(path string, content []byte) error { return writeNew(path, content, 0o644) }

func writeNew(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}

// rename is durable when it returns.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
