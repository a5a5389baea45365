package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// EstateOptions say what Estate reads besides the inventory itself.
type EstateOptions struct {
	// Tags asks for tags, which takes a login of its own and one call for each tag and category. A direct ESXi has none.
	Tags bool
}

// Estate reads what VMs are selected by, for all VMs at once: three calls and one more for each further page of vCenter's
// answer, however many VMs there are. Tags take 5 calls more, one for each tag and category that exists, and one for each
// 2,000 VMs after the first. An account that may not read tags gets an error rather than VMs without tags.
func (e *Endpoint) Estate(ctx context.Context, o EstateOptions) (inventory.Estate, error) {
	tree, err := e.readTree(ctx)
	if err != nil {
		return inventory.Estate{}, failure("read the inventory of", e.host, err)
	}
	estate, refs := tree.estate()
	if !o.Tags {
		return estate, nil
	}
	if err := e.tag(ctx, &estate, refs); err != nil {
		return inventory.Estate{}, err
	}
	return estate, nil
}

// estateKinds are the kinds of objects that an estate is made of, with the properties that are read of each.
func estateKinds() map[string][]string {
	entity := []string{"name", "parent"}
	return map[string][]string{
		"Datacenter": entity, "Folder": entity, "ComputeResource": entity, "ClusterComputeResource": entity, "HostSystem": entity,
		"ResourcePool": entity, "VirtualApp": {"name", "parent", "parentFolder"}, "Datastore": {"name"},
		"VirtualMachine": {
			"name", "parent", "parentVApp", "resourcePool", "runtime.host", "runtime.powerState", "runtime.connectionState",
			"config.template", "config.instanceUuid", "datastore", "customValue", "runtime.consolidationNeeded", "snapshot",
		},
	}
}

// tree is the inventory as it was read: the properties of each object.
type tree struct {
	root    types.ManagedObjectReference
	objects map[types.ManagedObjectReference]map[string]any
	order   []types.ManagedObjectReference
	fields  []types.CustomFieldDef
	paths   map[types.ManagedObjectReference]string // already built
}

// readTree reads every object of estateKinds with one retrieval.
func (e *Endpoint) readTree(ctx context.Context) (t *tree, err error) {
	content := e.vim.ServiceContent
	if content.ViewManager == nil {
		return nil, errors.New("no view manager")
	}
	kinds := estateKinds()
	spec := types.PropertyFilterSpec{}
	var names []string
	for kind, paths := range kinds {
		names = append(names, kind)
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: kind, PathSet: paths})
	}
	view, err := methods.CreateContainerView(ctx, e.vim, &types.CreateContainerView{
		This: *content.ViewManager, Container: content.RootFolder, Type: names, Recursive: true,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_, destroyErr := methods.DestroyView(ctx, once{e}, &types.DestroyView{This: view.Returnval})
		err = errors.Join(err, destroyErr)
	}()
	skip := true
	spec.ObjectSet = []types.ObjectSpec{{Obj: view.Returnval, Skip: &skip, SelectSet: []types.BaseSelectionSpec{
		&types.TraversalSpec{Type: "ContainerView", Path: "view"},
	}}}
	if m := content.CustomFieldsManager; m != nil {
		spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: *m})
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: m.Type, PathSet: []string{"field"}})
	}
	objects, err := e.retrieve(ctx, spec)
	if err != nil {
		return nil, err
	}
	return newTree(content.RootFolder, objects), nil
}

func newTree(root types.ManagedObjectReference, objects []types.ObjectContent) *tree {
	t := &tree{
		root: key(root), objects: make(map[types.ManagedObjectReference]map[string]any, len(objects)),
		paths: map[types.ManagedObjectReference]string{key(root): ""},
	}
	for _, o := range objects {
		if o.Obj.Type == "CustomFieldsManager" {
			t.fields = value[types.ArrayOfCustomFieldDef](propertyMap(o), "field").CustomFieldDef
			continue
		}
		ref := key(o.Obj)
		if t.objects[ref] == nil {
			t.order = append(t.order, ref)
			t.objects[ref] = make(map[string]any, len(o.PropSet))
		}
		for _, p := range o.PropSet {
			t.objects[ref][p.Name] = p.Val
		}
	}
	return t
}

// above is the object that ref lies in, as the view of VMs and templates shows it; ok is false at the top, and where the
// account may not look.
func (t *tree) above(ref types.ManagedObjectReference) (parent types.ManagedObjectReference, ok bool) {
	p := t.objects[ref]
	for _, path := range []string{"parentFolder", "parent", "parentVApp"} { // a vApp shows in its folder
		if r, ok := p[path].(types.ManagedObjectReference); ok {
			return key(r), true
		}
	}
	return types.ManagedObjectReference{}, false
}

// path is the inventory path of ref, empty for the root folder. Ancestors that may not be read end it early.
func (t *tree) path(ref types.ManagedObjectReference) string { return t.climb(ref, maxDepth) }

func (t *tree) climb(ref types.ManagedObjectReference, left int) string {
	if path, ok := t.paths[ref]; ok || left == 0 || t.objects[ref] == nil {
		return path
	}
	path := "/" + text(t.objects[ref], "name")
	if parent, ok := t.above(ref); ok {
		path = t.climb(parent, left-1) + path
	}
	t.paths[ref] = path
	return path
}

// holdsVMs says whether a folder is the VM folder of a datacenter or lies below one: hosts, datastores and networks have
// folders too. It is true where the way up may not be read.
func (t *tree) holdsVMs(ref types.ManagedObjectReference) bool {
	for range maxDepth {
		parent, ok := t.above(ref)
		if !ok {
			return true
		}
		if parent.Type == "Datacenter" {
			return text(t.objects[ref], "name") == "vm"
		}
		if same(parent, t.root) {
			return false // it groups datacenters
		}
		ref = parent
	}
	return false
}

// estate builds the estate, with the reference of each member.
func (t *tree) estate() (inventory.Estate, []types.ManagedObjectReference) {
	var estate inventory.Estate
	var refs []types.ManagedObjectReference
	for _, ref := range t.order {
		switch ref.Type {
		case "Folder":
			if t.holdsVMs(ref) {
				estate.Folders = append(estate.Folders, t.path(ref))
			}
		case "ResourcePool", "VirtualApp":
			estate.Pools = append(estate.Pools, t.pool(ref))
		case "ComputeResource", "ClusterComputeResource":
			estate.Clusters = append(estate.Clusters, t.path(ref))
		case "VirtualMachine":
			refs = append(refs, ref)
		}
	}
	fields := map[int32]string{}
	for _, f := range t.fields {
		fields[f.Key] = f.Name
		if f.ManagedObjectType == "" || f.ManagedObjectType == "VirtualMachine" {
			estate.Attributes = append(estate.Attributes, f.Name)
		}
	}
	slices.SortFunc(refs, func(a, b types.ManagedObjectReference) int {
		return strings.Compare(t.path(a)+a.Value, t.path(b)+b.Value)
	})
	for _, ref := range refs {
		estate.Members = append(estate.Members, t.member(ref, fields))
	}
	for _, list := range []*[]string{&estate.Folders, &estate.Pools, &estate.Clusters, &estate.Attributes} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return estate, refs
}

// pool is the path of a resource pool or vApp in the view of hosts and clusters.
func (t *tree) pool(ref types.ManagedObjectReference) string {
	path := ""
	for range maxDepth {
		if ref.Type != "ResourcePool" && ref.Type != "VirtualApp" {
			return t.path(ref) + path
		}
		path = "/" + text(t.objects[ref], "name") + path
		parent, ok := t.objects[ref]["parent"].(types.ManagedObjectReference)
		if !ok {
			break
		}
		ref = key(parent)
	}
	return path
}

func (t *tree) member(ref types.ManagedObjectReference, fields map[int32]string) inventory.Member {
	p := t.objects[ref]
	m := inventory.Member{
		Name: display(text(p, "name")), Path: t.path(ref), Moref: ref.Value, InstanceUUID: strings.ToLower(text(p, "config.instanceUuid")),
		Template: value[bool](p, "config.template"), PowerState: text(p, "runtime.powerState"),
		ConnectionState: text(p, "runtime.connectionState"), ConsolidationNeeded: value[bool](p, "runtime.consolidationNeeded"),
	}
	for node := range nodes(value[types.VirtualMachineSnapshotInfo](p, "snapshot")) {
		if strings.HasPrefix(node.Name, ourPrefix) {
			m.Snapshots = append(m.Snapshots, inventory.Listed{Name: node.Name, Moref: node.Snapshot.Value, Description: node.Description, Created: node.CreateTime})
		}
	}
	if above, ok := t.above(ref); ok {
		m.Folder = t.path(above)
	}
	if host, ok := p["runtime.host"].(types.ManagedObjectReference); ok {
		m.Host = t.path(key(host))
		if cluster, ok := t.above(key(host)); ok {
			m.Cluster = t.path(cluster)
		}
	}
	if pool, ok := p["resourcePool"].(types.ManagedObjectReference); ok { // a template has none
		m.Pool = t.pool(key(pool))
	}
	for _, d := range value[types.ArrayOfManagedObjectReference](p, "datastore").ManagedObjectReference {
		m.Datastores = append(m.Datastores, display(text(t.objects[key(d)], "name")))
	}
	slices.Sort(m.Datastores)
	for _, v := range value[types.ArrayOfCustomFieldValue](p, "customValue").CustomFieldValue {
		set, ok := v.(*types.CustomFieldStringValue)
		if !ok || set.Value == "" {
			continue
		}
		name, known := fields[set.Key]
		if !known {
			name = fmt.Sprintf("field %d", set.Key)
		}
		if m.Attributes == nil {
			m.Attributes = map[string]string{}
		}
		m.Attributes[name] = set.Value
	}
	return m
}
