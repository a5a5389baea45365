package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of one file. No configuration of a person comes near them.
const (
	maxBytes   = 1 << 20
	maxAnchors = 64
	maxDepth   = 32
	maxColumn  = 256 // of the first word of a line: deeper blocks than maxDepth are no configuration
	maxValues  = 100_000
	maxAliased = 20_000 // values behind aliases, which could multiply without end
)

// source is one file as plain values, each with its place. Numbers are json.Number.
type source struct {
	value any
	// at is where each value is, keys where each key is, broken what a problem was already told about.
	at, keys map[string]position
	broken   map[string]bool
	// firstJob is where in the list of all jobs those of a file of conf.d begin.
	firstJob map[string]int
}

func newSource() *source {
	return &source{at: map[string]position{}, keys: map[string]position{}, broken: map[string]bool{}, firstJob: map[string]int{}}
}

// readFile reads one regular file of at most maxBytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would be waited for without end
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(text) > maxBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxBytes)
	}
	return text, nil
}

// parseSource reads YAML. With problems, what could be read is still there, so that the rest is checked too; only where the
// text is no YAML at all nothing is.
func parseSource(name string, text []byte) (*source, []Problem) {
	r := reader{source: newSource(), file: name, anchors: map[string]ast.Node{}, open: map[string]bool{}}
	body, err := r.tree(text)
	if err != nil {
		return r.source, r.problems
	}
	if v, ok := r.read(body, nil); ok {
		r.source.value = v
	}
	return r.source, r.problems
}

// reader turns a tree of YAML into plain values.
type reader struct {
	*source
	file     string
	anchors  map[string]ast.Node
	open     map[string]bool // aliases that are being followed
	values   int
	aliased  int
	full     bool
	problems []Problem
}

var errNoTree = errors.New("the text is no YAML")

// refuse tells a problem with the text as such.
func (r *reader) refuse(line, column int, message, hint string) error {
	r.problems = append(r.problems, position{r.file, line, column}.problem(codeSyntax, nil, message, hint))
	return errNoTree
}

// tree parses the text, after everything that could make the parser work or recurse without bound was refused.
func (r *reader) tree(text []byte) (body ast.Node, err error) {
	if line, column, ok := notText(text); ok {
		return nil, r.refuse(line, column, "a character that is no text", "save the file as UTF-8")
	}
	if line, column, ok := bottomless(text); ok {
		return nil, r.refuse(line, column, fmt.Sprintf("nested deeper than %d", maxDepth), "")
	}
	tokens, err := r.tokens(strings.TrimPrefix(string(text), "\ufeff"))
	if err != nil {
		return nil, err
	}
	file, err := parseTokens(tokens)
	if err != nil {
		line, column, message := 1, 1, err.Error()
		var wrong *yaml.SyntaxError
		if errors.As(err, &wrong) { // the whole error would print the lines around it, and a secret in them
			message = wrong.Message
			if wrong.Token != nil && wrong.Token.Position != nil {
				line, column = wrong.Token.Position.Line, wrong.Token.Position.Column
			}
		}
		return nil, r.refuse(line, column, "the file is no YAML: "+withoutValues(message), "")
	}
	var docs []*ast.DocumentNode
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType && d.Body.Type() != ast.DirectiveType {
			docs = append(docs, d)
		}
	}
	switch len(docs) {
	case 0:
		return nil, r.refuse(1, 1, "the configuration is empty", "stillframe config example prints one to begin with")
	case 1:
		return docs[0].Body, nil
	}
	at := r.place(docs[1].Body)
	return nil, r.refuse(at.line, at.column, "a second document begins here", "keep one document in a file, without --- between its parts")
}

// tokens splits the text, within the bounds.
func (r *reader) tokens(text string) (tokens token.Tokens, err error) {
	defer func() {
		if p := recover(); p != nil { // a fault of the library must not be one of the daemon
			err = r.refuse(1, 1, "the file cannot be read as YAML", "")
		}
	}()
	tokens = lexer.Tokenize(text)
	anchors, flow, chain, line := 0, 0, 0, 0
	for _, t := range tokens {
		first := t.Position.Line != line
		line = t.Position.Line
		switch t.Type {
		case token.AnchorType:
			if anchors++; anchors > maxAnchors {
				return nil, r.refuse(line, t.Position.Column, fmt.Sprintf("more than %d anchors", maxAnchors), "write the values out")
			}
		case token.TagType:
			return nil, r.refuse(line, t.Position.Column, "a tag is not used here", `quote a text that looks like something else, such as "0123"`)
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		default:
		}
		switch t.Type {
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType:
			chain++
		default:
			chain = 0
		}
		if flow > maxDepth || chain > maxDepth || first && t.Position.Column > maxColumn {
			return nil, r.refuse(line, t.Position.Column, fmt.Sprintf("nested deeper than %d", maxDepth), "")
		}
	}
	return tokens, nil
}

// parseTokens is the parser, without its panics. Keys that are there twice are refused by us, all of them at once; the parser
// would stop at the first.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("its structure cannot be understood")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// quoted finds what a message of the parser repeats of the file.
var quoted = regexp.MustCompile("\"[^\"]*\"|'[^']*'|`[^`]*`")

// withoutValues strikes out what may be a secret that stands where it should not.
func withoutValues(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	return quoted.ReplaceAllString(first, "…")
}

// maxRaw bounds what the text may open without closing, or repeat in a row, before it is given to the lexer, which takes long for
// such. Here quotes and comments are not understood yet, so it leaves room for what stands in them.
const maxRaw = 512

// bottomless finds the place from which a text nests without end.
func bottomless(text []byte) (line, column int, found bool) {
	open, marks := 0, 0
	line, column = 1, 0
	for i, c := range text {
		column++
		switch c {
		case '\n':
			line, column, marks = line+1, 0, 0
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		case '-', '?', '&', '!', '*':
			if i+1 == len(text) || text[i+1] == ' ' || c != '-' && c != '?' {
				marks++
			}
		}
		if open > maxRaw || marks > maxRaw {
			return line, column, true
		}
	}
	return 0, 0, false
}

// notText finds the first character that no YAML holds.
func notText(text []byte) (line, column int, found bool) {
	line, column = 1, 1
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		switch {
		case c == utf8.RuneError && size == 1, c < ' ' && c != '\n' && c != '\r' && c != '\t', c == 0x7f:
			return line, column, true
		case c == '\n':
			line, column = line+1, 0
		}
		text, column = text[size:], column+1
	}
	return 0, 0, false
}

// place is where a node begins: a mapping where its first key is.
func (r *reader) place(n ast.Node) position {
	at := position{r.file, 1, 1}
	t := n.GetToken()
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return r.place(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return r.place(n.Key)
	case *ast.SequenceNode:
		t = n.Start
	}
	if t != nil && t.Position != nil {
		at.line, at.column = t.Position.Line, t.Position.Column
	}
	return at
}

// wrong tells a problem with one value, which is then taken for absent.
func (r *reader) wrong(at position, path pointer, code, message, hint string) (any, bool) {
	r.problems = append(r.problems, at.problem(code, path, message, hint))
	r.broken[path.key()] = true
	return nil, false
}

// read turns a node into a plain value; false when it was refused.
func (r *reader) read(n ast.Node, path pointer) (any, bool) {
	at := r.place(n)
	if _, known := r.at[path.key()]; !known { // what an alias leads to is placed at the alias
		r.at[path.key()] = at
	}
	if over, first := r.count(); over {
		if first {
			return r.wrong(at, path, codeSyntax, fmt.Sprintf("the file has more than %d values, or more than %d behind aliases", maxValues, maxAliased), "")
		}
		return nil, false
	}
	if len(path) > maxDepth {
		return r.wrong(at, path[:maxDepth], codeSyntax, fmt.Sprintf("nested deeper than %d", maxDepth), "")
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return r.mapping(n.Values, path), true
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, path), true
	case *ast.SequenceNode:
		list := make([]any, 0, len(n.Values))
		for i, item := range n.Values {
			v, ok := r.read(item, path.index(i))
			if !ok {
				v = removed{}
			}
			list = append(list, v)
		}
		return list, true
	case *ast.AnchorNode:
		r.anchors[n.Name.String()] = n.Value
		return r.read(n.Value, path)
	case *ast.AliasNode:
		return r.alias(n, path)
	}
	return r.scalar(n, at, path)
}

// count counts one value, and says whether it is one too many, and the first such.
func (r *reader) count() (over, first bool) {
	r.values++
	if len(r.open) > 0 {
		r.aliased++
	}
	over = r.values > maxValues || r.aliased > maxAliased
	first = over && !r.full
	r.full = r.full || over
	return over, first
}

// removed stands in a list for an item that was refused, so that the others keep their places.
type removed struct{}

func (r *reader) scalar(n ast.Node, at position, path pointer) (any, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.IntegerNode:
		if !plainInteger.MatchString(n.Token.Value) {
			return r.wrong(at, path, codeValue, "is a number that YAML reads in its own way (octal, hexadecimal, or with _)", "put it into quotes if it is a name, or write it in plain digits")
		}
		return json.Number(n.Token.Value), true
	case *ast.FloatNode:
		if !plainFloat.MatchString(n.Token.Value) {
			return r.wrong(at, path, codeValue, "is a number that YAML reads in its own way", "put it into quotes if it is a name, or write it in plain digits")
		}
		return json.Number(n.Token.Value), true
	case *ast.NullNode:
		return r.wrong(at, path, codeValue, "has no value", "give one, or leave the key out")
	}
	return r.wrong(at, path, codeValue, "is not a value that is used here", "put it into quotes if it is a text")
}

var (
	plainInteger = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17})$`)
	plainFloat   = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}$`)
)

// mapping reads the pairs of one mapping. What is merged in with << gives way to what stands beside it.
func (r *reader) mapping(pairs []*ast.MappingValueNode, path pointer) map[string]any {
	m := make(map[string]any, len(pairs))
	var merges []*ast.MappingValueNode
	seen := map[string]position{}
	for _, pair := range pairs {
		if pair.Key == nil || pair.Value == nil {
			continue
		}
		if pair.Key.IsMergeKey() {
			merges = append(merges, pair)
			continue
		}
		name, at, ok := r.name(pair.Key, path)
		if !ok {
			continue
		}
		below := path.child(name)
		if first, twice := seen[name]; twice {
			r.problems = append(r.problems, at.problem(codeSyntax, below, fmt.Sprintf("is there twice, first in line %d", first.line), "keep one of them"))
			continue
		}
		seen[name] = at
		r.keys[below.key()] = at
		if v, ok := r.read(pair.Value, below); ok {
			m[name] = v
		}
	}
	for _, pair := range merges {
		r.merge(pair.Value, m, seen, path)
	}
	return m
}

// name reads a key. A number is no key of ours, and would be written in many ways.
func (r *reader) name(key ast.MapKeyNode, path pointer) (string, position, bool) {
	at := r.place(key)
	if s, ok := key.(*ast.StringNode); ok {
		return s.Value, at, true
	}
	r.problems = append(r.problems, at.problem(codeSyntax, path, "has a key that is no text", "put the key into quotes"))
	return "", at, false
}

// merge takes over what << leads to: one mapping, or a list of them of which the first goes first.
func (r *reader) merge(n ast.Node, into map[string]any, seen map[string]position, path pointer) {
	at, from := r.place(n), n
	switch n := n.(type) {
	case *ast.SequenceNode:
		for _, item := range n.Values {
			r.merge(item, into, seen, path)
		}
		return
	case *ast.AliasNode:
		name := n.Value.String()
		if from = r.anchors[name]; r.open[name] {
			from = nil
		}
		r.open[name] = true
		defer delete(r.open, name)
	}
	pairs, ok := from.(ast.MapNode)
	if !ok {
		r.problems = append(r.problems, at.problem(codeSyntax, path, "<< leads to no mapping", "let it name the anchor of a mapping that stands above"))
		return
	}
	for i := pairs.MapRange(); i.Next(); {
		if i.Key() == nil || i.Value() == nil {
			continue
		}
		if i.Key().IsMergeKey() {
			r.merge(i.Value(), into, seen, path)
			continue
		}
		name, written, ok := r.name(i.Key(), path)
		if _, have := seen[name]; !ok || have {
			continue
		}
		seen[name] = written
		below := path.child(name)
		r.keys[below.key()] = written
		if v, ok := r.read(i.Value(), below); ok {
			into[name] = v
		}
	}
}

// alias follows an alias to its anchor, which stands above it.
func (r *reader) alias(n *ast.AliasNode, path pointer) (any, bool) {
	name, at := n.Value.String(), r.place(n)
	target, ok := r.anchors[name]
	switch {
	case !ok:
		return r.wrong(at, path, codeSyntax, "is an alias of nothing that stands above", "")
	case r.open[name]:
		return r.wrong(at, path, codeSyntax, "is an alias of what it stands in", "")
	}
	r.open[name] = true
	defer delete(r.open, name)
	return r.read(target, path)
}
