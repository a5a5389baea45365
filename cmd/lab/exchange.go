package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// windowsScenario has the two VMs of the demo's Windows part, windowsDays what has to come of each.
const windowsScenario = "testing/scenarios/demo-windows.yaml"

var windowsDays = []windowsDay{
	{vm: "exch-01-gives-up", file: "exch-01-gives-up.json", about: "Exchange gives up after 1 s, not after 20, before the snapshot is there", judge: badDay},
}

// windowsDay is one window of a Windows guest; judge says what speaks against it.
type windowsDay struct {
	vm, file, about string
	// road is the one to take; empty is whichever goes well.
	road  string
	judge func(r *report, exit int, aborted bool) []string
}

// exchangeClass is Exchange's writer (Veeam KB1680).
const exchangeClass = "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7"

// windowsDemo lives both days, in a world of its own.
func windowsDemo(ctx context.Context, o demoOptions, why string, p *printer, stderr io.Writer) (err error) {
	if o.windowsAgent == "" || why != "" {
		p.line("")
		p.line("The Windows guest is left out: it needs root and Wine, and an agent built for it.")
		return p.err
	}
	scenario, err := lab.ReadScenario(windowsScenario)
	if err != nil {
		return err
	}
	place := filepath.Join(o.out, "world-windows")
	if err := os.RemoveAll(place); err != nil {
		return fmt.Errorf("clear the demo's world of an earlier run: %w", err)
	}
	p.line("")
	p.line("And a Windows guest: the real agent under Wine, its VSS and writers played by programs that share no code with it.")
	world, err := start(ctx, scenario, place, o.programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close(ctx)) }()
	if err := roadsDemo(ctx, world, o, p, stderr); err != nil {
		return err
	}
	for _, d := range windowsDays {
		if _, err := d.live(ctx, world, o, p, stderr); err != nil {
			return err
		}
	}
	return p.err
}

// live runs one window and holds it to what has to come of it.
func (d windowsDay) live(ctx context.Context, world *lab.World, o demoOptions, p *printer, stderr io.Writer) (*report, error) {
	g, ok := world.Guest(d.vm)
	wine, isWine := g.(*guests.Wine)
	if !ok || !isWine {
		return nil, fmt.Errorf("the scenario has no Windows guest %s", d.vm)
	}
	completedBefore, abortedBefore, err := wine.Ends()
	if err != nil {
		return nil, err
	}
	p.line("")
	p.line("%s: %s", d.vm, d.about)
	r, exit, err := runStillframe(ctx, world, d.vm, o.windowsAgent, d.road, filepath.Join(o.out, d.file), o.stillframe, p, stderr)
	if err != nil {
		return nil, err
	}
	completed, aborted, err := wine.Ends()
	if err != nil {
		return nil, err
	}
	completed, aborted = completed-completedBefore, aborted-abortedBefore
	held := wine.LongestStall().Seconds()
	p.timeline(r, held, "The lab's figure is from VSS's side: the first writer frozen to the last one let go.")
	p.writers(r)
	p.verdict(r)
	p.line("  VSS was told: BackupComplete %d times, AbortBackup %d times", completed, aborted)
	p.line("  %s/%s", relative(o.out), d.file)
	against := d.judge(r, exit, completed == 0 && aborted == 1)
	if held > limitSeconds {
		against = append(against, fmt.Sprintf("the writers were held for %.3f s", held))
	}
	if len(against) > 0 {
		return r, fmt.Errorf("%s is not as it has to be: %s", d.vm, strings.Join(against, "; "))
	}
	return r, p.err
}

// goodDay: application level, Exchange well, the guest's clock within our bound.
func goodDay(r *report, exit int, aborted bool) []string {
	var against []string
	add := func(bad bool, format string, a ...any) {
		if bad {
			against = append(against, fmt.Sprintf(format, a...))
		}
	}
	add(exit != 0 || r.Verdict.Level != "application", "exit status %d, level %s", exit, r.Verdict.Level)
	e := r.exchange()
	add(e == nil || e.FailureHR != "00000000" || e.Phase != "" || !e.Required, "Exchange is not stable: %+v", e)
	guest, bound := r.Window.HeldByGuestSeconds, r.Window.HeldAtMostSeconds
	add(guest == nil || bound == nil || *guest > *bound, "the hold by the guest's clock is not within our bound")
	add(!aborted, "a window without a backup has to end its session by AbortBackup, once")
	return against
}

// badDay: not consistent, with the code of 0x800423f2 and the phase that took the time.
func badDay(r *report, exit int, aborted bool) []string {
	var against []string
	add := func(bad bool, format string, a ...any) {
		if bad {
			against = append(against, fmt.Sprintf(format, a...))
		}
	}
	add(exit != 1 || r.Verdict.Level != "crash" || r.Outcome != "failed", "exit status %d, outcome %s, level %s", exit, r.Outcome, r.Verdict.Level)
	e := r.exchange()
	add(e == nil || e.State != 9 || e.FailureHR != "800423f2" || e.Phase != "freeze", "Exchange has not given up: %+v", e)
	i := slices.IndexFunc(r.Findings, func(f finding) bool { return f.Code == "SF4422" })
	add(i < 0 || !strings.Contains(strings.Join(r.Findings[max(i, 0)].Evidence, " "), "the phase snapshot_create"), "no finding names the phase that took the time")
	add(!aborted, "the session was not ended by AbortBackup, once")
	return against
}

// exchange is Exchange's row among the writers, nil without one.
func (r *report) exchange() *writer {
	for i := range r.Writers {
		if r.Writers[i].ClassID == exchangeClass {
			return &r.Writers[i]
		}
	}
	return nil
}

// writers prints the table of VSS writers.
func (p *printer) writers(r *report) {
	p.line("")
	p.line("%-34s %-9s %-6s %s", "WRITERS", "required", "limit", "state")
	for _, w := range r.Writers {
		state := fmt.Sprintf("[%d] %s", w.State, strings.TrimPrefix(w.StateName, "VSS_WS_"))
		if w.Phase != "" {
			state += fmt.Sprintf(", in %s: 0x%s", w.Phase, w.FailureHR)
		}
		required := "no"
		if w.Required {
			required = "yes"
		}
		p.line("  %-32.32s %-9s %4.0f s %s", w.Name, required, w.HoldLimitSeconds, state)
	}
}
