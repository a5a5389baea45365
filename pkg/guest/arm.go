package guest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Order is what a run wants to be held.
type Order struct {
	Mode   freezewindow.Mode
	Budget freezewindow.Budget
	// Volumes are mount points or volume ids; empty means all that are supported.
	Volumes []string
	// BackupType is copy or full; empty is copy, which touches no application's log or differential chain (Windows).
	BackupType string
	// Required writers must be well for a consistent level, Tolerated ones need not, Excluded ones are not asked at all;
	// each is a class id. The agent requires Exchange, SQL Server and NTDS by itself where they are (Windows).
	Required, Tolerated, Excluded []string
}

// Arm has the agent do everything slow; nothing is held yet. The Ready says what will be held and for how long the agent
// stays ready; the caller adds what it knows itself.
func (s *Session) Arm(ctx context.Context, o Order) (freezewindow.Ready, error) {
	b := o.Budget
	if s.peer.Slow {
		var err error
		if o.Mode, err = mailboxMode(o.Mode, s.Hello.OS.Family); err != nil {
			return freezewindow.Ready{}, err
		}
	}
	m := &protocol.Arm{
		Mode: string(o.Mode), BackupType: cmp.Or(o.BackupType, "copy"), Volumes: o.Volumes, Hooks: []string{},
		Writers: protocol.WriterPolicy{Required: some(o.Required), Tolerated: some(o.Tolerated), Excluded: some(o.Excluded)},
		Budget:  protocol.Limits{HoldMS: b.Hold.Milliseconds(), DeadmanMS: b.Deadman.Milliseconds(), IODeadmanMS: b.IODeadman.Milliseconds()},
	}
	answer, err := s.ask(ctx, m, protocol.WordArm, protocol.WordReady, armLimit)
	s.hooked = CodeOf(err) == "SF4019"
	if err != nil {
		return freezewindow.Ready{}, err
	}
	r, ok := answer.(*protocol.Ready)
	if !ok {
		return freezewindow.Ready{}, &Error{SF: "SF3901", Op: "arm the agent", Err: fmt.Errorf("the agent answered %s", answer.Head().T)}
	}
	s.hooked, s.Ready = len(r.Hooks) > 0, r
	ready := freezewindow.Ready{Mode: freezewindow.Mode(r.Mode), Left: time.Duration(r.ReadyLeftMS) * time.Millisecond}
	for _, w := range r.Writers {
		if w.Required {
			ready.Writers = append(ready.Writers, w.ClassID)
		}
	}
	for _, v := range r.Volumes {
		if len(v.Mounts) > 0 {
			ready.Volumes = append(ready.Volumes, v.Mounts[0])
		} else {
			ready.Volumes = append(ready.Volumes, v.ID)
		}
	}
	return ready, nil
}

// some is never null on the wire.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Volume is a file system of the guest for the report.
type Volume struct{ Mount, FS, Why string }

// NotHeld lists the guest's local file systems that are writable and not among held. Those without a device of their own
// (major number 0) hold no data of the VM's disks, but for btrfs.
func (s *Session) NotHeld(held []string) []Volume {
	var out []Volume
	for _, v := range s.Hello.Volumes {
		if len(v.Mounts) == 0 || slices.Contains(held, v.Mounts[0]) || v.Why == "read-only" ||
			strings.HasPrefix(v.ID, "0:") && v.FS != "btrfs" {
			continue
		}
		why := v.Why
		if v.Supported {
			why = "not asked for"
		}
		out = append(out, Volume{v.Mounts[0], v.FS, why})
	}
	return out
}
