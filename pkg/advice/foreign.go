package advice

import (
	"strconv"
	"strings"
	"sync"
)

// The domains of the catalogue that a Windows guest speaks in.
const (
	vssResult   = "vss_hresult"
	comResult   = "com_hresult"
	writerState = "vss_writer_state"
)

// Foreign is what another system's number means.
type Foreign struct {
	// Symbol is its name there; Code is ours, empty when the number is no failure.
	Symbol string
	Code   Code
	// Meaning and Phase are empty for a number that the catalogue does not have.
	Meaning, Phase string
}

// foreign indexes the rows of the catalogue by domain and number.
var foreign = sync.OnceValue(func() map[string]Foreign {
	index := map[string]Foreign{}
	for _, row := range rows() {
		index[row[0]+" "+strings.ToLower(row[1])] = Foreign{Symbol: row[2], Code: Code(row[3]), Meaning: row[5], Phase: row[6]}
	}
	return index
})

// HRESULT explains a result of VSS or COM, given in 8 hexadecimal digits. One that is not known has no Symbol.
func HRESULT(hr string) Foreign {
	for _, domain := range []string{vssResult, comResult} {
		if f, ok := foreign()[domain+" 0x"+strings.ToLower(hr)]; ok {
			return f
		}
	}
	return Foreign{}
}

// WriterState explains a state of a VSS writer (VSS_WRITER_STATE of vss.h).
func WriterState(state int) Foreign { return foreign()[writerState+" "+strconv.Itoa(state)] }
