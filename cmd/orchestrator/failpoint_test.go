package main

import (
	"bytes"
	"debug/elf"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// points are the failpoints of the tree, without what may stand at the end of their names, as the name of a job: that is a *.
type points map[string]bool

// has says whether the tree has the point of this name.
func (p points) has(name string) bool {
	if p[name] {
		return true
	}
	for pattern := range p {
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}

// list says of each point of the tree whether a daemon was killed there.
func (p points) list(killed map[string]bool) string {
	lines := make([]string, 0, len(p))
	for name := range p {
		line := "not passed  " + name
		for k := range killed {
			if (points{name: true}).has(k) {
				line = "killed      " + name
			}
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// crashTree is the product's source as the generation of the list needs it.
type crashTree struct {
	t         *testing.T
	positions *token.FileSet
	// packages are the functions by package; constants are those that are texts, by package and name, and typed the same by
	// package and type.
	packages  map[string][]*ast.FuncDecl
	constants map[string]string
	typed     map[string][]string
}

// readTree parses the product, without its tests and without the lab.
func readTree(t *testing.T) *crashTree {
	t.Helper()
	c := &crashTree{t, token.NewFileSet(), map[string][]*ast.FuncDecl{}, map[string]string{}, map[string][]string{}}
	for _, root := range []string{"../../pkg", "../../cmd/orchestrator"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/pkg/lab/") {
				return err
			}
			file, err := parser.ParseFile(c.positions, name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			c.take(strings.TrimPrefix(filepath.ToSlash(filepath.Dir(name)), "../../"), file)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *crashTree) take(pkg string, file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			c.packages[pkg] = append(c.packages[pkg], d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				v, ok := s.(*ast.ValueSpec)
				for n := 0; ok && d.Tok == token.CONST && n < len(v.Values); n++ {
					if text, ok := literal(v.Values[n]); ok {
						c.constants[path.Base(pkg)+"."+v.Names[n].Name] = text
						if of, ok := v.Type.(*ast.Ident); ok {
							c.typed[path.Base(pkg)+"."+of.Name] = append(c.typed[path.Base(pkg)+"."+of.Name], text)
						}
					}
				}
			}
		}
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// text is an expression as it is written.
func (c *crashTree) text(e ast.Node) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, c.positions, e); err != nil {
		c.t.Fatal(err)
	}
	return b.String()
}

// calls gives every call below n, by its function as it is written.
func (c *crashTree) calls(n ast.Node) (all []*ast.CallExpr, names []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			all, names = append(all, call), append(names, c.text(call.Fun))
		}
		return true
	})
	return all, names
}

// arguments gives the argument of that number of each call in a package of a function whose written name ends so.
func (c *crashTree) arguments(pkg, function string, number int) (all []ast.Expr) {
	for _, f := range c.packages[pkg] {
		calls, names := c.calls(f)
		for n, call := range calls {
			if strings.HasSuffix(names[n], function) && len(call.Args) > number {
				all = append(all, call.Args[number])
			}
		}
	}
	return all
}

// words are what an argument can be: a text, a constant, a text with something behind it.
func (c *crashTree) words(pkg string, all []ast.Expr) (words []string) {
	for _, e := range all {
		switch e := e.(type) {
		case *ast.BinaryExpr:
			if text, ok := literal(e.X); ok {
				words = append(words, text+"*")
			}
		case *ast.SelectorExpr:
			words = append(words, c.constants[c.text(e)])
		default:
			if text, ok := literal(e); ok {
				words = append(words, text)
			} else if text, ok := c.constants[path.Base(pkg)+"."+c.text(e)]; ok {
				words = append(words, text)
			}
		}
	}
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// expand gives what a point with a variable can be called.
func (c *crashTree) expand(kind, variable string) (words []string) {
	switch kind + " " + variable {
	case "store op":
		for pkg := range c.packages {
			words = append(words, c.words(pkg, c.arguments(pkg, ".Update", 1))...)
		}
		return append(words, c.words("pkg/catalog", c.arguments("pkg/catalog", "c.change", 1))...)
	case "vsphere req":
		for _, f := range c.packages["pkg/vsphere"] {
			_, names := c.calls(f)
			for _, name := range names {
				if method, ok := strings.CutPrefix(name, "methods."); ok {
					words = append(words, strings.TrimPrefix(method, "Get"))
				}
			}
		}
		return words
	case "vsphere method":
		for _, e := range c.arguments("pkg/vsphere", "g.transfer", 1) {
			words = append(words, strings.ToUpper(strings.TrimPrefix(c.text(e), "http.Method")))
		}
		return words
	case "agent t":
		return append(c.words("pkg/guest", c.arguments("pkg/guest", "s.say", 1)), c.expand("agent.answer", variable)...)
	case "agent.answer t":
		return c.words("pkg/guest", c.arguments("pkg/guest", "s.ask", 2))
	case "journal.intend i.Kind", "journal.settle i.Kind":
		return c.typed["statefile.Kind"]
	case "journal.intend i.Step", "journal.settle p.Step":
		return c.typed["journal.Step"]
	}
	c.t.Errorf("nobody knows what the failpoints %s of %s are called", kind, variable)
	return nil
}

// marks are the failpoints in one function: kind and what, by their side.
func (c *crashTree) marks(f *ast.FuncDecl) (before, after [][2]string) {
	calls, names := c.calls(f)
	for n, call := range calls {
		side := strings.TrimPrefix(names[n], "failpoint.")
		if side == names[n] || len(call.Args) != 2 {
			continue
		}
		kind, ok := literal(call.Args[0])
		if !ok {
			c.t.Errorf("%s: the kind of a failpoint is a literal", c.positions.Position(call.Pos()))
		}
		mark := [2]string{kind, c.text(call.Args[1])}
		if side == "Before" {
			before = append(before, mark)
		} else {
			after = append(after, mark)
		}
	}
	return before, after
}

// pointsOfTree generates the list of all failpoints.
func pointsOfTree(t *testing.T) points {
	t.Helper()
	c, all := readTree(t), points{}
	for pkg, functions := range c.packages {
		for _, f := range functions {
			before, after := c.marks(f)
			for n, marks := range [][][2]string{before, after} {
				for _, m := range marks {
					e, err := parser.ParseExpr(m[1])
					if err != nil {
						t.Fatal(err)
					}
					words := c.words(pkg, []ast.Expr{e})
					if len(words) == 0 {
						words = c.expand(m[0], m[1])
					}
					for _, w := range words {
						all[m[0]+"."+strings.ReplaceAll(w, " ", "-")+"."+[]string{"before", "after"}[n]] = true
					}
				}
			}
		}
	}
	return all
}

// TestFailpointsOnBothSides wants a failpoint before and after each write of the journal, each transaction, each call to
// vCenter and each word to an agent. Such steps go through few functions, so that those are looked at, and that nothing goes
// past them.
func TestFailpointsOnBothSides(t *testing.T) {
	t.Parallel()
	c := readTree(t)
	// needs are the kinds that a function has to have on both sides, by the calls that it makes.
	needs := func(pkg string, f *ast.FuncDecl, names []string) (kinds []string) {
		calls := func(name string) bool { return slices.Contains(names, name) }
		switch name := f.Name.Name; {
		case pkg == "pkg/vsphere" && (calls("o.e.vim.Client.RoundTrip") || calls("vim25.NewClient") || calls("client.Do")):
			return []string{"vsphere"}
		case pkg == "pkg/guest" && calls("write"):
			return []string{"agent"}
		case pkg == "pkg/store" && name == "Update":
			return []string{"store"}
		case (pkg == "pkg/journal" || pkg == "pkg/catalog") && name == "Intend":
			return []string{"journal.intend"}
		case (pkg == "pkg/journal" || pkg == "pkg/catalog") && (name == "Settled" || name == "Settle"):
			return []string{"journal.settle"}
		case pkg == "pkg/datamover" && calls("x.start"):
			return []string{"mover"}
		}
		return nil
	}
	seen := map[string]int{}
	for pkg, functions := range c.packages {
		for _, f := range functions {
			at := c.positions.Position(f.Pos())
			before, after := c.marks(f)
			for _, m := range before {
				if !slices.Contains(after, m) {
					t.Errorf("%s: %s has a failpoint before %s %s and none after it", at, f.Name.Name, m[0], m[1])
				}
			}
			calls, names := c.calls(f)
			for _, kind := range needs(pkg, f, names) {
				seen[kind]++
				if !slices.ContainsFunc(before, func(m [2]string) bool { return m[0] == kind }) {
					t.Errorf("%s: %s has no failpoints of the kind %s on both sides", at, f.Name.Name, kind)
				}
			}
			for n, call := range calls {
				c.astray(pkg, f, call, names[n])
			}
		}
	}
	for kind, want := range map[string]int{"vsphere": 3, "agent": 2, "store": 1, "journal.intend": 2, "journal.settle": 2, "mover": 1} {
		if seen[kind] != want {
			t.Errorf("%d functions make steps of the kind %s, want %d: is one new, or called otherwise?", seen[kind], kind, want)
		}
	}
	if all := pointsOfTree(t); len(all) < leastPoints {
		t.Errorf("the tree has %d failpoints, want %d at least", len(all), leastPoints)
	}
}

// astray finds a step that goes past the functions with failpoints.
func (c *crashTree) astray(pkg string, f *ast.FuncDecl, call *ast.CallExpr, name string) {
	c.t.Helper()
	at := c.positions.Position(call.Pos())
	switch {
	case strings.HasPrefix(name, "methods.") && len(call.Args) == 3:
		by := c.text(call.Args[1])
		if !strings.HasSuffix(by, ".vim") && by != "vim" && !strings.HasPrefix(by, "once{") {
			c.t.Errorf("%s: %s goes by %s, which has no failpoints", at, name, by)
		}
	case strings.HasSuffix(name, ".IntendIn") && f.Name.Name != "Intend" && f.Name.Name != "intend",
		strings.HasSuffix(name, ".SettledIn") && f.Name.Name != "Settled":
		c.t.Errorf("%s: %s writes to the journal without failpoints", at, f.Name.Name)
	case strings.HasSuffix(name, ".BeginTx") && (pkg != "pkg/store" || f.Name.Name != "within"):
		c.t.Errorf("%s: %s begins a transaction without failpoints", at, f.Name.Name)
	}
}

// TestFailpointsAreNothing looks into the plain program for what is left of them.
func TestFailpointsAreNothing(t *testing.T) {
	t.Parallel()
	program, err := elf.Open(binaries.stillframe)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	symbols, err := program.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if strings.Contains(s.Name, "internal/failpoint") {
			t.Errorf("the program has %s", s.Name)
		}
	}
}
