package svcctl

import (
	"encoding/binary"
	"unicode/utf16"
)

// stub is the body of a request in NDR (C706 chapter 14), of which calls need handles, numbers and strings. What they need
// is a multiple of 4 bytes but for the strings, which are padded behind.
type stub []byte

func (s stub) handle(h handle) stub { return append(s, h[:]...) }

func (s stub) number(n uint32) stub { return binary.LittleEndian.AppendUint32(s, n) }

// null is a pointer to nothing.
func (s stub) null() stub { return s.number(0) }

// pointer is a pointer to what is written next; any number but 0 does.
func (s stub) pointer() stub { return s.number(0x20000) }

// text is a conformant and varying string with its NUL.
func (s stub) text(t string) stub {
	units := utf16.Encode([]rune(t + "\x00"))
	s = s.number(uint32(len(units))).number(0).number(uint32(len(units)))
	for _, u := range units {
		s = binary.LittleEndian.AppendUint16(s, u)
	}
	for len(s)%4 != 0 {
		s = append(s, 0)
	}
	return s
}

// reply reads the stub of a response. What is missing makes it short, for the caller to look at in the end; the values are
// zero from there on.
type reply struct {
	calls *association
	op    string
	rest  []byte
	at    int
	short bool
}

func (r *reply) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	out := r.rest[:n]
	r.rest, r.at = r.rest[n:], r.at+n
	return out
}

func (r *reply) align() { r.take(-r.at & 3) }

func (r *reply) number() uint32 {
	r.align()
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reply) handle() (h handle) {
	r.align()
	copy(h[:], r.take(len(h)))
	return h
}

// bytes is a conformant array of bytes.
func (r *reply) bytes() []byte { return r.take(int(r.number())) }

// text is a conformant and varying string, without its NUL.
func (r *reply) text() string {
	r.number() // what there would be room for
	offset, count := r.number(), r.number()
	if offset != 0 || count > replyLimit {
		r.take(-1)
		return ""
	}
	return text(r.take(2 * int(count)))
}

// text decodes UTF-16 up to its NUL.
func text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// end reads the last number of each response, what Windows says of the call, and gives the error that there is.
func (r *reply) end() error {
	code := r.number()
	if r.short || len(r.rest) != 0 {
		return r.calls.violation(r.op, "a reply that is not of this call's form")
	}
	if code != 0 {
		return &Error{Op: r.op, Win32: code}
	}
	return nil
}
