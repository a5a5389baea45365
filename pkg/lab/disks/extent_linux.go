package disks

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// whence values of lseek(2), linux/fs.h.
const (
	seekData = 3
	seekHole = 4
)

// extent is the next run of data in f at or after at. At the end of the data it is empty and lies at size.
func extent(f *os.File, at, size int64) (from, to int64, err error) {
	from, err = f.Seek(at, seekData)
	if errors.Is(err, syscall.ENXIO) { // no data after at
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	to, err = f.Seek(from, seekHole)
	if err != nil {
		return 0, 0, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	return min(from, size), min(to, size), nil
}
