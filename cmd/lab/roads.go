package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab"
)

// roadsVM is the guest that is entered by every road.
const roadsVM = "exch-01"

// roads are the days of that guest, one on each road.
var roads = []windowsDay{
	{vm: roadsVM, file: "exch-01-svcctl.json", road: "adminshare+svcctl", about: "the agent by the admin share, started by the service control manager", judge: goodDay},
	{vm: roadsVM, file: "exch-01-winrm.json", road: "adminshare+winrm", about: "the agent by the admin share, started by WinRM", judge: goodDay},
	{vm: roadsVM, file: "exch-01-guestops.json", road: "guestops", about: "the agent by vSphere's guest operations", judge: goodDay},
	{vm: roadsVM, file: "exch-01-persistent.json", road: "persistent", about: "an agent that was installed once", judge: goodDay},
}

// roadsDemo lives one day on each road, and sets their times side by side.
func roadsDemo(ctx context.Context, world *lab.World, o demoOptions, p *printer, stderr io.Writer) (err error) {
	var reports []*report
	for _, d := range roads {
		if d.road == "persistent" {
			if err := manageAgent(ctx, world, o, p, stderr, "deploy"); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, manageAgent(ctx, world, o, p, stderr, "remove")) }()
		}
		r, err := d.live(ctx, world, o, p, stderr)
		if err != nil {
			return err
		}
		if got := r.Guest.Road; !strings.HasPrefix(d.road, got) {
			return fmt.Errorf("%s went by the road %s, not by %s", d.vm, got, d.road)
		}
		reports = append(reports, r)
	}
	p.roads(reports)
	return p.err
}

// manageAgent runs one of the commands for persistent agents.
func manageAgent(ctx context.Context, world *lab.World, o demoOptions, p *printer, stderr io.Writer, verb string) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	args := []string{"agent", verb, roadsVM, "--agent", o.windowsAgent}
	p.line("")
	p.line("$ stillframe %s", strings.ReplaceAll(strings.Join(args, " "), o.windowsAgent, relative(o.windowsAgent)))
	cmd := exec.CommandContext(ctx, o.stillframe, args...)
	cmd.Env = operator(world.Ready(), roadsVM)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		p.line("  %s", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("stillframe agent %s: %w", verb, err)
	}
	return nil
}

// roads prints the times of one guest on each road, in seconds.
func (p *printer) roads(reports []*report) {
	p.line("")
	p.line("FOUR ROADS  into %s, seconds", roadsVM)
	row := func(what string, value func(*report) string) {
		text := fmt.Sprintf("  %-24s", what)
		for _, r := range reports {
			text += fmt.Sprintf(" %12s", value(r))
		}
		p.line("%s", text)
	}
	row("", func(r *report) string { return r.Guest.Start })
	stage := func(name string) func(*report) string {
		return func(r *report) string { return seconds(r.stage(name)) }
	}
	row("push, read back", stage("push"))
	row("start until READY", stage("start"))
	row("connect and HELLO", stage("hello"))
	row("together", func(r *report) string { return seconds(r.stage("push") + r.stage("start") + r.stage("hello")) })
	for _, name := range []string{"freeze", "snapshot_create", "thaw"} {
		row("window: "+name, func(r *report) string { return seconds(r.phase(name)) })
	}
	row("held, guest's clock", func(r *report) string {
		if r.Window.HeldByGuestSeconds == nil {
			return "-"
		}
		return seconds(*r.Window.HeldByGuestSeconds)
	})
	row("level", func(r *report) string { return r.Verdict.Level })
	p.line("  In the window all roads are one: the open connection. They differ before it.")
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// stage is how long the attempts at one stage took.
func (r *report) stage(name string) (sum float64) {
	for _, a := range r.Guest.Attempts {
		if a.Stage == name {
			sum += a.Seconds
		}
	}
	return sum
}

// phase is how long one phase of the window took.
func (r *report) phase(name string) float64 {
	for _, ph := range r.Window.Phases {
		if ph.Name == name {
			return ph.DurationSeconds
		}
	}
	return 0
}
