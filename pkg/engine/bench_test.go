package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/store"
)

// BenchmarkDeliver counts deliveries whose run does nothing but end, durably, over one queue and over four, at the default
// settings.
func BenchmarkDeliver(b *testing.B) {
	const runs = 2000
	for _, vcenters := range []int{1, 4} {
		for name, on := range databases {
			b.Run(fmt.Sprint(name, "/", vcenters), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					n := opened(b, on(b))
					n.engine.timing = leases
					var names []string
					for v := range vcenters {
						names = append(names, fmt.Sprint("vc", v))
					}
					var done atomic.Int32
					all := make(chan struct{})
					plan(b, n, names, runs)
					b.StartTimer()
					drain := n.serve(b, func(ctx context.Context, d catalog.Delivery) error {
						err := n.store.Update(ctx, "do nothing", func(tx store.Tx) error {
							if err := (journal.Fence{RunID: d.RunID, Epoch: d.Epoch}).Held(ctx, tx); err != nil {
								return err
							}
							_, err := tx.Exec(ctx, "UPDATE runs SET state = 'done' WHERE id = $1 AND epoch = $2", d.RunID, d.Epoch)
							return err
						})
						if done.Add(1) == runs {
							close(all)
						}
						return err
					}, names...)
					<-all
					b.StopTimer()
					drain()
					b.StartTimer()
				}
				b.ReportMetric(runs*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func plan(b *testing.B, n *node, vcenters []string, runs int) {
	b.Helper()
	for v, name := range vcenters {
		found := make([]catalog.VM, runs/len(vcenters))
		for i := range found {
			found[i] = catalog.VM{InstanceUUID: fmt.Sprint(v, "-", i)}
		}
		vms, err := n.catalog.SawVMs(b.Context(), name, found)
		if err != nil {
			b.Fatal(err)
		}
		job, err := n.catalog.PutJob(b.Context(), catalog.Job{Name: name, Origin: catalog.FromAPI, Enabled: true, Priority: 3})
		if err != nil {
			b.Fatal(err)
		}
		tick := catalog.Tick{Job: job, For: job.Created, Trigger: catalog.Scheduled}
		for _, vm := range vms {
			tick.Targets = append(tick.Targets, catalog.Target{VMID: vm.ID, VCenter: name})
		}
		if _, err := n.catalog.Tick(b.Context(), tick); err != nil {
			b.Fatal(err)
		}
	}
}
