package admission

import (
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Word is what admission says.
type Word string

// The words. A one-shot run takes delay for a refusal, because it does not wait.
const (
	Admit  Word = "admit"
	Delay  Word = "delay"
	Refuse Word = "refuse"
)

// maxRTT is the longest round trip at which words still reach the guest in time.
const maxRTT = 500 * time.Millisecond

// Decision is the answer before a freeze. The zero Decision admits nothing.
type Decision struct {
	Word Word
	Mode freezewindow.Mode
	// Code is SF4010, SF4011 or SF4012, empty when it is admitted; Reason has the numbers.
	Code, Reason string
	Predicted    Prediction
	// Limit is the time within which THAW has to be sent; Need the least time that is worth asking for a snapshot.
	Limit, Need time.Duration
}

// Decide answers for a guest that is held in one way only, as Linux guests are. limit is the age of the hold at which
// THAW is sent. busy says what else works on the VM's snapshots, empty when nothing does.
func Decide(samples []Sample, limit time.Duration, busy string) Decision {
	p := Predict(samples)
	d := Decision{
		Word: Admit, Mode: freezewindow.ModeFS, Predicted: p, Limit: limit, Need: max(p.Snapshot50, freezewindow.MinNeed),
		Reason: fmt.Sprintf("%s of at most %s, from %s", seconds(p.Sum()), seconds(limit), basis(p.Samples)),
	}
	switch {
	case busy != "":
		d.Word, d.Code, d.Reason = Delay, "SF4012", busy
	case p.Sum() > limit:
		d.Word, d.Code = Refuse, "SF4010"
		d.Reason = fmt.Sprintf("freeze %s + snapshot %s + thaw %s = %s, more than the %s that a window has (99th percentiles, from %s)",
			seconds(p.Freeze99), seconds(p.Snapshot99), seconds(p.Thaw99), seconds(p.Sum()), seconds(limit), basis(p.Samples))
		if hour, ok := better(samples, limit); ok {
			d.Word = Delay
			d.Reason += fmt.Sprintf("; windows between %02d:00 and %02d:00 UTC were short enough", hour, (hour+1)%24)
		}
	}
	return d
}

// Road gives the reason against a road whose longest round trip was rtt, empty when there is none.
func Road(rtt time.Duration) string {
	if rtt <= maxRTT {
		return ""
	}
	return fmt.Sprintf("the round trip to the agent takes up to %s, more than %s", seconds(rtt), seconds(maxRTT))
}

func basis(samples int) string {
	switch samples {
	case 0:
		return "no window of this VM yet"
	case 1:
		return "1 window"
	}
	return fmt.Sprintf("%d windows", samples)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
