package vss

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const (
	// volumeName is the size of a volume's name, \\?\Volume{guid}\ and the end.
	volumeName = 64
	// ioctlDiskExtents is IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, ioctlProperty IOCTL_STORAGE_QUERY_PROPERTY (winioctl.h).
	ioctlDiskExtents = 0x00560000
	ioctlProperty    = 0x002d1400
	// mountTries and mountPause are how often, and how long, a mount manager is waited for that does not answer.
	mountTries = 20
	mountPause = 100 * time.Millisecond
)

// Volumes lists the volumes of this machine, with the disks that they lie on. It blocks for at most 5 s.
func (f *Freezer) Volumes(ctx context.Context) ([]protocol.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, f.limits.volumes)
	defer cancel()
	type answer struct {
		volumes []protocol.Volume
		err     error
	}
	listed := make(chan answer, 1)
	go func() { // a disk that does not answer keeps it until it does
		volumes, err := listVolumes(f.o.Seams)
		listed <- answer{volumes, err}
	}()
	select {
	case a := <-listed:
		return a.volumes, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("list the volumes: %w", context.Cause(ctx))
	}
}

func listVolumes(seams Seams) (all []protocol.Volume, err error) {
	var name [volumeName]uint16
	search, err := windows.FindFirstVolume(&name[0], volumeName)
	for n := 0; n < mountTries && errors.Is(err, windows.ERROR_FILE_NOT_FOUND); n++ { // the mount manager has not come up yet
		time.Sleep(mountPause)
		search, err = windows.FindFirstVolume(&name[0], volumeName)
	}
	if err != nil {
		return nil, fmt.Errorf("find the first volume: %w", err)
	}
	defer func() { err = errors.Join(err, windows.FindVolumeClose(search)) }()
	for {
		v, err := describe(windows.UTF16ToString(name[:]), seams)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
		err = windows.FindNextVolume(search, &name[0], volumeName)
		if errors.Is(err, windows.ERROR_NO_MORE_FILES) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find the next volume: %w", err)
		}
	}
}

// describe tells of one volume. What cannot be read makes the volume one that is not supported, with the reason.
func describe(id string, seams Seams) (protocol.Volume, error) {
	v := protocol.Volume{ID: id, Mounts: []string{}, Disks: []protocol.Disk{}}
	root, err := windows.UTF16PtrFromString(id)
	if err != nil {
		return v, err
	}
	if v.Mounts, err = mounts(root); err != nil {
		v.Why = "its mount points are not readable: " + err.Error()
		return v, nil
	}
	if len(v.Mounts) > 0 { // the same volume, by a name that older interfaces know too
		if root, err = windows.UTF16PtrFromString(v.Mounts[0]); err != nil {
			return v, err
		}
	}
	var fileSystem [windows.MAX_PATH + 1]uint16
	err = windows.GetVolumeInformation(root, nil, 0, nil, nil, nil, &fileSystem[0], uint32(len(fileSystem)))
	v.FS = windows.UTF16ToString(fileSystem[:])
	if v.Why = freezable(windows.GetDriveType(root), v.FS, err); v.Why != "" {
		return v, nil
	}
	var free, size uint64
	if err := windows.GetDiskFreeSpaceEx(root, nil, &size, &free); err != nil {
		v.Why = "its size is not readable: " + err.Error()
		return v, nil
	}
	v.Size, v.Free = int64(size), int64(free)
	locate := seams.Disks
	if locate == nil {
		locate = disks
	}
	if v.Disks, err = locate(id); err != nil {
		v.Why = "its disks are not readable: " + err.Error()
		return v, nil
	}
	v.Supported = true
	return v, nil
}

// mounts gives the drive letters and folders under which a volume is seen.
func mounts(root *uint16) ([]string, error) {
	buffer := make([]uint16, 1024)
	var length uint32
	err := windows.GetVolumePathNamesForVolumeName(root, &buffer[0], uint32(len(buffer)), &length)
	if errors.Is(err, windows.ERROR_MORE_DATA) {
		buffer = make([]uint16, length)
		err = windows.GetVolumePathNamesForVolumeName(root, &buffer[0], uint32(len(buffer)), &length)
	}
	if err != nil {
		return []string{}, err
	}
	return splitStrings(buffer[:length]), nil
}

// disks asks the system where a volume lies, and each of its disks for its serial number.
func disks(volume string) ([]protocol.Disk, error) {
	extents := make([]byte, 8+24*64)
	n, err := control(strings.TrimSuffix(volume, `\`), ioctlDiskExtents, nil, extents)
	if err != nil {
		return nil, err
	}
	all := []protocol.Disk{}
	for _, e := range parseExtents(extents[:n]) {
		query := make([]byte, 12) // STORAGE_PROPERTY_QUERY for StorageDeviceProperty 0, PropertyStandardQuery 0
		property := make([]byte, 1024)
		n, err := control(fmt.Sprintf(`\\.\PhysicalDrive%d`, e.disk), ioctlProperty, query, property)
		if err != nil {
			return nil, err
		}
		all = append(all, protocol.Disk{Serial: parseSerial(property[:n]), Number: int(e.disk), Offset: e.offset})
	}
	return all, nil
}

// control asks a device, which needs no right to read it.
func control(device string, code uint32, in, out []byte) (n uint32, err error) {
	handle, err := openDevice(device, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, windows.CloseHandle(handle)) }()
	var first *byte
	if len(in) > 0 {
		first = &in[0]
	}
	if err := windows.DeviceIoControl(handle, code, first, uint32(len(in)), &out[0], uint32(len(out)), &n, nil); err != nil {
		return 0, fmt.Errorf("ask %s: %w", device, err)
	}
	return n, nil
}

func openDevice(device string, access uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(device)
	if err != nil {
		return 0, err
	}
	handle, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", device, err)
	}
	return handle, nil
}

// openVolume opens a volume whose cache is to be written out.
func openVolume(volume string) (Flusher, error) {
	handle, err := openDevice(strings.TrimSuffix(volume, `\`), windows.GENERIC_WRITE)
	return volumeHandle(handle), err
}

type volumeHandle windows.Handle

func (h volumeHandle) Flush() error { return windows.FlushFileBuffers(windows.Handle(h)) }

func (h volumeHandle) Close() error { return windows.CloseHandle(windows.Handle(h)) }

// locate gives the volume that a writer's folder lies on, "" when it is on none of this machine.
func locate(folder string) string {
	if expanded, err := registry.ExpandString(folder); err == nil {
		folder = expanded
	}
	name, err := windows.UTF16PtrFromString(filepath.Clean(folder))
	if err != nil {
		return ""
	}
	var mount [windows.MAX_LONG_PATH]uint16
	if err := windows.GetVolumePathName(name, &mount[0], uint32(len(mount))); err != nil {
		return ""
	}
	var volume [volumeName]uint16
	if err := windows.GetVolumeNameForVolumeMountPoint(&mount[0], &volume[0], volumeName); err != nil {
		return ""
	}
	return windows.UTF16ToString(volume[:])
}

func text(s *uint16) string {
	if s == nil {
		return ""
	}
	return windows.UTF16PtrToString(s)
}
