package admission

import (
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
