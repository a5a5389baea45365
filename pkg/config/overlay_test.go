package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// with loads files with variables and flags.
func with(t *testing.T, text string, variables map[string]string, o Options) (*Config, string) {
	t.Helper()
	dir := write(t, map[string]string{"c.yaml": text})
	o.Getenv = func(name string) string { return variables[name] }
	c, problems := LoadWith(filepath.Join(dir, "c.yaml"), o)
	return c, lines(dir, problems)
}

// origin is where a key came from.
func origin(c *Config, path string) string {
	for _, s := range c.Settings() {
		if s.Path == path {
			return s.Text() + " from " + filepath.Base(s.Origin)
		}
	}
	return "nothing"
}

// TestPrecedence: flag, variable, file, default, in this order.
func TestPrecedence(t *testing.T) {
	text := base + "log: {level: warn}\nmetrics: {per_vm: true}\n"
	variables := map[string]string{"STILLFRAME_LOG_LEVEL": "error", "STILLFRAME_METRICS_PER_VM": "false", "STILLFRAME_LIMITS_GUEST_LOGONS": "7", "STILLFRAME_STATE_DIR": "/v"}
	flags := []Flag{{"--log-level", "log.level", "debug"}}
	for _, tc := range []struct {
		name      string
		variables map[string]string
		flags     []Flag
		path      string
		want      string
	}{
		{"default", nil, nil, "limits.guest_logons", "4 from default"},
		{"file", nil, nil, "log.level", "warn from c.yaml:8"},
		{"variable", variables, nil, "log.level", "error from STILLFRAME_LOG_LEVEL"},
		{"flag", variables, flags, "log.level", "debug from --log-level"},
		{"truth", variables, nil, "metrics.per_vm", "false from STILLFRAME_METRICS_PER_VM"},
		{"number", variables, nil, "limits.guest_logons", "7 from STILLFRAME_LIMITS_GUEST_LOGONS"},
		{"the name of old", variables, nil, "store.state_dir", "/v from STILLFRAME_STATE_DIR"},
		{"in a list", map[string]string{"STILLFRAME_VCENTERS_NAME": "x"}, nil, "vcenters[main].name", "main from c.yaml:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, problems := with(t, text, tc.variables, Options{Flags: tc.flags})
			if c == nil {
				t.Fatal(problems)
			}
			if got := origin(c, tc.path); got != tc.want {
				t.Errorf("%s is %s, want %s", tc.path, got, tc.want)
			}
		})
	}
}

// TestVariablesAreChecked like the file is, and named instead of a line. A secret in one is not repeated.
func TestVariablesAreChecked(t *testing.T) {
	c, got := with(t, base, map[string]string{
		"STILLFRAME_WINDOW_HOLD": "30s", "STILLFRAME_METRICS_PER_VM": "maybe", "STILLFRAME_GUESTS_DEFAULTS_PASSWORD": "CANARY-5", "STILLFRAME_LIMITS_GUEST_LOGONS": "010",
	}, Options{})
	want := "STILLFRAME_GUESTS_DEFAULTS_PASSWORD: guests.defaults.password: is not a reference: cred:NAME, file:/path, env:NAME or store:NAME; a secret itself never stands in this file, and is not repeated here (SF1206)\n" +
		"STILLFRAME_LIMITS_GUEST_LOGONS: limits.guest_logons: wants a whole number, got a text (SF1204)\n" +
		"STILLFRAME_METRICS_PER_VM: metrics.per_vm: wants true or false, got a text (SF1204)\n" +
		"STILLFRAME_WINDOW_HOLD: window.hold: window.hold (configuration) 30s must not be more than Exchange's own limit (application) 20s: after it the writer fails by itself (SF1207)\n"
	if d := cmp.Diff(want, got); c != nil || d != "" {
		t.Errorf("load says otherwise (-want +got):\n%s", d)
	}
	if c, got := with(t, base+"log: [x]\n", map[string]string{"STILLFRAME_LOG_LEVEL": "info"}, Options{}); c != nil || !strings.Contains(got, "log: wants keys below it, got a list") {
		t.Errorf("a list in the way: %s", got)
	}
}

// TestGOVC: the variables of govc fill in only where they may.
func TestGOVC(t *testing.T) {
	bare := base[strings.Index(base, "guests"):]
	govc := map[string]string{"GOVC_URL": "vcenter.example/sdk", "GOVC_USERNAME": "u", "GOVC_PASSWORD": "CANARY-6", "GOVC_TLS_CA_CERTS": "/ca.pem", "GOVC_INSECURE": "true"}
	if c, got := with(t, bare, govc, Options{}); c != nil || !strings.Contains(got, "vcenters: is missing") {
		t.Errorf("they are read without being allowed: %s", got)
	}
	c, got := with(t, bare, govc, Options{GOVC: true})
	if c == nil {
		t.Fatal(got)
	}
	want := VCenter{Name: "govc", URL: "https://vcenter.example/sdk", Username: "u", Password: "env:GOVC_PASSWORD", CA: "/ca.pem", SnapshotRoad: RoadVCenter}
	if d := cmp.Diff([]VCenter{want}, c.VCenters); d != "" {
		t.Errorf("the vCenter differs (-want +got):\n%s", d)
	}
	if got := origin(c, "vcenters[govc].ca"); got != "/ca.pem from GOVC_TLS_CA_CERTS" {
		t.Errorf("ca is %s", got)
	}
	if c, _ := with(t, base, govc, Options{GOVC: true}); c == nil || c.VCenters[0].Name != "main" {
		t.Error("they go over the file")
	}
	delete(govc, "GOVC_USERNAME")
	if c, got := with(t, bare, govc, Options{GOVC: true}); c != nil || !strings.Contains(got, "GOVC_URL: vcenters[0].username: is missing") {
		t.Errorf("without an account: %s", got)
	}
}
