package catalog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/catalog"
)

// BenchmarkPlan fires 40 jobs of 500 VMs each in the same minute.
func BenchmarkPlan(b *testing.B) {
	for name, on := range databases {
		b.Run(name, func(b *testing.B) {
			w := on(b)
			var all [][]catalog.Target
			for n := range 40 {
				all = append(all, targets(w.vms(b, fmt.Sprint("vc", n%8, "-", n), 500)))
			}
			for b.Loop() {
				b.StopTimer()
				for _, r := range w.all(b) {
					if _, err := w.Finish(b.Context(), r.Fence(), catalog.End{State: catalog.Cancelled}); err != nil {
						b.Fatal(err)
					}
				}
				w.now = w.now.Add(time.Hour)
				b.StartTimer()
				queued := 0
				for n, t := range all {
					j := w.job(b, fmt.Sprint("job", n))
					tick := catalog.Tick{Job: j, For: w.now, Next: w.now.Add(time.Hour), Trigger: catalog.Scheduled, Targets: t}
					done, err := w.Tick(b.Context(), tick)
					if err != nil {
						b.Fatal(err)
					}
					queued += done.Queued
				}
				if queued != 20_000 {
					b.Fatalf("%d runs, want 20,000", queued)
				}
			}
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(seconds, "s/20000-VMs")
			b.ReportMetric(20_000/seconds, "VMs/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// all are the unfinished runs.
func (w *world) all(b *testing.B) (all []catalog.Run) {
	b.Helper()
	f := catalog.RunFilter{Unfinished: true, Limit: 1000}
	for {
		page, err := w.Runs(b.Context(), f)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, page...)
		if len(page) < 1000 {
			return all
		}
		f.Before = page[len(page)-1]
	}
}
