// Package audit keeps the hash-chained record of who changed what.
//
// The record is one file of JSON lines that is only ever appended to. Each line carries the SHA-256 of the line before,
// so that an entry cannot be changed, taken out or put in without breaking the chain at that place; only the end needs an
// anchor outside, which is the hash of the last line (Log.Head), printed in reports. An entry never holds a secret: the
// callers name objects, they do not quote what was sent to them.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Result is how far a change has come. Each change has two entries: Intended before it is made, Done or Failed after.
type Result string

// The results. Refused is a change that was not begun.
const (
	Intended Result = "intended"
	Done     Result = "done"
	Failed   Result = "failed"
	Refused  Result = "refused"
)

// torn is the What of the entry that Log itself writes when it finds that a crash cut off what was written last.
const torn = "audit:torn"

// origin is the Former of the first entry.
var origin = strings.Repeat("0", 2*sha256.Size)

// Limits of one entry; longer texts are cut, so that a line always fits into maxLine.
const (
	maxName   = 256
	maxReason = 1024
	maxLine   = 16 << 10
)

// Event is what callers record.
type Event struct {
	// Who acted: the user of a peer or the name of a token. Where it came from: an address or the socket's peer process.
	Who   string `json:"who"`
	Where string `json:"where"`
	// What was done, such as jobs:pause, and to which object: a name or id that we gave or know, never what was sent.
	What   string `json:"what"`
	Object string `json:"object"`
	Result Result `json:"result"`
	Reason string `json:"reason"`
}

// Entry is one line of the record.
type Entry struct {
	// Number counts the lines of the file from 1.
	Number uint64    `json:"number"`
	At     time.Time `json:"at"`
	Event
	// Former is the SHA-256 of the line before, without its line end, in hexadecimal digits.
	Former string `json:"former"`
}

// Error is why the record cannot be written or does not hold.
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

// ErrUnwritable says that an event could not be recorded durably. What it was about must then not be done, unless it
// releases a guest.
var ErrUnwritable = errors.New("the audit log cannot be written")

func unwritable(file string, err error) error {
	return &Error{SF: "SF1701", Op: "record in " + file, Err: errors.Join(ErrUnwritable, err)}
}

// line is the entry as it stands in the file, without line end.
func (e Entry) line() ([]byte, error) {
	e.Who, e.Where, e.What, e.Object = cut(e.Who, maxName), cut(e.Where, maxName), cut(e.What, maxName), cut(e.Object, maxName)
	e.Reason = cut(e.Reason, maxReason)
	return json.Marshal(e)
}

// cut bounds a text by bytes; a character that is cut in two becomes the sign for an unknown one.
func cut(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// parse reads a line of the file.
func parse(line []byte) (Entry, bool) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil || e.Number == 0 || e.What == "" || len(e.Former) != len(origin) {
		return Entry{}, false
	}
	return e, true
}

func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// span names the lines that a torn mark is about.
func span(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("line %d", from)
	}
	return fmt.Sprintf("lines %d-%d", from, to)
}
