// Package secret finds passwords by reference and holds them so that nothing prints one.
//
// A reference says where a secret is, never what it is: cred:NAME, file:/path, env:NAME, store:NAME. It is read each time it
// is used, so that a rotated secret needs no reload.
package secret

import (
	"bytes"
	"fmt"
	"io"

	"go.uber.org/zap/zapcore"
)

// redacted is all that any printer ever gets.
const redacted = "[redacted]"

// Value is one secret. It lies behind a closure, because package fmt calls no method of what sits in an unexported field and
// would print its bytes from there; of a function it knows an address only. The zero Value is empty.
type Value struct{ get func() []byte }

// New makes a Value of a copy of plain, so that the caller may clear its own.
func New(plain []byte) Value {
	own := bytes.Clone(plain)
	return Value{func() []byte { return own }}
}

// Read reads a secret to the end of what carries it, and cuts one newline. The error is an *Error.
func Read(r io.Reader) (Value, error) {
	const op = "read a secret"
	content, err := io.ReadAll(io.LimitReader(r, maxFile))
	defer func() { clear(content) }()
	if err != nil {
		return Value{}, &Error{codeUnusable, op, err}
	}
	plain, err := trim(op, content)
	if err != nil {
		return Value{}, err
	}
	return New(plain), nil
}

// Reveal gives the secret itself: call it where it is handed to what needs it, and keep it nowhere.
func (v Value) Reveal() string { return string(v.bytes()) }

func (v Value) bytes() []byte {
	if v.get == nil {
		return nil
	}
	return v.get()
}

// Format prints the redaction for every verb.
func (Value) Format(f fmt.State, _ rune) {
	if _, err := io.WriteString(f, redacted); err != nil {
		return // package fmt writes into memory and hears of no error
	}
}

// MarshalText gives the redaction, to YAML and others too.
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON gives the redaction as a string.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalLogObject logs the redaction.
func (Value) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("secret", redacted)
	return nil
}
