package backup

import (
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// What is different where the words of a window go through the VM's own configuration.

// budget is the plan's, with more room for THAW where that takes its time.
func (x *run) budget() freezewindow.Budget {
	if m := x.guest.Mailbox(); m != nil {
		return m.Budget(x.plan.Budget)
	}
	return x.plan.Budget
}

// hold is where the guest is to wait: a mailbox moves a plan that leaves the choice to the mode writer.
func (x *run) hold() freezewindow.Mode {
	if x.guest.Mailbox() != nil && x.mode == freezewindow.ModeIO && x.plan.Mode != admission.IOOnly {
		return freezewindow.ModeWriter
	}
	return x.mode
}

// snapshotter makes the snapshot of the window, with all words held back meanwhile where they would meet its task.
func (x *run) snapshotter() freezewindow.Snapshotter {
	if m := x.guest.Mailbox(); m != nil {
		return m.Around(x.snapshot)
	}
	return x.snapshot
}

// fits asks whether a window has room for GO and THAW beside what its snapshot will probably take. It stands for the limit on
// the round trip where that takes seconds by its nature.
func (x *run) fits(rtt time.Duration, b freezewindow.Budget) error {
	a := x.result.Admission
	if a == nil {
		return nil
	}
	snapshot := max(x.need, time.Duration(a.Predicted.SnapshotP99Seconds*float64(time.Second)))
	if snapshot+2*rtt <= b.ThawBy() {
		return nil
	}
	why := fmt.Sprintf("the snapshot will take about %v, and two words by mailbox %v each: more than the %v of the budget", snapshot, rtt, b.ThawBy())
	a.Decision, a.Code, a.Reason = admission.Refuse, "SF4010", why
	return x.decided(admission.Refuse, "SF4010", why)
}
