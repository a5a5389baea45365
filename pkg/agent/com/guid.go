package com

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is laid out as the system's (guiddef.h).
type GUID struct {
	Data1        uint32
	Data2, Data3 uint16
	Data4        [8]byte
}

// ParseGUID reads 8-4-4-4-12 hex digits, in braces or bare, in any case.
func ParseGUID(s string) (GUID, error) {
	bare := s
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		bare = s[1 : len(s)-1]
	}
	var g GUID
	if len(bare) != 36 || bare[8] != '-' || bare[13] != '-' || bare[18] != '-' || bare[23] != '-' {
		return g, fmt.Errorf("%q is not a GUID", s)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(bare, "-", ""))
	if err != nil || len(b) != 16 {
		return g, fmt.Errorf("%q is not a GUID", s)
	}
	g.Data1 = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	g.Data2, g.Data3 = uint16(b[4])<<8|uint16(b[5]), uint16(b[6])<<8|uint16(b[7])
	copy(g.Data4[:], b[8:])
	return g, nil
}

// MustGUID is ParseGUID for constants of the source.
func MustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// String gives g in lower case without braces, as class ids travel in the protocol.
func (g GUID) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", g.Data1, g.Data2, g.Data3, g.Data4[:2], g.Data4[2:])
}

// Braced gives g as the registry spells it.
func (g GUID) Braced() string { return "{" + strings.ToUpper(g.String()) + "}" }
