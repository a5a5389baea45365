package config

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestSchemaAndTypesAgree walks both trees: the same keys, of the same kinds, everywhere.
func TestSchemaAndTypesAgree(t *testing.T) {
	agree(t, "", schema().tree, reflect.TypeFor[Config]())
}

func agree(t *testing.T, path string, of map[string]any, typ reflect.Type) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	kind := map[reflect.Kind]string{
		reflect.Struct: "object", reflect.Map: "object", reflect.Slice: "array", reflect.String: "string",
		reflect.Int: "integer", reflect.Bool: "boolean", reflect.Float64: "number",
	}[typ.Kind()]
	if typ == reflect.TypeFor[Duration]() {
		kind = "string"
	}
	if of["type"] != kind {
		t.Errorf("%s is %v in the schema and %v in Go", path, of["type"], typ)
		return
	}
	switch {
	case kind == "array":
		agree(t, path+"[]", schema().items(of), typ.Elem())
	case kind == "object" && typ.Kind() == reflect.Map:
		below, _ := of["additionalProperties"].(map[string]any)
		agree(t, path+".*", schema().resolve(below), typ.Elem())
	case kind == "object":
		if of["additionalProperties"] != false {
			t.Errorf("%s lets unknown keys through", path)
		}
		fields := fieldsOf(typ)
		for _, name := range schema().names(of) {
			field, ok := fields[name]
			if !ok {
				t.Errorf("%s has the key %s in the schema only", path, name)
				continue
			}
			agree(t, join(path, name), schema().property(of, name), field.Type)
			delete(fields, name)
		}
		for name := range fields {
			t.Errorf("%s has the key %s in Go only", path, name)
		}
	}
}

// fieldsOf are the fields by their JSON names, embedded ones among them.
func fieldsOf(typ reflect.Type) map[string]reflect.StructField {
	all := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() && !f.Anonymous {
			all[name] = f
		}
	}
	return all
}

// TestSchemaHelps: every key is described in a sentence, every default is one that the schema itself lets through, and what
// has neither a default nor must be there is empty in Go.
func TestSchemaHelps(t *testing.T) {
	c := jsonschema.NewCompiler()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource(schemaURL, doc); err != nil {
		t.Fatal(err)
	}
	definitions, _ := schema().tree["$defs"].(map[string]any)
	keys := 0
	for name, v := range definitions {
		of, _ := v.(map[string]any)
		for _, key := range schema().names(of) {
			keys++
			below := schema().property(of, key)
			text, _ := below["description"].(string)
			if !strings.HasSuffix(text, ".") && name != "jobs_file" {
				t.Errorf("%s.%s is not described: %q", name, key, text)
			}
			d, ok := below["default"]
			if !ok {
				continue
			}
			if err := c.MustCompile(schemaURL + "#/$defs/" + name + "/properties/" + key).Validate(d); err != nil {
				t.Errorf("%s.%s has a default that it refuses: %v", name, key, err)
			}
		}
	}
	if keys < 100 {
		t.Errorf("only %d keys were found", keys)
	}
}

// TestFilesOfPackages holds the files beside the product to what is embedded.
func TestFilesOfPackages(t *testing.T) {
	for path, want := range map[string]string{"../../deploy/stillframe.schema.json": Schema(), "../../deploy/stillframe.yaml": Example()} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what is embedded; run: go test ./pkg/config -update", path)
		}
	}
	c, problems := Load("../../deploy/stillframe.yaml")
	if c == nil || len(problems) > 0 {
		t.Errorf("the example does not pass: %v", problems)
	}
}

// TestDefaults are the numbers of the design, in literals.
func TestDefaults(t *testing.T) {
	c := loaded(t, base+"jobs: [{name: j, select: {names: [a]}}]\n")
	got, err := json.Marshal(struct {
		Window
		Limits
		Job
	}{c.Window, c.Limits, c.Jobs[0]})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"hold":"20s"`, `"reserve":"3s"`, `"mode":"auto"`,
		`"vcenter":{"runs":20,"arm":24,"window":8}`, `"host":{"arm":12,"window":4,"remove":2}`, `"datastore":{"arm":9,"window":3,"remove":1}`,
		`"guest_logons":4`, `"window_wait":"40s"`,
		`"enabled":true`, `"priority":3`, `"level":"filesystem"`, `"on_degrade":"retry"`, `"admission":"refuse"`, `"backup_type":"copy"`,
		`"retry":{"attempts":3,"wait":"10m0s"}`, `"mover":{"kind":"none","limit":"8h0m0s","silence":"0s","keep_snapshot":"0s"}`,
		`"postpone":[]`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("there is no %s in %s", want, got)
		}
	}
	if c.Jobs[0].Schedule != nil || c.VCenters[0].HostRoad != nil || c.Listen.TLS != nil {
		t.Error("what nobody wrote is there")
	}
}

// TestVariables: no two keys are set by one variable.
func TestVariables(t *testing.T) {
	seen := map[string]string{}
	schema().single(schema().tree, nil, func(p pointer, _ map[string]any) {
		if other, taken := seen[variable(p)]; taken {
			t.Errorf("%s sets %s and %s", variable(p), other, p.dotted())
		}
		seen[variable(p)] = p.dotted()
	})
	if seen["STILLFRAME_STATE_DIR"] != "store.state_dir" || seen["STILLFRAME_WINDOW_HOLD"] != "window.hold" || len(seen) < 25 {
		t.Errorf("the variables are %v", seen)
	}
}

func TestSuggest(t *testing.T) {
	options := []string{"schedule", "select", "retry", "mover"}
	for got, want := range map[string]string{
		"shedule": "did you mean schedule?", "selcet": "did you mean select?", "Retry": "did you mean retry?", "retries": "did you mean retry?",
		"x": "", "windows": "", strings.Repeat("s", 1000): "", "": "",
	} {
		if s := suggest(got, options); s != want {
			t.Errorf("suggest(%.20q) = %q, want %q", got, s, want)
		}
	}
}
