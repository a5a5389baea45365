package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// flightEvery lies between the beginnings of two windows: the last of them begins before the first one's snapshot is done.
const flightEvery = 24 * time.Millisecond

// flightSnapshot is the name of every snapshot.
const flightSnapshot = "stillframe-bench-1"

// flown is one window of many.
type flown struct {
	frozen, thaw time.Time
	// own is FROZEN received to call sent, and push seen to THAW sent.
	own    time.Duration
	report freezewindow.Report
}

// fly has as many windows in flight at once as there are peers.
func (f *daemonFigures) fly(ctx context.Context, _ options) (err error) {
	own, pin, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		return err
	}
	var p peers
	started, err := startHelper(ctx, &p, peersWord, hex.EncodeToString(pin[:]))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, started.close()) }()
	windows, closeAll, err := p.windows(ctx, own)
	defer func() { err = errors.Join(err, closeAll(ctx)) }()
	if err != nil {
		return err
	}
	all, errs := make([]flown, len(windows)), make([]error, len(windows))
	var group sync.WaitGroup
	begin := time.Now()
	for i, w := range windows {
		group.Go(func() {
			if errs[i] = pause(ctx, time.Until(begin.Add(time.Duration(i)*flightEvery))); errs[i] == nil {
				all[i], errs[i] = w.run(ctx)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.flew(all)
	return nil
}

// flew reads the figures out of the windows.
func (f *daemonFigures) flew(all []flown) {
	var own []time.Duration
	f.FlightWindows, f.FlightOver, f.FlightTogether = len(all), 0, 0
	for _, w := range all {
		own = append(own, w.own)
		if w.report.OverBudget() || w.report.Verdict.Level != freezewindow.Filesystem {
			f.FlightOver++
		}
		together := 0
		for _, other := range all {
			if !other.frozen.After(w.frozen) && other.thaw.After(w.frozen) {
				together++
			}
		}
		f.FlightTogether = max(f.FlightTogether, together)
	}
	slices.Sort(own)
	f.FlightOwnMS, f.FlightOwnMSMax = milliseconds(own[len(own)*99/100]), milliseconds(own[len(own)-1])
	f.FlightOwnMSMedian = milliseconds(own[len(own)/2])
}

// window is one that is ready but for its guest's preparation.
type window struct {
	endpoint *vsphere.Endpoint
	prepared *vsphere.Prepared
	guest    *guest.Session
}

// run arms the guest and does its window, as a run does.
func (w window) run(ctx context.Context) (flown, error) {
	r, err := w.guest.Arm(ctx, guest.Order{Mode: freezewindow.ModeFS, Budget: freezewindow.DefaultBudget()})
	if err != nil {
		return flown{}, err
	}
	if err := w.endpoint.Ready(ctx); err != nil {
		return flown{}, err
	}
	r.Go, r.Armed, r.Name = 7, true, flightSnapshot
	begin := time.Now()
	report, pending := freezewindow.Run(ctx, freezewindow.DefaultBudget(), r, w.guest, w.prepared)
	if pending != nil {
		pending.Stop()
	}
	i := slices.IndexFunc(report.Phases, func(p freezewindow.PhaseTime) bool { return p.Name == "snapshot_create" })
	if i < 0 || report.Timing.PushSeen.IsZero() {
		return flown{}, fmt.Errorf("a window ended at level %s: %s %s %s", report.Verdict.Level, report.Verdict.Cause, report.SnapErr, report.GuestErr)
	}
	p := report.Phases[i]
	return flown{
		frozen: begin.Add(p.Start), thaw: begin.Add(p.Start + p.Duration),
		own: p.Duration - report.Timing.PushSeen.Sub(report.Timing.Sent), report: report,
	}, nil
}

// windows connects to all peers. The caller calls closeAll, whatever the error.
func (p peers) windows(ctx context.Context, own tls.Certificate) (all []window, closeAll func(context.Context) error, err error) {
	var endpoints []*vsphere.Endpoint
	closeAll = func(ctx context.Context) error {
		var errs []error
		for _, w := range all {
			w.guest.Close()
			errs = append(errs, w.prepared.Close(ctx))
		}
		for _, e := range endpoints {
			errs = append(errs, e.Close(ctx))
		}
		return errors.Join(errs...)
	}
	var pin protocol.Fingerprint
	if _, err := hex.Decode(pin[:], []byte(p.Fingerprint)); err != nil {
		return nil, closeAll, fmt.Errorf("read the agents' fingerprint: %w", err)
	}
	for n, v := range p.VCenters {
		u, err := url.Parse(v.URL)
		if err != nil {
			return all, closeAll, fmt.Errorf("read the address of a vCenter: %w", err)
		}
		login := func(context.Context) (*url.Userinfo, error) { return url.UserPassword("bench", "bench"), nil }
		e, err := vsphere.Open(ctx, vsphere.Options{URL: u, Thumbprint: v.Thumbprint, Login: login})
		if err != nil {
			return all, closeAll, err
		}
		endpoints = append(endpoints, e)
		for i, address := range v.Guests {
			w, vm := window{endpoint: e}, fmt.Sprintf("vm-%d", i)
			if w.prepared, err = vsphere.NewSnapshotter(e).Prepare(ctx, inventory.VM{Name: vm, Moref: vm}, flightSnapshot, ""); err != nil {
				return all, closeAll, err
			}
			if w.guest, err = guest.Connect(ctx, guest.Peer{
				Dial: func(ctx context.Context) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "tcp", address)
				},
				Own: own, Fingerprint: pin, Deployment: "bench", VMUUID: peerUUID(n, i), Run: "bench", Epoch: 1,
			}); err != nil {
				return all, closeAll, errors.Join(err, w.prepared.Close(ctx))
			}
			all = append(all, w)
		}
	}
	return all, closeAll, nil
}
