package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The bars.
const (
	overheadBar  = 25 * time.Millisecond // beyond one round trip
	callsBar     = 2
	ratioBar     = 20
	sizeBarBytes = 6_500_000
	memoryBarMB  = 30
)

// windowFigures is window.json. Times are in milliseconds.
type windowFigures struct {
	RTTMS   int `json:"rtt_ms"`
	Windows int `json:"windows"`
	// OverheadMS is FROZEN received to THAW sent, less the snapshot task's own time.
	OverheadMS    float64 `json:"overhead_ms_median"`
	OverheadMSMax float64 `json:"overhead_ms_max"`
	// Calls counts what the front saw begin between FROZEN and THAW, the most of all windows, without the long poll that is
	// in flight through the whole window. Polls counts how often that poll was renewed.
	Calls          int      `json:"calls"`
	Polls          int      `json:"polls"`
	Methods        []string `json:"methods"`
	GovcWindows    int      `json:"govc_windows"`
	GovcOverheadMS float64  `json:"govc_overhead_ms_median"`
	// GovcBetweenMS is only from the end of the freeze command to the start of the thaw program.
	GovcBetweenMS float64 `json:"govc_between_commands_ms_median"`
	// GovcCalls is counted as Calls is, while the guest was held.
	GovcCalls   int      `json:"govc_calls"`
	GovcPolls   int      `json:"govc_polls"`
	GovcMethods []string `json:"govc_methods"`
	// Ratio is GovcOverheadMS by OverheadMS, RatioBetween is GovcBetweenMS by OverheadMS.
	Ratio        float64 `json:"ratio"`
	RatioBetween float64 `json:"ratio_between_commands"`
	// Without a round trip.
	ZeroOverheadMS     float64 `json:"rtt0_overhead_ms_median"`
	ZeroOverheadMSMax  float64 `json:"rtt0_overhead_ms_max"`
	ZeroGovcOverheadMS float64 `json:"rtt0_govc_overhead_ms_median"`
	// Bars are what the figures are held to.
	Bars map[string]float64 `json:"bars"`
}

// take reads the figures of one round trip out of its windows.
func (f *windowFigures) take(rtt time.Duration, ours, script []sample) {
	f.Bars = map[string]float64{
		"overhead_ms": milliseconds(overheadBar) + float64(f.RTTMS), "rtt0_overhead_ms": milliseconds(overheadBar),
		"calls": callsBar, "ratio": ratioBar,
	}
	if rtt == 0 {
		f.ZeroOverheadMS, f.ZeroOverheadMSMax = median(ours), worst(ours)
		f.ZeroGovcOverheadMS = median(script)
		return
	}
	f.OverheadMS, f.OverheadMSMax, f.GovcOverheadMS = median(ours), worst(ours), median(script)
	for i := range script {
		script[i].overhead = script[i].between
	}
	f.GovcBetweenMS = median(script)
	f.Calls, f.Polls, f.Methods = most(ours)
	f.GovcCalls, f.GovcPolls, f.GovcMethods = most(script)
	f.Ratio, f.RatioBetween = f.GovcOverheadMS/f.OverheadMS, f.GovcBetweenMS/f.OverheadMS
}

// missed names each bar that is missed.
func (f *windowFigures) missed() error {
	var errs []error
	miss := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	miss(f.OverheadMS > f.Bars["overhead_ms"], "the overhead at %d ms is %.1f ms, more than %.0f", f.RTTMS, f.OverheadMS, f.Bars["overhead_ms"])
	miss(f.ZeroOverheadMS > f.Bars["rtt0_overhead_ms"], "the overhead at 0 ms is %.1f ms, more than %.0f", f.ZeroOverheadMS, f.Bars["rtt0_overhead_ms"])
	miss(f.Calls > callsBar, "%d calls lie between FROZEN and THAW, more than %d", f.Calls, callsBar)
	miss(f.Ratio < ratioBar, "the script's overhead is %.1f times ours, less than %d", f.Ratio, ratioBar)
	return errors.Join(errs...)
}

// agentFigures is agent.json. MB are 10^6 bytes.
type agentFigures struct {
	// Bytes are the sizes of the stripped builds by their names.
	Bytes map[string]int64 `json:"bytes"`
	// ResidentMB is the most memory that the agent and its watchdog together had while the guest was frozen (VmRSS), PeakMB
	// the sum of their peaks up to then (VmHWM).
	ResidentMB float64            `json:"resident_mb"`
	PeakMB     float64            `json:"peak_mb"`
	Windows    int                `json:"windows"`
	Bars       map[string]float64 `json:"bars"`
}

func (f *agentFigures) missed() error {
	var errs []error
	for name, size := range f.Bytes {
		if size > sizeBarBytes {
			errs = append(errs, fmt.Errorf("%s has %d bytes, more than %d", name, size, sizeBarBytes))
		}
	}
	if f.PeakMB > memoryBarMB {
		errs = append(errs, fmt.Errorf("the agent needs %.1f MB while it holds, more than %d", f.PeakMB, memoryBarMB))
	}
	return errors.Join(errs...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func overheads(all []sample) []time.Duration {
	var list []time.Duration
	for _, s := range all {
		list = append(list, s.overhead)
	}
	slices.Sort(list)
	return list
}

// median is the middle overhead in milliseconds, the mean of both in the middle of an even number.
func median(all []sample) float64 {
	list := overheads(all)
	n := len(list)
	return milliseconds((list[(n-1)/2] + list[n/2]) / 2)
}

func worst(all []sample) float64 {
	list := overheads(all)
	return milliseconds(list[len(list)-1])
}

// most is the window with the most calls.
func most(all []sample) (calls, polls int, methods []string) {
	for _, s := range all {
		if n := besides(s.calls, false); n > calls || methods == nil {
			calls, methods = n, s.calls
		}
		polls = max(polls, besides(s.calls, true))
	}
	return calls, polls, methods
}

// show prints the figures side by side.
func show(to io.Writer, w windowFigures, a agentFigures, v vssFigures) error {
	var b strings.Builder
	row := func(what, ours, script, bar string) {
		fmt.Fprintf(&b, "%-44s %12s %12s   %s\n", what, ours, script, bar)
	}
	ms := func(v float64) string { return fmt.Sprintf("%.1f ms", v) }
	row("FROZEN to THAW, less the snapshot task", "stillframe", "govc", "bar")
	row(fmt.Sprintf("overhead, median, %d ms round trip", w.RTTMS), ms(w.OverheadMS), ms(w.GovcOverheadMS), "<= "+ms(w.Bars["overhead_ms"]))
	row("  worst window", ms(w.OverheadMSMax), "", "")
	row("overhead, median, no round trip", ms(w.ZeroOverheadMS), ms(w.ZeroGovcOverheadMS), "<= "+ms(w.Bars["rtt0_overhead_ms"]))
	row("  worst window", ms(w.ZeroOverheadMSMax), "", "")
	row("calls between FROZEN and THAW", fmt.Sprint(w.Calls), fmt.Sprint(w.GovcCalls), fmt.Sprintf("<= %d", callsBar))
	row("  renewals of the long poll besides", fmt.Sprint(w.Polls), fmt.Sprint(w.GovcPolls), "")
	row("  from command to command only", "", ms(w.GovcBetweenMS), "")
	row("the script needs", "", fmt.Sprintf("%.1f times", w.Ratio), fmt.Sprintf(">= %d times", ratioBar))
	b.WriteString("\n")
	for _, name := range sorted(a.Bytes) {
		row(name, fmt.Sprintf("%.2f MB", float64(a.Bytes[name])/1e6), "", fmt.Sprintf("<= %.1f MB", sizeBarBytes/1e6))
	}
	row("agent with watchdog while it holds", fmt.Sprintf("%.1f MB", a.ResidentMB), "", "")
	row("  at its peak", fmt.Sprintf("%.1f MB", a.PeakMB), "", fmt.Sprintf("<= %d MB", memoryBarMB))
	b.WriteString("\n")
	row("Windows: GO to FROZEN, median", ms(v.FreezeMS), "", "<= "+ms(v.Bars["go_to_frozen_ms"]))
	row("  worst window", ms(v.FreezeMSMax), "", "")
	row("Windows: THAW to THAWED, median", ms(v.ThawMS), "", "<= "+ms(v.Bars["thaw_to_thawed_ms"]))
	row("  worst window", ms(v.ThawMSMax), "", "")
	row("agent for Windows while it holds", fmt.Sprintf("%.1f MB", v.OwnMB), "", fmt.Sprintf("<= %d MB", windowsMemoryBarMB))
	row("  with the stacks that Wine filled", fmt.Sprintf("%.1f MB", v.ResidentMB), "", "")
	row("  and its launcher", fmt.Sprintf("%.1f MB", v.LauncherMB), "", "")
	_, err := io.WriteString(to, b.String())
	return err
}

// showDaemon prints the daemon's figures.
func showDaemon(to io.Writer, f daemonFigures) error {
	var b strings.Builder
	b.WriteString("\n")
	for _, r := range f.rows() {
		fmt.Fprintf(&b, "%-44s %12s %12s   %s\n", r[0], r[1], "", r[2])
	}
	_, err := io.WriteString(to, b.String())
	return err
}
