package main

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// account answers guest operations with codes.
type account struct {
	guestops.Operations
	logon string // the code of a logon, empty when it is accepted
	tried int
}

func (a *account) Validate(context.Context) error {
	if a.tried++; a.logon != "" {
		return &guest.Error{SF: a.logon}
	}
	return nil
}

func (*account) Fetch(context.Context, string, int64) ([]byte, error) {
	return nil, &guest.Error{SF: "SF3001"}
}

// TestLogon remembers a refused logon, and nothing else that has the same code.
func TestLogon(t *testing.T) {
	store, err := statefile.Open(filepath.Join(t.TempDir(), "state"), statefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ops := &account{}
	l := logon{ops, store, "root of VM 1", url.UserPassword("root", "secret")}
	try := func(want string, tried int) {
		t.Helper()
		if err := l.Validate(t.Context()); guest.CodeOf(err) != want || ops.tried != tried {
			t.Errorf("logon number %d = %v, want %q after %d", ops.tried, err, want, tried)
		}
	}
	try("", 1)
	if _, err := l.Fetch(t.Context(), "ready", 1); guest.CodeOf(err) != "SF3001" {
		t.Errorf("Fetch = %v, want SF3001", err)
	}
	try("", 2)
	ops.logon = "SF3001"
	try("SF3001", 3)
	try("SF1104", 3)
}
