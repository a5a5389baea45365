package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/metrics"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// runFlags are the flags of "stillframe run".
type runFlags struct {
	target
	agentFlags
	roadFlags
	vm, onDegrade, admission, state, output, metricsOut string
	volumes, postpone                                   []string
	mode, backupType                                    string
	required, tolerated, excluded                       []string
	windowOnly, dryRun, dryRunFreeze, keep              bool
	lateLimit                                           time.Duration
	moverFlags
}

// moverFlags say what is done with the snapshot.
type moverFlags struct {
	command        string
	args           []string
	limit, silence time.Duration
}

// flags adds them to a command.
func (f *moverFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.command, "mover-command", "", "program that stores what the snapshot holds, by its absolute path (docs/mover.md)")
	flags.StringArrayVar(&f.args, "mover-arg", nil, "argument of that program, repeatable; passwords do not belong here")
	flags.DurationVar(&f.limit, "mover-limit", datamover.DefaultLimit, "how long that program may work")
	flags.DurationVar(&f.silence, "mover-silence", 0, "how long it may go without a line of progress; 0 asks for none")
}

// mover is the mover that the flags ask for, nil for none.
func (f moverFlags) mover(home string) datamover.Mover {
	if f.command == "" {
		return nil
	}
	return &datamover.Exec{Command: f.command, Args: f.args, Limit: f.limit, Silence: f.silence, Home: first(home, "/")}
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run --vm VM {--window-only | --mover-command PATH | --dry-run | --dry-run-freeze}", Short: "Freeze one VM, take a snapshot, thaw it, store what it holds, and say what was proved", Args: cobra.NoArgs,
		Long: `Puts the agent into the guest, freezes it, takes a vSphere snapshot, thaws it within the 20 s budget, has the mover store
what the snapshot holds, tells the guest's applications how that went, and removes the snapshot and the agent again. VM is an
inventory path, a moref (vm-42), an instance UUID or a name that is unique.

One of these says how far it goes:
  --dry-run         plan and preflight: nothing goes into the guest, nothing is made; goes with the next two as well
  --window-only     the whole window; no data is moved
  --mover-command   the window, then this program stores what the snapshot holds (docs/mover.md)
  --dry-run-freeze  freeze and thaw, without a snapshot (as "stillframe agent freeze-test")

Accounts are read from the environment: GOVC_URL, GOVC_USERNAME, GOVC_PASSWORD, GOVC_GUEST_LOGIN (user:password of
the guest's root or administrator); trust from GOVC_TLS_CA_CERTS, GOVC_TLS_KNOWN_HOSTS or GOVC_INSECURE. Exit statuses: docs/cli.md.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.command == "" && cmd.Flags().Changed("mover-command") { // an unset variable would move nothing
				return invalid("--mover-command is empty: give a program, or --window-only to move nothing")
			}
			return c.window(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.vm, "vm", "", "the VM: inventory path, moref, instance UUID or name (default GOVC_VM)")
	flags.BoolVar(&f.windowOnly, "window-only", false, "only the window: no data is moved, the snapshot is removed")
	flags.BoolVar(&f.dryRun, "dry-run", false, "plan and preflight only: nothing goes into the guest, nothing is made")
	flags.BoolVar(&f.dryRunFreeze, "dry-run-freeze", false, "freeze and thaw only: no snapshot is taken")
	f.moverFlags.flags(cmd)
	flags.BoolVar(&f.keep, "keep-snapshot", false, "leave the snapshot when the window is not below the policy; \"stillframe recover --kept\" removes it")
	flags.StringArrayVar(&f.volumes, "volume", nil, "mount point to freeze, repeatable (default: every supported file system)")
	f.windowsFlags(cmd)
	f.onDegrade = string(backup.Fail)
	flags.Var(&choice{&f.onDegrade, []string{string(backup.Fail), string(backup.Keep)}}, "on-degrade", "below a consistent level: fail, or keep the lower level (exit status 3)")
	f.admission = string(backup.AdmissionRefuse)
	flags.Var(&choice{&f.admission, []string{string(backup.AdmissionRefuse), string(backup.AdmissionWarn)}}, "admission", "when this VM's earlier windows say that this one will not fit: refuse, or warn and go on")
	flags.StringSliceVar(&f.postpone, "postpone", nil, "gates whose warning stops the run before anything is touched, exit status 7: "+strings.Join(inventory.Gates(), ", ")+" (default: they only warn)")
	f.target.flags(cmd)
	stateFlag(cmd, &f.state)
	f.agentFlags.flags(cmd)
	f.roadFlags.flags(cmd)
	flags.DurationVar(&f.lateLimit, "late-limit", 15*time.Minute, "how long to wait for a snapshot task that outlived its window, to remove what it makes")
	flags.StringVar(&f.metricsOut, "metrics-out", "", "write metrics for node_exporter's textfile collector to this file, also when the run fails (docs/metrics.md)")
	outputFlag(cmd, &f.output)
	return cmd
}

// windowsFlags are what only Windows guests have.
func (f *runFlags) windowsFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.mode = string(admission.Auto)
	flags.Var(&choice{&f.mode, []string{string(admission.Auto), string(admission.IOOnly), string(admission.WriterOnly)}}, "mode",
		"Windows: hold writes too (io, at most 10 s), only applications (writer), or what this VM's windows ask for (auto)")
	f.backupType = "copy"
	flags.Var(&choice{&f.backupType, []string{"copy", "full"}}, "backup-type", "Windows: what applications are told; copy touches no log and no differential chain")
	flags.StringArrayVar(&f.required, "require-writer", nil, "Windows: class id of a VSS writer that must be well, repeatable (Exchange, SQL Server and NTDS always must)")
	flags.StringArrayVar(&f.tolerated, "tolerate-writer", nil, "Windows: class id of a VSS writer whose failure is only reported, repeatable")
	flags.StringArrayVar(&f.excluded, "exclude-writer", nil, "Windows: class id of a VSS writer that is not asked at all, repeatable")
}

// writers checks the class ids of the flags.
func (f runFlags) writers() (backup.Writers, error) {
	var all []string
	for _, id := range slices.Concat(f.required, f.tolerated, f.excluded) {
		parsed, err := uuid.Parse(id)
		if err != nil {
			return backup.Writers{}, invalid("%q is not the class id of a VSS writer, such as 76fe1ac4-15f7-4bcd-987e-8e1acb462fb7 (\"stillframe writers VM\" lists them)", id)
		}
		if slices.Contains(all, parsed.String()) {
			return backup.Writers{}, invalid("the writer %s is named twice", parsed)
		}
		all = append(all, parsed.String())
	}
	r, t := len(f.required), len(f.required)+len(f.tolerated)
	return backup.Writers{Required: all[:r:r], Tolerated: all[r:t:t], Excluded: all[t:]}, nil
}

// window does one run of one VM and prints its one object, also when the run failed. A command line that cannot be used
// prints an error only.
func (c *cli) window(ctx context.Context, f runFlags) error {
	f.vm = first(f.vm, c.getenv("GOVC_VM"))
	switch {
	case f.vm == "":
		return missing("no VM: give --vm or set GOVC_VM")
	case f.lateLimit <= 0:
		return &usageError{fmt.Errorf("--late-limit %v is not positive", f.lateLimit)}
	case slices.Contains(f.volumes, ""): // an unset variable would widen the freeze to all file systems
		return invalid("--volume is empty: give a mount point, or leave the flag out to freeze every supported file system")
	}
	for _, gate := range f.postpone {
		if !slices.Contains(inventory.Gates(), gate) {
			return invalid("--postpone %q is no gate: give %s", gate, strings.Join(inventory.Gates(), ", "))
		}
	}
	if err := errors.Join(f.far(), checkAddress(f.address)); err != nil {
		return err
	}
	if f.dryRunFreeze {
		return c.freezeTest(ctx, visitFlags{f.target, f.agentFlags, f.state, f.output}, []string{f.vm}, admission.Policy(f.mode), time.Second)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	result, err := c.runOnce(ctx, f, id.String())
	switch {
	case err != nil && ctx.Err() != nil:
		say(c.stderr, "interrupted: "+err.Error())
	case err != nil:
		explain(c.stderr, err)
	}
	c.exit = exitOfRun(result, err)
	switch {
	case f.output == "json":
		err = writeJSON(c.stdout, result)
	case result.VM.Name != "" || err == nil: // else the error has said all there is
		err = writeTable(c.stdout, result)
	default:
		err = nil
	}
	if err != nil { // what happened to the guest counts more than an output that nobody takes
		say(c.stderr, "error: print the result: "+err.Error())
		c.exit = max(c.exit, exitFailed)
	}
	return nil
}

// far refuses flags that do not say how far the run goes, or say it twice.
func (f runFlags) far() error {
	asked := 0
	for _, way := range []bool{f.windowOnly, f.dryRunFreeze, f.command != ""} {
		if way {
			asked++
		}
	}
	switch {
	case asked == 0 && !f.dryRun:
		return &usageError{errors.New("how far does the run go? Give one of --window-only, --mover-command, --dry-run, --dry-run-freeze")}
	case asked > 1, f.dryRunFreeze && f.dryRun:
		return &usageError{errors.New("--window-only, --mover-command and --dry-run-freeze exclude each other, and so do the two dry runs")}
	case f.command == "" && len(f.args) > 0:
		return &usageError{errors.New("--mover-arg without --mover-command")}
	case f.dryRunFreeze && f.keep:
		return &usageError{errors.New("--dry-run-freeze takes no snapshot that --keep-snapshot could keep")}
	case f.command != "" && f.limit <= 0:
		return &usageError{fmt.Errorf("--mover-limit %v is not positive", f.limit)}
	case f.silence < 0:
		return &usageError{fmt.Errorf("--mover-silence %v is negative", f.silence)}
	}
	return nil
}

// checkAddress refuses an address of --guest-address before anything is put into the guest that nobody could reach there.
func checkAddress(address string) error {
	if address == "" || guest.CanAddress(address) {
		return nil
	}
	return invalid("--guest-address %q is no IP address at which a guest can be reached: give one such as 192.0.2.7", address)
}

// runOnce does the run. With an error before it began, the Result tells no more than that.
func (c *cli) runOnce(ctx context.Context, f runFlags, id string) (backup.Result, error) {
	figures := metrics.New(freezewindow.DefaultBudget())
	defer c.writeMetrics(figures, f.metricsOut)
	fail := func(err error) (backup.Result, error) {
		return backup.NotBegun(id, interrupted(ctx, err)), interrupted(ctx, err)
	}
	options, err := c.options(f.target)
	if err != nil {
		return fail(err)
	}
	account, err := c.account(f.reachFlags)
	if err != nil {
		return fail(err)
	}
	esx, err := c.hostAccount(f.roadFlags)
	if err != nil {
		return fail(err)
	}
	writers, err := f.writers()
	if err != nil {
		return fail(err)
	}
	payloads, err := f.payloads()
	if err != nil {
		return fail(err)
	}
	reach, err := f.reach(ctx)
	if err != nil {
		return fail(err)
	}
	defer c.deafen(reach)
	store, err := c.store(f.state)
	if err != nil {
		return fail(err)
	}
	book, err := c.book(f.state)
	if err != nil {
		return fail(err)
	}
	begun, err := store.Begin(ctx) // it also proves, before anything is touched, that the state can be written
	if err != nil {
		return fail(err)
	}
	endpoint, err := connect(ctx, options, store)
	if err != nil {
		return fail(err)
	}
	snapshots := vsphere.NewSnapshotter(endpoint)
	ways := guests{endpoint, store, options.URL.Host, account, payloads, book, reach, c.now, drawn(store)}
	runner := backup.Runner{
		Hypervisor: hypervisor{endpoint, snapshots}, Memory: store, Checks: ways, Tasks: snapshots, Origins: origins{endpoint, options},
		Hosts:  newHosts(endpoint, store, esx),
		Guests: ways,
		Log:    c.logger(), Now: c.now,
	}
	result, err := runner.Run(ctx, backup.Plan{
		RunID: id, Epoch: begun.Epoch, VCenter: options.URL.Host, VM: f.vm, Volumes: f.volumes,
		Mode: admission.Policy(f.mode), BackupType: f.backupType, Writers: writers,
		Postpone: f.postpone, SnapshotRoad: admission.RoadPolicy(f.road),
		OnDegrade: backup.OnDegrade(f.onDegrade), Admission: backup.Admission(f.admission),
		Budget: freezewindow.DefaultBudget(), LateLimit: f.lateLimit, GiveUp: c.giveUp,
		Description: description(begun, id),
		Mover:       f.mover(c.getenv("HOME")), KeepSnapshot: f.keep, DryRun: f.dryRun,
	})
	figures.Observe(options.URL.Host, result)
	if options.Insecure {
		result.Findings = append(result.Findings, insecure())
	}
	if left := endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
	return result, err
}

// description is what stands in the snapshot's description, for people and for a recovery without our state.
func description(i statefile.Installation, run string) string {
	return fmt.Sprintf("%s version=%s", daemon.Mark{Installation: i.ID, RunID: run, Epoch: int64(i.Epoch)}, version)
}

// writeMetrics writes what was observed. A file that cannot be written is told; it changes neither the run nor its exit
// status.
func (c *cli) writeMetrics(m *metrics.Metrics, path string) {
	if path == "" {
		return
	}
	if err := m.WriteFile(path); err != nil {
		explain(c.stderr, err)
	}
}

// insecure is the standing finding of a run that trusted any certificate.
func insecure() advice.Finding {
	return advice.Explain("SF2003", "the vCenter's certificate was not checked at all, because the run was told to trust any")
}

// interrupted tells an error from the operator's interruption that caused it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// logger writes one line a step to standard error.
func (c *cli) logger() *zap.Logger {
	encoder := zap.NewDevelopmentEncoderConfig()
	encoder.EncodeTime = zapcore.RFC3339TimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	encoder.CallerKey, encoder.StacktraceKey = "", ""
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(encoder), zapcore.Lock(zapcore.AddSync(c.stderr)), zapcore.InfoLevel))
}
