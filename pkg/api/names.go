package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// names are the names of fields and parameters that our own schema has.
type names struct {
	all      map[string]bool
	registry huma.Registry
}

func namesOf(doc *huma.OpenAPI) names {
	n := names{map[string]bool{"body": true, "path": true, "query": true, "header": true}, doc.Components.Schemas}
	for _, schema := range doc.Components.Schemas.Map() {
		for name := range schema.Properties {
			n.all[name] = true
		}
	}
	for _, op := range operations(doc) {
		for _, p := range op.Parameters {
			n.all[p.Name] = true
		}
	}
	return n
}

// cut gives the beginning of a place such as body.scopes[0] up to the first name that is not ours.
func (n names) cut(place string) string {
	if strings.Contains(place, ":") { // file:line:column of the configuration
		return place
	}
	parts := strings.Split(place, ".")
	for i, part := range parts {
		name, index, _ := strings.Cut(part, "[")
		if !n.all[name] || strings.Trim(index, "0123456789[]") != "" {
			return strings.Join(parts[:i], ".")
		}
	}
	return place
}

// of lists what an operation knows beside a name that it does not.
func (n names) of(op *huma.Operation, place string) []string {
	var known []string
	if strings.HasPrefix(place, "query") {
		for _, p := range op.Parameters {
			if p.In == "query" {
				known = append(known, p.Name)
			}
		}
	} else if op.RequestBody != nil {
		schema := op.RequestBody.Content["application/json"].Schema
		if schema.Ref != "" {
			schema = n.registry.SchemaFromRef(schema.Ref)
		}
		known = slices.Collect(maps.Keys(schema.Properties))
	}
	if len(known) == 0 {
		return []string{"none"}
	}
	slices.Sort(known)
	return known
}

// operations are all operations of a document, by their id.
func operations(doc *huma.OpenAPI) map[string]*huma.Operation {
	all := map[string]*huma.Operation{}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch, item.Head, item.Options} {
			if op != nil {
				all[op.OperationID] = op
			}
		}
	}
	return all
}
