// Package guest opens one session with one guest's agent.
package guest

import (
	"errors"
	"fmt"
)

// Error is what an operator can meet on the way into a guest.
type Error struct {
	// SF is the code of the error catalogue.
	SF string
	// Op is what was tried, as a verb phrase.
	Op  string
	Err error
	// gone is true when nobody is there who could answer.
	gone bool
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

// Gone says whether nobody is there who could answer.
func (e *Error) Gone() bool { return e.gone }

// CodeOf finds the code that an error carries, empty when it carries none.
func CodeOf(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}
