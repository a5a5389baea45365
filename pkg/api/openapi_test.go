package api

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stillframe/stillframe/pkg/audit"
)

const specification = "../../api/openapi.yaml"

func document(t *testing.T) []byte {
	t.Helper()
	s, err := New(newMemory().backends(audit.New(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Options{})), Options{Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Specification()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("# Made from the code: go test ./pkg/api -run TestSpecification -update\n"), text...)
}

func tree(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSpecification holds api/openapi.yaml to the code. -update writes it, unless something would be taken away from those
// who use it: whoever really means that removes the file first.
func TestSpecification(t *testing.T) {
	want := document(t)
	got, err := os.ReadFile(specification)
	if *update {
		if err == nil {
			if gone := removals(tree(t, got), tree(t, want)); len(gone) > 0 {
				t.Fatalf("not written, it would take away:\n%s", strings.Join(gone, "\n"))
			}
		}
		if err := os.WriteFile(specification, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("api/openapi.yaml is not what the code says (%v); run: go test ./pkg/api -run TestSpecification -update", err)
	}
}

// TestNothingIsTakenAway compares the code with the committed document: what somebody may use stays.
func TestNothingIsTakenAway(t *testing.T) {
	committed, err := os.ReadFile(specification)
	if err != nil {
		t.Fatal(err)
	}
	if gone := removals(tree(t, committed), tree(t, document(t))); len(gone) > 0 {
		t.Errorf("the code takes away:\n%s", strings.Join(gone, "\n"))
	}
}

// TestRemovalsAreSeen takes away one thing of each kind.
func TestRemovalsAreSeen(t *testing.T) {
	at := func(v any, keys ...string) map[string]any {
		for _, k := range keys {
			v = v.(map[string]any)[k]
		}
		return v.(map[string]any)
	}
	text := document(t)
	whole := tree(t, text)
	for name, spoil := range map[string]func(doc map[string]any){
		"a path":      func(doc map[string]any) { delete(at(doc, "paths"), "/api/v1/runs") },
		"a method":    func(doc map[string]any) { delete(at(doc, "paths", "/api/v1/runs"), "post") },
		"an answer":   func(doc map[string]any) { delete(at(doc, "paths", "/api/v1/runs", "get", "responses"), "200") },
		"a parameter": func(doc map[string]any) { at(doc, "paths", "/api/v1/runs", "get")["parameters"] = []any{} },
		"a field":     func(doc map[string]any) { delete(at(doc, "components", "schemas", "Run", "properties"), "level") },
		"a type": func(doc map[string]any) {
			at(doc, "components", "schemas", "Run", "properties", "level")["type"] = "integer"
		},
		"a value": func(doc map[string]any) {
			at(doc, "components", "schemas", "Order", "properties", "kind")["enum"] = []any{"backup"}
		},
		"a schema":               func(doc map[string]any) { delete(at(doc, "components", "schemas"), "Window") },
		"the right to leave out": func(doc map[string]any) { at(doc, "components", "schemas", "Order")["required"] = []any{"vm", "job"} },
		"the promise to send":    func(doc map[string]any) { at(doc, "components", "schemas", "Run")["required"] = []any{"id"} },
	} {
		doc := tree(t, text)
		spoil(doc)
		if gone := removals(whole, doc); len(gone) == 0 {
			t.Errorf("%s was taken away and nothing is said", name)
		}
	}
	if gone := removals(whole, tree(t, text)); len(gone) > 0 {
		t.Errorf("removals of nothing = %v", gone)
	}
}

// removals lists what a caller of before misses in after.
func removals(before, after map[string]any) []string {
	var gone []string
	compare(&gone, "", before, after)
	return gone
}

// words that may change freely: they are for people.
var prose = []string{"description", "summary", "title", "info", "doc"}

func compare(gone *[]string, at string, before, after any) {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			*gone = append(*gone, at)
			return
		}
		for key, value := range b {
			if slices.Contains(prose, key) && !strings.HasSuffix(at, "/properties") {
				continue
			}
			compare(gone, at+"/"+key, value, a[key])
		}
		// What must be sent is never more than before; that it is not less is seen below.
		if in := inputs[at]; in {
			for _, name := range list(a["required"]) {
				if !slices.Contains(list(b["required"]), name) {
					*gone = append(*gone, at+" now demands "+name)
				}
			}
		}
	case []any:
		if strings.HasSuffix(at, "/required") && inputs[strings.TrimSuffix(at, "/required")] {
			return
		}
		names := list(after)
		for _, item := range b {
			if !slices.Contains(names, name(item)) {
				*gone = append(*gone, at+" "+name(item))
			}
		}
	case nil:
	default:
		if fmt.Sprint(before) != fmt.Sprint(after) {
			*gone = append(*gone, fmt.Sprintf("%s: was %v, is %v", at, before, after))
		}
	}
}

// inputs are the schemas of what is sent to us; of all others, what is promised counts.
var inputs = map[string]bool{"/components/schemas/Order": true, "/components/schemas/NewToken": true}

func list(v any) []string {
	items, _ := v.([]any)
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}

// name tells items of a list apart: parameters by place and name, all others by themselves.
func name(item any) string {
	if m, ok := item.(map[string]any); ok && m["name"] != nil {
		return fmt.Sprint(m["in"], " ", m["name"], " ", m["schema"])
	}
	return fmt.Sprint(item)
}
