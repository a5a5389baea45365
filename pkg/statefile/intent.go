package statefile

import (
	"context"
	"slices"
	"time"
)

// Kind is what an intent is about.
type Kind string

// The kinds.
const (
	// Snapshot is a vSphere snapshot; the subject is its name.
	Snapshot Kind = "snapshot"
	// KeptSnapshot is a vSphere snapshot that a run kept on purpose; the subject is its name. It is not open: no run is refused
	// for it, and it is removed only when somebody asks for that.
	KeptSnapshot Kind = "kept_snapshot"
	// Folder is the agent's folder in the guest; the subject is its path.
	Folder Kind = "agent_folder"
	// Process is the agent's process, which may hold the guest; the subject is the path of its folder.
	Process Kind = "agent_process"
	// Installed is the agent of the folder as an installed one, of which it is not known yet whether it stays; the subject is the
	// path of its folder.
	Installed Kind = "agent_installed"
)

// Intent is one thing that a run was about to make outside. It is open until the thing is proved to be gone.
type Intent struct {
	Kind    Kind   `json:"kind"`
	Subject string `json:"subject"`
	Run     string `json:"run_id"`
	Epoch   uint64 `json:"epoch"`
	// VCenter is the host of the vCenter or ESXi host; Moref is good there only.
	VCenter string `json:"vcenter"`
	VM      string `json:"vm_instance_uuid"`
	Path    string `json:"vm_path"`
	Moref   string `json:"vm_moref"`
	// At is when it was written down, by the wall clock, for people; Intend fills it in.
	At time.Time `json:"at"`
}

// same says whether two intents are about one thing. Subjects have a random part each, so that they alone are unique.
func (i Intent) same(o Intent) bool {
	return i.Kind == o.Kind && i.Subject == o.Subject && i.VM == o.VM
}

// Intend writes the intents down. They are on the disk when it returns; with an error nothing must be made.
func (s *Store) Intend(ctx context.Context, intents ...Intent) error {
	return s.update(ctx, "write down what is about to be made", func(now *state) error {
		for _, i := range intents {
			if i.At.IsZero() {
				i.At = s.now().UTC()
			}
			if !slices.ContainsFunc(now.Intents, i.same) {
				now.Intents = append(now.Intents, i)
			}
		}
		return nil
	})
}

// Settle strikes out intents whose things are gone. Those that are not open are ignored.
func (s *Store) Settle(ctx context.Context, intents ...Intent) error {
	return s.update(ctx, "write down what is gone", func(now *state) error {
		now.Intents = slices.DeleteFunc(now.Intents, func(open Intent) bool { return slices.ContainsFunc(intents, open.same) })
		return nil
	})
}

// Intents lists the open intents of the VM with this instance UUID, of all VMs when vm is empty, the oldest first.
func (s *Store) Intents(ctx context.Context, vm string) ([]Intent, error) {
	var open []Intent
	err := s.view(ctx, "read what is open", func(now *state) error {
		for _, i := range now.Intents {
			if vm == "" || i.VM == vm {
				open = append(open, i)
			}
		}
		return nil
	})
	return open, err
}
