package secret

import "fmt"

// The codes of the error catalogue.
const (
	codeReference = "SF1501"
	codeMissing   = "SF1502"
	codeExposed   = "SF1503"
	codeUnusable  = "SF1504"
	codeKey       = "SF1505"
	codeDamaged   = "SF1506"
	codeExists    = "SF1507"
	codeStore     = "SF1508"
	codeBusy      = "SF1509"
)

// Error is why a secret cannot be had. It never holds the secret, nor a text that may be one.
type Error struct {
	// SF is the code of the error catalogue.
	SF string
	// Op is what was tried, as a verb phrase.
	Op  string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

func because(code, op, format string, a ...any) error {
	return &Error{code, op, fmt.Errorf(format, a...)}
}
