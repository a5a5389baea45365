package smb_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/judge"
	"github.com/stillframe/stillframe/pkg/lab/smb"
)

const password = "Lab.Password-1"

// start makes a server with shares for the options, and looks after the test whether all of it has gone.
func start(t *testing.T, o smb.Options) *smb.Server {
	t.Helper()
	lab.Need(t, lab.Smbd, lab.Smbclient)
	dir, err := os.MkdirTemp("", "smb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	o.Dir = dir
	if o.Accounts == nil {
		o.Accounts = []smb.Account{{Name: "Administrator", Password: password}}
	}
	s, err := smb.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := s.Processes(); err != nil || len(left) > 0 {
			t.Errorf("after Close there are %v, %v", left, err)
		}
	})
	return s
}

func share(t *testing.T, login judge.Login, share, folder, commands string) judge.Verdict {
	t.Helper()
	v, err := judge.Share(t.Context(), login, share, folder, commands)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestKinds has all kinds run at once, and smbclient transfer a file to and from each.
func TestKinds(t *testing.T) {
	kinds := []smb.Kind{smb.Encrypted, smb.Signing, smb.Old}
	servers, windows := map[smb.Kind]*smb.Server{}, map[smb.Kind]string{}
	for _, kind := range kinds {
		windows[kind] = t.TempDir()
		servers[kind] = start(t, smb.Options{Kind: kind, Windows: windows[kind], Drive: t.TempDir()})
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			login := judge.Login{Address: servers[kind].Address(), Account: "Administrator", Password: password, Old: kind == smb.Old}
			folder, text := t.TempDir(), strings.Repeat(string(kind), 100_000)
			if err := os.WriteFile(filepath.Join(folder, "up"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if v := share(t, login, "ADMIN$", folder, "mkdir Stillframe; cd Stillframe; put up; ls; get up down"); !v.OK || !strings.Contains(v.Output, " up ") {
				t.Fatalf("%+v", v)
			}
			for _, path := range []string{filepath.Join(folder, "down"), filepath.Join(windows[kind], "Stillframe", "up")} {
				if got, err := os.ReadFile(path); err != nil || string(got) != text {
					t.Errorf("%s has %d bytes, %v, want %d", path, len(got), err, len(text))
				}
			}
			if v := share(t, login, "C$", folder, "ls"); !v.OK {
				t.Errorf("%+v", v)
			}
		})
	}
	t.Run("SMB 1 alone is refused", func(t *testing.T) {
		v := share(t, judge.Login{Address: servers[smb.Old].Address(), Account: "Administrator", Password: password}, "ADMIN$", ".", "ls")
		if v.OK || !strings.Contains(v.Output, "protocol negotiation failed") {
			t.Errorf("%+v", v)
		}
	})
}

func TestAccounts(t *testing.T) {
	s := start(t, smb.Options{Kind: smb.Signing, Windows: t.TempDir(), Accounts: []smb.Account{
		{Name: "Administrator", Password: password},
		{Name: "backup operator", Password: password},
		{Name: "user", Password: password, Ordinary: true},
		{Name: "off", Password: password, State: smb.Disabled},
		{Name: "locked", Password: password, State: smb.Locked},
		{Name: "past", Password: password, State: smb.Expired},
		{Name: "old password", Password: password, State: smb.PasswordExpired},
	}})
	for _, tc := range []struct{ name, account, password, share, want string }{
		{"administrator", "Administrator", password, "ADMIN$", ""},
		{"of a domain", "backup operator", password, "ADMIN$", ""},
		{"wrong password", "Administrator", "wrong", "ADMIN$", "NT_STATUS_LOGON_FAILURE"},
		{"unknown", "nobody here", password, "ADMIN$", "NT_STATUS_LOGON_FAILURE"},
		{"no administrator", "user", password, "ADMIN$", "tree connect failed: NT_STATUS_ACCESS_DENIED"},
		{"no administrator, other share", "user", password, "IPC$", ""},
		{"disabled", "off", password, "ADMIN$", "NT_STATUS_ACCOUNT_DISABLED"},
		{"locked", "locked", password, "ADMIN$", "NT_STATUS_ACCOUNT_LOCKED_OUT"},
		{"expired", "past", password, "ADMIN$", "NT_STATUS_ACCOUNT_EXPIRED"},
		{"password expired", "old password", password, "ADMIN$", "NT_STATUS_PASSWORD_MUST_CHANGE"},
		{"share missing", "Administrator", password, "C$", "tree connect failed: NT_STATUS_BAD_NETWORK_NAME"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := share(t, judge.Login{Address: s.Address(), Account: tc.account, Password: tc.password}, tc.share, ".", "pwd")
			if v.OK != (tc.want == "") || !strings.Contains(v.Output, tc.want) {
				t.Errorf("%q, want %q", v.Output, tc.want)
			}
		})
	}
}

// TestMapToGuest: who gives a wrong password has a session, and no rights in it.
func TestMapToGuest(t *testing.T) {
	s := start(t, smb.Options{Kind: smb.Signing, Windows: t.TempDir(), MapToGuest: true})
	for _, tc := range []struct{ share, want string }{{"IPC$", ""}, {"ADMIN$", "tree connect failed: NT_STATUS_ACCESS_DENIED"}} {
		v := share(t, judge.Login{Address: s.Address(), Account: "Administrator", Password: "wrong"}, tc.share, ".", "pwd")
		if v.OK != (tc.want == "") || !strings.Contains(v.Output, tc.want) {
			t.Errorf("%s: %q, want %q", tc.share, v.Output, tc.want)
		}
	}
}

// TestFull serves a small file system as Windows.
func TestFull(t *testing.T) {
	lab.Need(t, lab.Root)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	s := start(t, smb.Options{Kind: smb.Signing, Windows: small})
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "up"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v := share(t, judge.Login{Address: s.Address(), Account: "Administrator", Password: password}, "ADMIN$", folder, "put up")
	if !strings.Contains(v.Output, "NT_STATUS_DISK_FULL") {
		t.Errorf("%+v", v)
	}
}

func TestStall(t *testing.T) {
	s := start(t, smb.Options{Kind: smb.Encrypted, Windows: t.TempDir()})
	login := judge.Login{Address: s.Address(), Account: "Administrator", Password: password}
	if err := s.Stall(); err != nil {
		t.Fatal(err)
	}
	done := make(chan judge.Verdict, 1)
	go func() { done <- share(t, login, "ADMIN$", ".", "ls") }()
	select {
	case v := <-done:
		t.Errorf("a server that stands still answered: %+v", v)
	case <-time.After(time.Second):
	}
	if err := s.Continue(); err != nil {
		t.Fatal(err)
	}
	if v := <-done; !v.OK {
		t.Errorf("after it went on: %+v", v)
	}
	// It can be closed while it stands still, with what its pipes have started.
	if v := share(t, login, "IPC$", ".", "pwd"); !v.OK {
		t.Errorf("%+v", v)
	}
	if err := s.Stall(); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedOptions(t *testing.T) {
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	many := make([]smb.Account, 12)
	for i := range many {
		many[i] = smb.Account{Name: fmt.Sprint("a", i), Password: password}
	}
	for _, tc := range []struct {
		name string
		o    smb.Options
	}{
		{"no kind", smb.Options{Dir: private}},
		{"open folder", smb.Options{Kind: smb.Old, Dir: open}},
		{"missing folder", smb.Options{Kind: smb.Old, Dir: filepath.Join(private, "none")}},
		{"not loopback", smb.Options{Kind: smb.Old, Dir: private, Address: "192.0.2.1"}},
		{"line in a folder", smb.Options{Kind: smb.Old, Dir: private, Windows: "/a\nb"}},
		{"too many accounts", smb.Options{Kind: smb.Old, Dir: private, Accounts: many}},
		{"twice Administrator", smb.Options{Kind: smb.Old, Dir: private, Accounts: []smb.Account{{Name: "Administrator", Password: "a"}, {Name: "administrator", Password: "b"}}}},
		{"no password", smb.Options{Kind: smb.Old, Dir: private, Accounts: []smb.Account{{Name: "a"}}}},
	} {
		if s, err := smb.Start(t.Context(), tc.o); err == nil {
			t.Errorf("%s: it was started", tc.name)
			s.Close()
		}
	}
}
