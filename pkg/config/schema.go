package config

import (
	_ "embed"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// schemaText is the one truth about keys, values and defaults: it checks files, teaches editors and makes the page of
// documentation. A test holds the Go types to it.
//
//go:embed schema.json
var schemaText string

// Schema is the JSON Schema of the configuration, as editors take it.
func Schema() string { return schemaText }

const (
	schemaURL   = "urn:stillframe:configuration"
	jobsFileURL = schemaURL + "#/$defs/jobs_file"
)

// schemas are the compiled schema of the file and of one in conf.d, and its plain tree. An embedded schema that does not
// compile is a fault of the build.
type schemas struct {
	whole, jobs *jsonschema.Schema
	tree        map[string]any
}

var schema = sync.OnceValue(func() schemas {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schemaText))
	tree, ok := doc.(map[string]any)
	if err != nil || !ok {
		panic(fmt.Sprintf("the embedded schema is not JSON: %v", err))
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaURL, doc); err != nil {
		panic(err)
	}
	return schemas{c.MustCompile(schemaURL), c.MustCompile(jobsFileURL), tree}
})

// resolve follows references and gives the schema with what stands beside the reference, which wins.
func (s schemas) resolve(of map[string]any) map[string]any {
	ref, ok := of["$ref"].(string)
	if !ok {
		return of
	}
	whole := map[string]any{}
	for k, v := range s.resolve(s.find(ref)) {
		whole[k] = v
	}
	for k, v := range of {
		if k != "$ref" {
			whole[k] = v
		}
	}
	return whole
}

// find is the schema that a reference or a schema's URL leads to.
func (s schemas) find(ref string) map[string]any {
	_, fragment, _ := strings.Cut(ref, "#/")
	var p pointer
	if fragment != "" {
		p = strings.Split(fragment, "/")
	}
	v, _ := lookup(s.tree, p)
	found, ok := v.(map[string]any)
	if !ok {
		panic(fmt.Sprintf("the embedded schema has no %q", ref))
	}
	return found
}

// property is the schema of one key, empty when there is no such key.
func (s schemas) property(of map[string]any, name string) map[string]any {
	properties, _ := of["properties"].(map[string]any)
	p, _ := properties[name].(map[string]any)
	return s.resolve(p)
}

// items is the schema of a list's items.
func (s schemas) items(of map[string]any) map[string]any {
	i, _ := of["items"].(map[string]any)
	return s.resolve(i)
}

// names are the keys that a schema knows, in rising order.
func (s schemas) names(of map[string]any) []string {
	properties, _ := of["properties"].(map[string]any)
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fill puts the defaults of a schema where a value is absent.
func (s schemas) fill(of map[string]any, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range s.names(of) {
			below := s.property(of, name)
			if _, have := v[name]; !have {
				d, is := below["default"]
				if !is {
					continue
				}
				v[name] = clone(d)
			}
			s.fill(below, v[name])
		}
	case []any:
		for _, item := range v {
			s.fill(s.items(of), item)
		}
	}
}

// clone copies a plain value.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, w := range v {
			m[k] = clone(w)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, w := range v {
			l[i] = clone(w)
		}
		return l
	}
	return v
}

// validate holds the source to a schema. What is wrong is told and taken out, so that what is left can be read.
func (s *source) validate(against *jsonschema.Schema, file string) []Problem {
	checked := withoutRemoved(s.value)
	if checked == nil { // nothing of the file could be read, which was told
		return nil
	}
	err := against.Validate(checked)
	var invalid *jsonschema.ValidationError
	if err == nil || !errors.As(err, &invalid) {
		return nil
	}
	var all []Problem
	var gone []pointer
	for _, leaf := range leaves(invalid) {
		problems, out := s.explain(leaf, file)
		all = append(all, problems...)
		gone = append(gone, out...)
	}
	for _, p := range gone {
		s.remove(p)
	}
	return all
}

// leaves are the errors that have no cause below them.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}

// withoutRemoved is the value with null for refused items of lists, which the schema has no place for but explain knows.
func withoutRemoved(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, w := range v {
			m[k] = withoutRemoved(w)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, w := range v {
			l[i] = withoutRemoved(w)
		}
		return l
	case removed:
		return nil
	}
	return v
}

// remove takes a value out.
func (s *source) remove(p pointer) {
	s.broken[p.key()] = true
	if len(p) == 0 {
		s.value = nil
		return
	}
	in, ok := lookup(s.value, p[:len(p)-1])
	if !ok {
		return
	}
	name := p[len(p)-1]
	switch in := in.(type) {
	case map[string]any:
		delete(in, name)
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i < len(in) {
			in[i] = removed{}
		}
	}
}

// where is the place of a value, or of the nearest one around it that stands in the file.
func (s *source) where(p pointer, file string) position {
	for n := len(p); n >= 0; n-- {
		if at, ok := s.at[p[:n].key()]; ok {
			return at
		}
	}
	return position{file, 1, 1}
}

// explain says an error of the schema in an operator's words. The value itself is repeated only where the schema says what
// it has to look like, and never where a secret belongs.
func (s *source) explain(e *jsonschema.ValidationError, file string) (all []Problem, gone []pointer) {
	path := pointer(e.InstanceLocation)
	if v, ok := lookup(s.value, path); ok {
		if _, told := v.(removed); told {
			return nil, nil
		}
	}
	at := s.where(path, file)
	of := schema().find(e.SchemaURL)
	one := func(code, message, hint string) ([]Problem, []pointer) {
		return []Problem{at.problem(code, path, message, hint)}, []pointer{path}
	}
	secret := of["x-secret"] == true
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		slices.Sort(k.Properties)
		for _, name := range k.Properties {
			below := path.child(name)
			all = append(all, s.keys[below.key()].problem(codeUnknownKey, below, "there is no such key", suggest(name, schema().names(of))))
			gone = append(gone, below)
		}
		return all, gone
	case *kind.Required:
		for _, name := range k.Missing {
			if below := path.child(name); !s.broken[below.key()] {
				all = append(all, at.problem(codeMissing, below, "is missing", description(of, name)))
			}
		}
		return all, nil
	case *kind.Type:
		return one(codeValue, "wants "+article(k.Want)+", got "+article([]string{k.Got}), typeHint(k, of))
	case *kind.Pattern:
		if secret {
			return one(codeInline, fmt.Sprintf("is not %s", of["x-is"]), "a secret itself never stands in this file, and is not repeated here")
		}
		return one(codeValue, fmt.Sprintf("%s is not %s", word(k.Got), of["x-is"]), "")
	case *kind.Enum:
		options := words(k.Want)
		got, _ := k.Got.(string)
		return one(codeValue, fmt.Sprintf("%s is none of %s", word(got), strings.Join(options, ", ")), suggest(got, options))
	case *kind.Minimum:
		return one(codeValue, fmt.Sprintf("%s is less than %s", number(k.Got), number(k.Want)), "")
	case *kind.Maximum:
		return one(codeValue, fmt.Sprintf("%s is more than %s", number(k.Got), number(k.Want)), "")
	case *kind.MinLength, *kind.MinItems, *kind.MinProperties:
		return one(codeValue, "is empty", "")
	case *kind.MaxLength:
		return one(codeValue, fmt.Sprintf("has %d characters, more than %d", k.Got, k.Want), "")
	case *kind.MaxItems:
		return one(codeValue, fmt.Sprintf("has %d items, more than %d", k.Got, k.Want), "")
	case *kind.UniqueItems:
		path = path.index(k.Duplicates[1])
		at = s.where(path, file)
		return one(codeValue, "is there twice", "")
	}
	return one(codeValue, "does not fit the schema", "stillframe config schema prints it")
}

// maxShown bounds what is repeated of a value.
const maxShown = 60

func word(s string) string {
	if runes := []rune(s); len(runes) > maxShown {
		s = string(runes[:maxShown]) + "…"
	}
	return strconv.Quote(s)
}

func words(of []any) []string {
	all := make([]string, 0, len(of))
	for _, w := range of {
		all = append(all, fmt.Sprint(w))
	}
	return all
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return r.FloatString(2)
}

// article is a JSON type in an operator's words.
func article(types []string) string {
	all := make([]string, 0, len(types))
	for _, t := range types {
		names := map[string]string{
			"string": "a text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
			"array": "a list", "object": "keys below it", "null": "nothing",
		}
		all = append(all, names[t])
	}
	return strings.Join(all, " or ")
}

func typeHint(k *kind.Type, of map[string]any) string {
	want := strings.Join(k.Want, "")
	is, _ := of["x-is"].(string)
	switch {
	case want == "array" && k.Got == "string":
		return "write it as a list: [it]"
	case want == "string" && is != "":
		return "write " + is
	case want == "string" && k.Got != "array" && k.Got != "object":
		return "put it into quotes"
	}
	return ""
}

// description is what the schema says of a key.
func description(of map[string]any, name string) string {
	text, _ := schema().property(of, name)["description"].(string)
	return strings.TrimSuffix(text, ".")
}
