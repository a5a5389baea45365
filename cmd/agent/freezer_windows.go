package main

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/eventlog"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss"
)

// beforeArm is how much of the log from before the preparation is told of. It may be another freeze's, so that it is no witness
// of this one.
const beforeArm = 5 * time.Second

// witnessed is the freezer of VSS with the event log as its witness.
type witnessed struct {
	*vss.Freezer
	armed time.Time
}

var _ agent.Settler = (*witnessed)(nil)

// Prepare implements agent.Freezer. What the writers' metadata took is given back to Windows before anything is held.
func (w *witnessed) Prepare(ctx context.Context, r agent.PrepareRequest) (agent.Prepared, error) {
	w.armed = time.Now()
	defer debug.FreeOSMemory()
	return w.Freezer.Prepare(ctx, r)
}

// Settle implements agent.Settler. It reads the log after the writers have answered, when nothing has been held for long.
func (w *witnessed) Settle(ctx context.Context) agent.Settled {
	out := w.Freezer.Settle(ctx)
	log, err := eventlog.Harvest(ctx, time.Since(w.armed)+beforeArm)
	now := time.Now()
	out.Witness, out.Events = eventlog.Witness(eventlog.Since(log.Events, now, time.Since(w.armed))), eventlog.Rows(log.Events, now)
	switch {
	case err != nil:
		out.Witness["event_log"] = err.Error()
	case log.Truncated:
		out.Witness["event_log"] = "truncated"
	}
	return out
}

func newFreezer(s seams, h *host) agent.Settler {
	return &witnessed{Freezer: vss.New(vss.Options{Provider: h.provider, Version: version, Seams: s.vss})}
}

// listVolumes needs no provider.
func listVolumes(ctx context.Context, s seams) ([]protocol.Volume, error) {
	return vss.New(vss.Options{Version: version, Seams: s.vss}).Volumes(ctx)
}
