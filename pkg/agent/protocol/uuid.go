package protocol

import "strings"

// SameUUID compares two uuids of a VM, also when one has its first three fields in the other byte order, as SMBIOS and
// vSphere do (DMTF DSP0134, 7.2.1). An empty uuid equals nothing.
func SameUUID(a, b string) bool {
	a, b = bare(a), bare(b)
	if len(a) != 32 || len(b) != 32 {
		return false
	}
	return a == b || swapped(a) == b
}

func bare(s string) string { return strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), "-", "")) }

// swapped reverses the bytes of the first three fields of 32 hex digits.
func swapped(s string) string {
	return s[6:8] + s[4:6] + s[2:4] + s[0:2] + s[10:12] + s[8:10] + s[14:16] + s[12:14] + s[16:]
}
