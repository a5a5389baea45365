//go:build lab

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss"
)

// labEnv precedes the command, once for each variable that the launcher hands on: a service does not inherit the
// environment of the one who starts it.
const labEnv = "--lab-env"

// The seams that only lab builds have. What each replaces is unproved on real systems:
//
//   - STILLFRAME_LAB_VM_UUID: the VM's uuid, in place of the firmware's.
//   - STILLFRAME_LAB_LISTEN_HOST: the address to bind, so that several guests fit on one machine.
//   - STILLFRAME_LAB_MAILBOX: a folder that stands for guestinfo; see guestinfo_lab.go.
//   - STILLFRAME_LAB_IDLE: how long to wait for a peer, such as 2s.
//   - STILLFRAME_LAB_BOOT_ID: the guest's boot id, in place of the system's.
//   - STILLFRAME_LAB_DISKS: where volumes lie, such as C:=serial:0,D:=other:1 with the serial and the number of the disk.
//   - STILLFRAME_LAB_BUSY: how long to wait for another requestor's shadow copy, give or take a third, such as 300ms.
//   - STILLFRAME_LAB_TOKEN: filtered is a token as UAC leaves it.
//   - STILLFRAME_LAB_FLUSH: how long a volume's flush takes, such as 5ms; nothing is flushed then.
func currentSeams() seams {
	s := seams{
		vmUUID:     strings.ToLower(os.Getenv("STILLFRAME_LAB_VM_UUID")),
		listenHost: os.Getenv("STILLFRAME_LAB_LISTEN_HOST"),
		bootID:     os.Getenv("STILLFRAME_LAB_BOOT_ID"),
		filtered:   os.Getenv("STILLFRAME_LAB_TOKEN") == "filtered",
	}
	if disks := os.Getenv("STILLFRAME_LAB_DISKS"); disks != "" {
		s.vss.Disks = func(volume string) ([]protocol.Disk, error) { return labDisks(disks, volume) }
	}
	if flush, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_FLUSH")); err == nil {
		s.vss.Open = func(string) (vss.Flusher, error) { return labFlusher(flush), nil }
	}
	if busy, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_BUSY")); err == nil {
		s.vss.Pause = busy
	}
	if idle, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_IDLE")); err == nil {
		s.idle = idle
	}
	return s
}

// labDisks finds a volume, \\?\Volume{guid}\, in the lab's map.
func labDisks(disks, volume string) ([]protocol.Disk, error) {
	for pair := range strings.SplitSeq(disks, ",") {
		mount, place, _ := strings.Cut(pair, "=")
		serial, number, _ := strings.Cut(place, ":")
		root, err := windows.UTF16PtrFromString(strings.TrimSuffix(mount, `\`) + `\`)
		if err != nil {
			return nil, err
		}
		var name [64]uint16
		if err := windows.GetVolumeNameForVolumeMountPoint(root, &name[0], uint32(len(name))); err != nil {
			return nil, fmt.Errorf("find the volume of %s: %w", mount, err)
		}
		if !strings.EqualFold(windows.UTF16ToString(name[:]), volume) {
			continue
		}
		n, err := strconv.Atoi(number)
		return []protocol.Disk{{Serial: serial, Number: n}}, err
	}
	return nil, errors.New("the lab has no disk for it")
}

// labFlusher is a volume whose flush takes its time and writes nothing.
type labFlusher time.Duration

func (f labFlusher) Flush() error { time.Sleep(time.Duration(f)); return nil }

func (labFlusher) Close() error { return nil }

// takeSeams sets the variables that stand before the command.
func takeSeams(args []string) ([]string, error) {
	for len(args) >= 2 && args[0] == labEnv {
		key, value, _ := strings.Cut(args[1], "=")
		if err := os.Setenv(key, value); err != nil {
			return nil, fmt.Errorf("set %q: %w", args[1], err)
		}
		args = args[2:]
	}
	return args, nil
}

// giveSeams gives the lab's variables of this process for the command line of another.
func giveSeams() []string {
	var args []string
	env := os.Environ()
	slices.Sort(env)
	for _, pair := range env {
		if strings.HasPrefix(pair, "STILLFRAME_LAB_") || strings.HasPrefix(pair, "LAB_VSS_") {
			args = append(args, labEnv, pair)
		}
	}
	return args
}
