package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Feature is one part of the product with the privileges that it needs.
type Feature struct {
	Name string
	// Needed is true for what every run uses; the others are needed only by who uses them.
	Needed bool
	// Of a feature, these are the privileges on the VM, on the datastores of its disks, on the root folder.
	onVM, onDatastore, onRoot []string
}

// guestOperationsPrivileges begins the privileges of guest operations.
const guestOperationsPrivileges = "VirtualMachine.GuestOperations."

// featureEncrypted is the feature that an encrypted VM turns into a needed one.
const featureEncrypted = "encrypted VMs"

// Privileges lists all privileges of the feature, sorted.
func (f Feature) Privileges() []string {
	all := slices.Concat(f.onVM, f.onDatastore, f.onRoot)
	slices.Sort(all)
	return all
}

// Features lists what the product can do or is designed to do, the needed ones first.
func Features() []Feature {
	return []Feature{
		{Name: "always", Needed: true, onVM: []string{
			"System.Anonymous", "System.View", "System.Read", "VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot",
		}},
		{Name: "guest operations", Needed: true, onVM: []string{
			guestOperationsPrivileges + "Query", guestOperationsPrivileges + "Modify", guestOperationsPrivileges + "Execute",
		}},
		{Name: featureEncrypted, onVM: []string{"Cryptographer.Access"}},
		{Name: "changed blocks", onVM: []string{"VirtualMachine.Config.ChangeTracking", "VirtualMachine.Provisioning.DiskRandomRead"}},
		{Name: "mailbox", onVM: []string{"VirtualMachine.Config.AdvancedConfig"}},
		{Name: "disk export", onVM: []string{"VApp.Export", "VirtualMachine.Provisioning.GetVmFiles"}}, // which of the two vCenter asks for is unverified
		{Name: "datastore files", onDatastore: []string{"Datastore.Browse", "Datastore.FileManagement"}},
		{Name: "events and attributes", onRoot: []string{"Global.LogEvent", "Global.ManageCustomFields", "Global.SetCustomField"}},
		{
			Name: "restore", onDatastore: []string{"Datastore.AllocateSpace"},
			onVM: []string{
				"VirtualMachine.Inventory.Delete", "VirtualMachine.Provisioning.DiskRandomAccess", "VirtualMachine.Provisioning.PutVmFiles",
				"VirtualMachine.Config.AddNewDisk", "VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff",
			},
			onRoot: []string{
				"VirtualMachine.Inventory.Create", "VirtualMachine.Inventory.Register", "Resource.AssignVMToPool", "Network.Assign", "VApp.Import",
			},
		},
	}
}

// RoleName is the name of the role in RoleLine.
const RoleName = "stillframe-backup"

// RoleLine is the govc command that makes the role of these features, without the privileges that every role has.
func RoleLine(features ...Feature) string {
	var ids []string
	for _, f := range features {
		for _, id := range f.Privileges() {
			if !strings.HasPrefix(id, "System.") && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return "govc role.create " + RoleName + " " + strings.Join(ids, " ")
}

// Lack is one privilege that the session lacks on one object.
type Lack struct {
	Privilege string
	// Object is the object's name, Moref its reference value.
	Object, Moref string
}

// Grant is what the session may do of one feature.
type Grant struct {
	Feature Feature
	// Missing is empty when the session holds every privilege of the feature.
	Missing []Lack
}

// Grants asks for the session's privileges, feature by feature: on the VM, the datastores of its disks, the root folder.
// With a nil VM everything is asked on the root folder, where a role that is meant for all VMs is given with propagation.
// An encrypted VM makes that feature a needed one. It makes two calls.
func (e *Endpoint) Grants(ctx context.Context, vm *inventory.VM) ([]Grant, error) {
	root := types.ManagedObjectReference{Type: "Folder", Value: e.vim.ServiceContent.RootFolder.Value}
	targets, session, encrypted, err := e.targets(ctx, vm)
	if err != nil {
		return nil, failure("read privileges on", e.host, err)
	}
	grants := make([]Grant, 0, len(Features()))
	scopes := map[types.ManagedObjectReference]*scope{}
	order := []types.ManagedObjectReference{}
	want := func(ref types.ManagedObjectReference, name string, ids []string) {
		if scopes[ref] == nil {
			scopes[ref] = &scope{ref: ref, name: name}
			order = append(order, ref)
		}
		scopes[ref].ids = append(scopes[ref].ids, ids...)
	}
	for _, f := range Features() {
		f.Needed = f.Needed || encrypted && f.Name == featureEncrypted
		grants = append(grants, Grant{Feature: f})
		want(root, "the root folder", f.onRoot)
		if vm == nil {
			want(root, "the root folder", slices.Concat(f.onVM, f.onDatastore))
			continue
		}
		want(vmRef(vm.Moref), vm.Path, f.onVM)
		for _, t := range targets {
			want(t.ref, t.name, f.onDatastore)
		}
	}
	var ask []scope
	for _, ref := range order {
		ask = append(ask, *scopes[ref])
	}
	missing, err := e.lacking(ctx, session, ask)
	if err != nil {
		return nil, failure("ask for privileges on", e.host, err)
	}
	for i := range grants {
		for _, m := range missing {
			if slices.Contains(grants[i].Feature.Privileges(), m.Privilege) {
				grants[i].Missing = append(grants[i].Missing, m)
			}
		}
	}
	return grants, nil
}

// targets reads the session's key, with the datastores of the VM and whether it is encrypted.
func (e *Endpoint) targets(ctx context.Context, vm *inventory.VM) (datastores []named, session string, encrypted bool, err error) {
	if vm == nil {
		p, err := e.properties(ctx, *e.vim.ServiceContent.SessionManager, "currentSession")
		return nil, value[types.UserSession](p, "currentSession").Key, false, err
	}
	v, err := e.read(ctx, vmRef(vm.Moref))
	if err != nil {
		return nil, "", false, err
	}
	for _, d := range v.storage() {
		datastores = append(datastores, named{d.ref, "datastore " + d.name})
	}
	return datastores, v.session, v.encrypted(), nil
}

// scope is one object with the privileges to ask for.
type scope struct {
	ref  types.ManagedObjectReference
	name string
	ids  []string
}

var errNoAuthorization = errors.New("no authorization manager, or no session to ask about")

// lacking asks in one call which privileges the session lacks. What vCenter does not answer counts as lacking.
func (e *Endpoint) lacking(ctx context.Context, session string, scopes []scope) ([]Lack, error) {
	manager := e.vim.ServiceContent.AuthorizationManager
	if manager == nil || session == "" {
		return nil, errNoAuthorization
	}
	req := &types.HasPrivilegeOnEntities{This: *manager, SessionId: session}
	for _, s := range scopes {
		req.Entity = append(req.Entity, s.ref)
		for _, id := range s.ids {
			if !slices.Contains(req.PrivId, id) {
				req.PrivId = append(req.PrivId, id)
			}
		}
	}
	res, err := methods.HasPrivilegeOnEntities(ctx, e.vim, req)
	if err != nil {
		return nil, err
	}
	granted := map[Lack]bool{}
	for _, entity := range res.Returnval {
		for _, p := range entity.PrivAvailability {
			granted[Lack{Privilege: p.PrivId, Moref: entity.Entity.Value}] = p.IsGranted
		}
	}
	var missing []Lack
	for _, s := range scopes {
		for _, id := range s.ids {
			if !granted[Lack{Privilege: id, Moref: s.ref.Value}] {
				missing = append(missing, Lack{Privilege: id, Object: s.name, Moref: s.ref.Value})
			}
		}
	}
	return missing, nil
}
