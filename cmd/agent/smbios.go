package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// errNoUUID says that the firmware does not tell the machine's uuid.
var errNoUUID = errors.New("the firmware's tables hold no uuid of the system")

// The layout of a RawSMBIOSData (Microsoft Learn, GetSystemFirmwareTable) and of a structure in it (DMTF DSP0134, 6.1
// and 7.2): type and length of the formatted part, a byte each, a handle of two, then the strings up to two zeros.
const (
	smbiosHeader    = 8
	smbiosSystem    = 1
	smbiosEnd       = 127
	smbiosUUIDAt    = 8
	smbiosUUIDBytes = 16
)

// systemUUID reads the uuid of the system (type 1) from the raw table 'RSMB', in lower case. Its first three fields are
// little-endian (DSP0134, 7.2.1).
func systemUUID(raw []byte) (string, error) {
	if len(raw) < smbiosHeader {
		return "", errNoUUID
	}
	table := raw[smbiosHeader:]
	table = table[:min(uint64(len(table)), uint64(binary.LittleEndian.Uint32(raw[4:])))]
	for len(table) >= 4 {
		kind, length := table[0], int(table[1])
		if length < 4 || length > len(table) || kind == smbiosEnd {
			return "", errNoUUID
		}
		if kind == smbiosSystem && length >= smbiosUUIDAt+smbiosUUIDBytes {
			return formatUUID(table[smbiosUUIDAt : smbiosUUIDAt+smbiosUUIDBytes])
		}
		end := bytes.Index(table[length:], []byte{0, 0})
		if end < 0 {
			return "", errNoUUID
		}
		table = table[length+end+2:]
	}
	return "", errNoUUID
}

func formatUUID(b []byte) (string, error) {
	if all(b, 0) || all(b, 0xff) { // not present, and not set yet
		return "", errNoUUID
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:]), nil
}

func all(b []byte, value byte) bool { return bytes.Count(b, []byte{value}) == len(b) }
