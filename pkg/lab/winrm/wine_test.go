package winrm_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest/adminshare/winrm"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/judge"
	"github.com/stillframe/stillframe/pkg/lab/wine"
	double "github.com/stillframe/stillframe/pkg/lab/winrm"
)

// TestWine: with Wine behind the double, the product's client and the judge find the same Windows.
func TestWine(t *testing.T) {
	lab.Need(t, lab.Wine, lab.Mingw, lab.PythonWinRM)
	prefix, err := wine.Open(t.Context(), wine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := prefix.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := double.Serve(t.Context(), double.Options{
		Address: "127.0.0.1:0", Accounts: []double.Account{{Name: "Administrator", Password: password}},
		Start: func(ctx context.Context, line string) *exec.Cmd { return prefix.Command(ctx, "cmd.exe", "/c", line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := winrm.Open(t.Context(), winrm.Options{Address: s.Address(), User: "Administrator", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	tests := []struct {
		command  string
		args     []string
		stdin    string
		contains string
		status   int
	}{
		{"ver", nil, "", "6.1.7601", 0},
		{"hostname", nil, "", "\r\n", 0},
		{"exit", []string{"7"}, "", "", 7},
		{"cmd", []string{"/q"}, "echo fingerprint 0123\r\nexit\r\n", "fingerprint 0123\r\n", 0},
	}
	for _, tt := range tests {
		t.Run(tt.command, func(t *testing.T) {
			got, err := c.Run(t.Context(), tt.command, tt.args, []byte(tt.stdin))
			if err != nil || got.Exit != tt.status || !strings.Contains(string(got.Stdout), tt.contains) {
				t.Fatalf("Run() = %d, %q, %q, %v, want %d and %q", got.Exit, got.Stdout, got.Stderr, err, tt.status, tt.contains)
			}
			if tt.stdin != "" {
				return // the judge gives none
			}
			_, judged, err := judge.WinRM(t.Context(), judge.WinRMCommand{
				Endpoint: "http://" + s.Address() + "/wsman", User: "Administrator", Password: password, Encryption: "always", Command: tt.command, Args: tt.args,
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(judge.WinRMResult{Status: got.Exit, Stdout: string(got.Stdout), Stderr: string(got.Stderr)}, judged); diff != "" {
				t.Errorf("client minus judge: %s", diff)
			}
		})
	}
	// A service that a command starts is not the shell's: it lives on when that is deleted.
	if got, err := c.Run(t.Context(), "sc", []string{"start", "Spooler"}, nil); err != nil || got.Exit != 0 {
		t.Fatalf("sc start = %d, %q, %v", got.Exit, got.Stdout, err)
	}
	if got, err := c.Run(t.Context(), "sc", []string{"query", "Spooler"}, nil); err != nil || !strings.Contains(string(got.Stdout), "RUNNING") {
		t.Errorf("sc query = %d, %q, %v, want a running service", got.Exit, got.Stdout, err)
	}
}
