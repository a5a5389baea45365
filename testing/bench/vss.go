package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// The bars of a Windows guest.
const (
	freezeBar          = 50 * time.Millisecond
	thawBar            = 50 * time.Millisecond
	windowsMemoryBarMB = 40
	// wineStackMB is what Wine 8.0 itself touches of each thread's stack: signal_start_thread in its ntdll fills 0xf0000 bytes
	// with zeros. No program asked for it, and Windows does nothing of the kind.
	wineStackMB = 0xf0000 / 1e6
)

// vssFigures is vss.json. Times are in milliseconds, MB are 10^6 bytes.
type vssFigures struct {
	Windows int `json:"windows"`
	// FreezeMS is GO sent to FROZEN received. The world's writers take no time of their own, and the provider is called from
	// another process, by COM.
	FreezeMS    float64 `json:"go_to_frozen_ms_median"`
	FreezeMSMax float64 `json:"go_to_frozen_ms_max"`
	// ThawMS is THAW sent to THAWED received.
	ThawMS    float64 `json:"thaw_to_thawed_ms_median"`
	ThawMSMax float64 `json:"thaw_to_thawed_ms_max"`
	// ExeBytes is the stripped build; ResidentMB the most memory (VmRSS) that the process which serves had under Wine while the
	// guest was held, OwnMB the same without the stacks that Wine filled, LauncherMB all of the one that waits for it.
	ExeBytes   int64              `json:"exe_bytes"`
	ResidentMB float64            `json:"resident_mb"`
	OwnMB      float64            `json:"own_mb"`
	LauncherMB float64            `json:"launcher_mb"`
	Bars       map[string]float64 `json:"bars"`
}

func (f *vssFigures) missed() error {
	var errs []error
	miss := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	miss(f.FreezeMS > f.Bars["go_to_frozen_ms"], "GO to FROZEN of a Windows guest takes %.1f ms, more than %.0f", f.FreezeMS, f.Bars["go_to_frozen_ms"])
	miss(f.ThawMS > f.Bars["thaw_to_thawed_ms"], "THAW to THAWED of a Windows guest takes %.1f ms, more than %.0f", f.ThawMS, f.Bars["thaw_to_thawed_ms"])
	miss(f.ExeBytes > sizeBarBytes, "the agent for Windows has %d bytes, more than %d", f.ExeBytes, sizeBarBytes)
	miss(f.OwnMB > windowsMemoryBarMB, "the agent for Windows needs %.1f MB while it holds, more than %d", f.OwnMB, windowsMemoryBarMB)
	return errors.Join(errs...)
}

// measureVSS measures windows of a Windows guest under Wine, after one that is not counted.
func measureVSS(ctx context.Context, o options) (f vssFigures, err error) {
	f = vssFigures{Windows: o.vss, Bars: map[string]float64{
		"go_to_frozen_ms": milliseconds(freezeBar), "thaw_to_thawed_ms": milliseconds(thawBar), "exe_bytes": sizeBarBytes, "own_mb": windowsMemoryBarMB,
	}}
	for _, path := range o.binaries {
		if strings.HasSuffix(path, ".exe") {
			info, err := os.Stat(path)
			if err != nil {
				return f, fmt.Errorf("weigh the agent: %w", err)
			}
			f.ExeBytes = info.Size()
		}
	}
	o.agent = o.windowsAgent
	w, err := begin(ctx, o, o.windowsScenario, "world-windows")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	var mu sync.Mutex
	var failed error
	w.mu.Lock()
	w.running = func() { // the guest is held, and stays so until this task has ended
		serving, own, waiting, err := windowsMemory(w.Ready().Guests[0].Root)
		mu.Lock()
		defer mu.Unlock()
		f.ResidentMB, f.OwnMB, f.LauncherMB = max(f.ResidentMB, serving), max(f.OwnMB, own), max(f.LauncherMB, waiting)
		failed = errors.Join(failed, err)
	}
	w.mu.Unlock()
	var freezes, thaws []sample
	for i := range o.vss + 1 {
		r, err := w.ours(ctx)
		if err == nil {
			err = applicationLevel(r)
		}
		if err != nil {
			return f, err
		}
		if i > 0 {
			freezes, thaws = append(freezes, sample{overhead: phase(r, "freeze")}), append(thaws, sample{overhead: phase(r, "thaw")})
		}
	}
	mu.Lock()
	defer mu.Unlock()
	f.FreezeMS, f.FreezeMSMax, f.ThawMS, f.ThawMSMax = median(freezes), worst(freezes), median(thaws), worst(thaws)
	if failed == nil && f.ResidentMB == 0 {
		failed = errors.New("the memory of the agent for Windows was never read")
	}
	return f, failed
}

func applicationLevel(r backup.Result) error {
	if r.Verdict.Level != freezewindow.Application {
		return fmt.Errorf("a window of the Windows guest ended at level %s: %v", r.Verdict.Level, r.Verdict.Reasons)
	}
	return nil
}

// windowsMemory reads VmRSS of the agent's two processes in a wine guest, in MB: of the service, with and without what Wine
// filled of its stacks, and of what started it.
func windowsMemory(root string) (serving, own, waiting float64, err error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, 0, 0, err
	}
	mark := "WINEPREFIX=" + filepath.Dir(root) + "\x00"
	for _, p := range folders {
		environment, errs := os.ReadFile(filepath.Join(p, "environ"))
		command, also := os.ReadFile(filepath.Join(p, "cmdline"))
		status, lost := os.ReadFile(filepath.Join(p, "status"))
		words := strings.Split(string(command), "\x00")
		if errors.Join(errs, also, lost) != nil || !strings.Contains(string(environment), mark) || !strings.Contains(words[0], "stillframe-agent") {
			continue // it has gone, or is another program
		}
		size, threads := 0.0, 0
		for line := range strings.Lines(string(status)) {
			size += megabytes(line, "VmRSS:")
			if number, found := strings.CutPrefix(line, "Threads:"); found {
				if threads, err = strconv.Atoi(strings.TrimSpace(number)); err != nil {
					return 0, 0, 0, err
				}
			}
		}
		if slices.Contains(words, "service") {
			serving, own = serving+size, own+size-float64(threads)*wineStackMB
		} else {
			waiting += size
		}
	}
	if serving == 0 {
		return 0, 0, 0, errors.New("no agent with a size was found while the Windows guest was held")
	}
	return serving, own, waiting, nil
}
