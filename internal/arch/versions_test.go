package arch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Scopes say where a module may be linked or used: the orchestrator, the agent, the lab, tests. The lab may use all that
// the product uses, tests may use anything in the table.
const (
	product = "P"
	agentOf = "A"
	labOnly = "L"
	tests   = "T"
)

// versions is the table that decides: a module that is not here is not taken, and a version moves here first. It grows
// with the code that needs it; docs/adr says why each is taken.
var versions = map[string]struct{ version, scope string }{
	"filippo.io/age":                                      {"v1.3.2", product},
	"github.com/goccy/go-yaml":                            {"v1.19.2", product},
	"github.com/google/go-cmp":                            {"v0.7.0", tests},
	"github.com/google/uuid":                              {"v1.6.0", product},
	"github.com/spf13/cobra":                              {"v1.10.2", product},
	"github.com/vmware/govmomi":                           {"v0.56.0", product + labOnly + tests},
	"github.com/hirochachacha/go-smb2":                    {"v1.1.0", product},
	"github.com/cloudsoda/go-smb2":                        {"v0.0.0-20260918041005-0c5d69b69701", product},
	"github.com/vmware/vmw-guestinfo":                     {"v0.0.0-20220317130741-510905f0efa3", agentOf},
	"github.com/oklog/run":                                {"v1.2.0", product},
	"github.com/prometheus/client_golang":                 {"v1.25.0", product},
	"github.com/robfig/cron/v3":                           {"v3.0.1", product},
	"github.com/rogpeppe/go-internal":                     {"v1.16.0", tests},
	"go.uber.org/goleak":                                  {"v1.3.0", tests},
	"go.uber.org/zap":                                     {"v1.28.0", product},
	"golang.org/x/sync":                                   {"v0.23.0", product},
	"golang.org/x/sys":                                    {"v0.49.0", product + agentOf},
	"golang.org/x/term":                                   {"v0.46.0", product},
	"pgregory.net/rapid":                                  {"v1.3.0", tests},
	"github.com/santhosh-tekuri/jsonschema/v6":            {"v6.0.2", product},
	"github.com/danielgtaylor/huma/v2":                    {"v2.39.1", product},
	"github.com/jackc/pgx/v5":                             {"v5.11.0", product},
	"github.com/pressly/goose/v3":                         {"v3.27.3", product},
	"modernc.org/sqlite":                                  {"v1.60.0", product},
	"github.com/riverqueue/river":                         {"v0.47.0", product},
	"github.com/riverqueue/river/riverdriver":             {"v0.47.0", product},
	"github.com/riverqueue/river/riverdriver/riverpgxv5":  {"v0.47.0", product},
	"github.com/riverqueue/river/riverdriver/riversqlite": {"v0.47.0", product},
	"github.com/riverqueue/river/rivertype":               {"v0.47.0", product},
	"go.uber.org/zap/exp":                                 {"v0.3.0", product},
	"github.com/masterzen/winrm":                          {"v0.0.0-20260407182533-5570be7f80cf", product},
	"github.com/bodgit/ntlmssp":                           {"v0.0.0-20240506230425-31973bb52d9b", product},
}

// TestVersions compares the direct requirements of go.mod with the table and with what the source imports.
func TestVersions(t *testing.T) {
	direct := requirements(t)
	reasons := decisions(t)
	for mod, version := range direct {
		if want, listed := versions[mod]; !listed || want.version != version {
			t.Errorf("go.mod requires %s %s, the table says %q", mod, version, want.version)
		}
		if !strings.Contains(reasons, "| "+mod+" |") {
			t.Errorf("docs/adr has no line for %s: why, what else, who keeps it", mod)
		}
	}
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, path := range s.imports {
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") || under(path, module) {
				continue
			}
			mod := moduleOf(path)
			if mod == "" {
				t.Errorf("%s imports %s, whose module is not in the table", s.path, path)
				continue
			}
			used[mod] = true
			if scope := versions[mod].scope; !s.test && !linkable(s.pkg, scope) {
				t.Errorf("%s imports %s, which has the scope %s", s.path, path, scope)
			}
		}
	}
	for _, mod := range slices.Sorted(maps.Keys(used)) {
		if _, ok := direct[mod]; !ok {
			t.Errorf("go.mod does not require %s directly, but the source imports it", mod)
		}
	}
	for _, mod := range slices.Sorted(maps.Keys(direct)) {
		if !used[mod] {
			t.Errorf("go.mod requires %s directly, but nothing imports it", mod)
		}
	}
}

// linkable says whether a package may link a module of the scope. The language of both sides is linked by both.
func linkable(pkg, scope string) bool {
	switch {
	case pkg == "pkg/agent/protocol":
		return strings.Contains(scope, product) && strings.Contains(scope, agentOf)
	case agent(pkg):
		return strings.Contains(scope, agentOf)
	case lab(pkg):
		return scope != tests
	default:
		return strings.Contains(scope, product)
	}
}

// moduleOf finds the module of the table that holds an import path, the longest if one lies in another.
func moduleOf(path string) string {
	longest := ""
	for mod := range versions {
		if under(path, mod) && len(mod) > len(longest) {
			longest = mod
		}
	}
	return longest
}

// decisions is the text of all decision records.
func decisions(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "adr", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no decision records found: %v", err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// requirements reads the direct requirements of go.mod.
func requirements(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "require "))
		for _, verb := range []string{"replace ", "exclude "} {
			if strings.HasPrefix(line, verb) {
				t.Errorf("go.mod has %q: no patched copies", line)
			}
		}
		fields := strings.Fields(line)
		if len(fields) == 2 && strings.HasPrefix(fields[1], "v") && strings.Contains(fields[0], ".") {
			direct[fields[0]] = fields[1]
		}
	}
	return direct
}

// eachFile hands the text of every Go file of this module to f.
func eachFile(t *testing.T, f func(path, text string)) {
	t.Helper()
	for _, s := range sources(t) {
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		f(filepath.ToSlash(s.path), string(text))
	}
}
