package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

func (c *cli) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version, and the agents that this binary carries", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.version(output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// versions are what a binary is made of, as -o json prints it. Fields are only ever added.
type versions struct {
	APIVersion string            `json:"api_version"`
	Version    string            `json:"version"`
	Go         string            `json:"go"`
	Platform   string            `json:"platform"`
	Protocol   int               `json:"agent_protocol"`
	Agents     map[string]string `json:"agents"`
}

func ownVersions() versions {
	v := versions{"stillframe/v1", version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, protocol.MaxVersion, map[string]string{}}
	for _, platform := range guest.Platforms() {
		if p, err := guest.EmbeddedAgent(platform); err == nil {
			v.Agents[string(platform.System)+"/"+platform.Arch] = fmt.Sprintf("%x", p.SHA256)
		}
	}
	return v
}

func (c *cli) version(output string) error {
	v := ownVersions()
	if output == "json" {
		return writeJSON(c.stdout, v)
	}
	_, err := fmt.Fprintf(c.stdout, "stillframe %s %s %s, agent protocol %d, carries %d agents\n", v.Version, v.Go, v.Platform, v.Protocol, len(v.Agents))
	return err
}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command, output *string) {
	*output = "table"
	words := []string{"table", "json"}
	cmd.Flags().VarP(&choice{output, words}, "output", "o", "output: table or json")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
}

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	words []string
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Type() string { return "word" }

func (c *choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	list, err := json.Marshal(c.words)
	if err != nil {
		return err
	}
	return fmt.Errorf("%q is none of %s", s, list)
}
