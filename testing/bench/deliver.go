package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// deliveries is how many runs are delivered for each figure.
const deliveries = 3000

// deliver counts deliveries whose run does nothing but end, durably, over one queue and over four, with the engine's own settings.
func (f *daemonFigures) deliver(ctx context.Context, o options) (err error) {
	if f.OneQueue, err = deliverOver(ctx, o, 1); err != nil {
		return err
	}
	f.FourQueues, err = deliverOver(ctx, o, 4)
	return err
}

// deliverOver gives the deliveries a second over some queues. The time for the engine to own their vCenters is not in it.
func deliverOver(ctx context.Context, o options, queues int) (rate float64, err error) {
	dir := filepath.Join(o.out, "daemon-deliver")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return 0, err
	}
	db, err := store.Open(ctx, store.Options{Dir: dir, Log: zap.NewNop()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e, err := engine.New(ctx, db, engine.Options{Hostname: "bench", Version: "bench", Log: zap.NewNop(), Undo: func(_ context.Context, d catalog.Delivery) error {
		return fmt.Errorf("run %s is to be undone", d.RunID)
	}})
	if err != nil {
		return 0, err
	}
	c := catalog.New(db, journal.New(db), e, nil)
	var names []string
	for n := range queues {
		names = append(names, vcenterName(n))
		if err := order(ctx, c, vcenterName(n), deliveries/queues); err != nil {
			return 0, err
		}
	}
	var first, last atomic.Int64
	var done, failed atomic.Int32
	all := make(chan struct{})
	work := func(ctx context.Context, d catalog.Delivery) error {
		first.CompareAndSwap(0, time.Now().UnixNano())
		_, err := c.Finish(ctx, journal.Fence{RunID: d.RunID, Epoch: d.Epoch}, catalog.End{State: catalog.Cancelled})
		if err != nil {
			failed.Add(1)
		}
		if done.Add(1) == deliveries {
			last.Store(time.Now().UnixNano())
			close(all)
		}
		return err
	}
	e.Want(names...)
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, work) }()
	select {
	case <-all:
	case <-time.After(waitLimit):
		err = fmt.Errorf("%d of %d runs were delivered within %s", done.Load(), deliveries, waitLimit)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	err = errors.Join(err, e.Drain(ctx), <-served)
	if n := failed.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d deliveries failed", n))
	}
	return deliveries / time.Duration(last.Load()-first.Load()).Seconds(), err
}

// order plans runs of a job of its own for a vCenter.
func order(ctx context.Context, c *catalog.Catalog, vcenter string, runs int) error {
	found := make([]catalog.VM, runs)
	for n := range found {
		found[n] = catalog.VM{InstanceUUID: fmt.Sprint(vcenter, "-", n)}
	}
	vms, err := c.SawVMs(ctx, vcenter, found)
	if err != nil {
		return err
	}
	job, err := c.PutJob(ctx, catalog.Job{Name: vcenter, Origin: catalog.FromAPI, Enabled: true, Priority: 3})
	if err != nil {
		return err
	}
	tick := catalog.Tick{Job: job, For: job.Created, Trigger: catalog.Scheduled}
	for _, vm := range vms {
		tick.Targets = append(tick.Targets, catalog.Target{VMID: vm.ID, VCenter: vcenter})
	}
	_, err = c.Tick(ctx, tick)
	return err
}
