package main

import (
	"encoding/binary"
	"slices"
	"testing"
)

// smbiosTable makes a RawSMBIOSData of a BIOS structure with two strings and of a system structure with uuid.
func smbiosTable(uuid []byte) []byte {
	bios := append([]byte{0, 6, 0, 0, 1, 2}, "Phoenix\x006.00\x00\x00"...)
	system := append([]byte{1, 27, 1, 0, 1, 2, 0, 0}, uuid...)
	system = append(system, 6, 0, 0) // wake-up type, SKU, family
	system = append(system, "VMware, Inc.\x00\x00"...)
	table := slices.Concat(bios, system, []byte{127, 4, 2, 0, 0, 0})
	raw := []byte{0, 2, 7, 0, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(raw[4:], uint32(len(table)))
	return append(raw, table...)
}

func TestSystemUUID(t *testing.T) {
	uuid := []byte{0x01, 0x00, 0x4d, 0x56, 0x02, 0x00, 0x03, 0x00, 0x00, 0x04, 0x00, 0x05, 0x00, 0x06, 0x00, 0x07}
	raw := smbiosTable(uuid)
	got, err := systemUUID(raw)
	if want := "564d0001-0002-0003-0004-000500060007"; got != want || err != nil {
		t.Errorf("systemUUID = %q, %v, want %q", got, err, want)
	}
	for n := range raw[:len(raw)-30] { // nothing that is cut short may be read past its end
		if got, err := systemUUID(raw[:n]); err == nil && got != "564d0001-0002-0003-0004-000500060007" {
			t.Errorf("systemUUID of %d bytes = %q", n, got)
		}
	}
	for _, unset := range []byte{0, 0xff} {
		if got, err := systemUUID(smbiosTable(slices.Repeat([]byte{unset}, 16))); err == nil {
			t.Errorf("systemUUID of an unset uuid = %q", got)
		}
	}
}

func FuzzSystemUUID(f *testing.F) {
	f.Add(smbiosTable(slices.Repeat([]byte{7}, 16)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := systemUUID(raw); err == nil && len(got) != 36 {
			t.Errorf("systemUUID = %q", got)
		}
	})
}
