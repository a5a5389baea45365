package vcenter

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What the counters of a VM without a condition tell: milliseconds of 20 s, and milliseconds.
const (
	usualReady   = 100
	usualLatency = 3
)

// farClock is the reference of the clock of a host that is farAway from vCenter.
const (
	farClock = "dateTimeSystem-far"
	farAway  = time.Second
)

// load is what the performance counters of one VM tell; the zero load is the usual one.
type load struct{ ready, latency int64 }

// performance answers QueryPerf for our VMs: the simulator's own answers are drawn by lot. False for any other call.
func (s *Server) performance(r *http.Request, m *simulator.Method) (answer, bool) {
	req, ok := m.Body.(*types.QueryPerf)
	if !ok {
		return answer{}, false
	}
	manager := s.registry().Get(req.This).(*simulator.PerformanceManager)
	names := map[int32]string{}
	for _, c := range manager.PerfCounter {
		names[c.Key] = fmt.Sprintf("%s.%s.%s", c.GroupInfo.GetElementDescription().Key, c.NameInfo.GetElementDescription().Key, c.RollupType)
	}
	res := &types.QueryPerfResponse{}
	for _, spec := range req.QuerySpec {
		vm := s.machine(spec.Entity)
		if vm == nil {
			return answer{}, false
		}
		values := map[string]int64{"cpu.ready.summation": max(vm.load.ready, usualReady), "disk.maxTotalLatency.latest": max(vm.load.latency, usualLatency)}
		metric := &types.PerfEntityMetric{PerfEntityMetricBase: types.PerfEntityMetricBase{Entity: spec.Entity}}
		now := s.wallClock()
		for i := range spec.MaxSample {
			at := now.Add(-time.Duration(spec.MaxSample-i) * 20 * time.Second)
			metric.SampleInfo = append(metric.SampleInfo, types.PerfSampleInfo{Timestamp: at, Interval: 20})
		}
		for _, id := range spec.MetricId {
			series := &types.PerfMetricIntSeries{PerfMetricSeries: types.PerfMetricSeries{Id: id}}
			for range spec.MaxSample {
				series.Value = append(series.Value, values[names[id.CounterId]])
			}
			metric.Value = append(metric.Value, series)
		}
		res.Returnval = append(res.Returnval, metric)
	}
	if refusal, ok := s.authenticated(r); !ok {
		return refusal, true
	}
	return resultAnswer("QueryPerf", res), true
}

// loadConditions are about what VMs and hosts are busy with.
func loadConditions() map[string]condition {
	counter := func(l load) condition {
		return condition{act: func(_ context.Context, _ *Server, m *machine) error { m.load = l; return nil }}
	}
	return map[string]condition{
		"cpu_starved":    counter(load{ready: 3000}),
		"datastore_slow": counter(load{latency: 80}),
		"swapped":        {object: func(vm *simulator.VirtualMachine) { vm.Summary.QuickStats.SwappedMemory = 512 }},
		"long_stun":      {act: logStuns(300*time.Millisecond, 3500*time.Millisecond)},
		// The host of the VM is far from vCenter, for all VMs that run there.
		"far_host": {act: func(_ context.Context, s *Server, m *machine) error {
			host := s.registry().Get(s.runsOn(m)).(*simulator.HostSystem)
			s.context().WithLock(host, func() {
				host.ConfigManager.DateTimeSystem = &types.ManagedObjectReference{Type: "HostDateTimeSystem", Value: farClock}
			})
			return nil
		}},
		// The host of the VM is busy, for all VMs that run there.
		"host_busy": {act: func(_ context.Context, s *Server, m *machine) error {
			host := s.registry().Get(s.runsOn(m)).(*simulator.HostSystem)
			s.context().WithLock(host, func() {
				hardware := host.Summary.Hardware
				host.Summary.QuickStats.OverallCpuUsage = hardware.CpuMhz * int32(hardware.NumCpuCores) * 97 / 100
			})
			return nil
		}},
	}
}
