package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// What a VM and its host may be busy with before a freeze is a risk (all unverified: judgement).
const (
	maxReady         = 10.0 // percent of the time that a virtual CPU waits for a real one
	maxHostCPU       = 90   // percent
	maxHostMemory    = 95   // percent
	maxLatency       = 30.0 // milliseconds
	loadSamples      = 15   // the last five minutes
	loadInterval     = 20   // seconds, the interval of real-time counters
	counterReady     = "cpu.ready.summation"
	counterLatency   = "disk.maxTotalLatency.latest"
	loadIntervalInMS = loadInterval * 1000
)

// load is what performance counters tell of a VM; why says why they do not.
type load struct {
	ready, latency []int64 // milliseconds of each interval; milliseconds
	why            string
}

var errNoCounter = errors.New("vCenter has no counter " + counterReady + " or " + counterLatency)

// counters are the ids of the two counters, which differ from vCenter to vCenter. They are looked up once.
func (e *Endpoint) counters(ctx context.Context) (ready, latency int32, err error) {
	e.perfMu.Lock()
	defer e.perfMu.Unlock()
	if e.perf[counterReady] == 0 {
		p, err := e.properties(ctx, *e.vim.ServiceContent.PerfManager, "perfCounter")
		if err != nil {
			return 0, 0, err
		}
		e.perf = map[string]int32{}
		for _, c := range value[types.ArrayOfPerfCounterInfo](p, "perfCounter").PerfCounterInfo {
			name := fmt.Sprintf("%s.%s.%s", c.GroupInfo.GetElementDescription().Key, c.NameInfo.GetElementDescription().Key, c.RollupType)
			if name == counterReady || name == counterLatency {
				e.perf[name] = c.Key
			}
		}
	}
	if e.perf[counterReady] == 0 || e.perf[counterLatency] == 0 {
		return 0, 0, errNoCounter
	}
	return e.perf[counterReady], e.perf[counterLatency], nil
}

// measure completes a view with the load of the last five minutes, with one call. That vCenter does not tell is no error.
func (v *view) measure(ctx context.Context, e *Endpoint, vm inventory.VM) {
	switch {
	case !v.on():
		v.load.why = "the VM is not powered on"
		return
	case e.vim.ServiceContent.PerfManager == nil:
		v.load.why = "no performance manager"
		return
	}
	if err := v.count(ctx, e, vm); err != nil {
		v.load.why = "performance counters: " + err.Error()
	}
}

func (v *view) count(ctx context.Context, e *Endpoint, vm inventory.VM) error {
	ready, latency, err := e.counters(ctx)
	if err != nil {
		return err
	}
	res, err := methods.QueryPerf(ctx, e.vim, &types.QueryPerf{This: *e.vim.ServiceContent.PerfManager, QuerySpec: []types.PerfQuerySpec{{
		Entity: vmRef(vm.Moref), MaxSample: loadSamples, IntervalId: loadInterval,
		MetricId: []types.PerfMetricId{{CounterId: ready}, {CounterId: latency}},
	}}})
	if err != nil {
		return err
	}
	for _, entity := range res.Returnval {
		metric, ok := entity.(*types.PerfEntityMetric)
		if !ok {
			continue
		}
		for _, series := range metric.Value {
			if s, ok := series.(*types.PerfMetricIntSeries); ok && s.Id.CounterId == ready {
				v.load.ready = s.Value
			} else if ok && s.Id.CounterId == latency {
				v.load.latency = s.Value
			}
		}
	}
	return nil
}

func mean(values []int64) float64 {
	sum := 0.0
	for _, n := range values {
		sum += float64(n)
	}
	return sum / float64(max(len(values), 1))
}

// unmeasured is the finding of a row whose counter has no values.
func (v *view) unmeasured(counter string) finding {
	if v.load.why != "" {
		return unknown(v.load.why)
	}
	return unknown("vCenter has no values of " + counter + " yet")
}

// judgeReady finds a VM that waits for CPUs: its agent and its writers would, too, while they are held.
func judgeReady(v *view) finding {
	if len(v.load.ready) == 0 {
		return v.unmeasured(counterReady)
	}
	cpus := max(value[int32](v.vm, "summary.config.numCpu"), 1)
	percent := 100 * mean(v.load.ready) / loadIntervalInMS / float64(cpus)
	if percent >= maxReady {
		return warn(fmt.Sprintf("each of its %d virtual CPUs waited for a real one for %.1f %% of the last 5 min, %.0f %% or more is too long", cpus, percent, maxReady))
	}
	return fine()
}

// judgeLatency finds disks that answer slowly: the flush of a freeze has to be written to them.
func judgeLatency(v *view) finding {
	if len(v.load.latency) == 0 {
		return v.unmeasured(counterLatency)
	}
	if ms := mean(v.load.latency); ms >= maxLatency {
		return warn(fmt.Sprintf("its slowest disk took %.0f ms on average over the last 5 min, %.0f ms or more is too long", ms, maxLatency))
	}
	return fine()
}

// judgeHost finds a host that has nothing to spare, and a VM whose memory was taken away.
func judgeHost(v *view) finding {
	stats, told := v.host["summary.quickStats"].(types.HostListSummaryQuickStats)
	hardware, known := v.host["summary.hardware"].(types.HostHardwareSummary)
	if !told || !known {
		return unread("summary.quickStats of the host")
	}
	var evidence []string
	if all := int64(hardware.CpuMhz) * int64(hardware.NumCpuCores); all > 0 {
		if percent := 100 * int64(stats.OverallCpuUsage) / all; percent >= maxHostCPU {
			evidence = append(evidence, fmt.Sprintf("the host's CPUs are busy for %d %%", percent))
		}
	}
	if hardware.MemorySize > 0 {
		if percent := 100 * (int64(stats.OverallMemoryUsage) << 20) / hardware.MemorySize; percent >= maxHostMemory {
			evidence = append(evidence, fmt.Sprintf("%d %% of the host's memory is in use", percent))
		}
	}
	for path, what := range map[string]string{
		"summary.quickStats.swappedMemory": "swapped out", "summary.quickStats.balloonedMemory": "taken away by the balloon",
	} {
		if mib := value[int32](v.vm, path); mib > 0 {
			evidence = append(evidence, fmt.Sprintf("%d MiB of the VM's memory are %s", mib, what))
		}
	}
	if len(evidence) > 0 {
		return warn(evidence...)
	}
	return fine()
}
