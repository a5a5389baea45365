package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/stillframe/stillframe/pkg/advice"
)

// explain prints an error as what, why and what to try.
func explain(w io.Writer, err error) {
	code := codeOf(err)
	entry, known := advice.Lookup(advice.Code(code))
	text := err.Error()
	if !known {
		say(w, "error: "+text)
		return
	}
	first, rest, _ := strings.Cut(text, "\n")
	say(w, fmt.Sprintf("error: %s (%s)", first, code))
	for line := range strings.SplitSeq(rest, "\n") {
		if line != "" {
			say(w, "       "+line)
		}
	}
	say(w, "  why: "+entry.Meaning)
	for _, step := range entry.Steps() {
		say(w, "  try: "+step)
	}
	say(w, "  see: "+advice.Page(advice.Code(code)))
}

// say prints a line to people. Text that came from a guest or from vCenter loses its control characters; an error of
// standard error itself has nobody left to be told to.
func say(w io.Writer, line string) {
	if _, err := io.WriteString(w, printable(line)+"\n"); err != nil {
		return
	}
}

// printable replaces control characters, which could steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return '\uFFFD'
		}
		return r
	}, s)
}
