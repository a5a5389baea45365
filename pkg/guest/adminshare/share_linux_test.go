package adminshare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/smb"
)

const password = "Correct-Horse-9"

// serve starts a real smbd; what it serves as Windows is the second result.
func serve(t *testing.T, o smb.Options) (*smb.Server, string) {
	t.Helper()
	lab.Need(t, lab.Smbd)
	o.Dir, o.Windows = short(t), filepath.Join(t.TempDir(), "windows")
	if err := os.Mkdir(o.Windows, 0o755); err != nil {
		t.Fatal(err)
	}
	if o.Drive == "none" {
		o.Drive, o.Windows = "", ""
	}
	o.Accounts = append(o.Accounts, smb.Account{Name: "Administrator", Password: password})
	s, err := smb.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, o.Windows
}

// short is a folder with a path that Samba's sockets fit in.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func at(s *smb.Server, user string) Options {
	return Options{Addresses: []string{s.Address().Addr().String()}, Account: NewAccount(user, password)}
}

// TestShare does with each library on each server what the road does, as far as the choice of the library allows.
func TestShare(t *testing.T) {
	for _, c := range []struct {
		kind    smb.Kind
		library Library
	}{{smb.Encrypted, Hirochachacha}, {smb.Encrypted, Cloudsoda}, {smb.Signing, Cloudsoda}} {
		t.Run(fmt.Sprintf("%s on %s", c.library, c.kind), func(t *testing.T) {
			server, windows := serve(t, smb.Options{Kind: c.kind})
			s, err := logon(t.Context(), at(server, `.\Administrator`), c.library)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close(t.Context())
			if agreed := s.conn.agreed(); !agreed.negotiated || !agreed.signingRequired || agreed.encrypts != (c.kind == smb.Encrypted) || agreed.dialect != 0x0311 {
				t.Errorf("the session's terms are %+v", agreed)
			}
			admin, err := s.client.mount(t.Context(), adminShare)
			if err != nil {
				t.Fatal(err)
			}
			conform(t, admin, windows)
			if _, err := s.client.mount(t.Context(), "NOSUCH$"); diagnosed(atMount, err) != "SF3301" {
				t.Errorf("mount of a share that is not there = %v, want SF3301", err)
			}
			pipe, err := s.client.pipe(t.Context(), "svcctl")
			if err != nil {
				t.Fatal(err)
			}
			if err := pipe.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func diagnosed(at where, err error) string {
	return guest.CodeOf(explain(at, "try", terms{negotiated: true}, err))
}

// conform is what the road rests on. windows is the folder that is shared.
func conform(t *testing.T, share Share, windows string) {
	t.Helper()
	ctx := t.Context()
	if err := share.Mkdir(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := share.Mkdir(ctx, "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Mkdir of what is there = %v, want fs.ErrExist", err)
	}
	if err := share.Mkdir(ctx, `x\y`); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Mkdir below nothing = %v, want fs.ErrNotExist", err)
	}
	content := make([]byte, 6<<20+13)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	file, err := share.Create(ctx, `a\b.exe`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(plainWriter{file}, plainReader{bytes.NewReader(content)}, make([]byte, chunk)); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(windows, "a", "b.exe")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the server has %d bytes that are not ours, %v", len(got), err)
	}
	if file, err := share.Create(ctx, `a\b.exe`); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what is there = %v, %v, want fs.ErrExist", file, err)
	}
	back, err := share.Open(ctx, `a\b.exe`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(plainReader{back})
	if err := errors.Join(err, back.Close()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read back: %d bytes that are not ours, %v", len(got), err)
	}
	if files, err := list(ctx, share, "a"); err != nil || len(files) != 1 || files[0] != "b.exe" {
		t.Errorf("list = %q, %v", files, err)
	}
	if _, err := share.List(ctx, "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of nothing = %v, want fs.ErrNotExist", err)
	}
	if free, err := share.Room(ctx, "a"); err != nil || free < 1<<20 {
		t.Errorf("Room = %d, %v, want what the machine has", free, err)
	}
	if free, err := share.Room(ctx, "."); err != nil || free < 1<<20 {
		t.Errorf("Room of the share = %d, %v, want what the machine has", free, err)
	}
	if err := share.Remove(ctx, "a"); err == nil {
		t.Error("a folder with a file in it was removed")
	}
	for _, path := range []string{`a\b.exe`, "a"} {
		if err := share.Remove(ctx, path); err != nil {
			t.Errorf("Remove(%s) = %v", path, err)
		}
		if err := share.Remove(ctx, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Remove(%s) again = %v, want fs.ErrNotExist", path, err)
		}
	}
}

// TestOpen chooses the library, and names what keeps it out.
func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		server  smb.Options
		user    string
		library Library
		code    string
	}{
		"encrypted":           {smb.Options{Kind: smb.Encrypted}, "Administrator", Hirochachacha, ""},
		"signing only":        {smb.Options{Kind: smb.Signing}, `.\Administrator`, Cloudsoda, ""},
		"SMB 1 only":          {smb.Options{Kind: smb.Old}, "Administrator", "", "SF3302"},
		"no such user":        {smb.Options{Kind: smb.Encrypted}, "nobody-at-all", "", "SF3001"},
		"wrong password":      {smb.Options{Kind: smb.Signing, Accounts: []smb.Account{{Name: "backup", Password: "another"}}}, "backup", "", "SF3001"},
		"disabled":            {smb.Options{Kind: smb.Encrypted, Accounts: []smb.Account{{Name: "backup", Password: password, State: smb.Disabled}}}, "backup", "", "SF3002"},
		"locked":              {smb.Options{Kind: smb.Encrypted, Accounts: []smb.Account{{Name: "backup", Password: password, State: smb.Locked}}}, "backup", "", "SF3003"},
		"expired":             {smb.Options{Kind: smb.Encrypted, Accounts: []smb.Account{{Name: "backup", Password: password, State: smb.Expired}}}, "backup", "", "SF3004"},
		"password expired":    {smb.Options{Kind: smb.Encrypted, Accounts: []smb.Account{{Name: "backup", Password: password, State: smb.PasswordExpired}}}, "backup", "", "SF3004"},
		"no administrator":    {smb.Options{Kind: smb.Encrypted, Accounts: []smb.Account{{Name: "backup", Password: password, Ordinary: true}}}, "backup", "", "SF3101"},
		"no ADMIN$":           {smb.Options{Kind: smb.Encrypted, Drive: "none"}, "Administrator", "", "SF3301"},
		"let in as a guest":   {smb.Options{Kind: smb.Signing, MapToGuest: true, Accounts: []smb.Account{{Name: "backup", Password: "another"}}}, "backup", "", "SF3303"},
		"not even as a guest": {smb.Options{Kind: smb.Encrypted, MapToGuest: true, Accounts: []smb.Account{{Name: "backup", Password: "another"}}}, "backup", "", "SF3105"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, c.server)
			s, err := open(t.Context(), at(server, c.user))
			if got := guest.CodeOf(err); got != c.code || (err == nil) != (c.code == "") {
				t.Fatalf("open = %v with code %q, want %q", err, got, c.code)
			}
			if err != nil {
				t.Log(err)
				return
			}
			defer s.close(t.Context())
			if s.library != c.library {
				t.Errorf("the library is %s, want %s", s.library, c.library)
			}
		})
	}
}

// TestOpenOutOfReach dials where nobody answers.
func TestOpenOutOfReach(t *testing.T) {
	server, _ := serve(t, smb.Options{Kind: smb.Encrypted})
	o := at(server, "Administrator")
	if err := server.Stall(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := open(ctx, o); guest.CodeOf(err) != "SF3204" {
		t.Errorf("open of a server that stands still = %v, want SF3204", err)
	}
	if err := errors.Join(server.Continue(), server.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), o); guest.CodeOf(err) != "SF3202" {
		t.Errorf("open of a closed port = %v, want SF3202", err)
	}
	if _, err := open(t.Context(), Options{}); guest.CodeOf(err) != "SF3201" {
		t.Errorf("open without an address = %v, want SF3201", err)
	}
}
