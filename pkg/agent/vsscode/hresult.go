// Package vsscode names what VSS and COM answer: results, writer states, writers and the numbers of their headers.
package vsscode

import "fmt"

// HRESULT is a result of COM. It is unsigned, because a result sign-extended to a register compares with nothing.
type HRESULT uint32

// Failed says whether h is an error.
func (h HRESULT) Failed() bool { return h&0x80000000 != 0 }

// Hex gives h as the 8 lower-case hex digits of the protocol.
func (h HRESULT) Hex() string { return fmt.Sprintf("%08x", uint32(h)) }

// Name gives the symbol of the header that defines h, or "" for a result that is not known here.
func (h HRESULT) Name() string { return known[h].name }

// Code gives the code of the error catalogue, or "" when the catalogue has none for h.
func (h HRESULT) Code() string { return known[h].code }

// Retry says how a run that met h goes on.
func (h HRESULT) Retry() Retry { return known[h].retry }

// Error makes an HRESULT an error that errors.Is finds.
func (h HRESULT) Error() string {
	if name := h.Name(); name != "" {
		return name + " 0x" + h.Hex()
	}
	return "HRESULT 0x" + h.Hex()
}

// Err gives h as an error when it is one, else nil.
func (h HRESULT) Err() error {
	if h.Failed() {
		return h
	}
	return nil
}

// Retry is how a run goes on after a result.
type Retry uint8

// The classes. A retry is always a whole new session.
const (
	// Unlisted results are not repeated by themselves.
	Unlisted Retry = iota
	// RetryTimed waits 10 minutes, at most 3 times (Microsoft's policy for writers that ran out of time).
	RetryTimed
	// RetryBusy waits 30 to 60 s, at most 5 times: another requestor is at work.
	RetryBusy
	// Stop does not loop.
	Stop
	// ChangeFirst repeats at once, after what was asked for was changed.
	ChangeFirst
	// RetryOnce repeats once, after 2 minutes.
	RetryOnce
	// Operator waits until a person has changed something.
	Operator
	// Information is no failure of the run.
	Information
)
