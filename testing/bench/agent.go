package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

func sorted(m map[string]int64) []string { return slices.Sorted(maps.Keys(m)) }

// measureAgent weighs the agent's builds, and its processes while they hold the guest.
func (w *world) measureAgent(ctx context.Context) (agentFigures, error) {
	f := agentFigures{
		Bytes: map[string]int64{}, Windows: w.memory,
		Bars: map[string]float64{"bytes": sizeBarBytes, "peak_mb": memoryBarMB},
	}
	for _, path := range w.binaries {
		info, err := os.Stat(path)
		if err != nil {
			return f, fmt.Errorf("weigh the agent: %w", err)
		}
		f.Bytes[filepath.Base(path)] = info.Size()
	}
	var mu sync.Mutex
	var seen int
	var failed error
	w.mu.Lock()
	w.running = func() { // the guest is frozen, and stays so until this task has ended
		resident, peak, err := memory(filepath.Dir(w.mount))
		mu.Lock()
		defer mu.Unlock()
		seen++
		f.ResidentMB, f.PeakMB, failed = max(f.ResidentMB, resident), max(f.PeakMB, peak), errors.Join(failed, err)
	}
	w.mu.Unlock()
	for range w.memory {
		if _, err := w.ours(ctx); err != nil {
			return f, err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if failed == nil && seen != w.memory {
		failed = fmt.Errorf("the agent's memory was read %d times in %d windows", seen, w.memory)
	}
	return f, failed
}

// memory adds up VmRSS and VmHWM of every agent that runs out of a guest's folder, in MB.
func memory(dir string) (resident, peak float64, err error) {
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return 0, 0, err
	}
	found := 0
	for _, p := range programs {
		program, err := os.Readlink(p)
		if err != nil || !strings.HasPrefix(program, dir) || filepath.Base(program) != "stillframe-agent" {
			continue // it has gone, or is another program
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(p), "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		found++
		for line := range strings.Lines(string(status)) {
			resident += megabytes(line, "VmRSS:")
			peak += megabytes(line, "VmHWM:")
		}
	}
	if found == 0 || resident == 0 || peak == 0 {
		return 0, 0, errors.New("no agent with a size was found while the guest was frozen")
	}
	return resident, peak, nil
}

// megabytes reads a line of /proc/PID/status, "VmRSS:  5904 kB"; 0 when it is another one.
func megabytes(line, key string) float64 {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != key || f[2] != "kB" {
		return 0
	}
	kib, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return 0
	}
	return kib * 1024 / 1e6
}
