package secret

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// disk is what changes the store's folder: the only four steps between which a process can be killed.
type disk interface {
	// write makes a file and has its content on the disk; what was there is removed first.
	write(path string, content []byte, mode fs.FileMode) error
	rename(from, to string) error
	// remove is content when there is nothing.
	remove(path string) error
	// flush has a folder's entries on the disk.
	flush(dir string) error
}

type localDisk struct{}

func (d localDisk) write(path string, content []byte, mode fs.FileMode) error {
	if err := d.remove(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (localDisk) rename(from, to string) error { return os.Rename(from, to) }

func (localDisk) remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (localDisk) flush(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// put replaces a file: whatever is killed, its name leads to all of the old or all of the new content.
func put(d disk, dir, path string, content []byte, mode fs.FileMode) error {
	fresh := path + suffixNew
	err := d.write(fresh, content, mode)
	if err == nil {
		err = d.rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, d.remove(fresh))
	}
	return d.flush(dir)
}
