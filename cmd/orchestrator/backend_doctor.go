package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// The words for how a check ended.
const (
	checkOK      = "ok"
	checkWarn    = "warn"
	checkFail    = "fail"
	checkUnknown = "unknown"
)

// fewRunsLeft is from how many runs on, until a writer refuses more sessions, a leak is a warning no longer.
const fewRunsLeft = 10

// Examine judges all VMs by what was remembered. Of one VM it asks vCenter, too; the way into its guest is tried by "stillframe doctor" only.
func (b backends) Examine(ctx context.Context, vmID, road string) ([]api.Check, error) {
	if vmID == "" {
		return b.examineAll(ctx)
	}
	return b.examineVM(ctx, vmID, road)
}

func (b backends) examineAll(ctx context.Context) ([]api.Check, error) {
	ready := api.Check{ID: "ready", Title: "the daemon does its work", Status: checkOK}
	if why := b.daemon.Unready(ctx); len(why) > 0 {
		ready.Status, ready.Evidence = checkFail, why
	}
	checks := []api.Check{ready, b.configCheck()}
	orphans, err := b.orphanCheck(ctx, "")
	if err != nil {
		return nil, err
	}
	sessions, err := b.sessionCheck(ctx, "")
	if err != nil {
		return nil, err
	}
	c, err := b.Coverage(ctx)
	if err != nil {
		return nil, err
	}
	cover := api.Check{ID: "protection", Title: "every VM has a job and a young point", Status: checkOK, Evidence: []string{
		fmt.Sprintf("protected %d, overdue %d, in no job %d, excluded by one %d", c.Protected, c.Overdue, c.Unprotected, c.Excluded),
	}}
	if c.Overdue+c.Unprotected > 0 {
		cover.Status = checkWarn
		cover.Remedy = []string{"stillframe vms list --protection overdue", "stillframe vms list --protection unprotected"}
	}
	return append(checks, orphans, sessions, cover), nil
}

// configCheck looks for the files and programs that the configuration names.
func (b backends) configCheck() api.Check {
	check := api.Check{ID: "configuration", Title: "what the configuration names is here", Status: checkOK}
	for _, p := range b.daemon.Config().CheckHere() {
		check.Evidence = append(check.Evidence, p.String())
		switch {
		case p.Severity == config.Error:
			check.Status, check.Code = checkFail, "SF1200"
		case check.Status == checkOK:
			check.Status = checkWarn
		}
	}
	return remedied(check)
}

// remedied takes over what the catalogue says of the check's code.
func remedied(c api.Check) api.Check {
	if entry, known := advice.Lookup(advice.Code(c.Code)); known {
		c.Remedy = append(c.Remedy, entry.Steps()...)
	}
	return c
}

// maxEvidence bounds what one check lists.
const maxEvidence = 20

func (b backends) orphanCheck(ctx context.Context, vmID string) (api.Check, error) {
	check := api.Check{ID: "orphan_snapshots", Title: "no snapshot of ours is left", Status: checkOK}
	orphans, next, err := b.Snapshots(ctx, api.SnapshotFilter{VM: vmID, Orphans: true}, api.Page{Limit: maxEvidence})
	for _, s := range orphans {
		switch {
		case s.State != string(catalog.Foreign):
			check.Status, check.Code = checkFail, "SF2304"
		case check.Status == checkOK:
			check.Status = checkWarn
		}
		check.Evidence = append(check.Evidence, fmt.Sprintf("%s of %s: %s since %s %s", s.Name, s.VM, s.State, s.CreatedAt.Format(time.RFC3339), first(s.LastError, s.Proof)))
	}
	if next != "" {
		check.Evidence = append(check.Evidence, "and more: stillframe snapshots list --orphans")
	}
	return remedied(check), err
}

// sessionCheck is the ledger of writer sessions that were left open, which end in event 12289 of Windows.
func (b backends) sessionCheck(ctx context.Context, vmID string) (api.Check, error) {
	check := api.Check{ID: "writer_sessions", Title: "no session with VSS writers is left open (event 12289)", Status: checkOK}
	leaks, err := b.catalog.Leaks(ctx)
	if err != nil {
		return check, err
	}
	leaks = slices.DeleteFunc(leaks, func(l catalog.Leak) bool { return vmID != "" && l.VMID != vmID })
	var ids []string
	for _, l := range leaks[:min(len(leaks), maxEvidence)] {
		ids = append(ids, l.VMID)
	}
	names, err := b.catalog.VMNames(ctx, ids)
	for n, l := range leaks {
		left, known := l.RunsLeft()
		if check.Status == checkOK {
			check.Status = checkWarn
		}
		if l.Ours+l.Foreign >= catalog.MaxSessions || known && left < fewRunsLeft {
			check.Status = checkFail
		}
		if n >= maxEvidence {
			continue
		}
		text := fmt.Sprintf("%s: %d of ours and %d of others are open, of %d", names[l.VMID], l.Ours, l.Foreign, catalog.MaxSessions)
		if known {
			text += fmt.Sprintf("; about %d runs are left", left)
		}
		check.Evidence = append(check.Evidence, text)
		for _, set := range l.ForeignSets[:min(len(l.ForeignSets), maxEvidence)] {
			check.Evidence = append(check.Evidence, names[l.VMID]+": snapshot set "+set+" is of another requestor")
		}
	}
	if check.Status != checkOK {
		check.Remedy = []string{
			"find the program that asked for the snapshot sets of others: it does not end its backups (BackupComplete)",
			"a start of the guest ends all sessions",
		}
	}
	return check, err
}

func (b backends) examineVM(ctx context.Context, id, road string) ([]api.Check, error) {
	v, err := b.VM(ctx, id)
	if err != nil {
		return nil, err
	}
	failures, err := b.failureCheck(ctx, v)
	if err != nil {
		return nil, err
	}
	window, err := b.windowCheck(ctx, v)
	if err != nil {
		return nil, err
	}
	sessions, err := b.sessionCheck(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	orphans, err := b.orphanCheck(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	checks := []api.Check{protectionCheck(v), pointCheck(v), failures, window, roadCheck(v, road), sessions, orphans}
	return append(checks, b.preflight(ctx, v)...), nil
}

// preflight is the table of docs/preflight.md, as vCenter answers now; when it does not, that is the answer.
func (b backends) preflight(ctx context.Context, v api.VM) []api.Check {
	answer := api.Check{ID: "vcenter_answer", Title: "vCenter answers", Status: checkOK}
	vm, err := b.catalog.VM(ctx, v.ID)
	var table []inventory.Check
	if err == nil {
		table, err = b.daemon.Preflight(ctx, vm)
	}
	if err != nil {
		answer.Status, answer.Evidence, answer.Code = checkFail, []string{err.Error()}, first(codeOf(err), "SF2004")
		return []api.Check{remedied(answer)}
	}
	all := []api.Check{answer}
	for _, c := range table {
		r := newResult(c)
		all = append(all, api.Check{ID: r.ID, Title: r.Title, Status: r.Status.String(), Evidence: r.Evidence, Remedy: r.Remedy, Code: r.Code})
	}
	return all
}

func protectionCheck(v api.VM) api.Check {
	check := api.Check{ID: "protection", Title: "a job takes the VM, and it has a young point", Status: checkOK, Evidence: []string{v.Protection.State}}
	switch v.Protection.State {
	case unprotected:
		check.Status, check.Remedy = checkFail, []string{"no job took it when it fired last: change the select of a job"}
	case excluded:
		check.Status, check.Evidence = checkWarn, []string{"job " + v.Protection.ExcludedBy + " excludes it"}
	case overdue:
		check.Status, check.Remedy = checkFail, []string{"stillframe runs list --vm " + v.ID + " says what became of its runs"}
	}
	return check
}

func pointCheck(v api.VM) api.Check {
	check := api.Check{ID: "application_point", Title: "there is an application-consistent point", Status: checkOK}
	if days := v.Protection.DaysSinceApplicationCons; days != nil {
		check.Evidence = []string{fmt.Sprintf("the last one is %.1f days old", *days)}
		return check
	}
	check.Status, check.Evidence = checkWarn, []string{"there has been none yet"}
	return check
}

// failureCheck tells why the last run failed.
func (b backends) failureCheck(ctx context.Context, v api.VM) (api.Check, error) {
	check := api.Check{ID: "last_run", Title: "the last run went well", Status: checkUnknown, Evidence: []string{"no run has ended yet"}}
	runs, err := b.catalog.Runs(ctx, catalog.RunFilter{VMID: v.ID, Limit: maxEvidence})
	for _, r := range runs {
		if !settled(r.State) || r.State == catalog.Skipped {
			continue
		}
		check.Status, check.Evidence = checkOK, []string{fmt.Sprintf("run %s: %s %s %s", r.ID, r.State, r.Outcome, r.Cause)}
		if r.State != catalog.Done {
			check.Status, check.Code = checkFail, r.ErrorCode
			check.Evidence = append(check.Evidence, fmt.Sprintf("%d in a row have failed", v.ConsecutiveFailures))
		}
		return remedied(check), err
	}
	return check, err
}

// windowCheck compares what the next window will take with what it may take.
func (b backends) windowCheck(ctx context.Context, v api.VM) (api.Check, error) {
	check := api.Check{ID: "window", Title: "the next window will fit", Status: checkUnknown}
	samples, err := b.catalog.History(ctx, v.ID)
	if err != nil || len(samples) == 0 {
		check.Evidence = []string{"no window is remembered"}
		return check, err
	}
	budget := b.daemon.Config().Window.Budget()
	limit := budget.Hold - budget.Reserve
	p := admission.Predict(samples)
	check.Status = checkOK
	check.Evidence = []string{fmt.Sprintf("by the last %d windows freeze %.1f s, snapshot %.1f s and thaw %.1f s (p99) are %.1f s of %.1f s",
		p.Samples, p.Freeze99.Seconds(), p.Snapshot99.Seconds(), p.Thaw99.Seconds(), p.Sum().Seconds(), limit.Seconds())}
	switch {
	case p.Sum() > limit:
		check.Status, check.Code = checkFail, "SF4010"
	case p.Sum() > limit*8/10:
		check.Status = checkWarn
	}
	return remedied(check), nil
}

func roadCheck(v api.VM, road string) api.Check {
	check := api.Check{ID: "road", Title: "there is a way into the guest", Status: checkOK, Evidence: []string{"the last run went by " + v.Road}}
	switch {
	case v.Road == "":
		check.Status, check.Evidence = checkUnknown, []string{"no run has been in the guest yet"}
	case road != "" && road != "auto" && road != v.Road:
		check.Status = checkUnknown
	}
	if check.Status == checkUnknown {
		check.Remedy = []string{"stillframe doctor --vm " + v.Moref + " tries it"}
	}
	return check
}
