package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFolder makes the folder if need be, and holds it until the file is closed: two daemons in one folder would undo
// each other's runs. The lock ends with the process, however it ends.
func lockFolder(dir string) (*os.File, error) {
	op := "use the state folder " + dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, coded(op, err, unwritable)
	}
	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, coded(op, err, unwritable)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		who := "another daemon"
		if pid, readErr := os.ReadFile(path); readErr == nil && len(pid) > 0 {
			who += ", process " + strings.TrimSpace(string(pid)) + ","
		}
		code := held
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			code = unwritable
		}
		return nil, errors.Join(&Error{code, op, fmt.Errorf("%s holds %s: %w", who, path, err)}, file.Close())
	}
	// The number is for people alone, so a disk without room for it is none of its business.
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return nil, errors.Join(coded(op, err, unwritable), file.Close())
	}
	return file, nil
}

// remote are file systems whose locks and shared memory cannot be trusted between machines (statfs(2)): SQLite's journal
// needs both.
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB",
	unix.CEPH_SUPER_MAGIC: "CephFS", unix.AFS_SUPER_MAGIC: "AFS", unix.AFS_FS_MAGIC: "AFS", unix.CODA_SUPER_MAGIC: "Coda",
	unix.NCP_SUPER_MAGIC: "NCP", unix.V9FS_MAGIC: "9P", unix.OCFS2_SUPER_MAGIC: "OCFS2",
}

// localOnly refuses a folder that another machine can write to as well.
func localOnly(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return coded("look at the file system of "+dir, err, unwritable)
	}
	if name := remote[int64(uint32(st.Type))]; name != "" {
		return &Error{shared, "open the database in " + dir, fmt.Errorf("the folder lies on %s", name)}
	}
	return nil
}

// replace has path hold content at each instant either wholly or not at all, and on the disk when it returns.
func replace(path string, content []byte) error {
	fresh := path + ".new"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, remove(fresh))
	}
	return flush(filepath.Dir(path))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// flush has what was written to a file, or to a folder's entries, on the disk.
func flush(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
