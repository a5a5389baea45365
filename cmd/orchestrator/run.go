package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// runFlags are the flags of "stillframe run".
type runFlags struct {
	target
	vm, agent, arch, address, onDegrade, output string
	volumes                                     []string
	port                                        uint16
	windowOnly                                  bool
	lateLimit                                   time.Duration
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
	flags.StringSliceVar(&f.volumes, "volume", nil, "mount point to freeze, repeatable (default: every supported file system)")
	f.onDegrade = string(backup.Fail)
	flags.Var(&choice{&f.onDegrade, []string{string(backup.Fail), string(backup.Keep)}}, "on-degrade", "below a consistent level: fail, or keep the lower level (exit status 3)")
	flags.StringVar(&f.vcenter, "vcenter", "", "vCenter or ESXi URL (default GOVC_URL)")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file of the only certificates to trust")
	flags.StringVar(&f.thumbprint, "thumbprint", "", "SHA-256 or SHA-1 thumbprint of the only certificate to trust")
	flags.BoolVar(&f.insecure, "insecure", false, "trust any certificate: for labs only, shown as a finding in every result")
	flags.StringVar(&f.address, "guest-address", "", "address of the guest (default: what VMware Tools report)")
	flags.Uint16Var(&f.port, "agent-port", guest.DefaultPort, "TCP port of the agent in the guest; 0 lets the guest choose")
	flags.StringVar(&f.agent, "agent", "", "push this agent instead of the one that this binary carries")
	f.arch = "amd64"
	flags.Var(&choice{&f.arch, []string{"amd64", "arm64"}}, "guest-arch", "architecture of the guest: amd64 or arm64")
	flags.DurationVar(&f.lateLimit, "late-limit", 15*time.Minute, "how long to wait for a snapshot task that outlived its window, to remove what it makes")
	outputFlag(cmd, &f.output)
	return cmd
}

// window does one run of one VM.
func (c *cli) window(ctx context.Context, f runFlags) error {
	f.vm = first(f.vm, c.getenv("GOVC_VM"))
	switch {
	case f.vm == "":
		return missing("no VM: give --vm or set GOVC_VM")
	case !f.windowOnly:
		return &usageError{errors.New("moving data is not built yet: only --window-only can run")}
	case f.lateLimit <= 0:
		return &usageError{fmt.Errorf("--late-limit %v is not positive", f.lateLimit)}
	}
	options, err := c.options(f.target)
	if err != nil {
		return err
	}
	account, err := c.guestAccount()
	if err != nil {
		return err
	}
	payload, err := f.payload()
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	endpoint, err := vsphere.Open(ctx, options)
	if err != nil {
		return interrupted(ctx, err)
	}
	runner := backup.Runner{
		Hypervisor: hypervisor{endpoint, vsphere.NewSnapshotter(endpoint)},
		Guests:     guests{endpoint, account, payload, f.port, f.address},
		Log:        c.logger(),
	}
	result, err := runner.Run(ctx, backup.Plan{
		RunID: id.String(), Epoch: uint64(time.Now().UnixMilli()), VM: f.vm, Volumes: f.volumes, OnDegrade: backup.OnDegrade(f.onDegrade),
		Budget: freezewindow.DefaultBudget(), LateLimit: f.lateLimit, GiveUp: c.giveUp,
		Description: "Stillframe " + version + ", run " + id.String() + ". Removed by the run itself.",
	})
	if options.Insecure {
		result.Findings = append(result.Findings, insecure())
	}
	if left := endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
	if err != nil {
		explain(c.stderr, err)
	}
	c.exit = exitOfRun(result, err)
	if f.output == "json" {
		return writeJSON(c.stdout, result)
	}
	return writeTable(c.stdout, result)
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
