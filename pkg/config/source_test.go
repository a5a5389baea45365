package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// bombs are texts that make a careless reader work, recurse or remember without end, with what must be said of them.
func bombs() map[string]struct{ text, want string } {
	var aliases, anchors, deep strings.Builder
	aliases.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&aliases, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	for i := range maxAnchors + 1 {
		fmt.Fprintf(&anchors, "a%d: &a%d 1\n", i, i)
	}
	for i := range 1200 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return map[string]struct{ text, want string }{
		"aliases of aliases": {aliases.String(), "or more than 20000 behind aliases"},
		"anchors":            {anchors.String(), "more than 64 anchors"},
		"brackets":           {"a: " + strings.Repeat("[", 500_000), "nested deeper than 32"},
		"braces":             {"a: " + strings.Repeat("{a: ", 200_000), "nested deeper than 32"},
		"dashes":             {strings.Repeat("- ", 500_000), "nested deeper than 32"},
		"questions":          {strings.Repeat("? ", 500_000), "nested deeper than 32"},
		"blocks":             {deep.String(), "nested deeper than"},
		"tags":               {"a: " + strings.Repeat("!!str ", 100_000), "nested deeper than 32"},
		"a tag":              {"a: !!str 0123\n", "a tag is not used here"},
		"anchors in a row":   {"a: " + strings.Repeat("&a ", 100_000), "nested deeper than 32"},
		"alias of itself":    {"a: &a [*a]\n", "is an alias of what it stands in"},
		"merge of itself":    {"a: &a {<<: *a, b: 1}\n", "<< leads to no mapping"},
		"merge below itself": {"a: &a {x: {<<: *a}}\n", "<< leads to no mapping"},
		"two documents":      {base + "---\n" + base, "a second document begins here"},
		"invalid UTF-8":      {"a: \xff\n", "a character that is no text"},
		"a hundred brackets": {"a: " + strings.Repeat("[", 100), "nested deeper than 32"},
		"a hundred dashes":   {strings.Repeat("- ", 100), "nested deeper than 32"},
		"zero byte":          {"a: \x00\n", "a character that is no text"},
	}
}

// TestBombs: each is refused with a place in the file.
func TestBombs(t *testing.T) {
	for name, tc := range bombs() {
		t.Run(name, func(t *testing.T) {
			c, got := load(t, tc.text)
			if c != nil || !strings.Contains(got, tc.want) {
				t.Errorf("load says %.300s, want %q", got, tc.want)
			}
		})
	}
}

// TestReading is about what YAML may say in several ways.
func TestReading(t *testing.T) {
	for name, text := range map[string]string{
		"windows line ends": strings.ReplaceAll(base, "\n", "\r\n"),
		"byte order mark":   "\ufeff" + base,
		"document marks":    "---\n" + base + "...\n",
		"comments":          "# a\n" + strings.ReplaceAll(base, "\n", " # a\n"),
		"no last line end":  strings.TrimSuffix(base, "\n"),
		"merged":            strings.Replace(base, "vcenters:\n  - name: main\n", "vcenters:\n  - &m\n    name: main\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			c := loaded(t, text)
			if v := c.VCenters[0]; v.Name != "main" || v.URL != "https://vcenter.example/sdk" || v.Password != "cred:vcenter-main" {
				t.Errorf("the vCenter is %+v", v)
			}
		})
	}
}

// TestMerge: what stands beside << goes first, then the first of several.
func TestMerge(t *testing.T) {
	c := loaded(t, base+`jobs:
  - &nightly
    name: a
    priority: 1
    level: crash
    select: &all {names: ["*"]}
  - <<: *nightly
    name: b
    priority: 2
  - name: c
    <<: [{level: application, volumes: [/a]}, {level: crash, priority: 4}]
    select: *all
`)
	want := []struct {
		name, level string
		priority    int
	}{{"a", "crash", 1}, {"b", "crash", 2}, {"c", "application", 4}}
	for i, w := range want {
		if j := c.Jobs[i]; j.Name != w.name || string(j.Level) != w.level || j.Priority != w.priority || len(j.Select.Names) != 1 {
			t.Errorf("job %d is %+v, want %+v", i, j, w)
		}
	}
	if at := c.src.where(pointer{"jobs", "1", "level"}, ""); at.line != 12 || at.column != 12 {
		t.Errorf("what was merged in is placed at %d:%d, want where it is written", at.line, at.column)
	}
}

// TestFilesThatCannotBeRead are told with their name, and nothing hangs.
func TestFilesThatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"large.yaml": base + "#" + strings.Repeat("x", maxBytes), "just.yaml": base + "#" + strings.Repeat("x", maxBytes-len(base)-1)})
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"large.yaml": "is larger than", "pipe.yaml": "is not a regular file", "none.yaml": "no such file", ".": "is not a regular file"} {
		c, problems := Load(filepath.Join(dir, name))
		if got := lines(dir, problems); c != nil || !strings.Contains(got, want) || len(problems) != 1 || problems[0].SF != codeUnreadable {
			t.Errorf("%s: %s, want %q", name, got, want)
		}
	}
	if c, problems := Load(filepath.Join(dir, "just.yaml")); c == nil {
		t.Errorf("a file of just the largest size is refused: %v", problems)
	}
}

// FuzzLoad: no text panics; every problem has a place in the text; what is taken over can be kept and read again.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte(example))
	all := bombs()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if text := all[name].text; len(text) < 4096 {
			f.Add([]byte(text))
		}
	}
	if eight, err := os.ReadFile("../../cmd/orchestrator/testdata/config/eight.yaml"); err == nil {
		f.Add(eight)
	} else {
		f.Fatal(err)
	}
	f.Add([]byte("a: &a {b: *a}\n? [x]\n: y\n<<: 1\n"))
	f.Add([]byte(base + "jobs:\n  - name: j\n    select: {custom_attributes: [\"=\", \"vm-1\"], vms: [vm-1]}\n    schedule: {cron: \"@every 1s\", zone: \"\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		l := loader{file: "fuzz.yaml"}
		l.take(text)
		c, problems := l.finish()
		count := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > count || p.Column < 1 || p.SF == "" || p.Message == "" {
				t.Errorf("a problem without a place: %+v", p)
			}
		}
		if (c == nil) != refused(problems) {
			t.Errorf("the configuration is %v with %v", c, problems)
		}
		if c == nil {
			return
		}
		if _, err := lastGoodText(c.written); err != nil {
			t.Errorf("what was taken over cannot be kept: %v", err)
		}
		for _, s := range c.Settings() {
			if s.Origin == "" {
				t.Errorf("%s has no origin", s.Path)
			}
		}
	})
}
