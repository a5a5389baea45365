// Package config reads and checks the configuration file and gives plain values.
//
// A file goes through four stages, and what is wrong in any of them is told at once, each with its place: YAML, the JSON
// Schema that editors also have, the Go types, and what no schema can say (references, schedules, and whether the limits of
// all layers fit together). Secrets are never in a file: only where they are.
package config

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// DefaultPath is where the daemon looks for its configuration.
const DefaultPath = "/etc/stillframe/stillframe.yaml"

// Config is a configuration that was checked. It is not changed after it was loaded; a reload makes another one.
type Config struct {
	VCenters []VCenter `json:"vcenters"`
	Guests   Guests    `json:"guests"`
	Window   Window    `json:"window"`
	Limits   Limits    `json:"limits"`
	Jobs     []Job     `json:"jobs"`
	Store    Store     `json:"store"`
	Listen   Listen    `json:"listen"`
	Metrics  Metrics   `json:"metrics"`
	Log      Log       `json:"log"`

	// written is what the files say, without defaults and without what variables and flags put over it.
	written map[string]any
	// effective is everything, and src where each value of it is.
	effective map[string]any
	src       *source
	file      string
}

// Ref says where a secret is: cred:NAME, file:/path, env:NAME or store:NAME. It is no secret itself.
type Ref string

// VCenter is one vCenter or ESXi host. At most one of CA, Thumbprint and Insecure is set; with none the system's roots decide.
type VCenter struct {
	Name         string    `json:"name"`
	URL          string    `json:"url"`
	Username     string    `json:"username"`
	Password     Ref       `json:"password"`
	CA           string    `json:"ca,omitempty"`
	Thumbprint   string    `json:"thumbprint,omitempty"`
	Insecure     bool      `json:"insecure"`
	SnapshotRoad Road      `json:"snapshot_road"`
	HostRoad     *HostRoad `json:"host_road,omitempty"`
}

// Road says who is asked for a snapshot.
type Road string

// The roads.
const (
	RoadVCenter Road = "vcenter"
	RoadHost    Road = "host"
	RoadAuto    Road = "auto"
)

// HostRoad is the account on the ESXi hosts themselves.
type HostRoad struct {
	Username string `json:"username"`
	Password Ref    `json:"password"`
}

// Guests say how the daemon gets into guests. The first rule that matches a VM and has a field wins over Defaults.
type Guests struct {
	Defaults Guest       `json:"defaults"`
	Rules    []GuestRule `json:"rules"`
	// DialTo is where guests reach this machine, for agents that dial: an address and a port; empty is none. DialListen is where
	// the daemon listens for them, empty the same.
	DialTo     string `json:"dial_to,omitempty"`
	DialListen string `json:"dial_listen,omitempty"`
}

// Guest is how the daemon gets into a guest. In a rule, what is empty (AgentPort nil) is not said there; Mode is empty
// where the window's mode decides.
type Guest struct {
	Username  string `json:"username,omitempty"`
	Password  Ref    `json:"password,omitempty"`
	Mode      string `json:"mode,omitempty"`
	Arch      string `json:"arch,omitempty"`
	Agent     string `json:"agent,omitempty"`
	AgentPort *int   `json:"agent_port,omitempty"`
	// Channel is auto, direct, reverse or mailbox: how words reach the agent.
	Channel string `json:"channel,omitempty"`
	// Road is auto, or the only road that may be taken.
	Road string `json:"road,omitempty"`
	// AgentLifetime is run or cached: whether a pushed agent's program stays in the guest after a run.
	AgentLifetime string `json:"agent_lifetime,omitempty"`
	// WinRMHTTPS reaches WinRM by https, where it starts the agent; WinRMCA and WinRMThumbprint say whom to trust then.
	WinRMHTTPS      bool   `json:"winrm_https,omitempty"`
	WinRMCA         string `json:"winrm_ca,omitempty"`
	WinRMThumbprint string `json:"winrm_thumbprint,omitempty"`
}

// GuestRule is what differs for some guests.
type GuestRule struct {
	Match Selection `json:"match"`
	Guest
	Address string `json:"address,omitempty"`
}

// Selection are VMs: whoever matches one of the rules, in the vCenters that are named, or in all.
type Selection struct {
	VCenters []string `json:"vcenters,omitempty"`
	Rules
}

// Rules take every VM that at least one of them matches; docs/selection.md says how each is meant.
type Rules struct {
	Folders          []string `json:"folders,omitempty"`
	Clusters         []string `json:"clusters,omitempty"`
	ResourcePools    []string `json:"resource_pools,omitempty"`
	Tags             []string `json:"tags,omitempty"`
	CustomAttributes []string `json:"custom_attributes,omitempty"`
	Names            []string `json:"names,omitempty"`
	VMs              []string `json:"vms,omitempty"`
}

// empty says whether there is no rule.
func (r Rules) empty() bool {
	return len(slices.Concat(r.Folders, r.Clusters, r.ResourcePools, r.Tags, r.CustomAttributes, r.Names, r.VMs)) == 0
}

// Window are the limits of the freeze window.
type Window struct {
	Hold    Duration `json:"hold"`
	Reserve Duration `json:"reserve"`
	Mode    string   `json:"mode"`
}

// The distances between the limits of a window that is shorter than the default one: the dead-man stays as far before the
// end of the hold, and the dead-man of held writes lets go before that of the applications.
const (
	deadmanBefore   = 2 * time.Second
	ioDeadmanBefore = 500 * time.Millisecond
	ioThawBefore    = time.Second
)

// Budget is the budget of every run. What the file does not say follows from Hold.
func (w Window) Budget() freezewindow.Budget {
	b := freezewindow.DefaultBudget()
	b.Hold, b.Reserve = w.Hold.Duration, w.Reserve.Duration
	b.Deadman = min(b.Deadman, b.Hold-deadmanBefore)
	b.IODeadman = min(b.IODeadman, b.Deadman-ioDeadmanBefore)
	b.IOThaw = min(b.IOThaw, b.IODeadman-ioThawBefore)
	return b
}

// Limits say how much may go on at once.
type Limits struct {
	VCenter   VCenterLimits   `json:"vcenter"`
	Host      HostLimits      `json:"host"`
	Datastore DatastoreLimits `json:"datastore"`
	// GuestLogons are the logons at once with one guest account.
	GuestLogons int `json:"guest_logons"`
	// WindowWait is how long a guest that is ready waits for its window.
	WindowWait Duration `json:"window_wait"`
}

// VCenterLimits hold for each vCenter.
type VCenterLimits struct {
	Runs   int `json:"runs"`
	Arm    int `json:"arm"`
	Window int `json:"window"`
}

// HostLimits hold for each ESXi host.
type HostLimits struct {
	Arm    int `json:"arm"`
	Window int `json:"window"`
	Remove int `json:"remove"`
}

// DatastoreLimits hold for each datastore.
type DatastoreLimits struct {
	Arm    int `json:"arm"`
	Window int `json:"window"`
	Remove int `json:"remove"`
}

// Store is where the daemon keeps what it knows.
type Store struct {
	// Kind is sqlite or postgres.
	Kind string `json:"kind"`
	// DSN is set for postgres only.
	DSN      Ref    `json:"dsn,omitempty"`
	StateDir string `json:"state_dir"`
	// KeepRuns is how long a run that has ended is remembered.
	KeepRuns Duration `json:"keep_runs"`
}

// Listen is where the API is served.
type Listen struct {
	Socket string `json:"socket"`
	// Address is empty when only the socket is served; TLS is nil on loopback only.
	Address string `json:"address,omitempty"`
	TLS     *TLS   `json:"tls,omitempty"`
}

// TLS is a certificate and where its key is.
type TLS struct {
	Cert string `json:"cert"`
	Key  Ref    `json:"key"`
}

// Metrics say what /metrics shows.
type Metrics struct {
	PerVM bool `json:"per_vm"`
}

// Log says what the daemon writes.
type Log struct {
	// Level is debug, info, warn or error; Format auto, json or console.
	Level  string `json:"level"`
	Format string `json:"format"`
}

// Duration is a time.Duration that is written as 1h30m.
type Duration struct{ time.Duration }

// UnmarshalJSON reads the text that the schema lets through.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	var err error
	d.Duration, err = time.ParseDuration(s)
	return err
}

// MarshalJSON writes the text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }
