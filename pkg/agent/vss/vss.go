// Package vss freezes a Windows guest: it is the requestor that drives VSS with the provider of vss/provider.
//
// IVssBackupComponents is used by one thread only, which polls what VSS does asynchronously. A session opened in the
// writers always ends by exactly one of BackupComplete and AbortBackup: a writer keeps 64 open ones, and unfinished ones
// push out those of others.
package vss

import (
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
)

// Options are what a Freezer is made of.
type Options struct {
	// Provider is the one that this process serves (provider.Start).
	Provider *provider.Provider
	// Version is the agent's, told in READY.
	Version string
	Seams   Seams
}

// Seams stand in for what a lab's Windows does not have; the zero value is the real thing. Only builds tagged lab fill
// them in.
type Seams struct {
	// Disks says where a volume lies, in place of IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS.
	Disks func(volume string) ([]protocol.Disk, error)
	// Open opens a volume to be flushed, in place of FlushFileBuffers on the volume itself.
	Open func(volume string) (Flusher, error)
	// Pause is the middle of the wait for another requestor's set, in place of busyPause.
	Pause time.Duration
}
