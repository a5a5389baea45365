// Package advice turns the code of a failure into what the operator should do.
package advice

import "strings"

// Finding is what an operator reads about one failure.
type Finding struct {
	Code  Code   `json:"code"`
	Title string `json:"title"`
	// Evidence is what this run saw, in the order it was given; it is never nil.
	Evidence []string `json:"evidence"`
	// Next are the steps to take, the most useful first; it is never nil.
	Next []string `json:"next"`
}

// Explain makes the finding of a code from the catalogue. Empty pieces of evidence are left out. A code that the
// catalogue does not have gives a finding that says so.
func Explain(code Code, evidence ...string) Finding {
	f := Finding{Code: code, Evidence: []string{}}
	for _, e := range evidence {
		if e = strings.TrimSpace(e); e != "" {
			f.Evidence = append(f.Evidence, e)
		}
	}
	entry, ok := Lookup(code)
	if !ok {
		f.Title = "a failure that the catalogue does not know"
		f.Next = []string{"read the evidence", "report the code and the evidence, so that it gets its page"}
		return f
	}
	f.Title = entry.Meaning
	f.Next = entry.Steps()
	return f
}

// Page is where a code is documented, relative to the root of the source tree.
func Page(code Code) string { return "docs/errors.md#" + strings.ToLower(string(code)) }
