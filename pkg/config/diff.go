package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is one difference between two configurations.
type Change struct {
	// Path is the key, with vCenters and jobs by their names.
	Path string `json:"path"`
	// Old is null when it was added, New when it was taken out.
	Old any `json:"old"`
	New any `json:"new"`
	// Restart says that the daemon takes it over at its next start only.
	Restart bool `json:"restart"`
}

// String is the change in one line.
func (c Change) String() string {
	var text string
	switch {
	case c.Old == nil:
		text = "+ " + c.Path + brief(": ", c.New)
	case c.New == nil:
		text = "- " + c.Path + brief(": ", c.Old)
	default:
		text = "~ " + c.Path + ": " + inline(c.Old) + " -> " + inline(c.New)
	}
	if c.Restart {
		text += " (needs a restart)"
	}
	return text
}

// brief leaves out what is itself many values: that a job came is said, not all of it.
func brief(before string, v any) string {
	if _, many := v.(map[string]any); many {
		return ""
	}
	return before + inline(v)
}

// Diff lists what differs in what two configurations effectively say, in the order of the keys.
func Diff(before, after *Config) []Change {
	d := differ{}
	d.values("", schema().tree, before.effective, after.effective, false)
	return d.changes
}

type differ struct{ changes []Change }

func (d *differ) values(path string, of map[string]any, a, b any, restart bool) {
	restart = restart || of["x-restart"] == true
	before, isMap := a.(map[string]any)
	after, both := b.(map[string]any)
	if isMap && both {
		d.maps(path, of, before, after, restart)
		return
	}
	old, isList := a.([]any)
	fresh, alsoList := b.([]any)
	if isList && alsoList && (path == "vcenters" || path == "jobs") {
		d.named(path, of, old, fresh, restart)
		return
	}
	if !reflect.DeepEqual(a, b) {
		d.changes = append(d.changes, Change{path, a, b, restart})
	}
}

func (d *differ) maps(path string, of map[string]any, a, b map[string]any, restart bool) {
	names := slices.Sorted(maps.Keys(a))
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, have := a[name]; !have {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		d.values(join(path, name), schema().property(of, name), a[name], b[name], restart)
	}
}

// named compares lists whose items are known by their names, wherever they stand.
func (d *differ) named(path string, of map[string]any, a, b []any, restart bool) {
	byName := func(list []any) map[string]any {
		m := map[string]any{}
		for i, item := range list {
			m[itemName(i, item)] = item
		}
		return m
	}
	before, after := byName(a), byName(b)
	names := slices.Sorted(maps.Keys(before))
	for name := range after {
		if _, have := before[name]; !have {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, strings.Compare)
	for _, name := range names {
		d.values(path+"["+name+"]", schema().items(of), before[name], after[name], restart)
	}
}
