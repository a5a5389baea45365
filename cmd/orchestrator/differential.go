package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// differentialHold is how long the trial without a snapshot holds the guest.
const differentialHold = time.Second

// comparison is a differential diagnosis, as -o json prints it. Fields are only ever added.
type comparison struct {
	APIVersion string    `json:"api_version"`
	VM         backup.VM `json:"vm"`
	backup.Trials
	backup.Diagnosis
	Leftovers []string `json:"leftovers"`
}

// differential tries the freeze, the snapshot and both, and compares them.
func (c *cli) differential(ctx context.Context, f doctorFlags) error {
	if err := checkAddress(f.address); err != nil {
		return err
	}
	var vm []string
	if f.vm != "" {
		vm = append(vm, f.vm)
	}
	v, err := c.arrive(ctx, visitFlags{f.target, f.agentFlags, f.state, f.output}, vm)
	if err != nil {
		return err
	}
	x, err := c.compare(ctx, v)
	c.leave(ctx, v)
	if err != nil {
		if x.Leftovers == nil {
			return interrupted(ctx, err)
		}
		explain(c.stderr, interrupted(ctx, err))
	}
	switch {
	case len(x.Leftovers) > 0:
		c.exit = exitRecovery
	case err != nil:
		c.exit = exitOf(interrupted(ctx, err))
	case x.Culprit != backup.CulpritNone:
		c.exit = exitPreflight
	}
	if f.output == "json" {
		return writeJSON(c.stdout, x)
	}
	return writeComparison(c.stdout, x)
}

// compare does the three trials. One that fails is what was asked for; an error says that the rest makes no sense.
func (c *cli) compare(ctx context.Context, v visit) (comparison, error) {
	x := comparison{APIVersion: backup.APIVersion}
	snapshots := vsphere.NewSnapshotter(v.endpoint)
	runner := backup.Runner{
		Hypervisor: hypervisor{v.endpoint, snapshots}, Memory: unremembered{v.store}, Checks: v.guests, Tasks: snapshots,
		Guests: v.guests, Log: c.logger(), Now: c.now,
	}
	plan := func() backup.Plan {
		return backup.Plan{
			RunID: v.run, Epoch: v.epoch, VCenter: v.vcenter, VM: v.query, Mode: admission.Auto, OnDegrade: backup.Fail,
			Admission: backup.AdmissionWarn, Budget: freezewindow.DefaultBudget(), LateLimit: 15 * time.Minute, GiveUp: c.giveUp,
			Description: description(v.installation, v.run),
		}
	}
	trials := []struct {
		what string
		do   func() (backup.Result, error)
		into *backup.Trial
	}{
		{"freeze alone", func() (backup.Result, error) { return c.freezeOnly(ctx, v, admission.Auto, differentialHold) }, &x.FreezeOnly},
		{"snapshot alone", func() (backup.Result, error) { return runner.Bare(ctx, plan()) }, &x.SnapshotOnly},
		{"both", func() (backup.Result, error) { return runner.Run(ctx, plan()) }, &x.Both},
	}
	for n, t := range trials {
		if n > 0 {
			if err := v.again(ctx); err != nil {
				return x, err
			}
		}
		say(c.stderr, fmt.Sprintf("trial %d of %d: %s", n+1, len(trials), t.what))
		r, err := t.do()
		*t.into = backup.TrialOf(r)
		switch {
		case r.VM.Moref == "":
			return x, err // there is no such VM, or it could not be asked for
		case n == 0:
			x.Leftovers = []string{}
			x.VM = r.VM
			limits := backup.NewTrials(freezewindow.DefaultBudget(), r.Window.Mode)
			x.LimitSeconds, x.SnapshotLimitSeconds = limits.LimitSeconds, limits.SnapshotLimitSeconds
		}
		x.Leftovers = append(x.Leftovers, r.Leftovers...)
		if ctx.Err() != nil || err != nil && (len(r.Leftovers) > 0 || exitOf(err) != exitFailed) { // what is left, locked or refused stays so for the next trial
			x.Diagnosis = backup.Diagnosis{Culprit: backup.CulpritUnknown, Evidence: []string{}, Remedy: []string{}}
			return x, err
		}
	}
	x.Diagnosis = x.Diagnose()
	return x, nil
}

// writeComparison prints the diagnosis for people.
func writeComparison(w io.Writer, x comparison) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	line("vm       %s (%s)", x.VM.Path, x.VM.Moref)
	line("cause    %s %s", strings.ToUpper(string(x.Culprit)), x.Code)
	for _, e := range x.Evidence {
		line("         seen: %s", e)
	}
	for _, s := range x.Remedy {
		line("         try:  %s", s)
	}
	for _, l := range x.Leftovers {
		line("LEFT     %s", l)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
