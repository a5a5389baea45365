package vss

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// freezable says why a volume cannot be in a set; "" when it can. The drive type is that of GetDriveType (fileapi.h).
func freezable(driveType uint32, fileSystem string, err error) string {
	const driveFixed = 3
	switch {
	case driveType != driveFixed:
		return "not a fixed disk"
	case err != nil:
		return "not readable: " + err.Error() // locked by BitLocker, for one
	case !strings.EqualFold(fileSystem, "NTFS") && !strings.EqualFold(fileSystem, "ReFS"):
		return "its file system is " + fileSystem + ", not NTFS or ReFS"
	}
	return ""
}

// chooseVolumes takes the requested volumes, by id or mount point; no request means all that can be frozen. What cannot be
// had is an error: less than what was asked is never frozen silently.
func chooseVolumes(all []protocol.Volume, requested []string) ([]protocol.Volume, error) {
	var set []protocol.Volume
	if len(requested) == 0 {
		for _, v := range all {
			if v.Supported {
				set = append(set, v)
			}
		}
	}
	for _, r := range requested {
		i := slices.IndexFunc(all, func(v protocol.Volume) bool {
			return sameVolume(v.ID, r) || slices.ContainsFunc(v.Mounts, func(m string) bool { return sameVolume(m, r) })
		})
		switch {
		case i < 0:
			return nil, coded("SF4201", "choose volume %q: there is none of that name", r)
		case !all[i].Supported:
			return nil, coded(codeNoVolume, "choose volume %q: %s", r, all[i].Why)
		case !slices.ContainsFunc(set, func(v protocol.Volume) bool { return v.ID == all[i].ID }):
			set = append(set, all[i])
		}
	}
	switch {
	case len(set) == 0:
		return nil, coded(codeNoVolume, "choose volumes: none can be frozen")
	case len(set) > vsscode.MaxVolumes:
		return nil, coded(codeTooMany, "choose volumes: %d are more than the %d of one set", len(set), vsscode.MaxVolumes)
	}
	return set, nil
}

// splitStrings reads a list of strings, each with a zero at its end, and one more after the last.
func splitStrings(list []uint16) []string {
	all := []string{}
	for len(list) > 0 {
		end := slices.Index(list, 0)
		if end <= 0 {
			break
		}
		all = append(all, string(utf16.Decode(list[:end])))
		list = list[end+1:]
	}
	return all
}

// extent is where a part of a volume lies (winioctl.h, DISK_EXTENT).
type extent struct {
	disk   uint32
	offset int64
}

// parseExtents reads VOLUME_DISK_EXTENTS (winioctl.h): a count, and from byte 8 on 24 bytes an extent.
func parseExtents(b []byte) []extent {
	const head, size = 8, 24
	if len(b) < head {
		return nil
	}
	var all []extent
	for i := range int(binary.LittleEndian.Uint32(b)) {
		at := head + i*size
		if at+size > len(b) {
			break
		}
		all = append(all, extent{binary.LittleEndian.Uint32(b[at:]), int64(binary.LittleEndian.Uint64(b[at+8:]))})
	}
	return all
}

// parseSerial reads the serial number out of STORAGE_DEVICE_DESCRIPTOR (winioctl.h): the offset at byte 24, 0 for none, of
// a string of bytes.
func parseSerial(b []byte) string {
	const at = 24
	if len(b) < at+4 {
		return ""
	}
	offset := binary.LittleEndian.Uint32(b[at:])
	if offset == 0 || int64(offset) >= int64(len(b)) {
		return ""
	}
	text, _, _ := strings.Cut(string(b[offset:]), "\x00")
	return strings.TrimSpace(text)
}
