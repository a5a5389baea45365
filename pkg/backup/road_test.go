package backup

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// hostRoad is the host of the VM of a hypervisor, which shows what is made here under another moref.
type hostRoad struct {
	*hypervisor // the host's own calls and failures
	vcenter     *hypervisor
	lags        time.Duration // of what vCenter shows
}

func (h *hostRoad) Open(context.Context, inventory.VM) (HostRoad, error) {
	return h, h.call("open")
}

func (h *hostRoad) Name() string { return "esx-1" }

func (h *hostRoad) Here(context.Context) error { return h.call("here") }

func (h *hostRoad) Prepare(ctx context.Context, name, description string) (Snapshot, error) {
	p, err := h.hypervisor.Prepare(ctx, h.vm, name, description)
	if err != nil {
		return nil, err
	}
	return &hostSnapshot{p, h}, nil
}

func (h *hostRoad) FindSnapshots(ctx context.Context, prefix string) ([]inventory.Snapshot, error) {
	return h.hypervisor.FindSnapshots(ctx, h.vm, prefix)
}

func (h *hostRoad) Unfinished(context.Context) ([]inventory.Task, error) { return nil, h.call("tasks") }

func (h *hostRoad) Remove(ctx context.Context, s inventory.Snapshot) (string, error) {
	unsettled, err := h.hypervisor.Remove(ctx, s)
	if err == nil {
		time.AfterFunc(h.lags, func() { h.show(nil) })
	}
	return unsettled, err
}

func (h *hostRoad) Close(context.Context) error { return h.call("leave") }

// show has vCenter show these snapshots.
func (h *hostRoad) show(snapshots []inventory.Snapshot) {
	h.vcenter.mu.Lock()
	defer h.vcenter.mu.Unlock()
	h.vcenter.snapshots = snapshots
}

type hostSnapshot struct {
	Snapshot
	h *hostRoad
}

func (s *hostSnapshot) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	made, timing, err := s.Snapshot.Create(ctx, accepted)
	if err == nil {
		s.h.show([]inventory.Snapshot{{Name: made.Name, Moref: "snapshot-77"}})
	}
	return made, timing, err
}

func TestSnapshotRoad(t *testing.T) {
	measured := func(vcenter, host time.Duration) []admission.Sample {
		var all []admission.Sample
		for range 5 {
			all = append(all,
				admission.Sample{At: time.Now(), Freeze: time.Millisecond, Snapshot: vcenter, Thaw: time.Millisecond, Via: admission.ThroughVCenter},
				admission.Sample{At: time.Now(), Freeze: time.Millisecond, Snapshot: host, Thaw: time.Millisecond, Via: admission.ThroughHost})
		}
		return all
	}
	fast := measured(4*time.Second, time.Second)
	onHost := []string{"open", "prepare", "here", "ready", "create", "remove", "close", "leave"}
	for name, c := range map[string]struct {
		policy  admission.RoadPolicy
		samples []admission.Sample
		change  func(b *bench, h *hostRoad)
		road    admission.SnapshotRoad
		outcome Outcome
		code    string // of the error, "-" for none
		finding string
		host    []string // calls
		held    int      // how often the guest was held
	}{
		"told vcenter":        {admission.RoadVCenter, fast, nil, admission.ThroughVCenter, OK, "-", "", nil, 1},
		"told host":           {admission.RoadHost, nil, nil, admission.ThroughHost, OK, "-", "", onHost, 1},
		"auto, not measured":  {admission.RoadAuto, nil, nil, admission.ThroughVCenter, OK, "-", "", nil, 1},
		"auto, host faster":   {admission.RoadAuto, fast, nil, admission.ThroughHost, OK, "-", "", onHost, 1},
		"auto, no account":    {admission.RoadAuto, fast, func(b *bench, _ *hostRoad) { b.hosts = nil }, admission.ThroughVCenter, OK, "-", "", nil, 1},
		"told host, no one's": {admission.RoadHost, fast, func(b *bench, _ *hostRoad) { b.hosts = nil }, admission.ThroughHost, Failed, "SF1002", "SF1002", nil, 0},
		"told host, refused": {admission.RoadHost, fast, func(_ *bench, h *hostRoad) {
			h.fail["open"] = codedError{code: "SF2001"}
		}, admission.ThroughHost, Failed, "SF2001", "SF2001", []string{"open"}, 0},
		"auto, refused": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["open"] = codedError{code: "SF2001"}
		}, admission.ThroughVCenter, OK, "-", "SF2701", []string{"open"}, 1},
		"auto, not prepared": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["prepare"] = codedError{code: "SF2004"}
		}, admission.ThroughVCenter, OK, "-", "SF2701", []string{"open", "prepare", "leave"}, 1},
		"told host, moved": {admission.RoadHost, fast, func(_ *bench, h *hostRoad) {
			h.fail["here"] = codedError{code: "SF2702"}
		}, admission.ThroughHost, Failed, "SF2702", "SF2702", []string{"open", "prepare", "here", "close", "leave"}, 0},
		"auto, moved": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["here"] = codedError{code: "SF2702"}
		}, admission.ThroughVCenter, OK, "-", "SF2702", []string{"open", "prepare", "here", "close", "leave"}, 1},
		"auto, moved, vcenter too slow": {admission.RoadAuto, measured(16*time.Second, time.Second), func(_ *bench, h *hostRoad) {
			h.fail["here"] = codedError{code: "SF2702"}
		}, admission.ThroughVCenter, Failed, "SF4010", "SF2702", []string{"open", "prepare", "here", "close", "leave"}, 0},
		"auto, host silent": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["ready"] = codedError{code: "SF2004"}
		}, admission.ThroughVCenter, OK, "-", "SF2701", []string{"open", "prepare", "here", "ready", "close", "leave"}, 1},
		"moved after GO": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["create"] = codedError{code: "SF2006"}
		}, admission.ThroughHost, Failed, "-", "SF2006", []string{"open", "prepare", "here", "ready", "create", "close", "leave"}, 1},
		"moved with its snapshot": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) {
			h.fail["remove"] = codedError{code: "SF2702"}
		}, admission.ThroughHost, OK, "-", "", onHost, 1},
		"vcenter learns late":  {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) { h.lags = 3001 * time.Millisecond }, admission.ThroughHost, OK, "-", "", onHost, 1},
		"vcenter never learns": {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) { h.lags = time.Hour }, admission.ThroughHost, OK, "-", "", onHost, 1},
		"late":                 {admission.RoadAuto, fast, func(_ *bench, h *hostRoad) { h.takes = time.Minute }, admission.ThroughHost, Failed, "-", "SF4014", onHost, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var host *hostRoad
			var book *notebook
			play(t, func(b *bench) {
				host = &hostRoad{hypervisor: &hypervisor{vm: goodVM(), fail: map[string]error{}, takes: 503 * time.Millisecond}, vcenter: b.h}
				book = &notebook{h: b.h, windows: slices.Clone(c.samples)}
				b.hosts, b.memory, b.plan.SnapshotRoad = host, book, c.policy
				if c.change != nil {
					c.change(b, host)
				}
			}, func(t *testing.T, b *bench, r Result, err error) {
				t.Helper()
				if r.Snapshot.Road != c.road || r.Outcome != c.outcome || r.Snapshot.RoadReason == "" || len(r.Snapshot.Roads) != 2 {
					t.Errorf("outcome %s over %q (%s), want %s over %s; roads %+v", r.Outcome, r.Snapshot.Road, r.Snapshot.RoadReason, c.outcome, c.road, r.Snapshot.Roads)
				}
				if got := guest.CodeOf(err); (err == nil) != (c.code == "-") || (err != nil && got != c.code) {
					t.Errorf("error %v with code %q, want %q", err, got, c.code)
				}
				if c.finding != "" && !slices.Contains(codes(r), c.finding) || c.finding == "" && len(r.Findings) > 0 {
					t.Errorf("findings %q, want %q", codes(r), c.finding)
				}
				if diff := cmp.Diff(c.host, host.calls); diff != "" {
					t.Errorf("calls to the host (-want +got):\n%s", diff)
				}
				if b.m.holds != c.held {
					t.Errorf("the guest was held %d times, want %d", b.m.holds, c.held)
				}
				if c.held > 0 && c.outcome == OK && (!r.Snapshot.Removed || len(r.Leftovers) > 0) {
					t.Errorf("removed %v, left %q", r.Snapshot.Removed, r.Leftovers)
				}
				if left := len(b.h.snapshots); left > 0 && host.lags == 0 {
					t.Errorf("vCenter still has %d snapshots", left)
				}
				if n := len(book.windows); c.held > 0 && (n != len(c.samples)+1 || book.windows[n-1].Via != c.road) {
					t.Errorf("the window was remembered as %+v, want over %s", book.windows[n-1], c.road)
				}
				wellFormed(t, r)
			})
		})
	}
}
