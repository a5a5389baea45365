package admission

import (
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// The hysteresis of mode auto (values unverified).
const (
	leaveIO     = 6500 * time.Millisecond
	returnToIO  = 5500 * time.Millisecond
	returnAfter = 20
	calmDays    = 7 * 24 * time.Hour
)

// Policy is where a run allows a Windows guest to wait.
type Policy string

// The policies. Auto begins with io and goes to writer when the VM's windows ask for it.
const (
	Auto       Policy = "auto"
	IOOnly     Policy = "io"
	WriterOnly Policy = "writer"
)

// Limits are the ages at which THAW is sent: of the hold, and of the time inside CommitSnapshots (mode io).
type Limits struct{ Hold, IO time.Duration }

// DecideVSS answers for a Windows guest, which can be held in two ways. An application that only io proves whole is
// never moved to writer unless the policy allows it.
func DecideVSS(samples []Sample, l Limits, policy Policy, busy string, now time.Time) Decision {
	modes := []freezewindow.Mode{freezewindow.ModeIO, freezewindow.ModeWriter}
	switch {
	case policy == IOOnly:
		modes = modes[:1]
	case policy == WriterOnly, Mode(lastMode(samples), samples, now) == freezewindow.ModeWriter:
		modes = modes[1:]
	}
	var d Decision
	for _, m := range modes {
		d = Decide(samples, l.Hold, busy)
		d.Mode = m
		if m == freezewindow.ModeIO && d.Word == Admit {
			d = d.within(l.IO)
		}
		if d.Word == Admit {
			break
		}
	}
	return d
}

// within refuses io where snapshot and thaw will probably not fit into the time that Windows holds writes. A VM without
// history is tried: with the defaults for an unknown one, io would never begin.
func (d Decision) within(limit time.Duration) Decision {
	p := d.Predicted
	if p.Samples == 0 || p.Snapshot99+p.Thaw99 <= limit {
		return d
	}
	d.Word, d.Code = Refuse, "SF4010"
	d.Reason = fmt.Sprintf("snapshot %s + thaw %s are more than the %s that writes are held in mode io (99th percentiles, from %s)",
		seconds(p.Snapshot99), seconds(p.Thaw99), seconds(limit), basis(p.Samples))
	return d
}

// lastMode is the mode of the last window that has one.
func lastMode(samples []Sample) freezewindow.Mode {
	for _, s := range slices.Backward(samples) {
		if s.Mode != "" {
			return s.Mode
		}
	}
	return ""
}

// Mode chooses where a Windows guest waits under mode auto: io first; writer when snapshots of this VM take too long for
// the 10 s of flush-and-hold, or Windows let go in the last window; io again after enough short and calm windows.
func Mode(current freezewindow.Mode, samples []Sample, now time.Time) freezewindow.Mode {
	samples = samples[max(0, len(samples)-Keep):]
	if current != freezewindow.ModeWriter {
		letGo := len(samples) > 0 && samples[len(samples)-1].HoldTimeout
		if letGo || len(samples) > 0 && Predict(samples).Snapshot95 > leaveIO {
			return freezewindow.ModeWriter
		}
		return freezewindow.ModeIO
	}
	restless := slices.ContainsFunc(samples, func(s Sample) bool { return s.HoldTimeout && now.Sub(s.At) < calmDays })
	if restless || len(samples) < returnAfter || Predict(samples[len(samples)-returnAfter:]).Snapshot95 > returnToIO {
		return freezewindow.ModeWriter
	}
	return freezewindow.ModeIO
}
