package adminshare

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/stillframe/stillframe/pkg/guest"
)

// failure is an error of an SMB library in one form; the zero value of each field is "not that".
type failure struct {
	status  uint32 // the server's NTSTATUS
	broken  error  // the connection
	invalid string // an answer that the library refuses
	ended   error  // the context
}

// where is what was tried when something failed: the same answer means different things.
type where int

const (
	atDial where = iota
	atSession
	atMount
	atFile
)

// statusCodes are the codes of NTSTATUS values (MS-ERREF 2.3.1); a test holds them to the catalogue.
var statusCodes = map[uint32]string{
	0xC000006D: "SF3001", 0xC0000064: "SF3001", 0xC000006A: "SF3001",
	0xC0000072: "SF3002", 0xC0000234: "SF3003",
	0xC0000071: "SF3004", 0xC0000224: "SF3004", 0xC0000193: "SF3004",
	0xC000006E: "SF3005", 0xC000006F: "SF3005", 0xC0000070: "SF3005", 0xC000015B: "SF3005",
	0xC000005E: "SF3006", 0xC000018D: "SF3006", 0xC0000133: "SF3006",
	0xC0000418: "SF3007",
	0xC0000022: "SF3101", 0xC00000CC: "SF3301",
	0xC00000BB: "SF3302", 0xC000020D: "SF3302",
	0xC00000D0: "SF3305", 0xC0000205: "SF3305", 0xC00000AC: "SF3305", 0xC000035C: "SF3305", 0xC0000203: "SF3305",
	0xC000007F: "SF3306", 0xC0000043: "SF3307", 0xC0000056: "SF3307", 0xC00000C9: "SF3308", 0xC0000257: "SF3309",
	0xC00000B0: "SF3408", 0xC000014B: "SF3408",
	0xC00000B5: "SF3204", 0xC0000034: "SF3406", 0xC0000906: "SF3403",
}

// unsigned is what the libraries say of an answer without a good signature.
var unsigned = []string{"signing required", "packet failed signature verification"}

// explain gives an error of the libraries, or of the connection, its code. It matches types and numbers only, and the one
// text that the libraries have no type for.
func explain(at where, op string, t terms, err error) error {
	if err == nil {
		return nil
	}
	var known *guest.Error
	if errors.As(err, &known) {
		return err
	}
	code, text := diagnose(at, t, err)
	if text != "" {
		err = fmt.Errorf("%s: %w", text, err)
	}
	return &guest.Error{SF: code, Op: op, Err: err}
}

func diagnose(at where, t terms, err error) (code, text string) {
	f := read(err)
	timeout := errors.Is(f.ended, context.DeadlineExceeded) || isTimeout(err)
	switch {
	case at == atDial && errors.Is(err, syscall.ECONNREFUSED):
		return "SF3202", "nothing listens at that port, or a firewall rejects"
	case at == atDial:
		return "SF3201", ""
	case errors.Is(err, fs.ErrPermission):
		return forbidden(at)
	case errors.Is(err, fs.ErrNotExist):
		return "SF3406", ""
	case f.status != 0:
		if code, ok := statusCodes[f.status]; ok {
			return code, fmt.Sprintf("NTSTATUS 0x%08X", f.status)
		}
		return "SF3312", fmt.Sprintf("NTSTATUS 0x%08X", f.status)
	case slices.Contains(unsigned, f.invalid):
		return "SF3304", ""
	case f.invalid != "" && at == atSession:
		return refusedSession(f.invalid)
	case timeout:
		return "SF3204", ""
	case at == atSession && !t.negotiated && f.broken != nil:
		return "SF3302", "the server ended the connection at the negotiation"
	case f.broken != nil:
		return "SF3308", ""
	}
	return "SF3312", ""
}

// forbidden is a refusal: without any more words the server means something else at each place.
func forbidden(at where) (code, text string) {
	switch at {
	case atSession:
		return "SF3105", ""
	case atMount:
		return "SF3101", "the account may not use ADMIN$"
	default:
		return "SF3608", ""
	}
}

// refusedSession reads what the libraries refuse a session for. A guest's or anonymous session cannot sign.
func refusedSession(text string) (code, more string) {
	switch text {
	case "guest account doesn't support signing", "anonymous account doesn't support signing":
		return "SF3303", ""
	}
	return "SF3312", ""
}

// read brings an error of either library to one form.
func read(err error) failure {
	if f, ok := readHirochachacha(err); ok {
		return f
	}
	if f, ok := readCloudsoda(err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return failure{ended: err}
	}
	return failure{}
}

func isTimeout(err error) bool {
	var timed net.Error
	return os.IsTimeout(err) || errors.As(err, &timed) && timed.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
