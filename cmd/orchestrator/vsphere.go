package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// noArgs is cobra.NoArgs for a command below a group.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return &usageError{err}
	}
	return nil
}

func (c *cli) vsphereCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "vsphere", Short: "Look at vCenter itself", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.vsphereCheckCommand())
	return group
}

func (c *cli) vsphereCheckCommand() *cobra.Command {
	var t target
	var vm, state, output string
	cmd := &cobra.Command{
		Use: "check [--vm VM]", Short: "Say which privileges the account lacks, feature by feature", Args: noArgs,
		Long: `Asks vCenter which privileges this account holds: on the VM, the datastores of its disks and the root folder, or with
no VM everything on the root folder. The exit status is 6 when something is missing that every run needs.

The last lines are the govc commands that make a role: of what is needed, then of everything.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.privileges(cmd.Context(), t, vm, state, output) },
	}
	cmd.Flags().StringVar(&vm, "vm", "", "the VM: inventory path, moref, instance UUID or name")
	t.flags(cmd)
	stateFlag(cmd, &state)
	outputFlag(cmd, &output)
	return cmd
}

// grants is what the account may do, as -o json prints it. Fields are only ever added.
type grants struct {
	APIVersion string     `json:"api_version"`
	VM         *backup.VM `json:"vm"` // null without one
	Features   []grant    `json:"features"`
	// RoleCreate makes a role of what is needed, RoleCreateAll one of every feature.
	RoleCreate    string `json:"role_create"`
	RoleCreateAll string `json:"role_create_all"`
}

type grant struct {
	Name       string   `json:"name"`
	Needed     bool     `json:"needed"`
	Privileges []string `json:"privileges"`
	Missing    []lack   `json:"missing"`
}

type lack struct {
	Privilege string `json:"privilege"`
	Object    string `json:"object"`
	Moref     string `json:"moref"`
}

func (c *cli) privileges(ctx context.Context, t target, query, state, output string) error {
	options, err := c.options(t)
	if err != nil {
		return err
	}
	store, err := c.store(state)
	if err != nil {
		return err
	}
	endpoint, err := connect(ctx, options, store)
	if err != nil {
		return interrupted(ctx, err)
	}
	g, err := ask(ctx, endpoint, query)
	if left := endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
	if err != nil {
		return interrupted(ctx, err)
	}
	for _, f := range g.Features {
		if f.Needed && len(f.Missing) > 0 {
			c.exit = exitAuth
		}
	}
	if output == "json" {
		return writeJSON(c.stdout, g)
	}
	return writeGrants(c.stdout, g)
}

// ask reads the grants of one VM, or of the root folder when the query is empty.
func ask(ctx context.Context, e *vsphere.Endpoint, query string) (grants, error) {
	g := grants{APIVersion: backup.APIVersion}
	var on *inventory.VM
	if query != "" {
		vm, err := e.Find(ctx, query)
		if err != nil {
			return g, err
		}
		on, g.VM = &vm, &backup.VM{Name: vm.Name, Path: vm.Path, Moref: vm.Moref, InstanceUUID: vm.InstanceUUID}
	}
	held, err := e.Grants(ctx, on)
	if err != nil {
		return g, err
	}
	var needed, all []vsphere.Feature
	for _, h := range held {
		f := grant{Name: h.Feature.Name, Needed: h.Feature.Needed, Privileges: h.Feature.Privileges(), Missing: []lack{}}
		for _, m := range h.Missing {
			f.Missing = append(f.Missing, lack(m))
		}
		g.Features = append(g.Features, f)
		all = append(all, h.Feature)
		if h.Feature.Needed {
			needed = append(needed, h.Feature)
		}
	}
	g.RoleCreate, g.RoleCreateAll = vsphere.RoleLine(needed...), vsphere.RoleLine(all...)
	return g, nil
}

// writeGrants prints the grants for people.
func writeGrants(w io.Writer, g grants) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	if g.VM != nil {
		line("vm %s (%s)", g.VM.Path, g.VM.Moref)
	}
	for _, f := range g.Features {
		state, need := "ok", "optional"
		if len(f.Missing) > 0 {
			state = "MISSING"
		}
		if f.Needed {
			need = "needed"
		}
		line("%-8s %-8s %s", state, need, f.Name)
		for _, m := range f.Missing {
			line("%18s%s on %s (%s)", "", m.Privilege, m.Object, m.Moref)
		}
	}
	line("")
	line("role of what is needed: %s", g.RoleCreate)
	line("role of every feature:  %s", g.RoleCreateAll)
	_, err := io.WriteString(w, b.String())
	return err
}
