package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/metrics"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// runFlags are the flags of "stillframe run".
type runFlags struct {
	target
	vm, agent, arch, address, onDegrade, admission, state, output, metricsOut string
	volumes                                                                   []string
	port                                                                      uint16
	windowOnly                                                                bool
	lateLimit                                                                 time.Duration
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run --vm VM --window-only", Short: "Freeze one VM, take a snapshot, thaw it, and say what was proved", Args: cobra.NoArgs,
		Long: `Puts the agent into the guest, freezes it, takes a vSphere snapshot, thaws it within the 20 s budget, and removes the
snapshot and the agent again. VM is an inventory path, a moref (vm-42), an instance UUID or a name that is unique.

Accounts are read from the environment: GOVC_URL, GOVC_USERNAME, GOVC_PASSWORD, GOVC_GUEST_LOGIN (user:password of
the guest's root); trust from GOVC_TLS_CA_CERTS, GOVC_TLS_KNOWN_HOSTS or GOVC_INSECURE. Exit statuses: docs/cli.md.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.window(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.vm, "vm", "", "the VM: inventory path, moref, instance UUID or name (default GOVC_VM)")
	flags.BoolVar(&f.windowOnly, "window-only", false, "only the window: no data is moved, the snapshot is removed")
	flags.StringArrayVar(&f.volumes, "volume", nil, "mount point to freeze, repeatable (default: every supported file system)")
	f.onDegrade = string(backup.Fail)
	flags.Var(&choice{&f.onDegrade, []string{string(backup.Fail), string(backup.Keep)}}, "on-degrade", "below a consistent level: fail, or keep the lower level (exit status 3)")
	f.admission = string(backup.AdmissionRefuse)
	flags.Var(&choice{&f.admission, []string{string(backup.AdmissionRefuse), string(backup.AdmissionWarn)}}, "admission", "when this VM's earlier windows say that this one will not fit: refuse, or warn and go on")
	f.target.flags(cmd)
	stateFlag(cmd, &f.state)
	flags.StringVar(&f.address, "guest-address", "", "address of the guest (default: what VMware Tools report)")
	flags.Uint16Var(&f.port, "agent-port", guest.DefaultPort, "TCP port of the agent in the guest; 0 lets the guest choose")
	flags.StringVar(&f.agent, "agent", "", "push this agent instead of the one that this binary carries")
	f.arch = "amd64"
	flags.Var(&choice{&f.arch, []string{"amd64", "arm64"}}, "guest-arch", "architecture of the guest: amd64 or arm64")
	flags.DurationVar(&f.lateLimit, "late-limit", 15*time.Minute, "how long to wait for a snapshot task that outlived its window, to remove what it makes")
	flags.StringVar(&f.metricsOut, "metrics-out", "", "write metrics for node_exporter's textfile collector to this file, also when the run fails (docs/metrics.md)")
	outputFlag(cmd, &f.output)
	return cmd
}

// window does one run of one VM and prints its one object, also when the run failed. A command line that cannot be used
// prints an error only.
func (c *cli) window(ctx context.Context, f runFlags) error {
	f.vm = first(f.vm, c.getenv("GOVC_VM"))
	switch {
	case f.vm == "":
		return missing("no VM: give --vm or set GOVC_VM")
	case !f.windowOnly:
		return &usageError{errors.New("moving data is not built yet: only --window-only can run")}
	case f.lateLimit <= 0:
		return &usageError{fmt.Errorf("--late-limit %v is not positive", f.lateLimit)}
	case slices.Contains(f.volumes, ""): // an unset variable would widen the freeze to all file systems
		return invalid("--volume is empty: give a mount point, or leave the flag out to freeze every supported file system")
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
	account, err := c.guestAccount()
	if err != nil {
		return fail(err)
	}
	payload, err := f.payload()
	if err != nil {
		return fail(err)
	}
	store, err := c.store(f.state)
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
	runner := backup.Runner{
		Hypervisor: hypervisor{endpoint, snapshots}, Memory: store, Checks: endpoint, Tasks: snapshots,
		Guests: guests{endpoint, store, options.URL.Host, account, payload, f.port, f.address},
		Log:    c.logger(),
	}
	result, err := runner.Run(ctx, backup.Plan{
		RunID: id, Epoch: begun.Epoch, VCenter: options.URL.Host, VM: f.vm, Volumes: f.volumes,
		OnDegrade: backup.OnDegrade(f.onDegrade), Admission: backup.Admission(f.admission),
		Budget: freezewindow.DefaultBudget(), LateLimit: f.lateLimit, GiveUp: c.giveUp,
		Description: fmt.Sprintf("stillframe inst=%s run=%s epoch=%d version=%s", begun.ID, id, begun.Epoch, version),
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

func (f runFlags) payload() (guest.Payload, error) {
	if f.agent != "" {
		return guest.AgentFile(f.agent)
	}
	return guest.EmbeddedAgent(f.arch)
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
