package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Setting is one value of a configuration and where it came from.
type Setting struct {
	// Path is the key; vCenters and jobs are called by their names in it: jobs[nightly].retry.wait.
	Path  string `json:"path"`
	Value any    `json:"value"`
	// Origin is default, FILE:LINE, or the variable or flag.
	Origin string `json:"origin"`
}

// DefaultOrigin is the origin of what nobody wrote.
const DefaultOrigin = "default"

// Text is the value in one line.
func (s Setting) Text() string { return inline(s.Value) }

// inline is a value in one line.
func inline(v any) string {
	if s, ok := v.(string); ok && s != "" && !strings.ContainsAny(s, "\n\r\t") {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // plain values always can be
		return "?"
	}
	return strings.TrimSpace(b.String())
}

// Settings lists every value that holds, defaults among them, in the order of the keys. Secrets are there as references.
func (c *Config) Settings() []Setting {
	var all []Setting
	c.settings(nil, "", c.effective, &all)
	return all
}

func (c *Config) settings(p pointer, label string, v any, all *[]Setting) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			c.settings(p.child(name), join(label, name), v[name], all)
		}
		if len(v) > 0 {
			return
		}
	case []any:
		if nested(v) {
			for i, item := range v {
				c.settings(p.index(i), label+"["+itemName(i, item)+"]", item, all)
			}
			return
		}
	}
	*all = append(*all, Setting{label, v, c.origin(p)})
}

// nested says whether a list holds more than single values.
func nested(list []any) bool {
	for _, item := range list {
		if _, ok := item.(map[string]any); ok {
			return true
		}
	}
	return false
}

// itemName is what an item of a list is called: its name, or its place.
func itemName(i int, item any) string {
	m, _ := item.(map[string]any)
	if name, ok := m["name"].(string); ok && name != "" {
		return name
	}
	return fmt.Sprint(i)
}

func join(label, name string) string {
	if label == "" {
		return name
	}
	return label + "." + name
}

func (c *Config) origin(p pointer) string {
	at, ok := c.src.at[p.key()]
	switch {
	case !ok:
		return DefaultOrigin
	case at.line == 0:
		return at.file
	}
	return fmt.Sprintf("%s:%d", at.file, at.line)
}
