package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// maxPages bounds one retrieval; vCenter gives about 100 objects a page or more.
const maxPages = 10_000

// same compares two references by type and value only: an empty or missing ServerGUID once made updates vanish
// (govmomi issue 3417).
func same(a, b types.ManagedObjectReference) bool { return a.Type == b.Type && a.Value == b.Value }

// key is a reference without its ServerGUID, for maps.
func key(r types.ManagedObjectReference) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: r.Type, Value: r.Value}
}

func vmRef(moref string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: moref}
}

// properties reads named properties of one object. What is unset, or may not be read, is missing from the answer.
func (e *Endpoint) properties(ctx context.Context, ref types.ManagedObjectReference, paths ...string) (map[string]any, error) {
	objects, err := e.retrieve(ctx, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: ref}},
		PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: paths}},
	})
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, soap.WrapVimFault(&types.ManagedObjectNotFound{Obj: ref})
	}
	return propertyMap(objects[0]), nil
}

func propertyMap(o types.ObjectContent) map[string]any {
	m := make(map[string]any, len(o.PropSet))
	for _, p := range o.PropSet {
		m[p.Name] = p.Val
	}
	return m
}

// retrieve reads all pages of one retrieval. It logs in again, once, when the answer tells property by property that the
// session ended; vCenter may do so instead of failing the call.
func (e *Endpoint) retrieve(ctx context.Context, spec types.PropertyFilterSpec) ([]types.ObjectContent, error) {
	generation := e.generation.Load()
	objects, err := e.pages(ctx, spec)
	if err != nil {
		return nil, err
	}
	if unauthenticated(objects) == nil {
		return objects, nil
	}
	if err := e.renew(ctx, generation); err != nil {
		return nil, err
	}
	objects, err = e.pages(ctx, spec)
	if err != nil {
		return nil, err
	}
	return objects, unauthenticated(objects)
}

func (e *Endpoint) pages(ctx context.Context, spec types.PropertyFilterSpec) ([]types.ObjectContent, error) {
	res, err := methods.RetrievePropertiesEx(ctx, e.vim, &types.RetrievePropertiesEx{
		This: e.vim.ServiceContent.PropertyCollector, SpecSet: []types.PropertyFilterSpec{spec},
	})
	if err != nil {
		return nil, err
	}
	if res.Returnval == nil {
		return nil, nil
	}
	objects, token := res.Returnval.Objects, res.Returnval.Token
	for page := 0; token != ""; page++ {
		if page == maxPages {
			return nil, fmt.Errorf("read properties: more than %d pages", maxPages)
		}
		next, err := methods.ContinueRetrievePropertiesEx(ctx, once{e}, &types.ContinueRetrievePropertiesEx{
			This: e.vim.ServiceContent.PropertyCollector, Token: token,
		})
		if err != nil {
			return nil, err
		}
		objects, token = append(objects, next.Returnval.Objects...), next.Returnval.Token
	}
	return objects, nil
}

// unauthenticated gives the fault of a session that ended, if any property is missing for that.
func unauthenticated(objects []types.ObjectContent) error {
	for _, o := range objects {
		for _, m := range o.MissingSet {
			if f, ok := m.Fault.Fault.(*types.NotAuthenticated); ok {
				return soap.WrapVimFault(f)
			}
		}
	}
	return nil
}

// value is a property as T, or T's zero value.
func value[T any](properties map[string]any, path string) T {
	v, _ := properties[path].(T)
	return v
}

// text is a string or enumeration property.
func text(properties map[string]any, path string) string {
	if v := properties[path]; v != nil {
		return fmt.Sprint(v)
	}
	return ""
}
