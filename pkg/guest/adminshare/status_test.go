package adminshare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	cloudsodasmb "github.com/cloudsoda/go-smb2"
	hirochachachasmb "github.com/hirochachacha/go-smb2"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/guest"
)

// TestStatusCodes holds the table to the catalogue, in both directions.
func TestStatusCodes(t *testing.T) {
	listed := map[uint32]string{}
	for _, code := range advice.Codes() {
		e, _ := advice.Lookup(code)
		for _, c := range e.Causes {
			if c.Domain != "smb_ntstatus" {
				continue
			}
			status, err := strconv.ParseUint(c.Code, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			listed[uint32(status)] = string(code)
		}
	}
	for _, status := range slices.Sorted(maps.Keys(statusCodes)) {
		if listed[status] != statusCodes[status] {
			t.Errorf("0x%08X is %s here, in the catalogue %q", status, statusCodes[status], listed[status])
		}
		delete(listed, status)
	}
	for status, code := range listed {
		t.Errorf("0x%08X is %s in the catalogue, and not here", status, code)
	}
}

func TestDiagnose(t *testing.T) {
	spoke, silent := terms{negotiated: true}, terms{}
	wrap := func(err error) error { return &os.PathError{Op: "open", Path: "x", Err: err} }
	for name, c := range map[string]struct {
		at   where
		t    terms
		err  error
		code string
	}{
		"refused":                   {atDial, silent, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "SF3202"},
		"no route":                  {atDial, silent, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "SF3201"},
		"dial timeout":              {atDial, silent, context.DeadlineExceeded, "SF3201"},
		"SMB 1":                     {atSession, silent, &hirochachachasmb.TransportError{Err: io.EOF}, "SF3302"},
		"SMB 1, the other library":  {atSession, silent, &cloudsodasmb.TransportError{Err: io.EOF}, "SF3302"},
		"cut after the negotiation": {atSession, spoke, &hirochachachasmb.TransportError{Err: io.EOF}, "SF3308"},
		"cut":                       {atFile, spoke, wrap(&cloudsodasmb.TransportError{Err: io.EOF}), "SF3308"},
		"timeout without Unwrap":    {atFile, spoke, wrap(&hirochachachasmb.ContextError{Err: context.DeadlineExceeded}), "SF3204"},
		"timeout":                   {atFile, spoke, wrap(context.DeadlineExceeded), "SF3204"},
		"timeout of the connection": {atFile, spoke, wrap(os.ErrDeadlineExceeded), "SF3204"},
		"unsigned":                  {atFile, spoke, &hirochachachasmb.InvalidResponseError{Message: "signing required"}, "SF3304"},
		"a forged signature":        {atFile, spoke, &cloudsodasmb.InvalidResponseError{Message: "packet failed signature verification"}, "SF3304"},
		"a guest":                   {atSession, spoke, &hirochachachasmb.InvalidResponseError{Message: "guest account doesn't support signing"}, "SF3303"},
		"nobody":                    {atSession, spoke, &cloudsodasmb.InvalidResponseError{Message: "anonymous account doesn't support signing"}, "SF3303"},
		"nonsense at the logon":     {atSession, spoke, &cloudsodasmb.InvalidResponseError{Message: "broken"}, "SF3312"},
		"disk full":                 {atFile, spoke, wrap(&hirochachachasmb.ResponseError{Code: 0xC000007F}), "SF3306"},
		"an unknown number":         {atFile, spoke, wrap(&cloudsodasmb.ResponseError{Code: 0xC0001234}), "SF3312"},
		"denied at the logon":       {atSession, spoke, fs.ErrPermission, "SF3105"},
		"denied at ADMIN$":          {atMount, spoke, fs.ErrPermission, "SF3101"},
		"denied at a file":          {atFile, spoke, wrap(fs.ErrPermission), "SF3608"},
		"not there":                 {atFile, spoke, wrap(fs.ErrNotExist), "SF3406"},
		"of our own":                {atFile, spoke, fmt.Errorf("x: %w", &guest.Error{SF: "SF3801", Op: "y", Err: io.EOF}), "SF3801"},
		"anything":                  {atFile, spoke, errors.New("anything"), "SF3312"},
	} {
		t.Run(name, func(t *testing.T) {
			err := explain(c.at, "try it", c.t, c.err)
			if got := guest.CodeOf(err); got != c.code || !errors.Is(err, c.err) {
				t.Errorf("explain = %v with code %s, want %s around the cause", err, got, c.code)
			}
		})
	}
	if err := explain(atFile, "try it", spoke, nil); err != nil {
		t.Errorf("explain of nothing = %v", err)
	}
}
