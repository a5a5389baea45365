//go:build lab

package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/fsfreeze"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// The seams that only lab builds have. What each replaces is unproved on real systems:
//
//   - STILLFRAME_LAB_VM_UUID: the VM's uuid, in place of the firmware's.
//   - STILLFRAME_LAB_LISTEN_HOST: the address to bind, so that several guests fit on one machine.
//   - STILLFRAME_LAB_ONLY_MOUNT: colon-separated allow-list; without any allow-list a lab build freezes nothing, so that
//     the machine that runs the lab is never frozen.
//   - STILLFRAME_LAB_RUN_DIR: in place of /run/stillframe.
//   - STILLFRAME_LAB_HOME: in place of /var/lib/stillframe/agent/persistent.
//   - STILLFRAME_LAB_SYSTEMD: a folder with the folder units and a program systemctl, in place of the machine's; empty for a
//     machine on which systemd does not run.
//   - STILLFRAME_LAB_FREEZER: unix:/path of a scripted freezer, in place of real file systems.
//   - STILLFRAME_LAB_HOOKS_DIR: in place of /etc/stillframe/hooks.d, and its hooks may belong to the lab's own user; empty
//     for no hooks, whatever lies in /etc.
//   - STILLFRAME_LAB_MAILBOX: a folder that stands for guestinfo; see guestinfo_lab.go.
//   - STILLFRAME_LAB_IDLE: how long to wait for a peer, such as 2s.
//   - STILLFRAME_LAB_BOOT_ID: the guest's boot id, in place of the kernel's.
//   - STILLFRAME_LAB_PREPARE: how long the scripted freezer takes to prepare, such as 3s.
//   - STILLFRAME_LAB_FREEZE: how long the scripted freezer takes until everything is held.
//   - STILLFRAME_LAB_RELEASE: how long the scripted freezer takes to release; the guest is held all that time.
//   - STILLFRAME_LAB_FRAMES_TO_GUEST, STILLFRAME_LAB_FRAMES_FROM_GUEST: what is done to frames; see frames_lab_linux.go.
//   - STILLFRAME_LAB_LIE: what the agent lies about; see lie_lab_linux.go.
func currentSeams() seams {
	s := seams{
		runDir:     "/run/stillframe",
		homeDir:    cmp.Or(os.Getenv("STILLFRAME_LAB_HOME"), defaultHome),
		vmUUID:     strings.ToLower(os.Getenv("STILLFRAME_LAB_VM_UUID")),
		listenHost: os.Getenv("STILLFRAME_LAB_LISTEN_HOST"),
		freezer:    os.Getenv("STILLFRAME_LAB_FREEZER"),
		hooksDir:   os.Getenv("STILLFRAME_LAB_HOOKS_DIR"),
		hooksOwner: uint32(os.Geteuid()),
		bootID:     os.Getenv("STILLFRAME_LAB_BOOT_ID"),
		lie:        os.Getenv("STILLFRAME_LAB_LIE"),
		toGuest:    os.Getenv("STILLFRAME_LAB_FRAMES_TO_GUEST"),
		fromGuest:  os.Getenv("STILLFRAME_LAB_FRAMES_FROM_GUEST"),
	}
	if dir := os.Getenv("STILLFRAME_LAB_SYSTEMD"); dir != "" {
		s.systemd = systemd{booted: dir, units: filepath.Join(dir, "units"), systemctl: filepath.Join(dir, "systemctl")}
	}
	if prepare, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_PREPARE")); err == nil {
		s.prepare = prepare
	}
	if freeze, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_FREEZE")); err == nil {
		s.freeze = freeze
	}
	if release, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_RELEASE")); err == nil {
		s.release = release
	}
	if dir := os.Getenv("STILLFRAME_LAB_RUN_DIR"); dir != "" {
		s.runDir = dir
	}
	if idle, err := time.ParseDuration(os.Getenv("STILLFRAME_LAB_IDLE")); err == nil {
		s.idle = idle
	}
	for _, dir := range filepath.SplitList(os.Getenv("STILLFRAME_LAB_ONLY_MOUNT")) {
		s.onlyMount = append(s.onlyMount, filepath.Clean(dir))
	}
	return s
}

// newFreezer takes the allow-list of the flags and of the environment; where both are given, only what is in both.
func newFreezer(s seams, onlyMount []string) agent.Freezer {
	if path, ok := strings.CutPrefix(s.freezer, "unix:"); ok && s.lie != lieNeverHeld {
		return &scripted{path: path, prepare: s.prepare, slow: s.freeze, release: s.release}
	}
	if s.lie == lieNeverHeld {
		return pretender{}
	}
	switch {
	case len(onlyMount) == 0:
		onlyMount = s.onlyMount
	case len(s.onlyMount) > 0:
		onlyMount = slices.DeleteFunc(onlyMount, func(dir string) bool { return !slices.Contains(s.onlyMount, dir) })
	}
	return &lodger{fsfreeze.New(fsfreeze.Options{Bound: fsfreeze.Bound{OnlyMount: onlyMount}, RunDir: s.runDir})}
}

// lodger tells only of what it may freeze: the other file systems of this machine are not the lab guest's.
type lodger struct{ *fsfreeze.Freezer }

func (l *lodger) Volumes(ctx context.Context) ([]protocol.Volume, error) {
	all, err := l.Freezer.Volumes(ctx)
	return slices.DeleteFunc(all, func(v protocol.Volume) bool { return !v.Supported }), err
}
