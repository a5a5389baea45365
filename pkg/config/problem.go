package config

import (
	"fmt"
	"strings"
)

// The codes of the error catalogue.
const (
	codeUnreadable = "SF1201"
	codeSyntax     = "SF1202"
	codeUnknownKey = "SF1203"
	codeValue      = "SF1204"
	codeMissing    = "SF1205"
	codeInline     = "SF1206"
	codeLattice    = "SF1207"
	codeReference  = "SF1209"
	codeConflict   = "SF1210"
	codeRisk       = "SF1211"
)

// Severity is what a problem does: an error refuses the configuration, a warning is only told.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one mistake in a configuration. It never holds the value of a key that takes a secret.
type Problem struct {
	// File is the file, or the environment variable or flag that the value came from; those have no line.
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Path is the key, such as jobs[0].schedule.cron; empty when the whole file is meant.
	Path     string   `json:"path"`
	Severity Severity `json:"severity"`
	SF       string   `json:"code"`
	Message  string   `json:"message"`
	// Hint is what to write instead, empty when the message says all.
	Hint string `json:"hint"`
}

// String is the problem in one line, as compilers write theirs.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File + ":")
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
	}
	b.WriteString(" ")
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String() + " (" + p.SF + ")"
}

// refused says whether one of the problems refuses the configuration.
func refused(all []Problem) bool {
	for _, p := range all {
		if p.Severity == Error {
			return true
		}
	}
	return false
}

// position is where a value came from: a place in a file, or a variable or flag without a line.
type position struct {
	file         string
	line, column int
}

func (at position) problem(code string, path pointer, message, hint string) Problem {
	return Problem{at.file, at.line, at.column, path.dotted(), Error, code, message, hint}
}
