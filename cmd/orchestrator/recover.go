package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// recoverFlags are the flags of "stillframe recover".
type recoverFlags struct {
	target
	reachFlags
	vm, state, output string
	dryRun, forget    bool
	kept              bool
	taskLimit         time.Duration
}

func (c *cli) recoverCommand() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use: "recover [--vm VM] [--dry-run]", Short: "Finish what a killed run left: free the guest, remove its agent and its snapshot", Args: cobra.NoArgs,
		Long: `Reads from the state folder what runs were about to make and did not prove to be gone, and takes it away: the agent is
ended, what it may hold is thawed, its folder is removed; a snapshot is removed when its name is exactly the one that the run
wrote down. Nothing else is touched. With nothing open it contacts nobody. A snapshot that a run kept on purpose
(--keep-snapshot) is only listed; --kept removes it too.

What cannot be done now is named and stays written down; the exit status is then 13. Accounts and trust are those of
"stillframe run".`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.vm == "" && cmd.Flags().Changed("vm") { // an unset variable would widen the recovery to all VMs
				return invalid("--vm is empty: name a VM, or leave the flag out to recover every VM")
			}
			return c.recover(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.vm, "vm", "", "only this VM: inventory path, moref, instance UUID or name (default: every VM)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what is open: nothing is contacted")
	flags.BoolVar(&f.forget, "forget", false, "strike out what belongs to VMs that this vCenter does not know: for VMs that were deleted")
	flags.BoolVar(&f.kept, "kept", false, "also remove snapshots that runs kept on purpose")
	flags.DurationVar(&f.taskLimit, "task-limit", 30*time.Second, "how long to wait for a snapshot task that has not ended")
	f.target.flags(cmd)
	f.reachFlags.flags(cmd)
	stateFlag(cmd, &f.state)
	outputFlag(cmd, &f.output)
	return cmd
}

func (c *cli) recover(ctx context.Context, f recoverFlags) error {
	if f.taskLimit <= 0 {
		return &usageError{fmt.Errorf("--task-limit %v is not positive", f.taskLimit)}
	}
	store, err := c.store(f.state)
	if err != nil {
		return err
	}
	intents, err := backup.List(ctx, store, f.vm)
	if err != nil {
		return err
	}
	recovery := backup.NewRecovery(intents, f.dryRun)
	switch {
	case len(intents) == 0:
		if err := othersOpen(ctx, store, f.vm); err != nil {
			explain(c.stderr, err)
			if c.exit = exitOf(err); f.output == "json" {
				return writeJSON(c.stdout, recovery)
			}
			return nil
		}
	case f.dryRun, len(backup.Unfinished(intents)) == 0 && !f.kept && !f.forget:
		recovery.Leave(nil)
	default:
		if recovery, err = c.takeAway(ctx, f, store, intents); err != nil {
			explain(c.stderr, err)
			recovery = backup.NewRecovery(intents, false)
			recovery.Leave(err)
		}
	}
	c.exit = exitOfRecovery(recovery, f.vm != "")
	if f.output == "json" {
		return writeJSON(c.stdout, recovery)
	}
	return writeRecovery(c.stdout, recovery)
}

// othersOpen is an error when nothing is open of the VM that was asked for, but something is of others: the name may have
// been mistyped.
func othersOpen(ctx context.Context, store *statefile.Store, vm string) error {
	if vm == "" {
		return nil
	}
	all, err := backup.List(ctx, store, "")
	if err != nil || len(all) == 0 {
		return err
	}
	return &backup.Refusal{SF: "SF2009", Err: fmt.Errorf(
		"nothing is open of a VM %q, but %d of other VMs: \"stillframe recover --dry-run\" lists them", vm, len(all))}
}

// takeAway recovers what is open.
func (c *cli) takeAway(ctx context.Context, f recoverFlags, store *statefile.Store, intents []statefile.Intent) (backup.Recovery, error) {
	var none backup.Recovery
	options, err := c.options(f.target)
	if err != nil {
		return none, err
	}
	reach, err := f.reach(ctx)
	if err != nil {
		return none, err
	}
	defer c.deafen(reach)
	book, err := c.book(f.state)
	if err != nil {
		return none, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return none, err
	}
	endpoint, err := connect(ctx, options, store)
	if err != nil {
		return none, interrupted(ctx, err)
	}
	snapshots := vsphere.NewSnapshotter(endpoint)
	r := backup.Recoverer{
		Hypervisor: hypervisor{endpoint, snapshots}, Tasks: snapshots, Memory: store,
		Guests: cleaner{guests{endpoint: endpoint, store: store, book: book, reach: reach, now: c.now}, c.guestAccount},
		Log:    c.logger(), Run: id.String(), TaskLimit: f.taskLimit, Forget: f.forget, Kept: f.kept, VCenter: options.URL.Host,
		EndMover: datamover.EndLeft,
	}
	recovery := r.Recover(ctx, intents)
	if left := endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
	return recovery, nil
}

// exitOfRecovery gives the exit status of a recovery. A VM that was asked for and on which a run works is locked; without
// --vm it is only named, because that run cleans up behind itself. So is what belongs to another vCenter.
func exitOfRecovery(r backup.Recovery, one bool) int {
	if len(r.Leftovers) > 0 {
		return exitRecovery
	}
	for _, t := range r.Things {
		switch {
		case one && t.State == backup.Active:
			return exitLocked
		case one && t.State == backup.Elsewhere:
			return exitRecovery
		}
	}
	return exitOK
}

// writeRecovery prints a recovery for people.
func writeRecovery(w io.Writer, r backup.Recovery) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	if len(r.Things) == 0 {
		line("nothing to recover")
	}
	for _, t := range r.Things {
		line("%-9s %-13s %s   %s   run %s of %s", strings.ToUpper(string(t.State)), t.Kind, t.Subject, t.VM.Path, t.RunID, t.Since.Format(time.RFC3339))
		for text := range strings.Lines(t.Text) {
			line("          %s %s", t.Code, strings.TrimSpace(text))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cleaner clears guests, by whichever way is open. The account is read only when a guest has to be cleared.
type cleaner struct {
	guests  guests
	account func() (*url.Userinfo, error)
}

var _ backup.Cleaner = cleaner{}

func (g cleaner) Clear(ctx context.Context, vm inventory.VM, folder string, started bool) error {
	return g.each(ctx, vm, folder, func(w *way, c guest.Candidate) error {
		if c.Way.Road == guest.RoadAdminShare {
			return w.adminShare(c.Way.Start).Clear(ctx, folder, guest.AgentName(vm.System()), started)
		}
		ops, processes := newLogon(w.endpoint, w.store, vm, w.account)
		return guestops.New(ops, vm.System()).Clear(ctx, processes, folder, started)
	})
}

func (g cleaner) Uninstall(ctx context.Context, vm inventory.VM, folder string) error {
	return g.each(ctx, vm, folder, func(w *way, c guest.Candidate) error {
		by, ok := c.Access.(guest.Installer)
		if !ok {
			return fmt.Errorf("%s takes no installation out", c.Way)
		}
		return w.putBack(ctx, by, remoteOf(vm.System(), folder))
	})
}

// each does it by each way in turn until one of them does. The folder of the enrolled agent is left alone.
func (g cleaner) each(ctx context.Context, vm inventory.VM, folder string, do func(*way, guest.Candidate) error) error {
	account, err := g.account()
	if err != nil {
		return err
	}
	g.guests.account = account
	w := g.guests.way(vm, nil)
	if err := w.recall(ctx); err != nil {
		return err
	}
	if folderOf(w.agent.Exe) == folder {
		return backup.ErrStays
	}
	w.enrolled = false // an agent that stays clears no folder, and where it was the only way that is not denied nothing would be tried
	var all error
	for _, c := range w.candidates(ctx, guest.PolicyAuto) {
		if c.Access == nil {
			continue
		}
		err := do(w, c)
		if err == nil {
			return nil
		}
		all = errors.Join(all, err)
		if guest.ClassOf(guest.CodeOf(err)) == guest.ClassAuth || ctx.Err() != nil {
			break
		}
	}
	return all
}
