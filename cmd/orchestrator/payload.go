package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// agentFlags say which agent goes into a guest, and how it is reached there.
type agentFlags struct {
	reachFlags
	agent, arch string
}

// flags adds them to a command.
func (f *agentFlags) flags(cmd *cobra.Command) {
	f.reachFlags.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.agent, "agent", "", "push this agent instead of the one that this binary carries")
	f.arch = "amd64"
	flags.Var(&choice{&f.arch, []string{"amd64", "arm64"}}, "guest-arch", "architecture of the guest: amd64 or arm64")
}

// payloads are the agents that may go into a guest: one file's, or those that this binary carries for an architecture.
type payloads struct {
	file *guest.Payload // nil without one
	arch string
}

// payloads reads the agent's file, if there is one.
func (f agentFlags) payloads() (payloads, error) {
	if f.agent == "" {
		return payloads{arch: f.arch}, nil
	}
	file, err := guest.AgentFile(f.agent)
	return payloads{file: &file, arch: f.arch}, err
}

// of chooses the agent for the VM's guest. A guest whose system vCenter does not name is taken for Linux.
func (p payloads) of(vm inventory.VM) (guest.Payload, error) {
	system := vm.System()
	if system == "" {
		system = inventory.Linux
	}
	if p.file == nil {
		return guest.EmbeddedAgent(guest.Platform{System: system, Arch: p.arch})
	}
	if p.file.System != system {
		return guest.Payload{}, &guest.Error{SF: "SF3609", Op: "choose an agent", Err: fmt.Errorf(
			"the agent's file is a program for %s, the guest runs %s", p.file.System, system)}
	}
	return *p.file, nil
}
