package fsfreeze

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent"
)

// The codes of the error catalogue that this package gives (rows linux_freeze).
const (
	codeNotReached = "SF4001" // freeze_not_reached
	codeFlush      = "SF4004" // flush_timeout
	codeFrozen     = "SF4701" // fs_already_frozen
	codeCannot     = "SF4702" // fs_cannot_freeze
	codeNoRight    = "SF4703" // fs_freeze_no_capability
	codeNotOpen    = "SF4705" // fs_mount_not_openable
	codeIO         = "SF4706" // fs_freeze_io_error
	codeFailed     = "SF4707" // fs_freeze_failed
	codeThaw       = "SF4709" // fs_thaw_failed
)

// coded makes a coded error of a formatted one.
func coded(code, format string, args ...any) error {
	return &agent.CodedError{Code: code, Err: fmt.Errorf(format, args...)}
}

// freezable are the file systems that implement freezing on block devices and are known to come back clean. Everything
// else is skipped: network and stacked ones answer EOPNOTSUPP, or hold somebody else's data.
var freezable = []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "nilfs2"}

// kernelOnly hold no data of anybody; they are not even reported as skipped.
var kernelOnly = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl",
	"hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}

// Bound says what may ever be frozen. The zero value allows nothing.
type Bound struct {
	// OnlyMount is the allow-list of exact mount points. When it is not empty, a file system is frozen only if every
	// place where it is mounted is listed.
	OnlyMount []string
	// AllMounts allows every file system that can be frozen when OnlyMount is empty.
	AllMounts bool
}

// refuses says why a file system that is mounted at these points may not be frozen; empty when it may.
func (b Bound) refuses(points []string) string {
	if len(b.OnlyMount) == 0 {
		if b.AllMounts {
			return ""
		}
		return "nothing may be frozen by this agent: it has no allow-list"
	}
	for _, p := range points {
		if !slices.Contains(b.OnlyMount, p) {
			return fmt.Sprintf("not in the allow-list: mounted at %s", p)
		}
	}
	return ""
}

// fileSystem is one superblock with all its mounts.
type fileSystem struct {
	// device is major:minor, the identity.
	device string
	fsType string
	// points are all mount points, the shortest first.
	points []string
	// at is the mount through which it is opened, when supported.
	at        mount
	supported bool
	why       string
	// code is the error's code when somebody asks for it though it is not supported.
	code string
}

// survey groups the mounts by file system and judges each. The isDir probe is asked only for freezable, local ones.
func survey(mounts []mount, bound Bound, isDir func(string) bool) []fileSystem {
	top := make(map[string]int, len(mounts))
	for _, m := range mounts {
		top[m.point] = m.id // a later line covers an earlier one at the same place
	}
	byDevice := make(map[string][]mount)
	var devices []string
	for _, m := range mounts {
		if slices.Contains(kernelOnly, m.fsType) {
			continue
		}
		if byDevice[m.device] == nil {
			devices = append(devices, m.device)
		}
		byDevice[m.device] = append(byDevice[m.device], m)
	}
	all := make([]fileSystem, 0, len(devices))
	for _, d := range devices {
		all = append(all, judge(byDevice[d], top, bound, isDir))
	}
	return all
}

// judge makes one file system of its mounts and says whether it can and may be frozen.
func judge(mounts []mount, top map[string]int, bound Bound, isDir func(string) bool) fileSystem {
	slices.SortStableFunc(mounts, func(a, b mount) int {
		return len(a.point) - len(b.point)
	})
	fs := fileSystem{device: mounts[0].device, fsType: mounts[0].fsType, code: codeCannot}
	for _, m := range mounts {
		if !slices.Contains(fs.points, m.point) {
			fs.points = append(fs.points, m.point)
		}
	}
	switch {
	case !slices.Contains(freezable, fs.fsType):
		fs.why = skipReason(fs.fsType)
		return fs
	case mounts[0].readOnly:
		fs.why = "read-only"
		return fs
	}
	if fs.why = bound.refuses(fs.points); fs.why != "" {
		return fs
	}
	for _, wholeOnly := range []bool{true, false} {
		for _, m := range mounts {
			if wholeOnly && m.root != "/" || top[m.point] != m.id || !isDir(m.point) {
				continue
			}
			fs.at, fs.supported = m, true
			return fs
		}
	}
	fs.why, fs.code = "mounted on files only, or hidden under other mounts", codeNotOpen
	return fs
}

// skipReason says why a type of file system is not frozen.
func skipReason(fsType string) string {
	switch {
	case strings.HasPrefix(fsType, "nfs"), slices.Contains([]string{"cifs", "smb3", "ceph", "afs", "9p", "glusterfs", "lustre"}, fsType):
		return "network file system"
	case strings.HasPrefix(fsType, "fuse"):
		return "file system in user space"
	case fsType == "overlay", fsType == "aufs":
		return "stacked on other file systems"
	case fsType == "tmpfs":
		return "in memory"
	}
	return fmt.Sprintf("%s cannot be frozen", fsType)
}

// choose takes the requested file systems, by mount point or major:minor; no request means all that are supported. A
// request that cannot be met, and an empty choice, are coded errors: less than what was asked is never frozen silently.
func choose(all []fileSystem, requested []string) ([]fileSystem, error) {
	var set []fileSystem
	if len(requested) == 0 {
		var why []string
		for _, fs := range all {
			if fs.supported {
				set = append(set, fs)
			} else {
				why = append(why, fs.points[0]+": "+fs.why)
			}
		}
		if len(set) == 0 {
			return nil, coded(codeCannot, "choose file systems: none may be frozen (%s)", strings.Join(why[:min(len(why), 8)], "; "))
		}
		return set, nil
	}
	for _, r := range requested {
		i := slices.IndexFunc(all, func(fs fileSystem) bool {
			return fs.device == r || slices.Contains(fs.points, path.Clean(r))
		})
		switch {
		case i < 0:
			return nil, coded(codeNotOpen, "choose file system %q: nothing is mounted there", r)
		case !all[i].supported:
			return nil, coded(all[i].code, "choose file system %q: %s", r, all[i].why)
		case !slices.ContainsFunc(set, func(fs fileSystem) bool { return fs.device == all[i].device }):
			set = append(set, all[i])
		}
	}
	return set, nil
}

// order sorts the set for freezing: deepest mount first, root last, but above all a file system before the one that
// holds the image file it lives in, because its last flush must still reach that file. The backing function gives the
// image files below a device (none for a disk). Thawing goes in exact reverse.
func order(set []fileSystem, mounts []mount, backing func(device string) []string) []fileSystem {
	left := slices.Clone(set)
	slices.SortStableFunc(left, func(a, b fileSystem) int {
		if d := depth(b.points[0]) - depth(a.points[0]); d != 0 {
			return d
		}
		return strings.Compare(b.points[0], a.points[0])
	})
	lower := make(map[string][]string, len(left)) // device -> devices that must be frozen after it
	for _, fs := range left {
		lower[fs.device] = below(fs.device, mounts, backing, nil)
	}
	ordered := make([]fileSystem, 0, len(left))
	done := make(map[string]bool, len(left))
	var visit func(fs fileSystem)
	visit = func(fs fileSystem) {
		if done[fs.device] {
			return
		}
		done[fs.device] = true // before the others, so that a circle, which cannot be built, would end
		for _, other := range left {
			if slices.Contains(lower[other.device], fs.device) {
				visit(other)
			}
		}
		ordered = append(ordered, fs)
	}
	for _, fs := range left {
		visit(fs)
	}
	return ordered
}

// below appends to found the devices that device lies on by image files, however many layers down.
func below(device string, mounts []mount, backing func(device string) []string, found []string) []string {
	for _, file := range backing(device) {
		if d := holder(mounts, file); !slices.Contains(found, d) {
			found = below(d, mounts, backing, append(found, d))
		}
	}
	return found
}

// depth counts the elements of a clean absolute path; 0 for the root.
func depth(point string) int {
	if point == "/" {
		return 0
	}
	return strings.Count(point, "/")
}

// holder gives the device of the file system that file lies on: that of the longest mount point above it, the last one
// mounted there.
func holder(mounts []mount, file string) string {
	device, longest := "", -1
	for _, m := range mounts {
		if len(m.point) >= longest && (m.point == "/" || file == m.point || strings.HasPrefix(file, m.point+"/")) {
			device, longest = m.device, len(m.point)
		}
	}
	return device
}
