package svcctl

import (
	"encoding/binary"
	"unicode/utf16"
)

// request reads the stub of a request in NDR. bad says that there was less than the call needs.
type request struct {
	rest []byte
	at   int
	bad  bool
}

func (r *request) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return make([]byte, max(0, min(n, 1<<16)))
	}
	out := r.rest[:n]
	r.rest, r.at = r.rest[n:], r.at+n
	return out
}

func (r *request) number() uint32 {
	r.take(-r.at & 3)
	return binary.LittleEndian.Uint32(r.take(4))
}

func (r *request) handle() (h handle) {
	r.take(-r.at & 3)
	copy(h[:], r.take(len(h)))
	return h
}

// text is a conformant and varying string.
func (r *request) text() string {
	most, offset, count := r.number(), r.number(), r.number()
	if offset != 0 || count > most || int(count)*2 > len(r.rest) {
		r.bad = true
		return ""
	}
	raw := r.take(2 * int(count))
	units := make([]uint16, 0, count)
	for ; len(raw) >= 2; raw = raw[2:] {
		units = append(units, binary.LittleEndian.Uint16(raw))
	}
	if len(units) == 0 || units[len(units)-1] != 0 {
		r.bad = true
		return ""
	}
	return string(utf16.Decode(units[:len(units)-1]))
}

// pointedText is a string behind a pointer; empty where the pointer is null.
func (r *request) pointedText() string {
	if r.number() == 0 {
		return ""
	}
	return r.text()
}

// pointedBytes is an array of bytes behind a pointer.
func (r *request) pointedBytes() {
	if r.number() != 0 {
		r.take(int(r.number()))
	}
}

// stub is the body of a response in NDR.
type stub []byte

func (s stub) pad() stub {
	for len(s)%4 != 0 {
		s = append(s, 0)
	}
	return s
}

func (s stub) number(all ...uint32) stub {
	s = s.pad()
	for _, n := range all {
		s = binary.LittleEndian.AppendUint32(s, n)
	}
	return s
}

func (s stub) handle(h handle) stub { return append(s.pad(), h[:]...) }

// bytes is a conformant array of size bytes, of which b are the first.
func (s stub) bytes(b []byte, size int) stub {
	s = append(s.number(uint32(size)), b...)
	return append(s, make([]byte, size-len(b))...)
}

func (s stub) text(t string) stub {
	units := utf16.Encode([]rune(t + "\x00"))
	return append(s.number(uint32(len(units)), 0, uint32(len(units))), wide(t)...)
}

// wide is a string in UTF-16 with its NUL.
func wide(t string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(t + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}
