package fsfreeze

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// errMountinfo is returned for a line that is not of the form of proc_pid_mountinfo(5).
var errMountinfo = errors.New("not a line of mountinfo")

// mount is one line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mount struct {
	// id is the mount's own number, the same as mnt_id in /proc/self/fdinfo.
	id int
	// device is major:minor. All mounts of one file system share it.
	device string
	// root is the directory of the file system that is mounted: "/" unless it is a bind mount or a subvolume.
	root string
	// point is where it is mounted.
	point  string
	fsType string
	source string
	// readOnly is about the file system itself; a read-only bind mount of a writable one is not readOnly.
	readOnly bool
}

// parseMountinfo reads the whole text of a mountinfo file. One broken line is an error for all: a file system that was
// overlooked would be missing from the freeze.
func parseMountinfo(text string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		m, err := parseMount(line)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// parseMount reads one line. The optional fields between the mount options and the separator "-" may be any number,
// and the source may be empty.
func parseMount(line string) (mount, error) {
	fields := strings.Split(line, " ")
	dash := -1
	for i := 6; i < len(fields); i++ {
		if fields[i] == "-" {
			dash = i
			break
		}
	}
	if dash < 0 || len(fields) < dash+4 {
		return mount{}, fmt.Errorf("%w: %q", errMountinfo, line)
	}
	id, err := strconv.Atoi(fields[0])
	if err != nil || !isDevice(fields[2]) {
		return mount{}, fmt.Errorf("%w: %q", errMountinfo, line)
	}
	m := mount{
		id:     id,
		device: fields[2],
		root:   unescape(fields[3]),
		point:  unescape(fields[4]),
		fsType: unescape(fields[dash+1]),
		source: unescape(fields[dash+2]),
	}
	for option := range strings.SplitSeq(fields[dash+3], ",") {
		m.readOnly = m.readOnly || option == "ro"
	}
	if !strings.HasPrefix(m.point, "/") {
		return mount{}, fmt.Errorf("%w: mount point %q", errMountinfo, m.point)
	}
	return m, nil
}

// isDevice tells whether s is major:minor in decimal.
func isDevice(s string) bool {
	major, minor, ok := strings.Cut(s, ":")
	if !ok {
		return false
	}
	for _, n := range []string{major, minor} {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil {
			return false
		}
	}
	return true
}

// unescape undoes the kernel's octal escapes of space, tab, newline, backslash and number sign. A backslash without
// three octal digits behind it stays what it is.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// escape is the inverse of unescape for the characters that the kernel escapes in a mount point.
func escape(s string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
}
