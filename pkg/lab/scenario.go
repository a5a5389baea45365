// Package lab builds a world in which the product is tested without VMware.
//
// Its parts say in their own doc comments what they are credible for, with what they never emulate. No product package
// imports any of it.
package lab

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// Scenario describes one world and what goes wrong in it.
type Scenario struct {
	// Name is the scenario's own name, for messages.
	Name string `yaml:"name"`
	// Seed is what every choice that may be repeated hangs on: UUIDs of VMs, times of tasks with a spread. Addresses are
	// drawn afresh.
	Seed    uint64  `yaml:"seed"`
	VCenter VCenter `yaml:"vcenter"`
	// Defaults stand for the guest, snapshot, remove and stun of every VM that leaves them out.
	Defaults Defaults `yaml:"defaults"`
	VMs      []VM     `yaml:"vms"`
	Events   []Event  `yaml:"events"`
}

// Defaults is what VMs have that do not say otherwise.
type Defaults struct {
	Guest    string        `yaml:"guest"`
	Snapshot Plan          `yaml:"snapshot"`
	Remove   Plan          `yaml:"remove"`
	Stun     time.Duration `yaml:"stun"`
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
	// TaskSlots is how many snapshot tasks run at once, the others stay queued; 0 is no limit.
	TaskSlots int `yaml:"task_slots"`
	// Clusters is how many clusters there are, DC0_C0 onwards, Hosts how many hosts each has, DC0_C0_H0 onwards; 0 is one.
	Clusters int `yaml:"clusters"`
	Hosts    int `yaml:"hosts"`
	// HostUser and HostPassword are the account of the ESXi hosts; with a password each host also answers for itself, with a
	// round trip of HostRTT.
	HostUser     string        `yaml:"host_user"`
	HostPassword string        `yaml:"host_password"`
	HostRTT      time.Duration `yaml:"host_rtt"`
	// Role is the role of the one account on every object.
	Role Role `yaml:"role"`
	// Plan is what goes wrong with calls; the first line that matches a call is the one that is done.
	Plan []Fault `yaml:"plan"`
}

// Role is what the one account may do; empty is everything.
type Role struct {
	// Missing are the ids of the privileges that it lacks, such as VirtualMachine.State.CreateSnapshot.
	Missing []string `yaml:"missing"`
}

// Fault is one line of the fault plan.
type Fault struct {
	// Method is the SOAP method, or PUT or GET for guest transfers; empty is every one.
	Method string `yaml:"method"`
	// VM is the VM that the call must be about; empty is any call.
	VM string `yaml:"vm"`
	// Do is fault (a SOAP fault), unavailable (HTTP 503), cut (the connection, before the call happens), cut_answer (after
	// it happened) or stall (hold the call back for Delay, 0 is for ever).
	Do string `yaml:"do"`
	// Fault is the vSphere fault type of a fault, such as TaskInProgress.
	Fault string        `yaml:"fault"`
	Delay time.Duration `yaml:"delay"`
	// Skip lets that many calls pass first; Count is how many are then hit, 0 is all.
	Skip  int `yaml:"skip"`
	Count int `yaml:"count"`
}

// rule is the line as the front takes it.
func (f Fault) rule() (vcenter.Rule, error) {
	action, ok := map[string]vcenter.Action{
		"fault": vcenter.Fault, "unavailable": vcenter.Unavailable, "cut": vcenter.Cut, "cut_answer": vcenter.CutAnswer, "stall": vcenter.Stall,
	}[f.Do]
	switch {
	case !ok:
		return vcenter.Rule{}, fmt.Errorf("do %q is not fault, unavailable, cut, cut_answer or stall", f.Do)
	case f.Skip < 0 || f.Count < 0 || f.Delay < 0:
		return vcenter.Rule{}, errors.New("skip, count or delay is below 0")
	}
	return vcenter.Rule{Method: f.Method, VM: f.VM, Action: action, Fault: f.Fault, Delay: f.Delay, Skip: f.Skip, Count: f.Count}, nil
}

// VM is one virtual machine of a scenario.
type VM struct {
	// Name is unique among the VMs with a guest; others may share it in different folders.
	Name string `yaml:"name"`
	// Count makes that many VMs, at most 10000, whose names have a number from 1 in the place of the #s of Name; 0 is one VM.
	Count  int    `yaml:"count"`
	Folder string `yaml:"folder"`
	// Cluster and Host are where it runs; empty is the first. Pool is the path of a resource pool in the cluster.
	Cluster string `yaml:"cluster"`
	Host    string `yaml:"host"`
	Pool    string `yaml:"pool"`
	// Tags are written category/name; Attributes are its custom attributes.
	Tags       []string          `yaml:"tags"`
	Attributes map[string]string `yaml:"attributes"`
	// Guest is linux, wine, scripted or none; empty is none.
	Guest string `yaml:"guest"`
	// Power is on, off or suspended; empty is on.
	Power string `yaml:"power"`
	// Tools is running or absent; empty is running.
	Tools string `yaml:"tools"`
	// User and Password are the guest's one login; empty are root, in Windows Administrator, and a random password.
	User     string `yaml:"user"`
	Password string `yaml:"password"`
	Snapshot Plan   `yaml:"snapshot"`
	Remove   Plan   `yaml:"remove"`
	// HostSnapshot is how the creation goes that the host itself is asked for; empty is that of Snapshot.
	HostSnapshot Plan `yaml:"host_snapshot"`
	// CallFault is the fault that the snapshot call itself answers, before there is a task; empty is none.
	CallFault string `yaml:"call_fault"`
	// Stun is how long everything in the guest stands still around the instant of a snapshot; 0 is not at all.
	Stun time.Duration `yaml:"stun"`
	// Rest is how long the writer of a scripted guest rests between two records, for worlds with many guests; 0 is 20 ms.
	Rest time.Duration `yaml:"rest"`
	// RootSize makes the guest's own disk, on which the agent is put, a file system of that size; it needs root. Empty is
	// the space that the machine has.
	RootSize Size    `yaml:"root_size"`
	Network  Network `yaml:"network"`
	Agent    Agent   `yaml:"agent"`
	// Conditions are what is not as it should be with the VM, by the names that vcenter.Conditions lists.
	Conditions []string `yaml:"conditions"`
	// Role is the role of the one account on this VM.
	Role Role `yaml:"role"`
	// Postgres runs a PostgreSQL on the disk of a linux guest; Hooks are installed in the guest.
	Postgres bool   `yaml:"postgres"`
	Hooks    []Hook `yaml:"hooks"`
	// Writers are the VSS writers of a wine guest, by the words of testing/cpp/README.md; empty are the usual ones. VSS are
	// keys of the fakes' config from there, those of a writer as writer.WORD.KEY.
	Writers []string       `yaml:"writers"`
	VSS     map[string]any `yaml:"vss"`
	// Mailbox gives a linux or scripted guest the VM's guestinfo, for agents that speak through it; "refused" has the guest's
	// settings forbid it.
	Mailbox string `yaml:"mailbox"`
	// Ways are the ways into a wine guest besides guest operations.
	Ways Ways `yaml:"ways"`
	// Disks has at most one disk so far; empty is one of 64 MiB for a VM with a guest.
	Disks []Disk `yaml:"disks"`
}

// Network is how the way to the agent carries bytes, from the start.
type Network struct {
	// CutToGuest and CutFromGuest reset a connection after that many bytes in that direction; Cuts is how many connections
	// meet that, 0 is one.
	CutToGuest   int64 `yaml:"cut_to_guest"`
	CutFromGuest int64 `yaml:"cut_from_guest"`
	Cuts         int   `yaml:"cuts"`
	// Slice is the most bytes carried at once, Pause the time between two; 0 is no limit.
	Slice int           `yaml:"slice"`
	Pause time.Duration `yaml:"pause"`
}

// Agent is what only an agent of a build tagged lab can be told.
type Agent struct {
	// Lie makes the agent lie: never_held, still_held, other_go, early_go or short_hold (docs/vcsim.md).
	Lie string `yaml:"lie"`
	// Prepare is how long a scripted freezer takes to prepare: the agent stays ARMING.
	Prepare time.Duration `yaml:"prepare"`
	// Freeze is how long a scripted freezer takes until everything is held; its hold counts from the beginning.
	Freeze time.Duration `yaml:"freeze"`
	// Release is how long a scripted freezer takes to release: the agent stays THAWING, the guest is held.
	Release time.Duration `yaml:"release"`
	// Busy is how long an agent of a wine guest waits for another requestor's shadow copy, give or take a third.
	Busy time.Duration `yaml:"busy"`
	// FramesToGuest and FramesFromGuest are what is done to frames behind TLS: doubled, replayed, or with a word swapped,
	// oversized and endless, such as oversized:FROZEN (docs/vcsim.md).
	FramesToGuest   string `yaml:"frames_to_guest"`
	FramesFromGuest string `yaml:"frames_from_guest"`
}

// framesWay is what FramesToGuest and FramesFromGuest may be.
var framesWay = regexp.MustCompile(`^((doubled|replayed)|(swapped|oversized|endless):[A-Z]+)?$`)

// check says what is wrong with an agent's keys.
func (a Agent) check() error {
	var errs []error
	if !oneOf(a.Lie, "", "never_held", "still_held", "other_go", "early_go", "short_hold") {
		errs = append(errs, fmt.Errorf("agent.lie %q is not one of never_held, still_held, other_go, early_go, short_hold", a.Lie))
	}
	if a.Prepare < 0 || a.Freeze < 0 || a.Release < 0 || a.Busy < 0 {
		errs = append(errs, errors.New("agent has a time below 0"))
	}
	for key, frames := range map[string]string{"frames_to_guest": a.FramesToGuest, "frames_from_guest": a.FramesFromGuest} {
		if !framesWay.MatchString(frames) {
			errs = append(errs, fmt.Errorf("agent.%s %q is not doubled, replayed, or swapped, oversized or endless with a word", key, frames))
		}
	}
	return errors.Join(errs...)
}

// Plan is how a snapshot task goes.
type Plan struct {
	Queue time.Duration `yaml:"queue"`
	Run   time.Duration `yaml:"run"`
	// Cut is the instant within Run at which the disk is copied; 0 is its middle.
	Cut time.Duration `yaml:"cut"`
	// Fault is the vSphere fault type in which the task ends; empty is success. FaultCount is how many tasks end in it
	// before all is well, 0 is all of them.
	Fault      string `yaml:"fault"`
	FaultCount int    `yaml:"fault_count"`
	// Spread makes the times of each task vary by a factor exp(Spread*z), z normal: the median stays, the tail is heavy. 0
	// is none, 1 makes one task in 50 take 8 times as long. Worst bounds the run; 0 is 20 times Run.
	Spread float64       `yaml:"spread"`
	Worst  time.Duration `yaml:"worst"`
	// Hang keeps the task running at its cut until the event or request end_tasks.
	Hang bool `yaml:"hang"`
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

// Event is one thing that happens, once.
type Event struct {
	// At is start; task.queued, task.running, task.cut or task.done of the VM's first snapshot creation; the same of its
	// first removal with remove in the place of task; link.opened, when the first connection to the VM's agent was made;
	// hold.end, when a scripted guest is let go, before its freezer hears of it; or
	// call.X, when vCenter gets the first call of method X that is about the VM or about no VM at all. Each takes an
	// optional "+200ms", and with an empty VM means any VM.
	At string `yaml:"at"`
	// VM is empty only for what happens to vCenter.
	VM string `yaml:"vm"`
	// By is how far vcenter_clock sets vCenter's clock from the machine's, forward or, below 0, back.
	By time.Duration `yaml:"by"`
	// To is the host that vmotion moves the VM to.
	To string `yaml:"to"`
	// Do is one of the words of docs/vcsim.md.
	Do string `yaml:"do"`
	// For is how long it lasts; 0 means without end, for a cut one that lets new connections in, for reboot no time without
	// Tools.
	For time.Duration `yaml:"for"`
}

// eventWords are what Do may be; World.do says what each does.
var eventWords = []string{
	"cut_connection", "stall_connection", "restore_connection", "kill_agent", "stop_agent", "stun", "thaw", "reboot", "end_tasks",
	"power_off", "tools_stop", "vcenter_stop", "vcenter_silence", "vcenter_restart", "vcenter_new_certificate",
	"vcenter_drop_sessions", "vcenter_clock", "kill_hooks", "stall_to_guest", "stop_service", "other_backup", "old_registration",
	"vmotion", "stall_share",
}

// point splits At.
func (e Event) point() (name string, after time.Duration, err error) {
	name, offset, found := strings.Cut(e.At, "+")
	if found {
		if after, err = time.ParseDuration(offset); err != nil || after < 0 {
			return "", 0, fmt.Errorf("at %q: %q is no time to add", e.At, offset)
		}
	}
	kind, stage, _ := strings.Cut(name, ".")
	switch {
	case name == "start", name == "link.opened", name == "hold.end",
		oneOf(kind, "task", "remove") && oneOf(stage, "queued", "running", "cut", "done"), kind == "call" && stage != "":
		return name, after, nil
	default:
		return "", 0, fmt.Errorf("at %q is not start, task.*, remove.*, link.opened, hold.end or call.METHOD", e.At)
	}
}

// ReadScenario reads a scenario file. Unknown keys are errors.
func ReadScenario(path string) (Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Scenario{}, fmt.Errorf("read scenario: %w", err)
	}
	s, err := ParseScenario(text)
	if err == nil {
		err = s.resolve(path)
	}
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
	s, err := s.expand()
	return s, errors.Join(err, s.check())
}

// mostVMs bounds the count of one VM entry.
const mostVMs = 10000

// expand makes the VMs of a count, and fills in the defaults.
func (s Scenario) expand() (Scenario, error) {
	var vms []VM
	for i, v := range s.VMs {
		v.Guest = orElse(v.Guest, s.Defaults.Guest)
		if v.Snapshot == (Plan{}) {
			v.Snapshot = s.Defaults.Snapshot
		}
		if v.Remove == (Plan{}) {
			v.Remove = s.Defaults.Remove
		}
		if v.Stun == 0 {
			v.Stun = s.Defaults.Stun
		}
		first := strings.Index(v.Name, "#")
		if v.Count == 0 {
			vms = append(vms, v)
			continue
		}
		if v.Count < 0 || v.Count > mostVMs || first < 0 {
			return s, fmt.Errorf("vms[%d] %q: count %d is not from 1 to %d, or the name has no #", i, v.Name, v.Count, mostVMs)
		}
		digits := strings.TrimLeft(v.Name[first:], "#")
		width := len(v.Name) - first - len(digits)
		for n := 1; n <= v.Count; n++ {
			one := v
			one.Name, one.Count = fmt.Sprintf("%s%0*d%s", v.Name[:first], width, n, digits), 0
			vms = append(vms, one)
		}
	}
	s.VMs = vms
	return s, nil
}

func (s Scenario) check() error {
	var errs []error
	if s.Name == "" {
		errs = append(errs, errors.New("name is missing"))
	}
	if s.VCenter.RTT < 0 || s.VCenter.HostRTT < 0 {
		errs = append(errs, errors.New("vcenter.rtt or vcenter.host_rtt is below 0"))
	}
	if !oneOf(s.VCenter.GuestOperations, "", "stock") {
		errs = append(errs, fmt.Errorf("vcenter.guest_operations %q is not stock", s.VCenter.GuestOperations))
	}
	if s.VCenter.Clusters < 0 || s.VCenter.Hosts < 0 {
		errs = append(errs, errors.New("vcenter.clusters or vcenter.hosts is below 0"))
	}
	if s.VCenter.TaskSlots < 0 {
		errs = append(errs, errors.New("vcenter.task_slots is below 0"))
	}
	for i, f := range s.VCenter.Plan {
		if _, err := f.rule(); err != nil {
			errs = append(errs, fmt.Errorf("vcenter.plan[%d]: %w", i, err))
		}
	}
	if len(s.VMs) == 0 {
		errs = append(errs, errors.New("vms is empty"))
	}
	kinds, pathed := map[string]string{}, map[string]bool{}
	for i, v := range s.VMs {
		if err := v.check(); err != nil {
			errs = append(errs, fmt.Errorf("vms[%d] %q: %w", i, v.Name, err))
		}
		path := v.Folder + "/" + v.Name
		if pathed[path] || (v.hasGuest() && kinds[v.Name] != "") {
			errs = append(errs, fmt.Errorf("vms[%d] %q: there is such a VM already", i, v.Name))
		}
		pathed[path] = true
		if v.hasGuest() {
			kinds[v.Name] = v.Guest
		}
	}
	for i, e := range s.Events {
		err := e.check(kinds)
		if strings.HasPrefix(e.At, "hold.end") && kinds[e.VM] != "scripted" {
			err = errors.Join(err, fmt.Errorf("at %q: VM %q has no scripted guest", e.At, e.VM))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("events[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (v VM) hasGuest() bool { return oneOf(v.Guest, "linux", "wine", "scripted") }

func (v VM) check() error {
	var errs []error
	if v.Name == "" || strings.ContainsAny(v.Name, "/\\") || strings.HasPrefix(v.Name, ".") {
		errs = append(errs, errors.New("name is empty, begins with a dot or has a slash"))
	}
	for _, word := range []struct {
		key, value string
		of         []string
	}{
		{"guest", v.Guest, []string{"", "linux", "wine", "scripted", "none"}},
		{"power", v.Power, []string{"", "on", "off", "suspended"}},
		{"tools", v.Tools, []string{"", "running", "absent"}},
	} {
		if !oneOf(word.value, word.of...) {
			errs = append(errs, fmt.Errorf("%s %q is not one of %s", word.key, word.value, strings.Join(word.of[1:], ", ")))
		}
	}
	for name, p := range map[string]Plan{"snapshot": v.Snapshot, "remove": v.Remove, "host_snapshot": v.HostSnapshot} {
		if p.Queue < 0 || p.Run < 0 || p.Cut < 0 || p.Cut > p.Run {
			errs = append(errs, fmt.Errorf("%s has a time below 0, or a cut after its run", name))
		}
		if p.Spread < 0 || p.Worst < 0 || p.FaultCount < 0 {
			errs = append(errs, fmt.Errorf("%s has a spread, a worst or a fault_count below 0", name))
		}
	}
	if n := v.Network; v.Stun < 0 || v.Rest < 0 || n.CutToGuest < 0 || n.CutFromGuest < 0 || n.Cuts < 0 || n.Slice < 0 || n.Pause < 0 {
		errs = append(errs, errors.New("stun, rest or network has a number below 0"))
	}
	errs = append(errs, v.Agent.check(), v.checkApplications(), v.checkWindows(), v.Ways.check(v.Guest))
	if !oneOf(v.Mailbox, "", "open", "refused") || v.Mailbox != "" && !oneOf(v.Guest, "linux", "scripted") {
		errs = append(errs, fmt.Errorf("mailbox %q is not open or refused, or the guest is not linux or scripted", v.Mailbox))
	}
	if len(v.Disks) > 1 {
		errs = append(errs, errors.New("disks has more than one disk"))
	}
	return errors.Join(errs...)
}

// check takes the kinds of the guests by their names.
func (e Event) check(kinds map[string]string) error {
	_, _, err := e.point()
	errs := []error{err}
	ofVCenter := strings.HasPrefix(e.Do, "vcenter_")
	if kinds[e.VM] == "" && (e.VM != "" || !ofVCenter) {
		errs = append(errs, fmt.Errorf("vm %q is no VM with a guest", e.VM))
	}
	if !oneOf(e.Do, eventWords...) {
		errs = append(errs, fmt.Errorf("do %q is not one of %s", e.Do, strings.Join(eventWords, ", ")))
	}
	if kinds[e.VM] == "wine" && oneOf(e.Do, "thaw", "kill_hooks") {
		errs = append(errs, fmt.Errorf("do %q cannot be done to a wine guest", e.Do))
	}
	if kinds[e.VM] != "wine" && oneOf(e.Do, windowsEvents...) {
		errs = append(errs, fmt.Errorf("do %q needs a wine guest", e.Do))
	}
	if e.For < 0 {
		errs = append(errs, errors.New("for is below 0"))
	}
	if (e.To != "") != (e.Do == "vmotion") {
		errs = append(errs, errors.New("to is for vmotion, which needs it"))
	}
	if e.By != 0 && e.Do != "vcenter_clock" {
		errs = append(errs, fmt.Errorf("by is for vcenter_clock, not for %q", e.Do))
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
