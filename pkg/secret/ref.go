package secret

import (
	"path/filepath"
	"regexp"
	"strings"
)

// The kinds of references.
const (
	kindCred  = "cred"
	kindFile  = "file"
	kindEnv   = "env"
	kindStore = "store"
)

// grammar is what may follow the kind. A credential is a file of one folder, a secret of the store the beginning of a file's
// name: neither has a slash or begins with a dot.
var grammar = map[string]*regexp.Regexp{
	kindCred:  regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}$`),
	kindFile:  regexp.MustCompile(`^/[^\x00-\x1f\x7f]+$`),
	kindEnv:   regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`),
	kindStore: regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`),
}

// Ref says where a secret is. The zero Ref says nowhere.
type Ref struct{ kind, name string }

// ParseRef reads cred:NAME, file:/path, env:NAME or store:NAME. The error never repeats the text: who writes the secret itself
// where its reference belongs must not find it in a log.
func ParseRef(text string) (Ref, error) {
	const op = "read a reference to a secret"
	kind, name, found := strings.Cut(text, ":")
	rule, known := grammar[kind]
	if !found || !known {
		return Ref{}, because(codeReference, op, "it is none of cred:NAME, file:/path, env:NAME and store:NAME; the secret itself is taken nowhere")
	}
	if !rule.MatchString(name) {
		return Ref{}, because(codeReference, op, "what follows %s: must match %s", kind, rule)
	}
	if kind == kindFile {
		name = filepath.Clean(name)
	}
	if name == "/" {
		return Ref{}, because(codeReference, op, "it names no file")
	}
	return Ref{kind, name}, nil
}

// InStore is the reference to a secret of the store.
func InStore(name string) (Ref, error) { return ParseRef(kindStore + ":" + name) }

// IsZero says whether the reference says nowhere.
func (r Ref) IsZero() bool { return r == Ref{} }

// String gives the reference as it is written. It is not secret.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return r.kind + ":" + r.name
}
