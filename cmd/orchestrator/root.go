package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

// cli is what the commands share.
type cli struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	giveUp         <-chan struct{}
	// reload has an element when a SIGHUP came, from when reloads is true on; before that it interrupts.
	reload  chan struct{}
	reloads atomic.Bool
	// now is the wall clock, by which stamps that last from run to run and certificates are judged; run sets it.
	now func() time.Time
	// exit is the status of a command that ended without an error.
	exit int
}

var errInterrupted = errors.New("interrupted by the operator")

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "stillframe",
		Short: "Consistent snapshots of running VMs, never holding an application for more than 20 seconds",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		c.daemonCommand(),
		c.runCommand(),
		c.jobsCommand(),
		c.runsCommand(),
		c.vmsCommand(),
		c.windowCommand(),
		c.snapshotsCommand(),
		c.recoverCommand(),
		c.doctorCommand(),
		c.writersCommand(),
		c.agentCommand(),
		c.vsphereCommand(),
		c.credsCommand(),
		c.configCommand(),
		c.dbCommand(),
		c.supportBundleCommand(),
		c.tokenCommand(),
		c.auditCommand(),
		c.versionCommand(),
		c.completionCommand(),
		c.manCommand(),
	)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	strict(root)
	return root
}

// helpCommand is cobra's, but a command that does not exist is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return &usageError{errors.Join(fmt.Errorf("there is no command %q", strings.Join(args, " ")), err)}
			}
			return about.Help()
		},
	}
}

// strict makes a mistake in the command line an error on every level: cobra itself prints help for an unknown child of a
// group and ends with 0, so that a typo in a nightly job would look green.
func strict(cmd *cobra.Command) {
	args := cmd.Args
	if args == nil {
		args = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, a []string) error {
		if err := args(cmd, a); err != nil {
			return &usageError{err}
		}
		return nil
	}
	if cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

// Code is the code of the error catalogue.
func (e *usageError) Code() string { return "SF1001" }

// settingError is a setting that is missing or cannot be used.
type settingError struct {
	code string
	err  error
}

func (e *settingError) Error() string { return e.err.Error() }

func (e *settingError) Unwrap() error { return e.err }

// Code is the code of the error catalogue.
func (e *settingError) Code() string { return e.code }

func missing(format string, a ...any) error {
	return &settingError{"SF1002", fmt.Errorf(format, a...)}
}

func invalid(format string, a ...any) error {
	return &settingError{"SF1003", fmt.Errorf(format, a...)}
}
