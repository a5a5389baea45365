package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
)

// defaultSocket is where the daemon serves its API.
const defaultSocket = "/run/stillframe/api.sock"

// socketFlags are what all commands that ask the daemon have.
type socketFlags struct{ socket, output string }

func (f *socketFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's socket (default STILLFRAME_SOCKET, else "+defaultSocket+")")
	outputFlag(cmd, &f.output)
}

// daemon is a client of the daemon. Who asked for it closes it.
func (c *cli) daemon(f socketFlags) *client.Client {
	return client.New(first(f.socket, c.getenv("STILLFRAME_SOCKET"), defaultSocket))
}

// asked makes a command's RunE of a function that asks the daemon.
func (c *cli) asked(f *socketFlags, do func(ctx context.Context, d *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		d := c.daemon(*f)
		defer d.Close()
		err := do(cmd.Context(), d, args)
		if err != nil && errors.Is(context.Cause(cmd.Context()), errInterrupted) {
			return errInterrupted // that the daemon was not heard to its end is no wonder
		}
		return err
	}
}

// notThere is a name that the daemon does not know, or that is not the name of one thing only.
type notThere struct {
	sf   string
	text string
}

func (e *notThere) Error() string { return e.text }

// Code is the code of the error catalogue.
func (e *notThere) Code() string { return e.sf }

// plain are the references to VMs that fit into a path of the API.
var plain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// findVM asks the daemon for a VM by its id, inventory path, moref, instance UUID or name.
func findVM(ctx context.Context, d *client.Client, ref string) (api.VM, error) {
	if plain.MatchString(ref) {
		v, err := d.VM(ctx, ref)
		if err == nil || codeOf(err) != "SF1717" {
			return v, err
		}
	}
	all, err := d.VMs(ctx, api.VMFilter{Name: path.Base(ref)})
	if err != nil {
		return api.VM{}, err
	}
	var fitting []api.VM
	for _, v := range all {
		if v.Name == ref || v.Path == ref {
			fitting = append(fitting, v)
		}
	}
	switch len(fitting) {
	case 0:
		return api.VM{}, &notThere{"SF1717", fmt.Sprintf("the daemon knows no VM %q", ref)}
	case 1:
		return fitting[0], nil
	}
	text := fmt.Sprintf("%d VMs are called %q", len(fitting), ref)
	for _, v := range fitting {
		text += "\n" + v.VCenterID + " " + v.Path
	}
	return api.VM{}, &notThere{"SF2010", text}
}

// completeLimit bounds how long a shell waits for names; a daemon that is away is no reason for words.
const completeLimit = time.Second

// completed gives a command live names for its arguments, as long as fewer than most are there.
func (c *cli) completed(f *socketFlags, most int, names func(ctx context.Context, d *client.Client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		d := c.daemon(*f)
		defer d.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
		defer cancel()
		all, err := names(ctx, d)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fitting []cobra.Completion
		for _, name := range all {
			if strings.HasPrefix(name, begun) {
				fitting = append(fitting, name)
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp
	}
}

// completedFlag gives a flag live names.
func (c *cli) completedFlag(cmd *cobra.Command, flag string, f *socketFlags, names func(ctx context.Context, d *client.Client) ([]cobra.Completion, error)) {
	one := c.completed(f, 1<<30, names)
	if err := cmd.RegisterFlagCompletionFunc(flag, one); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
}

func jobNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	jobs, err := d.Jobs(ctx)
	var names []cobra.Completion
	for _, j := range jobs {
		names = append(names, cobra.CompletionWithDesc(printable(j.Name), j.Schedule))
	}
	return names, err
}

// vmNames leaves out names that are no word.
func vmNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	vms, err := d.VMs(ctx, api.VMFilter{})
	var names []cobra.Completion
	for _, v := range vms {
		if plain.MatchString(v.Name) {
			names = append(names, cobra.CompletionWithDesc(v.Name, printable(v.Path)))
		}
	}
	return names, err
}

// completedRuns is how many runs are offered, the newest.
const completedRuns = 50

func runNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	return runNamesOf(ctx, d, api.RunFilter{})
}

func unfinishedNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	return runNamesOf(ctx, d, api.RunFilter{Unfinished: true})
}

func runNamesOf(ctx context.Context, d *client.Client, f api.RunFilter) ([]cobra.Completion, error) {
	runs, err := d.Runs(ctx, f, completedRuns)
	var names []cobra.Completion
	for _, r := range runs {
		names = append(names, cobra.CompletionWithDesc(r.ID, printable(r.Job+" "+r.VM+" "+r.State)))
	}
	return names, err
}

func snapshotNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	all, err := d.Snapshots(ctx, api.SnapshotFilter{})
	var names []cobra.Completion
	for _, s := range all {
		names = append(names, cobra.CompletionWithDesc(s.ID, printable(s.VM+" "+s.State)))
	}
	return names, err
}

func tokenNames(ctx context.Context, d *client.Client) ([]cobra.Completion, error) {
	all, err := d.Tokens(ctx)
	var names []cobra.Completion
	for _, t := range all {
		if t.RevokedAt == nil {
			names = append(names, cobra.CompletionWithDesc(t.Name, "until "+t.ExpiresAt.Format(time.DateOnly)))
		}
	}
	return names, err
}
