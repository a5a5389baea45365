package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/selection"
)

const (
	// freshLimit is how old this node's ownership of a vCenter may be for a run to begin (a lease lives 10 s).
	freshLimit = 4 * time.Second
	// deadLimit is the age at which nothing of the vCenter is touched any more.
	deadLimit = 8 * time.Second
	// lateLimit bounds the wait for a snapshot task that outlived its window.
	lateLimit = 15 * time.Minute
	// endLimit bounds what is written down when a run has ended, whoever wanted the run to end.
	endLimit = time.Minute
	// putBack is when a run comes again that nothing was done for.
	putBack = 5 * time.Second
)

// Wish is what somebody asked for beside the job, as the run's spec has it.
type Wish struct {
	// Kind is backup, or window_only: freeze, snapshot, thaw, remove; or dry_run: the preflight only.
	Kind string `json:"kind,omitempty"`
	// IgnoreWindows begins outside the backup windows, too.
	IgnoreWindows bool `json:"ignore_windows,omitempty"`
}

// The kinds of a Wish; empty is backup.
const (
	WindowOnly = "window_only"
	DryRun     = "dry_run"
)

// attempt is one run on its way.
type attempt struct {
	run  catalog.Run
	vm   catalog.VM
	job  config.Job
	wish Wish
	// gone is true when its job is not configured any more.
	gone bool
}

// work does one run that the queue delivers. With an error the queue has what it left taken away.
func (d *Daemon) work(ctx context.Context, delivery catalog.Delivery) error {
	d.allQueued(ctx)
	if d.draining.Load() {
		return nil // it stays in the queue
	}
	fence := journal.Fence{RunID: delivery.RunID, Epoch: delivery.Epoch}
	a, err := d.read(ctx, delivery.RunID)
	if err != nil {
		return err
	}
	if a.gone {
		return d.finish(ctx, fence, jobRemoved())
	}
	if open, err := d.open(ctx, a, fence); err != nil || !open {
		return err
	}
	if age := d.Queue.Fresh(delivery.VCenter); age > freshLimit {
		return d.again(ctx, a, fence, catalog.Retry{NotBefore: d.Now().Add(putBack), SameAttempt: true, Cause: "ownership", Code: "SF1903"})
	}
	if d.tends(a.vm.ID) {
		return d.again(ctx, a, fence, catalog.Retry{NotBefore: d.Now().Add(putBack), SameAttempt: true, Cause: "no_room", Code: codeNoRoom})
	}
	if a.run, err = d.Catalog.Start(ctx, fence); err != nil {
		return err
	}
	d.Observer.Began(a.run)
	result, err := d.do(ctx, a, fence)
	if errors.Is(err, journal.ErrFenced) || lost(ctx) {
		return err // whoever has the run now says how it ended
	}
	cancelled := errors.Is(context.Cause(ctx), engine.ErrCancelled)
	ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if ctx.Err() != nil && !cancelled && result.Outcome == backup.Aborted && len(result.Leftovers) == 0 && !stored(result) && !result.Snapshot.Kept {
		return d.again(ended, a, fence, catalog.Retry{SameAttempt: true, Cause: "shutdown", Code: "SF1911", Heard: heard(result)}) // this process ends, not the run
	}
	return d.end(ended, a, fence, result, err, cancelled)
}

// stored says whether the mover has stored all of it.
func stored(r backup.Result) bool { return r.Mover != nil && r.Mover.State == backup.MoveStored }

// noPoint says whether a run was to make no restore point.
func noPoint(r catalog.Run) bool {
	var w Wish
	err := json.Unmarshal(r.Spec, &w)
	return err == nil && (w.Kind == DryRun || w.Kind == WindowOnly)
}

// owned says, whenever it is asked, why a run may not touch its vCenter any more. It needs nobody to have noticed: a process that
// stood still knows by the clock, with its first step, that its time is over.
func (d *Daemon) owned(ctx context.Context, vcenter string) func() error {
	return func() error {
		if lost(ctx) {
			return context.Cause(ctx)
		}
		if age := d.Queue.Fresh(vcenter); age > deadLimit {
			return &engine.LostError{VCenter: vcenter, Why: "its ownership was not renewed in time"}
		}
		return nil
	}
}

func lost(ctx context.Context) bool {
	var other *engine.LostError
	return errors.As(context.Cause(ctx), &other)
}

// read gathers what a run is made of. A job that is gone, or none, leaves the defaults.
func (d *Daemon) read(ctx context.Context, id string) (attempt, error) {
	var a attempt
	var err error
	if a.run, err = d.Catalog.Run(ctx, id); err != nil {
		return a, err
	}
	if a.vm, err = d.Catalog.VM(ctx, a.run.VMID); err != nil {
		return a, err
	}
	if len(a.run.Spec) > 0 {
		if err := json.Unmarshal(a.run.Spec, &a.wish); err != nil {
			return a, fmt.Errorf("read what run %s is to do: %w", id, err)
		}
	}
	a.job = config.Job{
		OnDegrade: string(backup.Fail), Admission: string(backup.AdmissionRefuse), BackupType: "copy",
		Mover: config.Mover{Kind: "none"},
	}
	if a.run.JobID == "" {
		return a, nil
	}
	j, err := d.Catalog.Job(ctx, a.run.JobID)
	if a.gone = errors.Is(err, catalog.ErrNotFound); a.gone {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	s, err := readSpec(j)
	a.job = s.Job
	return a, err
}

// open says whether a backup window lets the run begin. A run that may not is put back until one does.
func (d *Daemon) open(ctx context.Context, a attempt, f journal.Fence) (bool, error) {
	ws, err := windows(a.job)
	if err != nil || a.wish.IgnoreWindows {
		return err == nil, err
	}
	now := d.Now()
	open, reason, next := ws.Open(now, needed)
	if open {
		return true, nil
	}
	if next.IsZero() {
		next = now.Add(time.Hour)
	}
	d.Log.Info("the run waits for its backup window (SF1924)", zap.String("run", a.run.ID), zap.String("vm", a.vm.Path), zap.String("why", reason), zap.Time("until", next))
	return false, d.again(ctx, a, f, catalog.Retry{NotBefore: next, SameAttempt: true, Cause: "backup_window", Code: "SF1924"})
}

func (d *Daemon) again(ctx context.Context, a attempt, f journal.Fence, r catalog.Retry) error {
	_, err := d.Catalog.Again(ctx, f, r)
	return err
}

// do has the run's vCenter do it.
func (d *Daemon) do(ctx context.Context, a attempt, f journal.Fence) (backup.Result, error) {
	defer d.closed(a.run.ID) // also after a panic
	c := d.Config()
	fail := func(err error) (backup.Result, error) { return backup.NotBegun(a.run.ID, err), err }
	v, err := d.VCenters.VCenter(ctx, c, a.run.VCenter)
	if err != nil {
		return fail(err)
	}
	o := Order{
		Plan: plan(c, a), Job: a.job.Name, Keep: a.job.Mover.KeepSnapshot.Duration, Memory: newMemory(d.Catalog.Memory(f)),
		Owned: d.owned(ctx, a.run.VCenter), Sessions: sessions{d, f},
		Epoch: func(ctx context.Context) (uint64, error) { return d.Catalog.Epoch(ctx, f) },
	}
	if o.Guest, o.Address, err = d.guest(ctx, c, a.vm); err != nil {
		return fail(err)
	}
	if o.Gate, err = d.gate(ctx, c, a.run, a.vm, o.Guest.Username+" by "+string(o.Guest.Password)); err != nil {
		return fail(err)
	}
	if o.Guest.Mode != "" {
		o.Plan.Mode = admission.Policy(o.Guest.Mode)
	}
	given := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		if lost(ctx) { // what its snapshot task makes is the new owner's to remove
			close(given)
		}
	})()
	o.Plan.GiveUp = given
	return v.Run(ctx, o)
}

// plan is what the run will do, but for what only the session with the vCenter knows.
func plan(c *config.Config, a attempt) backup.Plan {
	p := backup.Plan{
		RunID: a.run.ID, Epoch: uint64(a.run.Epoch), VM: a.vm.InstanceUUID, Volumes: a.job.Volumes, Mode: admission.Policy(c.Window.Mode),
		Postpone: a.job.Postpone, BackupType: a.job.BackupType, Writers: writers(a.job.Writers), OnDegrade: backup.OnDegrade(a.job.OnDegrade),
		Level: a.job.Level, Admission: backup.Admission(a.job.Admission), Budget: c.Window.Budget(), LateLimit: lateLimit, DryRun: a.wish.Kind == DryRun,
	}
	if p.OnDegrade != backup.Keep { // a retry is ours
		p.OnDegrade = backup.Fail
	}
	if a.wish.Kind == "" || a.wish.Kind == "backup" {
		p.KeepSnapshot = a.job.Mover.KeepSnapshot.Duration > 0
		if a.job.Mover.Kind == "exec" {
			p.Mover = &datamover.Exec{
				Command: a.job.Mover.Command[0], Args: a.job.Mover.Command[1:], Limit: a.job.Mover.Limit.Duration, Silence: a.job.Mover.Silence.Duration,
			}
		}
	}
	return p
}

func writers(w config.Writers) backup.Writers {
	text := func(ids []config.ClassID) []string {
		var all []string
		for _, id := range ids {
			all = append(all, string(id))
		}
		return all
	}
	return backup.Writers{Required: text(w.Required), Tolerated: text(w.Tolerated), Excluded: text(w.Excluded)}
}

// guest is how to get into a guest: the first rule that matches its VM and says a field wins over the defaults.
func (d *Daemon) guest(ctx context.Context, c *config.Config, vm catalog.VM) (config.Guest, string, error) {
	g, address := c.Guests.Defaults, ""
	merged := config.Guest{}
	for _, r := range c.Guests.Rules {
		if len(r.Match.VCenters) > 0 && !slices.Contains(r.Match.VCenters, vm.VCenter) {
			continue
		}
		selector := selection.Selector{Rules: selection.Rules(r.Match.Rules)}
		e, err := d.see(ctx, c, vm.VCenter, selector.NeedsTags(), estateAge)
		if err != nil {
			return g, "", err
		}
		taken := selection.Select(e, selector, nil).Taken
		if !slices.ContainsFunc(taken, func(t selection.Choice) bool { return t.VM.InstanceUUID == vm.InstanceUUID }) {
			continue
		}
		merged = merge(merged, r.Guest)
		if address == "" {
			address = r.Address
		}
	}
	return merge(merged, g), address, nil
}

// merge fills in what the first does not say.
func merge(a, b config.Guest) config.Guest {
	if a.Username == "" { // the account is one thing
		a.Username, a.Password = b.Username, b.Password
	}
	for _, f := range []struct{ into, from *string }{{&a.Mode, &b.Mode}, {&a.Arch, &b.Arch}, {&a.Agent, &b.Agent}, {&a.Road, &b.Road}, {&a.Channel, &b.Channel}, {&a.AgentLifetime, &b.AgentLifetime}} {
		if *f.into == "" {
			*f.into = *f.from
		}
	}
	if a.AgentPort == nil {
		a.AgentPort = b.AgentPort
	}
	if !a.WinRMHTTPS { // whom to trust belongs to it
		a.WinRMHTTPS, a.WinRMCA, a.WinRMThumbprint = b.WinRMHTTPS, b.WinRMCA, b.WinRMThumbprint
	}
	return a
}

// end writes down how a run ended, or puts it back into the queue. What it left outside goes to the undo, by an error.
func (d *Daemon) end(ctx context.Context, a attempt, f journal.Fence, r backup.Result, failure error, cancelled bool) error {
	code := codeOf(r, failure)
	d.Observer.Ended(a.run, r)
	e, err := a.ended(r, code)
	if err != nil {
		return err
	}
	if r.Snapshot.Kept {
		until := d.Now().Add(a.job.Mover.KeepSnapshot.Duration)
		if err := d.Catalog.KeepSnapshot(ctx, f, r.Snapshot.Name, r.Snapshot.Moref, until); err != nil {
			return err
		}
	}
	if len(r.Leftovers) > 0 {
		err = d.Catalog.Hear(ctx, f, e.Heard)
		if err == nil && r.Outcome != backup.Failed { // a failed one may begin anew when that is gone
			err = d.Catalog.Reported(ctx, f, e)
		}
		return errors.Join(fmt.Errorf("run %s left %s", a.run.ID, strings.Join(r.Leftovers, "; ")), err)
	}
	if code == codeNoRoom && !cancelled {
		return d.again(ctx, a, f, catalog.Retry{NotBefore: d.Now().Add(putBack), SameAttempt: true, Cause: "no_room", Code: code, Heard: e.Heard})
	}
	if wait, ok := a.retry(r, code); ok && !cancelled {
		d.Log.Warn("the run is tried again", zap.String("run", a.run.ID), zap.String("vm", a.vm.Path), zap.String("code", code), zap.Duration("in", wait))
		return d.again(ctx, a, f, catalog.Retry{NotBefore: d.Now().Add(wait), Priority: retryPriority, Cause: string(r.Verdict.Cause), Code: code, Heard: e.Heard})
	}
	if e.State = catalog.Done; r.Outcome == backup.Failed {
		e.State = catalog.Failed
	}
	if cancelled || r.Outcome == backup.Aborted {
		e.State = catalog.Cancelled
	}
	return d.finish(ctx, f, e)
}

// finish ends a run, and tells of it.
func (d *Daemon) finish(ctx context.Context, f journal.Fence, e catalog.End) error {
	r, err := d.Catalog.Finish(ctx, f, e)
	if err == nil {
		d.Observer.Finished(r)
	}
	return err
}

// ended is how the run went, but for its state.
func (a attempt) ended(r backup.Result, code string) (catalog.End, error) {
	text, err := json.Marshal(r)
	e := catalog.End{
		Outcome: string(r.Outcome), Level: r.Verdict.Level, Mode: r.Window.Mode, Cause: string(r.Verdict.Cause), Code: code,
		Report: text, Road: r.Guest.Road, Point: r.StartedAt, Events: events(r), NoPoint: noPoint(a.run),
		Heard: heard(r),
	}
	if r.Mover != nil {
		e.BytesRead, e.BytesStored = r.Mover.BytesRead, r.Mover.BytesStored
	}
	return e, err
}

// heard is what the run heard of its guest's sessions with writers.
func heard(r backup.Result) catalog.Heard {
	h := catalog.Heard{BootID: r.Guest.BootID, LostSets: r.Guest.LostSets}
	if s := r.Guest.Session; s != nil {
		h.Session, h.SetID, h.State, h.Opened = s.ID, s.SetID, catalog.SessionState(s.State), r.StartedAt
	}
	return h
}

// events are the phases of the window.
func events(r backup.Result) []catalog.Event {
	all := make([]catalog.Event, 0, len(r.Window.Phases))
	for _, p := range r.Window.Phases {
		start := time.Duration(p.StartSeconds * float64(time.Second))
		all = append(all, catalog.Event{
			Mono: start, At: r.StartedAt.Add(start), Side: "orchestrator", Kind: p.Name, Detail: fmt.Sprintf("%.6f s", p.DurationSeconds),
		})
	}
	return all
}

// codeNoRoom is a run's that found no room for its window; it was only put back.
const codeNoRoom = "SF1912"

// retryPriority goes before what is scheduled: the guest has waited already.
const retryPriority = 2

// retry says whether the run is tried again, and after which time. What needs somebody's hand first is not: a password that
// was refused locks an account when it is tried again and again.
func (a attempt) retry(r backup.Result, code string) (time.Duration, bool) {
	if r.Outcome != backup.Failed || a.run.Attempt > a.job.Retry.Attempts {
		return 0, false
	}
	if l := r.Verdict.Level; l != freezewindow.Unproved && (!l.Consistent() || l.Below(a.job.Level)) { // a window that proved too little
		return a.job.Retry.Wait.Duration, a.job.OnDegrade == "retry"
	}
	entry, known := advice.Lookup(advice.Code(code))
	if !known {
		return 0, false
	}
	switch entry.Retryable {
	case "yes", "once", "backoff-10m-x3":
		return a.job.Retry.Wait.Duration, entry.Retryable != "once" || a.run.Attempt == 1
	}
	return 0, false
}

// codeOf is the code of a run's failure: that of its error, or of the first thing it found.
func codeOf(r backup.Result, err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) && coded.Code() != "" {
		return coded.Code()
	}
	if r.Outcome == backup.OK || len(r.Findings) == 0 {
		return ""
	}
	return string(r.Findings[0].Code)
}
