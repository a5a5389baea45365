package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// inventory is what the agent sees of its guest, for people and for scripts. The writers are not in it: to ask them is to
// open a session, which the self-test does.
type inventory struct {
	Version       string            `json:"version"`
	ExeSHA256     string            `json:"exe_sha256"`
	OS            protocol.OS       `json:"os"`
	VMUUID        string            `json:"vm_uuid"`
	BootID        string            `json:"boot_id"`
	UptimeSeconds float64           `json:"uptime_seconds"`
	Token         token             `json:"token"`
	Policies      []policy          `json:"policies"`
	Services      []serviceState    `json:"services"`
	Providers     []providerEntry   `json:"providers"`
	Volumes       []protocol.Volume `json:"volumes"`
	Foreign       []foreign         `json:"foreign"`
	// Problems says what could not be found out.
	Problems []string `json:"problems"`
}

// token says with which rights the agent runs.
type token struct {
	User string `json:"user"`
	SID  string `json:"sid"`
	// BuiltInAdministrator is true for the account whose SID ends in -500, which remote UAC does not filter by default.
	BuiltInAdministrator bool   `json:"built_in_administrator"`
	Elevated             bool   `json:"elevated"`
	Integrity            string `json:"integrity"`
}

// policy is one setting that decides what a token may do; a value that is not set is "absent".
type policy struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// serviceState is how a service of Windows is set up and what it does.
type serviceState struct {
	Name  string `json:"name"`
	Start string `json:"start"`
	State string `json:"state"`
}

// providerEntry is one VSS provider of the machine.
type providerEntry struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Type    string `json:"type"`
	Ours    bool   `json:"ours"`
}

// foreign is another product that freezes this guest, or could.
type foreign struct {
	Vendor string `json:"vendor"`
	Kind   string `json:"kind"` // service or provider
	Name   string `json:"name"`
	State  string `json:"state"`
}

// print writes the inventory as JSON, or for people.
func (i inventory) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(i)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "agent     %s, sha256 %s\n", i.Version, i.ExeSHA256)
	fmt.Fprintf(&b, "system    %s, %s build %s, %s\n", i.OS.Edition, i.OS.Version, i.OS.Build, i.OS.Arch)
	fmt.Fprintf(&b, "machine   uuid %s, boot %s, up %.0f s\n", i.VMUUID, i.BootID, i.UptimeSeconds)
	fmt.Fprintf(&b, "token     %s (%s), RID 500 %v, elevated %v, integrity %s\n",
		i.Token.User, i.Token.SID, i.Token.BuiltInAdministrator, i.Token.Elevated, i.Token.Integrity)
	for _, p := range i.Policies {
		fmt.Fprintf(&b, "policy    %s = %s\n", p.Name, p.Value)
	}
	for _, s := range i.Services {
		fmt.Fprintf(&b, "service   %s: %s, %s\n", s.Name, s.Start, s.State)
	}
	for _, p := range i.Providers {
		fmt.Fprintf(&b, "provider  %s %s, %s, version %s, ours %v\n", p.ID, p.Name, p.Type, p.Version, p.Ours)
	}
	for _, v := range i.Volumes {
		fmt.Fprintf(&b, "volume    %s on %s, %s, %d bytes, %d free, supported %v %s\n",
			v.ID, strings.Join(v.Mounts, " "), v.FS, v.Size, v.Free, v.Supported, v.Why)
	}
	for _, f := range i.Foreign {
		fmt.Fprintf(&b, "foreign   %s: %s %s, %s\n", f.Vendor, f.Kind, f.Name, f.State)
	}
	for _, p := range i.Problems {
		fmt.Fprintf(&b, "problem   %s\n", p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
