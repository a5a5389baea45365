package winrm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Faults that are treated by where they come (wsmerror.h).
const (
	faultAccessDenied     = 5          // winerror.h
	faultOperationTimeout = 0x80338029 // no output within operationLimit
	faultNoShell          = 0x8033805B // the selectors of the request match nothing: the shell is gone
	faultShellClosed      = 0x8033814A
)

const (
	// codeTampered is for what no server of Windows sends.
	codeTampered = "SF3901"
	// codeFault is for a fault that has no code of its own.
	codeFault = "SF3513"
)

// codes are the faults that operators can do something about (wsmerror.h). A test holds them to the
// error catalogue.
var codes = map[uint32]string{
	0x80338012:       "SF3201",
	0x80338036:       "SF3001",
	0x8033803F:       "SF3502",
	0x80338048:       "SF3511",
	faultNoShell:     "SF3512",
	0x803380DE:       "SF3505",
	0x803380DF:       "SF3510",
	0x803380E1:       "SF3007",
	0x80338111:       "SF3511",
	0x80338112:       "SF3501",
	0x80338113:       "SF3501",
	0x80338126:       "SF3201",
	faultShellClosed: "SF3512",
	0x80338169:       "SF3203",
	0x803381A5:       "SF3502",
	0x803381A6:       "SF3502",
	0x803381A7:       "SF3502",
	0x803381A8:       "SF3502",
	0x803381AB:       "SF3502",
	0x803381AC:       "SF3504",
}

func codeOf(fault uint32) string {
	if code, ok := codes[fault]; ok {
		return code
	}
	return codeFault
}

// Fault is an error that the server itself reported, sealed.
type Fault struct {
	Detail struct {
		Code    string `xml:"Code,attr"`
		Message string `xml:"Message"`
	} `xml:"Detail>WSManFault"`
	Subcode string `xml:"Code>Subcode>Value"`
	Reason  string `xml:"Reason>Text"`
}

// textLimit bounds what an error repeats of a guest's text.
const textLimit = 300

// Error has the server's text for people to read; it is in the server's language, and nothing goes by it.
func (f *Fault) Error() string {
	text := strings.TrimSpace(f.Detail.Message)
	if text == "" {
		text = strings.TrimSpace(f.Reason)
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(text) > textLimit {
		text = strings.ToValidUTF8(text[:textLimit], "") + " ..."
	}
	return fmt.Sprintf("the server reports WSManFault %#x: %q", f.code(), text)
}

// code is the number of the fault, 0 when it has none.
func (f *Fault) code() uint32 {
	n, err := strconv.ParseUint(strings.TrimSpace(f.Detail.Code), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

func isFault(err error, code uint32) bool {
	var f *Fault
	return errors.As(err, &f) && f.code() == code
}
