package vsphere

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

const (
	// maxChain: 32 snapshots in a chain are supported (VMware's snapshot best practices); two are kept free, one for
	// ours, one for whoever comes next.
	maxChain     = 30
	supportChain = 32
	// minFree and minFreeShare of the VM's disks are what a datastore must have free for the growth of the delta disks.
	// Both are our judgement (unverified).
	minFree      = 10 << 30 // bytes
	minFreeShare = 10       // percent
)

func judgeConsolidation(v *view) finding {
	switch {
	case value[bool](v.vm, "runtime.consolidationNeeded"):
		return fail("vCenter says that its disks need consolidation")
	case !v.has("runtime.consolidationNeeded"):
		return unread("runtime.consolidationNeeded")
	}
	return fine()
}

// walk visits the snapshots, parents first, with their depth from 1.
func (v *view) walk(visit func(t types.VirtualMachineSnapshotTree, depth int)) {
	var down func(list []types.VirtualMachineSnapshotTree, depth int)
	down = func(list []types.VirtualMachineSnapshotTree, depth int) {
		for _, t := range list {
			visit(t, depth)
			down(t.ChildSnapshotList, depth+1)
		}
	}
	down(value[types.VirtualMachineSnapshotInfo](v.vm, "snapshot").RootSnapshotList, 1)
}

// maxListed bounds the snapshots that a row lists.
const maxListed = 5

// few is the beginning of a long list.
func few(all []string) []string {
	if len(all) <= maxListed {
		return all
	}
	return append(all[:maxListed:maxListed], fmt.Sprintf("and %d more", len(all)-maxListed))
}

// snapshots describes the snapshots that are ours, or those that are not.
func (v *view) snapshots(ours bool) []string {
	var all []string
	v.walk(func(t types.VirtualMachineSnapshotTree, _ int) {
		if strings.HasPrefix(t.Name, ourPrefix) == ours {
			all = append(all, fmt.Sprintf("%q (%s) of %s", t.Name, t.Snapshot.Value, t.CreateTime.UTC().Format(time.RFC3339)))
		}
	})
	return all
}

// judgeOwnSnapshots finds what an earlier run left, or what another run is about to remove.
func judgeOwnSnapshots(v *view) finding {
	if ours := v.snapshots(true); len(ours) > 0 {
		return warn(few(ours)...)
	}
	return fine()
}

// judgeForeignSnapshots only warns: they cost I/O, and they are nobody's business but their owner's.
func judgeForeignSnapshots(v *view) finding {
	if foreign := v.snapshots(false); len(foreign) > 0 {
		return warn(few(foreign)...)
	}
	return fine()
}

// judgeDepth takes the longer of the chain in the snapshot tree and the chain of disk files: a linked clone or a removal
// that failed has more files than snapshots.
func judgeDepth(v *view) finding {
	current := value[types.VirtualMachineSnapshotInfo](v.vm, "snapshot").CurrentSnapshot
	depth := 0
	v.walk(func(t types.VirtualMachineSnapshotTree, at int) {
		if current == nil || same(t.Snapshot, *current) {
			depth = max(depth, at)
		}
	})
	what := "the chain of snapshots"
	for _, d := range v.disks() {
		if n := parents(d.Backing); n > depth {
			depth, what = n, "the chain of files of "+label(d)
		}
	}
	if depth >= maxChain {
		return fail(fmt.Sprintf("%s has %d levels, %d are supported", what, depth, supportChain))
	}
	return fine()
}

// parents counts the files below a backing.
func parents(backing any) int {
	for n := 0; ; n++ {
		p := member(backing, "Parent")
		if !p.IsValid() || p.IsZero() || n == 2*supportChain {
			return n
		}
		backing = p.Interface()
	}
}

// judgeDisabled finds that somebody switched snapshots off: a product by disabledMethod, an operator in the VM's settings.
func judgeDisabled(v *view) finding {
	var evidence []string
	for _, m := range value[types.ArrayOfString](v.vm, "disabledMethod").String {
		if m == "CreateSnapshotEx_Task" || m == "CreateSnapshot_Task" {
			evidence = append(evidence, m+" is among the disabled methods")
		}
	}
	count := len(v.snapshots(true)) + len(v.snapshots(false))
	for _, o := range value[types.ArrayOfOptionValue](v.vm, "config.extraConfig").OptionValue {
		option := o.GetOptionValue()
		if option.Key != "snapshot.maxSnapshots" {
			continue
		}
		limit, err := strconv.Atoi(fmt.Sprint(option.Value))
		if err == nil && limit >= 0 && count >= limit {
			evidence = append(evidence, fmt.Sprintf("snapshot.maxSnapshots is %d, there are %d", limit, count))
		}
	}
	if len(evidence) > 0 {
		return fail(evidence...)
	}
	switch {
	case !v.has("disabledMethod"):
		return unread("disabledMethod")
	case slices.Contains(v.refused, "config.extraConfig"):
		return unread("config.extraConfig")
	}
	return fine()
}

// storage is one datastore with the size of the VM's disks on it.
type storage struct {
	ref     types.ManagedObjectReference
	name    string
	summary types.DatastoreSummary
	known   bool // the summary could be read
	disks   int64
}

// storage lists the datastores that hold disks of the VM, in the order of the disks.
func (v *view) storage() []storage {
	var all []storage
	for _, d := range v.disks() {
		f, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		file := f.GetVirtualDeviceFileBackingInfo()
		if file.Datastore == nil {
			continue
		}
		size := max(d.CapacityInBytes, d.CapacityInKB<<10)
		at := slices.IndexFunc(all, func(s storage) bool { return same(s.ref, *file.Datastore) })
		if at >= 0 {
			all[at].disks += size
			continue
		}
		p := v.datastores[key(*file.Datastore)]
		summary, known := p["summary"].(types.DatastoreSummary)
		s := storage{ref: key(*file.Datastore), name: text(p, "name"), summary: summary, known: known, disks: size}
		if s.name == "" {
			s.name = s.ref.Value
		}
		all = append(all, s)
	}
	return all
}

func judgeDatastoreState(v *view) finding {
	return v.eachDatastore(func(s storage) string {
		switch mode := s.summary.MaintenanceMode; {
		case !s.summary.Accessible:
			return fmt.Sprintf("datastore %s is not accessible", s.name)
		case mode != "" && mode != string(types.DatastoreSummaryMaintenanceModeStateNormal):
			return fmt.Sprintf("datastore %s: %s", s.name, mode)
		}
		return ""
	})
}

// judgeDatastoreSpace believes the free space that vCenter last heard of; hosts tell it each few minutes.
func judgeDatastoreSpace(v *view) finding {
	return v.eachDatastore(func(s storage) string {
		need := max(minFree, s.disks/100*minFreeShare)
		if s.summary.FreeSpace >= need {
			return ""
		}
		return fmt.Sprintf("datastore %s has %.1f GiB free, %.1f GiB are needed", s.name, gib(s.summary.FreeSpace), gib(need))
	})
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// eachDatastore fails with what wrong finds on any datastore.
func (v *view) eachDatastore(wrong func(storage) string) finding {
	all := v.storage()
	if len(all) == 0 {
		return unknown("no datastore of its disks could be read")
	}
	var bad, unseen []string
	for _, s := range all {
		if !s.known {
			unseen = append(unseen, fmt.Sprintf("datastore %s could not be read", s.name))
		} else if w := wrong(s); w != "" {
			bad = append(bad, w)
		}
	}
	switch {
	case len(bad) > 0:
		return fail(bad...)
	case len(unseen) > 0:
		return unknown(unseen...)
	}
	return fine()
}
