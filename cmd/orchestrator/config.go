package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/config"
)

func (c *cli) configCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "config", Short: "Look at the daemon's configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.configCheckCommand(), c.configSchemaCommand(), c.configExampleCommand(), c.configDiffCommand(), c.configShowCommand(), c.configReloadCommand())
	return group
}

// configFile is the file that a command is about: its argument, STILLFRAME_CONFIG, or where the daemon looks.
func (c *cli) configFile(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return first(c.getenv("STILLFRAME_CONFIG"), config.DefaultPath)
}

// configError is a configuration that cannot be taken over. Its problems were printed.
type configError struct {
	file  string
	count int
}

func (e *configError) Error() string {
	if e.count == 1 {
		return e.file + " has a mistake"
	}
	return fmt.Sprintf("%s has %d mistakes", e.file, e.count)
}

// Code is the code of the error catalogue.
func (e *configError) Code() string { return "SF1200" }

// refused is the error of a configuration with mistakes, nil for one that has warnings only.
func refused(file string, problems []config.Problem) error {
	count := 0
	for _, p := range problems {
		if p.Severity == config.Error {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	return &configError{file, count}
}

// tellProblems prints problems, one in a line.
func tellProblems(w io.Writer, problems []config.Problem) error {
	for _, p := range problems {
		if _, err := io.WriteString(w, printable(p.String())+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) configCheckCommand() *cobra.Command {
	var offline bool
	var output string
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Say everything that is wrong with a configuration, with file, line and column", Args: cobra.MaximumNArgs(1),
		Long: `Checks the file and the jobs in conf.d beside it: YAML, keys and values, references, schedules, and whether the time
limits of all layers fit together. Without --offline it also looks for the files and programs that are named, on this machine.
The exit status is 8 when something is wrong; warnings leave it 0. No secret is read, and none is printed.

FILE is by default what STILLFRAME_CONFIG names, else ` + config.DefaultPath + `.`,
		RunE: func(_ *cobra.Command, args []string) error { return c.configCheck(c.configFile(args), offline, output) },
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "do not look at what the file names on this machine")
	outputFlag(cmd, &output)
	return cmd
}

// checked is the outcome of a check, as -o json prints it. Fields are only ever added.
type checked struct {
	APIVersion string           `json:"api_version"`
	File       string           `json:"file"`
	OK         bool             `json:"ok"`
	VCenters   int              `json:"vcenters"`
	Jobs       int              `json:"jobs"`
	Problems   []config.Problem `json:"problems"`
}

func (c *cli) configCheck(file string, offline bool, output string) error {
	loaded, problems := config.Load(file)
	if loaded != nil && !offline {
		problems = append(problems, loaded.CheckHere()...)
	}
	wrong := refused(file, problems)
	r := checked{APIVersion: backup.APIVersion, File: file, OK: wrong == nil, Problems: append([]config.Problem{}, problems...)}
	if loaded != nil {
		r.VCenters, r.Jobs = len(loaded.VCenters), len(loaded.Jobs)
	}
	if output == "json" {
		if err := writeJSON(c.stdout, r); err != nil {
			return err
		}
		return wrong
	}
	if err := tellProblems(c.stdout, problems); err != nil {
		return err
	}
	if wrong != nil {
		return wrong
	}
	_, err := fmt.Fprintf(c.stdout, "%s: ok, vCenters %d, jobs %d\n", printable(file), r.VCenters, r.Jobs)
	return err
}

func (c *cli) configSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration, for editors", Args: noArgs,
		Long: `Prints the JSON Schema by which the configuration is checked. Editors with a YAML language server take it from a first line

  # yaml-language-server: $schema=./stillframe.schema.json`,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(c.stdout, config.Schema())
			return err
		},
	}
}

func (c *cli) configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "example", Short: "Print a configuration to begin with", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(c.stdout, config.Example())
			return err
		},
	}
}

func (c *cli) configDiffCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "diff OLD NEW", Short: "Say what differs between two configurations, and what needs a restart", Args: cobra.ExactArgs(2),
		Long: `Compares what two files effectively say, defaults included, whatever order and form they are written in.
+ was added, - taken out, ~ changed. The exit status is 0 with and without differences, 8 when one of them cannot be used.`,
		RunE: func(_ *cobra.Command, args []string) error { return c.configDiff(args[0], args[1], output) },
	}
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) configDiff(older, newer, output string) error {
	before, err := c.loaded(older, config.Options{})
	if err != nil {
		return err
	}
	after, err := c.loaded(newer, config.Options{})
	if err != nil {
		return err
	}
	changes := config.Diff(before, after)
	if output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string          `json:"api_version"`
			Changes    []config.Change `json:"changes"`
		}{backup.APIVersion, append([]config.Change{}, changes...)})
	}
	var b strings.Builder
	for _, change := range changes {
		b.WriteString(printable(change.String()) + "\n")
	}
	_, err = io.WriteString(c.stdout, b.String())
	return err
}

// loaded loads a configuration; what is wrong with it goes to standard error.
func (c *cli) loaded(file string, o config.Options) (*config.Config, error) {
	loaded, problems := config.LoadWith(file, o)
	if err := tellProblems(c.stderr, problems); err != nil {
		return nil, err
	}
	return loaded, refused(file, problems)
}

func (c *cli) configShowCommand() *cobra.Command {
	var effective, govc bool
	var output string
	cmd := &cobra.Command{
		Use: "show [FILE] [--effective]", Short: "Print the configuration's values and where each came from", Args: cobra.MaximumNArgs(1),
		Long: `Prints what the files say, one value in a line; with --effective everything that holds, defaults too. A flag of the daemon
goes over a variable STILLFRAME_..., that over the file, the file over a variable GOVC_..., that over the default. Variables are
those of this shell. Secrets are shown as the references that they are.`,
		RunE: func(_ *cobra.Command, args []string) error {
			return c.configShow(c.configFile(args), effective, govc, output)
		},
	}
	cmd.Flags().BoolVar(&effective, "effective", false, "defaults too")
	cmd.Flags().BoolVar(&govc, "allow-govc-env", false, "let GOVC_ variables give the vCenter of a file that names none, as the daemon does with this flag")
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) configShow(file string, effective, govc bool, output string) error {
	loaded, err := c.loaded(file, config.Options{Getenv: c.getenv, GOVC: govc})
	if err != nil {
		return err
	}
	settings := []config.Setting{}
	for _, s := range loaded.Settings() {
		if effective || s.Origin != config.DefaultOrigin {
			settings = append(settings, s)
		}
	}
	if output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string           `json:"api_version"`
			Settings   []config.Setting `json:"settings"`
		}{backup.APIVersion, settings})
	}
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%-48s %-36s %s\n", printable(s.Path), printable(s.Text()), printable(s.Origin))
	}
	_, err = io.WriteString(c.stdout, b.String())
	return err
}
