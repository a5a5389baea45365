package config

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
)

// Flag is a setting of the command line.
type Flag struct {
	// Name is the flag as it is written, such as --state-dir; Path the key that it sets, such as store.state_dir.
	Name, Path, Value string
}

// variablePrefix begins the variables that go over a file.
const variablePrefix = "STILLFRAME_"

// variable is the name of the variable that sets a key.
func variable(p pointer) string {
	if p.dotted() == "store.state_dir" { // the name that it has had for all commands
		return variablePrefix + "STATE_DIR"
	}
	return variablePrefix + strings.ToUpper(strings.Join(p, "_"))
}

// single calls f for every key that holds one value and lies in no list: those that a variable or a flag can set.
func (s schemas) single(of map[string]any, path pointer, f func(path pointer, of map[string]any)) {
	for _, name := range s.names(of) {
		below, p := s.property(of, name), path.child(name)
		switch below["type"] {
		case "object":
			s.single(below, p, f)
		case "array":
		default:
			f(p, below)
		}
	}
}

// overlay puts variables and flags over the file.
func (l *loader) overlay() {
	getenv := l.options.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	if l.options.GOVC {
		l.govc(getenv)
	}
	schema().single(schema().tree, nil, func(p pointer, of map[string]any) {
		if name := variable(p); getenv(name) != "" {
			l.src.set(p, typed(getenv(name), of), position{file: name})
		}
		for _, flag := range l.options.Flags {
			if flag.Path == p.dotted() {
				l.src.set(p, typed(flag.Value, of), position{file: flag.Name})
			}
		}
	})
}

// typed reads the text of a variable; what does not fit stays a text, which the schema then refuses.
func typed(text string, of map[string]any) any {
	switch {
	case of["type"] == "boolean" && (text == "true" || text == "false"):
		return text == "true"
	case of["type"] == "integer" && plainInteger.MatchString(text):
		return json.Number(text)
	}
	return text
}

// set puts a value where p leads. A value of another kind on the way stays, and is refused by the schema.
func (s *source) set(p pointer, v any, at position) {
	in, ok := s.value.(map[string]any)
	for n, part := range p {
		if !ok {
			return
		}
		key := p[:n+1].key()
		if n == len(p)-1 {
			in[part] = v
			s.at[key], s.keys[key] = at, at
			return
		}
		if _, have := in[part]; !have {
			in[part] = map[string]any{}
			s.at[key], s.keys[key] = at, at
		}
		in, ok = in[part].(map[string]any)
	}
}

// govc makes the one vCenter of a file that names none from the variables that govc reads. The password stays where it is.
func (l *loader) govc(getenv func(string) string) {
	m, ok := l.src.value.(map[string]any)
	if _, have := m["vcenters"]; !ok || have || l.src.broken[pointer{"vcenters"}.key()] || getenv("GOVC_URL") == "" {
		return
	}
	address := getenv("GOVC_URL")
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	v := map[string]any{"name": "govc", "url": address, "password": "env:GOVC_PASSWORD"}
	from := map[string]string{"name": "GOVC_URL", "url": "GOVC_URL", "password": "GOVC_PASSWORD"}
	take := func(name, key string, value any) {
		if getenv(name) != "" {
			v[key], from[key] = value, name
		}
	}
	take("GOVC_USERNAME", "username", getenv("GOVC_USERNAME"))
	if files := filepath.SplitList(getenv("GOVC_TLS_CA_CERTS")); len(files) == 1 {
		take("GOVC_TLS_CA_CERTS", "ca", files[0])
	}
	take("GOVC_INSECURE", "insecure", slices.Contains([]string{"1", "t", "T", "true", "TRUE", "True"}, getenv("GOVC_INSECURE")))
	if v["ca"] != nil { // as everywhere, a named authority goes before trusting any
		delete(v, "insecure")
	}
	m["vcenters"] = []any{v}
	root := pointer{"vcenters"}
	for _, p := range []pointer{root, root.index(0)} {
		l.src.at[p.key()] = position{file: "GOVC_URL"}
	}
	for key := range v {
		p := root.index(0).child(key).key()
		l.src.at[p], l.src.keys[p] = position{file: from[key]}, position{file: from[key]}
	}
}
