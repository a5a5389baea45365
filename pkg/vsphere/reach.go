package vsphere

import (
	"context"
	"fmt"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// maxReach is how much longer than our own question to it a question may take that vCenter passes on to the VM's host
// (unverified: judgement). The snapshot task of a window crosses the same way more than once.
const maxReach = 100 * time.Millisecond

// reachTries is how often both are asked at most.
const reachTries = 4

// reach is how long a question to vCenter itself took, and one that it passes on to the VM's host; why says why that is not
// known.
type reach struct {
	own, host time.Duration
	why       string
}

// beyond is the way from vCenter to the host and back, with what the host itself takes.
func (r reach) beyond() time.Duration { return max(0, r.host-r.own) }

// reachHost completes a view with the way to the host: vCenter is asked for its own time and for the host's, which it does not
// keep. While the host seems far both are asked again, a few times: any of them may have been unlucky.
func (v *view) reachHost(ctx context.Context, e *Endpoint) {
	at, ok := v.host["configManager.dateTimeSystem"].(types.ManagedObjectReference)
	if !ok {
		v.reach.why = "the host's configManager.dateTimeSystem could not be read"
		return
	}
	v.reach = e.reach(ctx, at)
	for n := 1; n < reachTries && v.reach.why == "" && v.reach.beyond() >= maxReach; n++ {
		if again := e.reach(ctx, at); again.why != "" || again.beyond() < v.reach.beyond() {
			v.reach = again
		}
	}
}

func (e *Endpoint) reach(ctx context.Context, at types.ManagedObjectReference) (r reach) {
	begin := time.Now()
	if _, err := methods.GetCurrentTime(ctx, e.vim); err != nil {
		r.why = "vCenter does not tell its time: " + err.Error()
		return r
	}
	r.own, begin = time.Since(begin), time.Now()
	if _, err := methods.QueryDateTime(ctx, e.vim, &types.QueryDateTime{This: at}); err != nil {
		r.why = "the host does not tell its time: " + err.Error()
		return r
	}
	r.host = time.Since(begin)
	return r
}

// judgeReach finds a host that is far from its vCenter: the snapshot takes that much longer, in the window.
func judgeReach(v *view) finding {
	switch {
	case v.reach.why != "":
		return unknown(v.reach.why)
	case v.reach.beyond() >= maxReach:
		return warn(fmt.Sprintf("from vCenter to the VM's host and back it takes %d ms, from here to vCenter and back %d ms; %d ms or more is too long",
			v.reach.beyond().Milliseconds(), v.reach.own.Milliseconds(), maxReach.Milliseconds()))
	}
	return fine()
}
