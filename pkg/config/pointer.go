package config

import (
	"strconv"
	"strings"
)

// pointer is the way to a value: keys, and positions in lists as numbers.
type pointer []string

// key is the pointer as the key of a map. Keys of YAML hold no NUL: the reader refuses it.
func (p pointer) key() string { return strings.Join(p, "\x00") }

// child is the pointer to a value below; it never shares memory with p.
func (p pointer) child(name string) pointer {
	return append(append(make(pointer, 0, len(p)+1), p...), name)
}

func (p pointer) index(i int) pointer { return p.child(strconv.Itoa(i)) }

// at is one part, empty beyond the end.
func (p pointer) at(i int) string {
	if i >= len(p) {
		return ""
	}
	return p[i]
}

// dotted is the pointer for people: jobs[0].select.tags.
func (p pointer) dotted() string {
	var b strings.Builder
	for _, part := range p {
		switch _, err := strconv.Atoi(part); {
		case err == nil:
			b.WriteString("[" + part + "]")
		case b.Len() > 0:
			b.WriteString("." + part)
		default:
			b.WriteString(part)
		}
	}
	return b.String()
}

// lookup finds the value at p.
func lookup(v any, p pointer) (any, bool) {
	for _, part := range p {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}
