package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options are what else a configuration is made of.
type Options struct {
	// Getenv reads variables: STILLFRAME_ ones go over the file. nil reads none.
	Getenv func(string) string
	// Flags go over everything.
	Flags []Flag
	// GOVC lets the variables of govc give the vCenter of a file that names none.
	GOVC bool
}

// jobsFolder is the folder beside the file whose files hold further jobs.
const jobsFolder = "conf.d"

// Load reads a file and the jobs of conf.d beside it. The Config is nil when one of the problems is an error; all that are
// there come at once.
func Load(path string) (*Config, []Problem) { return LoadWith(path, Options{}) }

// LoadWith is Load with variables and flags over the file.
func LoadWith(path string, o Options) (*Config, []Problem) {
	l := loader{file: path, options: o}
	l.main()
	l.jobs()
	return l.finish()
}

// loader is one configuration on its way.
type loader struct {
	file     string
	options  Options
	src      *source
	written  map[string]any
	problems []Problem
}

func (l *loader) tell(p ...Problem) { l.problems = append(l.problems, p...) }

func unreadable(path string, err error) Problem {
	hint := ""
	if errors.Is(err, fs.ErrNotExist) {
		hint = "stillframe config example prints one to begin with"
	}
	var detail *fs.PathError
	if errors.As(err, &detail) {
		err = detail.Err
	}
	return position{file: path}.problem(codeUnreadable, nil, "cannot be read: "+strings.TrimPrefix(err.Error(), path+" "), hint)
}

// main reads the file itself.
func (l *loader) main() {
	l.src = newSource()
	text, err := readFile(l.file)
	if err != nil {
		l.tell(unreadable(l.file, err))
		l.src.broken[pointer{}.key()] = true
		return
	}
	l.take(text)
}

// take takes the text of the file.
func (l *loader) take(text []byte) {
	var problems []Problem
	l.src, problems = parseSource(l.file, text)
	l.tell(problems...)
	if m, ok := l.src.value.(map[string]any); ok {
		l.written, _ = clone(m).(map[string]any)
		l.overlay()
	} else if l.src.value == nil {
		l.src.broken[pointer{}.key()] = true
	}
	l.tell(l.src.validate(schema().whole, l.file)...)
}

// jobs adds the jobs of the files in conf.d.
func (l *loader) jobs() {
	dir := filepath.Join(filepath.Dir(l.file), jobsFolder)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.tell(unreadable(dir, err))
		}
		return
	}
	for _, e := range entries { // in rising order of their names
		path := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(e.Name()); {
		case strings.HasPrefix(e.Name(), "."):
		case ext == ".yaml":
			l.jobsFile(path)
		case ext == ".yml" || ext == ".json":
			p := position{file: path}.problem(codeRisk, nil, "is not read, because its name does not end with .yaml", "")
			p.Severity = Warning
			l.tell(p)
		}
	}
}

func (l *loader) jobsFile(path string) {
	text, err := readFile(path)
	if err != nil {
		l.tell(unreadable(path, err))
		return
	}
	more, problems := parseSource(path, text)
	l.tell(problems...)
	l.tell(more.validate(schema().jobs, path)...)
	jobs, ok := lookup(more.value, pointer{"jobs"})
	list, isList := jobs.([]any)
	into, isMap := l.src.value.(map[string]any)
	if !ok || !isList || !isMap {
		return
	}
	have, _ := into["jobs"].([]any)
	l.src.firstJob[path] = len(have)
	l.src.adopt(more, len(have))
	into["jobs"] = append(have, list...)
	if l.written != nil {
		kept, _ := l.written["jobs"].([]any)
		l.written["jobs"] = append(kept, list...)
	}
}

// adopt takes over the places of another file's jobs, which become those from position first on.
func (s *source) adopt(more *source, first int) {
	moved := func(key string) (string, bool) {
		p := pointer(strings.Split(key, "\x00"))
		if len(p) < 2 || p[0] != "jobs" {
			return "", false
		}
		var i int
		if _, err := fmt.Sscanf(p[1], "%d", &i); err != nil {
			return "", false
		}
		q := pointer{"jobs"}.index(first + i)
		return append(q, p[2:]...).key(), true
	}
	for key, at := range more.at {
		if to, ok := moved(key); ok {
			s.at[to] = at
		}
	}
	for key := range more.broken {
		if to, ok := moved(key); ok {
			s.broken[to] = true
		}
	}
}

// finish makes values of what could be read, checks what no schema can say, and gives all that was found.
func (l *loader) finish() (*Config, []Problem) {
	effective, ok := settle(schema().tree, l.src.value).(map[string]any)
	if !ok {
		effective = map[string]any{}
	}
	schema().fill(schema().tree, effective)
	c := &Config{file: l.file, src: l.src, written: l.written, effective: effective}
	if err := c.decode(); err != nil { // the schema and the types do not agree, which a test holds them to
		l.tell(position{l.file, 1, 1}.problem(codeValue, nil, "cannot be taken over: "+err.Error(), ""))
		return nil, l.sorted()
	}
	k := checker{config: c, src: l.src}
	k.check()
	l.tell(k.problems...)
	if refused(l.problems) {
		return nil, l.sorted()
	}
	return c, l.sorted()
}

// sorted orders the problems by where they are, those of the main file first.
func (l *loader) sorted() []Problem {
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		rank := func(p Problem) int {
			if p.File == l.file {
				return 0
			}
			return 1
		}
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Path, b.Path))
	})
	return l.problems
}

// settle puts something without content where a list's item was refused, so that the others keep their places.
func settle(of map[string]any, v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, w := range v {
			m[name] = settle(schema().property(of, name), w)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, w := range v {
			l[i] = settle(schema().items(of), w)
		}
		return l
	case removed:
		if of["type"] == "object" {
			return map[string]any{}
		}
		return ""
	}
	return v
}

// decode brings the effective values into the types.
func (c *Config) decode() error {
	text, err := json.Marshal(c.effective)
	if err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	return d.Decode(c)
}
