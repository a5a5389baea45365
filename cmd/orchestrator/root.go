package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// cli is what the commands share.
type cli struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	giveUp         <-chan struct{}
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
	for _, sub := range []*cobra.Command{c.runCommand(), c.versionCommand()} {
		args := sub.Args
		sub.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return &usageError{err}
			}
			return nil
		}
		root.AddCommand(sub)
	}
	root.Args = func(cmd *cobra.Command, a []string) error {
		if err := cobra.NoArgs(cmd, a); err != nil {
			return &usageError{err}
		}
		return nil
	}
	return root
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
