package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/stillframe/stillframe/pkg/secret"
)

const (
	// removedMark stands where a secret stood.
	removedMark = "[removed]"
	// shortestSecret is the length in bytes below which a secret is not searched for: it would be found in anything. From
	// halvedSecret on its halves are searched for, too, because a text may have been cut.
	shortestSecret, halvedSecret = 4, 16
)

// removal says what was taken out of a file. Fields are only ever added.
type removal struct {
	File string `json:"file"`
	// By is value, when it was found as what a reference leads to, or name, when something is called a password.
	By string `json:"by"`
	// Of is the reference, or what names it.
	Of    string `json:"of"`
	Times int    `json:"times"`
}

// redactor takes secrets out of texts.
type redactor struct{ needles []needle }

// needle is one spelling of a secret.
type needle struct {
	of   string
	in   reading
	text []byte
}

// reading is how a text is read, so that what stands between the parts of a spelling does not matter.
type reading int

const (
	asIs     reading = iota
	unspaced         // for base64, which is broken into lines
	hexOnly          // the hexadecimal digits, without 0x, \x and \u00
	numbers          // the decimal numbers with one space around
)

// add has a secret taken out from now on, and says whether it is long enough for that.
func (r *redactor) add(of, value string) bool {
	if len(value) < shortestSecret {
		return false
	}
	texts := []string{value}
	for line := range strings.Lines(value) { // of a key
		if line = strings.TrimSpace(line); len(line) >= halvedSecret && line != value && !strings.HasPrefix(line, "-----") {
			texts = append(texts, line)
		}
	}
	for _, text := range texts {
		if middle := len(text) / 2; len(text) >= halvedSecret {
			texts = append(texts, text[:middle], text[middle:])
		}
	}
	for _, text := range texts {
		r.spell(of, []byte(text))
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			var wide []byte
			for _, unit := range utf16.Encode([]rune(text)) {
				wide = order.AppendUint16(wide, unit)
			}
			r.spell(of, wide)
		}
	}
	return true
}

// spell adds the ways in which programs write bytes.
func (r *redactor) spell(of string, b []byte) {
	raw := []string{string(b), fmt.Sprintf("%q", b), url.QueryEscape(string(b)), url.PathEscape(string(b))}
	for _, html := range []bool{true, false} {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(html)
		if e.Encode(string(b)) == nil {
			raw = append(raw, strings.TrimSpace(text.String()))
		}
	}
	for n, text := range raw {
		if n > 0 {
			text = strings.Trim(text, `"`)
		}
		r.needles = append(r.needles, needle{of, asIs, []byte(text)})
	}
	r.needles = append(r.needles,
		needle{of, hexOnly, []byte(hex.EncodeToString(b))},
		needle{of, numbers, []byte(" " + strings.Trim(fmt.Sprint(b), "[]") + " ")})
	for shift := range 3 { // base64 reads in three ways, by where it begins; what hangs on its neighbours is left out
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString(append(make([]byte, shift), b...))
			r.needles = append(r.needles, needle{of, unspaced, []byte(text[(shift*8+5)/6 : (shift+len(b))*8/6])})
		}
	}
}

// view is a text in one reading; at says where each of its bytes stands in the text, nil when that is where it stands in the view.
type view struct {
	text []byte
	at   []int32
}

func (v *view) put(b byte, at int) { v.text, v.at = append(v.text, b), append(v.at, int32(at)) }

// place is where a byte of the view stands in the text.
func (v *view) place(i int) int {
	if v.at == nil {
		return i
	}
	return int(v.at[i])
}

// viewOf reads a text of at most 2 GiB.
func viewOf(text []byte, in reading) view {
	if in == asIs {
		return view{text: text}
	}
	var v view
	number := false
	v.put(' ', 0)
	for i := 0; i < len(text); i++ {
		b := text[i]
		switch in { //nolint:exhaustive // asIs is above
		case unspaced:
			switch {
			case b == '\\' && i+1 < len(text) && strings.IndexByte("nrt", text[i+1]) >= 0: // white space in JSON
				i++
			case !bytes.ContainsRune([]byte(" \t\r\n"), rune(b)):
				v.put(b, i)
			}
		case hexOnly:
			lower := b | 0x20
			next := byte(0)
			if i+1 < len(text) {
				next = text[i+1] | 0x20
			}
			switch {
			case (b == '0' || b == '\\') && next == 'x':
				i++
			case b == '\\' && next == 'u' && bytes.HasPrefix(text[i+2:], []byte("00")):
				i += 3
			case '0' <= b && b <= '9':
				v.put(b, i)
			case 'a' <= lower && lower <= 'f':
				v.put(lower, i)
			}
		case numbers:
			digit := '0' <= b && b <= '9'
			if digit {
				v.put(b, i)
			} else if number {
				v.put(' ', i-1)
			}
			number = digit
		}
	}
	v.put(' ', max(len(text)-1, 0))
	return v
}

// span is a part of a text, with the reference to what stands there.
type span struct {
	from, to int
	of       string
}

// redact takes out what is known by value, then what is called a secret.
func (r *redactor) redact(file string, text []byte) ([]byte, []removal) {
	times := map[removal]int{}
	text = cutOut(text, r.find(text), func(of string) { times[removal{File: file, By: "value", Of: of}]++ })
	for _, rule := range nameRules {
		text = rule.pattern.ReplaceAllFunc(text, func(found []byte) []byte {
			parts := rule.pattern.FindSubmatch(found)
			value := string(parts[2])
			if _, err := secret.ParseRef(value); err == nil || strings.Contains(value, removedMark) {
				return found
			}
			times[removal{File: file, By: "name", Of: rule.of}]++
			return slices.Concat(parts[1], []byte(removedMark), parts[3])
		})
	}
	var all []removal
	for what, n := range times {
		what.Times = n
		all = append(all, what)
	}
	slices.SortFunc(all, func(a, b removal) int { return cmp.Compare(a.By+a.Of, b.By+b.Of) })
	return text, all
}

// find gives where spellings of secrets are, in order.
func (r *redactor) find(text []byte) []span {
	var all []span
	for in := asIs; in <= numbers; in++ {
		v := viewOf(text, in)
		for _, n := range r.needles {
			if n.in != in || len(n.text) == 0 {
				continue
			}
			for from := 0; ; {
				i := bytes.Index(v.text[from:], n.text)
				if i < 0 {
					break
				}
				first, last := from+i, from+i+len(n.text)-1
				from = last
				if in == numbers { // without the spaces
					first, last = first+1, last-1
				} else {
					from++
				}
				all = append(all, span{v.place(first), v.place(last) + 1, n.of})
			}
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
	return all
}

// cutOut replaces spans, those that touch each other by one mark.
func cutOut(text []byte, spans []span, tell func(of string)) []byte {
	if len(spans) == 0 {
		return text
	}
	var out []byte
	done := 0
	for n := 0; n < len(spans); {
		s := spans[n]
		for n++; n < len(spans) && spans[n].from <= s.to; n++ {
			s.to = max(s.to, spans[n].to)
		}
		tell(s.of)
		out = append(append(out, text[done:s.from]...), removedMark...)
		done = s.to
	}
	return append(out, text[done:]...)
}

// nameRule finds what is secret by its name or form: what is before it, it, and what is behind it.
type nameRule struct {
	of      string
	pattern *regexp.Regexp
}

const secretWords = `(?:password|passwd|passphrase|secret|token|authorization|cookie|api[_-]?key|private[_-]?key)`

var nameRules = []nameRule{
	{"private key", regexp.MustCompile(`()(-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----)()`)},
	{"private key", regexp.MustCompile(`()(AGE-SECRET-KEY-[0-9A-Z-]+)()`)},
	{"token", regexp.MustCompile(`()(sft_[A-Za-z0-9_-]{8,})()`)},
	{"authorization", regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)([A-Za-z0-9._~+/=-]{8,})()`)},
	{"account in an address", regexp.MustCompile(`(://[^/\s:@"]*:)([^@\s/"]+)(@)`)},
	{"key of that name", regexp.MustCompile(`(?i)("[a-z0-9_.\[\]-]*` + secretWords + `"\s*:\s*")((?:[^"\\]|\\.)+)(")`)},
	{"argument of that name", regexp.MustCompile(`(?i)("--?[a-z0-9_-]*` + secretWords + `"\s*,\s*")((?:[^"\\]|\\.)+)(")`)},
	{"text of that name", regexp.MustCompile(`(?i)(` + secretWords + `\s*[=:]\s*)([^\s"',;\\]+)()`)},
}
