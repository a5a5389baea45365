package vss

import (
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// writer is one writer's metadata.
type writer struct {
	class, instance com.GUID
	name            string
	components      []component
}

// component is what a writer says can be backed up.
type component struct {
	kind       vsscode.ComponentType
	path, name string // logical, not of files
	selectable bool
	// folders are where its files lie, with environment variables.
	folders []string
	// volumes are where its files and those of the components that come along with it lie; "" stands for a place that is
	// on no volume of this machine. choose fills it in.
	volumes []string
	added   bool
}

// key is how a component is named in COMPLETE.
func (c component) key() string {
	if c.path == "" {
		return c.name
	}
	return c.path + `\` + c.name
}

// below says whether c lies under ancestor in the writer's tree.
func (c component) below(ancestor component) bool {
	top := ancestor.key()
	return strings.EqualFold(c.path, top) || strings.HasPrefix(strings.ToLower(c.path), strings.ToLower(top)+`\`)
}

// choose marks what is to be named to VSS: the selectable components whose files lie on the set's volumes, and those that
// are not selectable and come along with no selectable one. A component of a required writer that lies elsewhere, wholly or
// in part, refuses the freeze; of others it is left out. The function locate gives the volume of a folder, "" for none.
func choose(writers []writer, p policy, set []string, locate func(folder string) string) error {
	for i := range writers {
		w := &writers[i]
		r := p.role(w.class, w.name)
		if r == excluded {
			continue
		}
		for j := range w.components {
			c := &w.components[j]
			c.volumes = spread(*c, w.components, locate)
			if !named(*c, w.components) {
				continue
			}
			outside := slices.IndexFunc(c.volumes, func(v string) bool {
				return !slices.ContainsFunc(set, func(s string) bool { return sameVolume(s, v) })
			})
			switch {
			case outside < 0:
				c.added = true
			case r == required:
				return coded(codeIncomplete, "choose components: %s of %s lies on %s, which is not frozen", c.key(), w.name, orNone(c.volumes[outside]))
			}
		}
	}
	return nil
}

func orNone(volume string) string {
	if volume == "" {
		return "no volume of this machine"
	}
	return volume
}

// named says whether c is named to VSS by itself.
func named(c component, all []component) bool {
	return c.selectable || !slices.ContainsFunc(all, func(a component) bool { return a.selectable && c.below(a) })
}

// included says whether c is backed up: named to VSS, or coming along with one that is.
func included(c component, all []component) bool {
	return c.added || (!c.selectable && slices.ContainsFunc(all, func(a component) bool { return a.added && c.below(a) }))
}

// spread gives the volumes of a component and of all that comes along with it.
func spread(c component, all []component, locate func(string) string) []string {
	var volumes []string
	add := func(folders []string) {
		for _, folder := range folders {
			if v := locate(folder); !slices.ContainsFunc(volumes, func(o string) bool { return sameVolume(o, v) }) {
				volumes = append(volumes, v)
			}
		}
	}
	add(c.folders)
	for _, other := range all {
		if !other.selectable && other.below(c) {
			add(other.folders)
		}
	}
	return volumes
}

// sameVolume compares two volume names as Windows does.
func sameVolume(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, `\`), strings.TrimSuffix(b, `\`))
}
