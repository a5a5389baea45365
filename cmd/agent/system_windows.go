package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

var procGetSystemFirmwareTable = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetSystemFirmwareTable")

// maxFirmwareTable bounds the SMBIOS table; real ones have a few KiB.
const maxFirmwareTable = 1 << 20

// guest describes the system for HELLO.
func guest(s seams, exe string) (agent.Options, error) {
	o := agent.Options{Version: version, Uptime: windows.DurationSinceBoot, VMUUID: s.vmUUID, BootID: s.bootID, Idle: s.idle}
	var err error
	if o.ExeSHA256, err = hashOf(exe); err != nil {
		return o, err
	}
	if o.VMUUID == "" {
		if o.VMUUID, err = firmwareUUID(); err != nil {
			return o, &agent.CodedError{Code: "SF3704", Err: fmt.Errorf("read the VM's uuid: %w", err)}
		}
	}
	if o.BootID == "" {
		if o.BootID, err = bootID(); err != nil {
			return o, err
		}
	}
	o.OS, err = system()
	return o, err
}

// firmwareUUID reads the SMBIOS table and gives the uuid of the system.
func firmwareUUID() (string, error) {
	const provider = 'R'<<24 | 'S'<<16 | 'M'<<8 | 'B'
	size, _, err := procGetSystemFirmwareTable.Call(provider, 0, 0, 0)
	if size == 0 || size > maxFirmwareTable {
		return "", fmt.Errorf("ask for the size of the SMBIOS table: %d, %w", size, err)
	}
	raw := make([]byte, size)
	got, _, err := procGetSystemFirmwareTable.Call(provider, 0, uintptr(unsafe.Pointer(&raw[0])), size)
	if got == 0 || got > size {
		return "", fmt.Errorf("read the SMBIOS table: %d of %d bytes, %w", got, size, err)
	}
	return systemUUID(raw[:got])
}

// timeOfDay is the beginning of SYSTEM_TIMEOFDAY_INFORMATION (ntexapi.h of phnt); times in units of 100 ns.
type timeOfDay struct {
	bootTime      int64
	currentTime   int64
	timeZoneBias  int64
	timeZoneID    uint32
	reserved      uint32
	bootTimeBias  uint64
	sleepTimeBias uint64
}

// bootID names this boot of the system by the moment of its start. When somebody sets the clock, the system moves that
// moment along and adds up by how much in the bias (unverified on Windows), so the difference stays the same.
func bootID() (string, error) {
	var now timeOfDay
	err := windows.NtQuerySystemInformation(windows.SystemTimeOfDayInformation, unsafe.Pointer(&now), uint32(unsafe.Sizeof(now)), nil)
	if err != nil {
		return "", fmt.Errorf("ask for the time of the boot: %w", err)
	}
	return fmt.Sprintf("boot-%016x", uint64(now.bootTime)-now.bootTimeBias), nil
}

// system names the operating system; what the registry does not tell stays blank.
func system() (protocol.OS, error) {
	v := windows.RtlGetVersion()
	o := protocol.OS{
		Family: "windows", Arch: runtime.GOARCH,
		Version: fmt.Sprintf("%d.%d", v.MajorVersion, v.MinorVersion), Build: strconv.FormatUint(uint64(v.BuildNumber), 10),
	}
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Windows NT\CurrentVersion`, registry.QUERY_VALUE)
	if err != nil {
		return o, fmt.Errorf("open the registry's name of the system: %w", err)
	}
	revision, _, err := key.GetIntegerValue("UBR") // the number after the dot that winver shows
	if err == nil {
		o.Build += "." + strconv.FormatUint(revision, 10)
	}
	var edition error
	o.Edition, _, edition = key.GetStringValue("ProductName")
	return o, errors.Join(unlessAbsent(err), unlessAbsent(edition), key.Close())
}

// unlessAbsent drops the error of a registry key or value that is not there.
func unlessAbsent(err error) error {
	if errors.Is(err, registry.ErrNotExist) {
		return nil
	}
	return err
}
