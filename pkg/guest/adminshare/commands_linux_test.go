package adminshare

import (
	"bytes"
	"context"
	"io"
	"net"
	"os/exec"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	double "github.com/stillframe/stillframe/pkg/lab/winrm"
)

// outside are the connections of a WinRM that takes the logon of an account which may not use it: what comes sealed has 401.
type outside struct{ net.Listener }

func (o outside) Accept() (net.Conn, error) {
	conn, err := o.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return unauthorized{conn}, nil
}

type unauthorized struct{ net.Conn }

func (u unauthorized) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("multipart/encrypted")) {
		return u.Conn.Write(b)
	}
	_, err := io.WriteString(u.Conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
	return len(b), err
}

// TestWinRMRefusesTheAccount has WinRM do so at the logon, or at the first request behind it. Where the server of the share let
// the account in the password is good, and whoever guards the logons must not hear that it was refused; else he must.
func TestWinRMRefusesTheAccount(t *testing.T) {
	encrypted, closed, old := smb.Options{Kind: smb.Encrypted}, smb.Options{Kind: smb.Encrypted, Drive: "none"}, smb.Options{Kind: smb.Old}
	for name, c := range map[string]struct {
		share        smb.Options
		firstRequest bool
		heard        []string // the codes of both logons
	}{
		"let in, logon":                 {encrypted, false, []string{"", "SF3103"}},
		"let in, first request":         {encrypted, true, []string{"", "SF3103"}},
		"without ADMIN$, logon":         {closed, false, []string{"SF3301", "SF3103"}},
		"without ADMIN$, first request": {closed, true, []string{"SF3301", "SF3103"}},
		"not asked, logon":              {old, false, []string{"SF3302", "SF3001"}},
		"not asked, first request":      {old, true, []string{"SF3302", "SF3001"}},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, c.share)
			o := at(server, "Administrator")
			listener, err := net.Listen("tcp", net.JoinHostPort(o.Addresses[0], strconv.Itoa(WinRMPort)))
			if err != nil {
				t.Fatal(err)
			}
			known := "another"
			if c.firstRequest {
				listener, known = outside{listener}, o.Account.User
			}
			commands, err := double.Serve(t.Context(), double.Options{
				Listener: listener, Accounts: []double.Account{{Name: known, Password: password}},
				Start: func(ctx context.Context, _ string) *exec.Cmd { return exec.CommandContext(ctx, "/bin/true") },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := commands.Close(); err != nil {
					t.Error(err)
				}
			}()
			var heard []string
			o.Logon = func(_ context.Context, try func() error) error {
				err := try()
				heard = append(heard, guest.CodeOf(err))
				return err
			}
			seen := New(o).Examine(t.Context())
			if last := seen[len(seen)-1]; last.Step != StepWinRM || guest.CodeOf(last.Err) != c.heard[1] {
				t.Errorf("Examine = %+v at last, want %s of WinRM", last, c.heard[1])
			}
			if diff := cmp.Diff(c.heard, heard); diff != "" {
				t.Errorf("the logons came to (-want +got):\n%s", diff)
			}
			if n := commands.Logons(); n != 1 {
				t.Errorf("the account was tried %d times at WinRM, want once", n)
			}
		})
	}
}
