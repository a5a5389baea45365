package config

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestPage holds the tables of the page to the schema and the lattice; -update writes them.
func TestPage(t *testing.T) {
	const file = "../../docs/configuration.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := between(t, between(t, string(text), "keys", keysTable()), "lattice", latticeTable(t))
	if *update {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if page != string(text) {
		t.Error("docs/configuration.md is not what the schema says; run: go test ./pkg/config -update")
	}
}

// between puts a table between the marks of its name.
func between(t *testing.T, page, name, table string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- "+name+" -->\n")
	_, after, closed := strings.Cut(rest, "<!-- end -->")
	if !ok || !closed {
		t.Fatalf("the page has no marks for %s", name)
	}
	return before + "<!-- " + name + " -->\n" + table + "<!-- end -->" + after
}

func latticeTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| must be shorter | by default | than | by default | because |\n|---|---|---|---|---|\n")
	for _, r := range loaded(t, base+"jobs: [{name: j, select: {names: [a]}}]\n").lattice() {
		or := ""
		if r.orEqual {
			or = " or the same"
		}
		less, more := strings.ReplaceAll(r.less.name, "jobs[0]", "jobs[]"), strings.ReplaceAll(r.more.name, "jobs[0]", "jobs[]")
		fmt.Fprintf(&b, "| %s (%s) | %v | %s (%s) | %v%s | %s |\n", less, r.less.layer, r.less.value, more, r.more.layer, r.more.value, or, r.why)
	}
	return b.String()
}

// keysTable is one table for each part of the file.
func keysTable() string {
	var b strings.Builder
	for _, name := range []string{"vcenters", "guests", "window", "limits", "jobs", "store", "listen", "metrics", "log"} {
		of := schema().property(schema().tree, name)
		path := name
		if of["type"] == "array" {
			path, of = name+"[]", schema().items(of)
		}
		fmt.Fprintf(&b, "\n### %s\n\n", name)
		if text, ok := of["description"].(string); ok {
			b.WriteString(text + "\n\n")
		}
		b.WriteString("| key | default | meaning |\n|---|---|---|\n")
		keyRows(&b, path, of)
	}
	return b.String() + "\n"
}

func keyRows(b *strings.Builder, path string, of map[string]any) {
	must := map[string]bool{}
	for _, name := range words(list(of["required"])) {
		must[name] = true
	}
	for _, name := range schema().names(of) {
		below := schema().property(of, name)
		at := path + "." + name
		nested, items := below, schema().items(below)
		if items["type"] == "object" {
			nested, at = items, at+"[]"
		}
		if properties, ok := nested["properties"].(map[string]any); ok && len(properties) > 0 {
			if text, ok := below["description"].(string); ok {
				fmt.Fprintf(b, "| `%s` | | %s |\n", at, text)
			}
			keyRows(b, at, nested)
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", at, defaultOf(below, must[name]), strings.TrimSpace(fmt.Sprint(below["description"])+" "+allowed(below)))
	}
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func defaultOf(of map[string]any, must bool) string {
	d, ok := of["default"]
	switch {
	case must:
		return "must be there"
	case !ok:
		return ""
	}
	if s, ok := d.(string); ok {
		return "`" + s + "`"
	}
	text, err := json.Marshal(d)
	if err != nil {
		return ""
	}
	return "`" + string(text) + "`"
}

// allowed says which values there are.
func allowed(of map[string]any) string {
	if enum := list(of["enum"]); len(enum) > 0 {
		return "One of `" + strings.Join(words(enum), "`, `") + "`."
	}
	low, hasLow := of["minimum"]
	high, hasHigh := of["maximum"]
	if hasLow && hasHigh {
		return fmt.Sprintf("%v to %v.", low, high)
	}
	return ""
}
