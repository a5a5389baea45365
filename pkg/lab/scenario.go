// Package lab builds a world in which the product is tested without VMware.
//
// Its parts say in their own doc comments what they are credible for, with what they never emulate. No product package
// imports any of it.
package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Scenario describes one world and what goes wrong in it.
type Scenario struct {
	// Name is the scenario's own name, for messages.
	Name string `yaml:"name"`
	// Seed is what every choice that may be repeated hangs on: UUIDs of VMs so far. Addresses are drawn afresh.
	Seed    uint64  `yaml:"seed"`
	VCenter VCenter `yaml:"vcenter"`
	VMs     []VM    `yaml:"vms"`
	Events  []Event `yaml:"events"`
}

// VCenter is the scenario's vCenter.
type VCenter struct {
	// About is the version it reports; empty is the lab's default.
	About string `yaml:"about"`
	// RTT is added to each exchange.
	RTT time.Duration `yaml:"rtt"`
	// User and Password are its one login; empty are a fixed name and a random password.
	User     string `yaml:"user"`
	Password string `yaml:"password"`
	// GuestOperations is "stock" for the simulator's own guest managers, which answer nothing useful; empty is ours.
	GuestOperations string `yaml:"guest_operations"`
}

// VM is one virtual machine of a scenario.
type VM struct {
	// Name is unique among the VMs with a guest; others may share it in different folders.
	Name   string `yaml:"name"`
	Folder string `yaml:"folder"`
	// Guest is linux, scripted or none; empty is none.
	Guest string `yaml:"guest"`
	// Power is on, off or suspended; empty is on.
	Power string `yaml:"power"`
	// Tools is running or absent; empty is running.
	Tools string `yaml:"tools"`
	// User and Password are the guest's one login; empty are root and a random password.
	User     string `yaml:"user"`
	Password string `yaml:"password"`
	Snapshot Plan   `yaml:"snapshot"`
	Remove   Plan   `yaml:"remove"`
	// CallFault is the fault that the snapshot call itself answers, before there is a task; empty is none.
	CallFault string `yaml:"call_fault"`
	// Disks has at most one disk so far; empty is one of 64 MiB for a VM with a guest.
	Disks []Disk `yaml:"disks"`
}

// Plan is how a snapshot task goes.
type Plan struct {
	Queue time.Duration `yaml:"queue"`
	Run   time.Duration `yaml:"run"`
	// Cut is the instant within Run at which the disk is copied; 0 is its middle.
	Cut time.Duration `yaml:"cut"`
	// Fault is the vSphere fault type in which the task ends; empty is success.
	Fault string `yaml:"fault"`
}

// Disk is one virtual disk.
type Disk struct {
	Size Size `yaml:"size"`
}

// Size is a number of bytes, written such as 64MiB.
type Size int64

// UnmarshalText reads a whole number with one of the units B, KiB, MiB, GiB.
func (s *Size) UnmarshalText(text []byte) error {
	for unit, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		number, found := strings.CutSuffix(string(text), unit)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || n < 1 {
			break
		}
		*s = Size(n * factor)
		return nil
	}
	return fmt.Errorf("size %q is not a number from 1 with KiB, MiB or GiB", text)
}

// Event is one thing that happens to a VM, once.
type Event struct {
	// At is task.queued, task.running or task.done of the VM's first snapshot creation, or start, each with an optional
	// "+200ms".
	At string `yaml:"at"`
	VM string `yaml:"vm"`
	// Do is cut_connection, stall_connection, kill_agent or stop_agent.
	Do string `yaml:"do"`
	// For is how long it lasts: a cut then refuses new connections for that time, a stall or stop ends after it. 0 means a
	// cut that lets new connections in, and a stall or stop without end.
	For time.Duration `yaml:"for"`
}

// point splits At.
func (e Event) point() (name string, after time.Duration, err error) {
	name, offset, found := strings.Cut(e.At, "+")
	if found {
		if after, err = time.ParseDuration(offset); err != nil || after < 0 {
			return "", 0, fmt.Errorf("at %q: %q is no time to add", e.At, offset)
		}
	}
	switch name {
	case "start", "task.queued", "task.running", "task.done":
		return name, after, nil
	default:
		return "", 0, fmt.Errorf("at %q is not start, task.queued, task.running or task.done", e.At)
	}
}

// ReadScenario reads a scenario file. Unknown keys are errors.
func ReadScenario(path string) (Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Scenario{}, fmt.Errorf("read scenario: %w", err)
	}
	s, err := ParseScenario(text)
	if err != nil {
		return Scenario{}, fmt.Errorf("read scenario %s: %w", path, err)
	}
	return s, nil
}

// ParseScenario reads a scenario. Unknown keys are errors.
func ParseScenario(text []byte) (Scenario, error) {
	var s Scenario
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.Strict()); err != nil {
		return Scenario{}, err
	}
	return s, s.check()
}

func (s Scenario) check() error {
	var errs []error
	if s.Name == "" {
		errs = append(errs, errors.New("name is missing"))
	}
	if s.VCenter.RTT < 0 {
		errs = append(errs, errors.New("vcenter.rtt is below 0"))
	}
	if !oneOf(s.VCenter.GuestOperations, "", "stock") {
		errs = append(errs, fmt.Errorf("vcenter.guest_operations %q is not stock", s.VCenter.GuestOperations))
	}
	if len(s.VMs) == 0 {
		errs = append(errs, errors.New("vms is empty"))
	}
	named, pathed := map[string]bool{}, map[string]bool{}
	for i, v := range s.VMs {
		if err := v.check(); err != nil {
			errs = append(errs, fmt.Errorf("vms[%d] %q: %w", i, v.Name, err))
		}
		path := v.Folder + "/" + v.Name
		if pathed[path] || (v.hasGuest() && named[v.Name]) {
			errs = append(errs, fmt.Errorf("vms[%d] %q: there is such a VM already", i, v.Name))
		}
		pathed[path] = true
		named[v.Name] = named[v.Name] || v.hasGuest()
	}
	for i, e := range s.Events {
		if err := e.check(named); err != nil {
			errs = append(errs, fmt.Errorf("events[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (v VM) hasGuest() bool { return oneOf(v.Guest, "linux", "scripted") }

func (v VM) check() error {
	var errs []error
	if v.Name == "" || strings.ContainsAny(v.Name, "/\\") || strings.HasPrefix(v.Name, ".") {
		errs = append(errs, errors.New("name is empty, begins with a dot or has a slash"))
	}
	for _, word := range []struct {
		key, value string
		of         []string
	}{
		{"guest", v.Guest, []string{"", "linux", "scripted", "none"}},
		{"power", v.Power, []string{"", "on", "off", "suspended"}},
		{"tools", v.Tools, []string{"", "running", "absent"}},
	} {
		if !oneOf(word.value, word.of...) {
			errs = append(errs, fmt.Errorf("%s %q is not one of %s", word.key, word.value, strings.Join(word.of[1:], ", ")))
		}
	}
	for name, p := range map[string]Plan{"snapshot": v.Snapshot, "remove": v.Remove} {
		if p.Queue < 0 || p.Run < 0 || p.Cut < 0 || p.Cut > p.Run {
			errs = append(errs, fmt.Errorf("%s has a time below 0, or a cut after its run", name))
		}
	}
	if len(v.Disks) > 1 {
		errs = append(errs, errors.New("disks has more than one disk"))
	}
	return errors.Join(errs...)
}

func (e Event) check(guests map[string]bool) error {
	_, _, err := e.point()
	errs := []error{err}
	if !guests[e.VM] {
		errs = append(errs, fmt.Errorf("vm %q is no VM with a guest", e.VM))
	}
	if !oneOf(e.Do, "cut_connection", "stall_connection", "kill_agent", "stop_agent") {
		errs = append(errs, fmt.Errorf("do %q is not cut_connection, stall_connection, kill_agent or stop_agent", e.Do))
	}
	if e.For < 0 {
		errs = append(errs, errors.New("for is below 0"))
	}
	return errors.Join(errs...)
}

func oneOf(s string, words ...string) bool {
	for _, w := range words {
		if s == w {
			return true
		}
	}
	return false
}

// diskSize is the size of the VM's one disk in bytes.
func (v VM) diskSize() int64 {
	if len(v.Disks) == 1 && v.Disks[0].Size > 0 {
		return int64(v.Disks[0].Size)
	}
	return 64 << 20
}
