package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	maxAmbiguous = 20 // namesakes whose paths are read
	maxDepth     = 64 // of the inventory tree
)

// NotFoundError says that no VM answers to a query.
type NotFoundError struct {
	Query string
	// Near are names of VMs that resemble the query, the nearest first, at most 5.
	Near []string
}

// Error names the query and the near misses.
func (e *NotFoundError) Error() string {
	msg := fmt.Sprintf("find VM %q: no VM has this name, path, moref or instance UUID", e.Query)
	if strings.ContainsAny(e.Query, "*?") {
		msg += " (patterns are not supported, name one VM)"
	}
	if len(e.Near) > 0 {
		msg += "; near: " + strings.Join(e.Near, ", ")
	}
	return msg
}

// Code is SF2009.
func (*NotFoundError) Code() string { return "SF2009" }

// AmbiguousError says that several VMs answer to a query.
type AmbiguousError struct {
	Query string
	// Paths are their inventory paths, sorted, at most 20.
	Paths []string
}

// Error lists the paths.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("find VM %q: several VMs have this name: %s", e.Query, strings.Join(e.Paths, ", "))
}

// Code is SF2010.
func (*AmbiguousError) Code() string { return "SF2010" }

var (
	morefPattern = regexp.MustCompile(`^(?:VirtualMachine:)?(vm-[0-9]+|[0-9]+)$`) // hosts number their VMs without vm-
	uuidPattern  = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// vmPaths are the properties that make an inventory.VM.
func vmPaths() []string {
	return []string{
		"name", "config.uuid", "config.instanceUuid", "config.template", "runtime.powerState", "runtime.connectionState",
		"runtime.consolidationNeeded", "guest.guestFamily", "guest.guestId", "config.guestId", "guest.toolsRunningStatus", "guest.ipAddress", "guest.net",
	}
}

// Find looks one VM up by moref (vm-42), instance UUID, inventory path (/DC0/vm/folder/name; a trailing part of it such as
// folder/name will do) or name. It gives a *NotFoundError or an *AmbiguousError rather than a guess; patterns are refused.
func (e *Endpoint) Find(ctx context.Context, query string) (inventory.VM, error) {
	query = strings.TrimSpace(query)
	ref, err := e.resolve(ctx, query)
	if err != nil {
		return inventory.VM{}, failure("find VM", query, err)
	}
	if ref == nil {
		if ref, err = e.byName(ctx, query); err != nil {
			return inventory.VM{}, findFailure(query, err)
		}
	}
	vm, err := e.describe(ctx, *ref)
	return vm, failure("read VM", query, err)
}

// findFailure leaves the two answers of a search as they are.
func findFailure(query string, err error) error {
	var missing *NotFoundError
	var several *AmbiguousError
	if errors.As(err, &missing) || errors.As(err, &several) {
		return err
	}
	return failure("find VM", query, err)
}

// resolve tries what needs no search: moref, instance UUID, whole path. It gives nil when none fits.
func (e *Endpoint) resolve(ctx context.Context, query string) (*types.ManagedObjectReference, error) {
	if m := morefPattern.FindStringSubmatch(query); m != nil {
		ref := vmRef(m[1])
		_, err := e.properties(ctx, ref, "name")
		if err == nil {
			return &ref, nil
		}
		if !isFault[*types.ManagedObjectNotFound](err) {
			return nil, err
		}
	}
	index := e.vim.ServiceContent.SearchIndex
	if index == nil {
		return nil, nil
	}
	if uuidPattern.MatchString(query) {
		instance := true
		res, err := methods.FindByUuid(ctx, e.vim, &types.FindByUuid{
			This: *index, Uuid: strings.ToLower(query), VmSearch: true, InstanceUuid: &instance,
		})
		if err != nil || res.Returnval != nil {
			return returned(res, err)
		}
	}
	if strings.Contains(query, "/") {
		res, err := methods.FindByInventoryPath(ctx, e.vim, &types.FindByInventoryPath{
			This: *index, InventoryPath: strings.Trim(query, "/"),
		})
		if err != nil {
			return nil, err
		}
		if r := res.Returnval; r != nil && r.Type == "VirtualMachine" {
			return r, nil
		}
	}
	return nil, nil
}

func returned(res *types.FindByUuidResponse, err error) (*types.ManagedObjectReference, error) {
	if err != nil {
		return nil, err
	}
	return res.Returnval, nil
}

// named is a VM's reference with its name as vCenter stores it: slash, backslash, percent are escaped.
type named struct {
	ref  types.ManagedObjectReference
	name string
}

func (n named) is(query string) bool { return n.name == query || display(n.name) == query }

// display undoes the escaping (%2f, %5c, %25) of an inventory name.
func display(name string) string {
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}

func displayed(all []named) []string {
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = display(n.name)
	}
	return names
}

// byName searches all VMs by name. A query with slashes is the end of a path.
func (e *Endpoint) byName(ctx context.Context, query string) (*types.ManagedObjectReference, error) {
	all, err := e.names(ctx)
	if err != nil {
		return nil, err
	}
	last := query[strings.LastIndex(query, "/")+1:]
	var hits []named
	var paths []string
	for _, n := range all {
		if !n.is(query) && !n.is(last) || len(hits) == maxAmbiguous {
			continue
		}
		path, err := e.path(ctx, n.ref)
		if err != nil {
			return nil, err
		}
		if n.is(query) || strings.HasSuffix(path, "/"+strings.Trim(query, "/")) {
			hits, paths = append(hits, n), append(paths, path)
		}
	}
	switch len(hits) {
	case 0:
		return nil, &NotFoundError{Query: query, Near: inventory.Near(last, displayed(all))}
	case 1:
		return &hits[0].ref, nil
	}
	slices.Sort(paths)
	return nil, &AmbiguousError{Query: query, Paths: paths}
}

// names reads the names of all VMs through a view.
func (e *Endpoint) names(ctx context.Context) (all []named, err error) {
	if e.vim.ServiceContent.ViewManager == nil {
		return nil, errors.New("no view manager")
	}
	view, err := methods.CreateContainerView(ctx, e.vim, &types.CreateContainerView{
		This: *e.vim.ServiceContent.ViewManager, Container: e.vim.ServiceContent.RootFolder,
		Type: []string{"VirtualMachine"}, Recursive: true,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_, destroyErr := methods.DestroyView(ctx, once{e}, &types.DestroyView{This: view.Returnval})
		err = errors.Join(err, destroyErr)
	}()
	skip := true
	objects, err := e.retrieve(ctx, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: view.Returnval, Skip: &skip, SelectSet: []types.BaseSelectionSpec{
			&types.TraversalSpec{Type: "ContainerView", Path: "view"},
		}}},
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"name"}}},
	})
	for _, o := range objects {
		all = append(all, named{ref: o.Obj, name: text(propertyMap(o), "name")})
	}
	return all, err
}

// describe reads one VM.
func (e *Endpoint) describe(ctx context.Context, ref types.ManagedObjectReference) (inventory.VM, error) {
	p, err := e.properties(ctx, ref, vmPaths()...)
	if err != nil {
		return inventory.VM{}, err
	}
	path, err := e.path(ctx, ref)
	if err != nil {
		return inventory.VM{}, err
	}
	return inventory.VM{
		Name: display(text(p, "name")), Path: path, Moref: ref.Value,
		InstanceUUID: text(p, "config.instanceUuid"), UUID: text(p, "config.uuid"),
		PowerState: text(p, "runtime.powerState"), Template: value[bool](p, "config.template"),
		ConnectionState: text(p, "runtime.connectionState"), GuestFamily: text(p, "guest.guestFamily"),
		GuestID:             cmp.Or(text(p, "guest.guestId"), text(p, "config.guestId")),
		ToolsRunning:        text(p, "guest.toolsRunningStatus") == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning),
		Addresses:           addresses(p),
		ConsolidationNeeded: value[bool](p, "runtime.consolidationNeeded"),
	}, nil
}

// addresses lists the guest's addresses, the primary one first, each once.
func addresses(p map[string]any) []string {
	var all []string
	add := func(a string) {
		if a != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	add(text(p, "guest.ipAddress"))
	for _, nic := range value[types.ArrayOfGuestNicInfo](p, "guest.net").GuestNicInfo {
		for _, a := range nic.IpAddress {
			add(a)
		}
	}
	return all
}

// path builds the inventory path of ref in one call. Ancestors that the account may not read end it early. govmomi's
// mo.Ancestors would loop for ever there.
func (e *Endpoint) path(ctx context.Context, ref types.ManagedObjectReference) (string, error) {
	up := &types.SelectionSpec{Name: "up"}
	objects, err := e.retrieve(ctx, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: ref, SelectSet: []types.BaseSelectionSpec{
			&types.TraversalSpec{SelectionSpec: *up, Type: "ManagedEntity", Path: "parent", SelectSet: []types.BaseSelectionSpec{up}},
			&types.TraversalSpec{Type: "VirtualMachine", Path: "parentVApp", SelectSet: []types.BaseSelectionSpec{up}},
		}}},
		PropSet: []types.PropertySpec{
			{Type: "ManagedEntity", PathSet: []string{"name", "parent"}},
			{Type: "VirtualMachine", PathSet: []string{"parentVApp"}},
		},
	})
	if err != nil {
		return "", err
	}
	known := make(map[types.ManagedObjectReference]map[string]any, len(objects))
	for _, o := range objects {
		known[key(o.Obj)] = propertyMap(o)
	}
	path := ""
	for range maxDepth {
		p, ok := known[key(ref)]
		if !ok || same(ref, e.vim.ServiceContent.RootFolder) {
			break
		}
		path = "/" + text(p, "name") + path
		parent, ok := p["parent"].(types.ManagedObjectReference)
		if !ok {
			if parent, ok = p["parentVApp"].(types.ManagedObjectReference); !ok {
				break
			}
		}
		ref = parent
	}
	return path, nil
}
