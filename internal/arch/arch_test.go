// Package arch holds the tree to its own rules by tests alone.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/advice"
)

const (
	root   = "../.."
	module = "github.com/stillframe/stillframe"
)

// imports is the table of the architecture: what each package may import of ours. A package that is not here fails,
// so that a new one is a decision. The lab and what lies below it may import anything and are not listed.
var imports = map[string][]string{
	"pkg/inventory":              {},
	"pkg/agent/protocol":         {},
	"pkg/advice":                 {},
	"pkg/filelock":               {},
	"pkg/secret":                 {"pkg/filelock"},
	"pkg/freezewindow":           {"pkg/inventory"},
	"pkg/admission":              {"pkg/freezewindow"},
	"pkg/config":                 {"pkg/freezewindow", "pkg/schedule"},
	"pkg/schedule":               {},
	"pkg/selection":              {"pkg/inventory"},
	"pkg/enrolment":              {"pkg/agent/protocol", "pkg/filelock"},
	"pkg/statefile":              {"pkg/admission", "pkg/filelock", "pkg/freezewindow"},
	"pkg/datamover":              {"internal/failpoint", "pkg/inventory"},
	"pkg/store":                  {"internal/failpoint"},
	"pkg/journal":                {"internal/failpoint", "pkg/store"},
	"pkg/catalog":                {"internal/failpoint", "pkg/admission", "pkg/freezewindow", "pkg/journal", "pkg/statefile", "pkg/store"},
	"pkg/engine":                 {"internal/failpoint", "pkg/catalog", "pkg/store"},
	"pkg/vsphere":                {"internal/failpoint", "pkg/inventory"},
	"pkg/agent":                  {"pkg/agent/protocol"},
	"pkg/agent/fsfreeze":         {"pkg/agent", "pkg/agent/protocol"},
	"pkg/agent/hook":             {"pkg/agent", "pkg/agent/protocol"},
	"pkg/agent/eventlog":         {"pkg/agent/protocol"},
	"pkg/agent/mailbox":          {},
	"pkg/agent/vsscode":          {},
	"pkg/agent/com":              {},
	"pkg/agent/vss/provider":     {"pkg/agent/com", "pkg/agent/vsscode"},
	"pkg/agent/vss":              {"pkg/agent", "pkg/agent/com", "pkg/agent/protocol", "pkg/agent/vss/provider", "pkg/agent/vsscode"},
	"pkg/guest":                  {"internal/failpoint", "pkg/inventory", "pkg/freezewindow", "pkg/agent/mailbox", "pkg/agent/protocol"},
	"pkg/guest/guestops":         {"pkg/inventory", "pkg/guest"},
	"pkg/guest/persistent":       {"pkg/agent/protocol", "pkg/enrolment", "pkg/guest"},
	"pkg/guest/adminshare":       {"pkg/guest", "pkg/guest/adminshare/svcctl", "pkg/guest/adminshare/winrm"},
	"pkg/guest/adminshare/winrm": {"pkg/guest"},
	"pkg/audit":                  {"internal/failpoint"},
	"pkg/api":                    {"pkg/advice", "pkg/audit"},
	"pkg/api/client":             {"pkg/api"},
	"pkg/metrics":                {"pkg/admission", "pkg/advice", "pkg/backup", "pkg/freezewindow", "pkg/guest", "pkg/statefile"},
	"pkg/backup":                 {"internal/failpoint", "pkg/inventory", "pkg/datamover", "pkg/freezewindow", "pkg/guest", "pkg/advice", "pkg/admission", "pkg/statefile"},
	"pkg/daemon": {
		"pkg/admission", "pkg/advice", "pkg/backup", "pkg/catalog", "pkg/config", "pkg/datamover", "pkg/engine", "pkg/freezewindow", "pkg/guest",
		"pkg/inventory", "pkg/journal", "pkg/schedule", "pkg/selection", "pkg/statefile",
	},
	"cmd/orchestrator": {
		"pkg/admission", "pkg/advice", "pkg/agent/protocol", "pkg/api", "pkg/api/client", "pkg/audit", "pkg/backup", "pkg/catalog", "pkg/config",
		"pkg/daemon", "pkg/datamover", "pkg/engine", "pkg/enrolment", "pkg/freezewindow", "pkg/guest", "pkg/guest/adminshare", "pkg/guest/guestops", "pkg/guest/persistent", "pkg/inventory", "pkg/journal", "pkg/metrics",
		"pkg/schedule", "pkg/secret", "pkg/statefile", "pkg/store", "pkg/vsphere",
	},
	"cmd/agent": {
		"pkg/agent", "pkg/agent/com", "pkg/agent/eventlog", "pkg/agent/fsfreeze", "pkg/agent/hook", "pkg/agent/mailbox", "pkg/agent/protocol", "pkg/agent/vss",
		"pkg/agent/vss/provider", "pkg/agent/vsscode",
	},
	"cmd/lab":            {"pkg/lab"},
	"internal/arch":      {},
	"internal/failpoint": {},
	// An example for others: it uses the programs, not the packages.
	"testing/example": {},
	// Bytes of a foreign protocol, and nothing of ours.
	"pkg/guest/adminshare/svcctl": {},
}

// forbidden are imports that a part of the tree never has, whatever the reason looks like; tests may.
var forbidden = []struct {
	what string
	in   func(pkg string) bool
	path string
}{
	{"only pkg/vsphere and the lab speak to vCenter", not(either(is("pkg/vsphere"), below("pkg/lab"))), "github.com/vmware/govmomi"},
	{"only pkg/metrics knows Prometheus", not(is("pkg/metrics")), "github.com/prometheus"},
	{"only pkg/secret seals secrets", not(is("pkg/secret")), "filippo.io/age"},
	{"the agent stays small", agent, "go.uber.org/zap"},
	{"the agent stays small", agent, "net/http"},
	{"only pkg/schedule reads cron", not(is("pkg/schedule")), "github.com/robfig/cron"},
	{"only the database's own packages speak SQL", not(database), "database/sql"},
	{"only pkg/engine knows the queue", not(is("pkg/engine")), "github.com/riverqueue"},
	{"only the sealed transport speaks NTLM", not(is("pkg/guest/adminshare/winrm")), "github.com/bodgit/ntlmssp"},
	{"only the sealed transport speaks WinRM", not(is("pkg/guest/adminshare/winrm")), "github.com/masterzen/winrm"},
	{"only the admin share speaks SMB", not(is("pkg/guest/adminshare")), "github.com/hirochachacha/go-smb2"},
	{"only the admin share speaks SMB", not(is("pkg/guest/adminshare")), "github.com/cloudsoda/go-smb2"},
	{"cobra is the command line's", not(either(below("cmd"), below("pkg/lab"))), "github.com/spf13/cobra"},
}

func is(path string) func(string) bool { return func(pkg string) bool { return pkg == path } }

func below(path string) func(string) bool { return func(pkg string) bool { return under(pkg, path) } }

func not(f func(string) bool) func(string) bool { return func(pkg string) bool { return !f(pkg) } }

func either(f, g func(string) bool) func(string) bool {
	return func(pkg string) bool { return f(pkg) || g(pkg) }
}

func agent(pkg string) bool { return under(pkg, "pkg/agent") || pkg == "cmd/agent" }

func database(pkg string) bool {
	return slices.Contains([]string{"pkg/store", "pkg/journal", "pkg/engine", "pkg/catalog"}, pkg)
}

func lab(pkg string) bool { return under(pkg, "pkg/lab") || pkg == "cmd/lab" }

// under says whether path is dir or lies in it.
func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// source is one parsed Go file of the tree.
type source struct {
	pkg, path string
	test      bool
	ast       *ast.File
	imports   []string
}

// sources parses every Go file of this module, whatever its build tag, up to its imports and their comments.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			own := path != root && slices.Contains([]string{"build", "tools", "testing", "testdata"}, name)
			if own || (strings.HasPrefix(name, ".") && path != root) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: path, test: strings.HasSuffix(name, "_test.go"), ast: file}
		s.pkg = filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), root+string(filepath.Separator)))
		for _, i := range file.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		allowed, listed := imports[s.pkg]
		if !listed && !under(s.pkg, "pkg/lab") {
			t.Errorf("%s: package %s is not in the import table", s.path, s.pkg)
			continue
		}
		if s.test || under(s.pkg, "pkg/lab") {
			continue
		}
		for _, i := range s.imports {
			ours, found := strings.CutPrefix(i, module+"/")
			if !found || slices.Contains(allowed, ours) || (s.pkg == "cmd/lab" && under(ours, "pkg/lab")) {
				continue
			}
			t.Errorf("%s: %s may not import %s", s.path, s.pkg, ours)
		}
	}
}

func TestTableHasNoCycle(t *testing.T) {
	const open, done = 1, 2
	state := map[string]int{}
	var visit func(pkg string)
	visit = func(pkg string) {
		state[pkg] = open
		for _, next := range imports[pkg] {
			if _, listed := imports[next]; !listed && !under(next, "pkg/lab") {
				t.Errorf("%s may import %s, which the table does not have", pkg, next)
			}
			if !lab(pkg) && (lab(next) || under(next, "cmd")) {
				t.Errorf("%s may import %s: the product links neither the lab nor a command", pkg, next)
			}
			switch state[next] {
			case open:
				t.Errorf("the table has a cycle through %s and %s", pkg, next)
			case done:
			default:
				visit(next)
			}
		}
		state[pkg] = done
	}
	for pkg := range imports {
		if state[pkg] == 0 {
			visit(pkg)
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, i := range s.imports {
			for _, f := range forbidden {
				if under(i, f.path) && f.in(s.pkg) {
					t.Errorf("%s imports %s: %s", s.path, i, f.what)
				}
			}
		}
	}
}

// TestNoWallClockInTheWindow: what decides between ARM and THAWED goes by monotonic times alone, which no step of a clock
// moves. So these packages never strip a time of its monotonic reading, nor make one from a date or a number.
func TestNoWallClockInTheWindow(t *testing.T) {
	window := []string{"pkg/freezewindow", "pkg/agent", "pkg/agent/fsfreeze", "pkg/agent/hook", "pkg/agent/mailbox", "pkg/agent/protocol", "pkg/guest", "cmd/agent"}
	wall := regexp.MustCompile(`\.(UTC|Local|In|Unix|UnixMilli|UnixMicro|UnixNano|AddDate|AppendFormat)\(|\btime\.(Unix|UnixMilli|UnixMicro|Date|Parse|ParseInLocation)\(|\.Round\(0\)`)
	seen := map[string]bool{}
	eachFile(t, func(path, text string) {
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), root+"/")
		if !slices.Contains(window, pkg) || strings.HasSuffix(path, "_test.go") {
			return
		}
		seen[pkg] = true
		for n, line := range strings.Split(text, "\n") {
			if wall.MatchString(line) {
				t.Errorf("%s:%d goes by a wall clock: %s", path, n+1, strings.TrimSpace(line))
			}
		}
	})
	if len(seen) != len(window) {
		t.Errorf("only %d of %d packages were found", len(seen), len(window))
	}
}

// TestNames refuses packages that hold whatever found no other place.
func TestNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helpers", "helper", "types", "base", "misc"}
	for _, s := range sources(t) {
		if slices.Contains(vague, filepath.Base(s.pkg)) || slices.Contains(vague, s.ast.Name.Name) {
			t.Errorf("%s: a package is named after its one idea, not %s", s.path, s.ast.Name.Name)
		}
	}
}

// TestPackagesSayWhatTheyAre wants one sentence about each package; paragraphs with more may follow it.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	docs := map[string][]string{}
	for _, s := range sources(t) {
		docs[s.pkg] = append(docs[s.pkg], "")
		if s.ast.Doc != nil {
			docs[s.pkg] = append(docs[s.pkg], s.ast.Doc.Text())
		}
	}
	for pkg, texts := range docs {
		text := strings.Join(texts, "")
		if text == "" {
			t.Errorf("%s has no doc comment", pkg)
			continue
		}
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n\n")
		first = strings.Join(strings.Fields(first), " ")
		if !strings.HasSuffix(first, ".") || strings.Count(first+" ", ". ") != 1 {
			t.Errorf("%s: the doc comment does not begin with a paragraph of one sentence: %q", pkg, first)
		}
	}
}

// TestOneCatalogue lets only pkg/advice embed the error catalogue, so that no second registry of codes grows.
func TestOneCatalogue(t *testing.T) {
	eachFile(t, func(path, text string) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "//go:embed") && strings.Contains(line, "error-catalogue") && !strings.Contains(path, "pkg/advice/") {
				t.Errorf("%s embeds the error catalogue", path)
			}
		}
	})
}

// TestEveryCodeHasAPage finds the codes that the product's and the lab's source names and wants each in the catalogue.
func TestEveryCodeHasAPage(t *testing.T) {
	literal := regexp.MustCompile(`"(SF[0-9]{4})"`)
	eachFile(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, m := range literal.FindAllStringSubmatch(text, -1) {
			if _, ok := advice.Lookup(advice.Code(m[1])); !ok {
				t.Errorf("%s names %s, which the error catalogue does not have", path, m[1])
			}
		}
	})
}

// TestNoTransportOfTheLibrary: masterzen/winrm gives us its SOAP messages alone. Its client sends them by Basic unless told
// otherwise, its ClientNTLM in clear over http, and its Encryption falls back to that when one request is lost: so its root
// package, in which all of these are, is imported nowhere, nor is the HTTP client of the NTLM library.
func TestNoTransportOfTheLibrary(t *testing.T) {
	soap := 0
	for _, s := range sources(t) {
		for _, i := range s.imports {
			switch {
			case i == "github.com/masterzen/winrm/soap":
				soap++
			case under(i, "github.com/masterzen/winrm"), i == "github.com/bodgit/ntlmssp/http":
				t.Errorf("%s imports %s, which may send what has to be sealed in clear", s.path, i)
			}
		}
	}
	if soap == 0 {
		t.Error("nothing imports the library's messages: has this test lost its object?")
	}
}
