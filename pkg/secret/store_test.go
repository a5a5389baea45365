package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openStore(t testing.TB, dir string, o StoreOptions) *Store {
	t.Helper()
	if o.Getenv == nil {
		o.Getenv = env()
	}
	if o.Now == nil {
		o.Now = func() time.Time { return noon }
	}
	s, err := OpenStore(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	s.disk = quickDisk{}
	return s
}

// quickDisk is a disk on which nothing waits for the platter: thousands of kills would take minutes.
type quickDisk struct{ localDisk }

func (d quickDisk) write(path string, content []byte, mode fs.FileMode) error {
	return errors.Join(d.remove(path), os.WriteFile(path, content, mode))
}

func (quickDisk) flush(string) error { return nil }

// filled is a store with these secrets, whose password is that of the pair.
func filled(t testing.TB, dir string, o StoreOptions, pairs ...string) *Store {
	t.Helper()
	s := openStore(t, dir, o)
	for i := 0; i < len(pairs); i += 2 {
		if _, err := s.Add(t.Context(), Entry{Name: pairs[i], User: "user of " + pairs[i], Scope: "lab"}, New([]byte(pairs[i+1]))); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// holds fails unless the store gives these secrets.
func holds(t testing.TB, s *Store, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		got, err := s.open(pairs[i])
		if err != nil || string(got.Password) != pairs[i+1] || got.User != "user of "+pairs[i] {
			t.Errorf("store:%s = %+v, %v", pairs[i], got.Entry, err)
		}
	}
}

func TestStore(t *testing.T) {
	c, dir := canary.New(), filepath.Join(t.TempDir(), "creds")
	now := noon
	s := openStore(t, dir, StoreOptions{Now: func() time.Time { return now }})
	s.disk = localDisk{}
	ctx := t.Context()
	if list, err := s.List(); err != nil || list == nil || len(list) != 0 {
		t.Errorf("List of nothing = %v, %v", list, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a look made the folder")
	}
	if from, err := s.Key(); from != "" || err != nil {
		t.Errorf("Key of nothing = %q, %v", from, err)
	}
	for name, do := range map[string]func() error{
		"read":   func() error { _, err := s.open("vc"); return err },
		"remove": func() error { return s.Remove(ctx, "vc") },
		"rotate": func() error { _, err := s.Rotate(ctx, "vc", "", New([]byte("x"))); return err },
	} {
		if err := do(); code(err) != codeMissing {
			t.Errorf("%s what is not there: %v", name, err)
		}
	}
	password := New([]byte(c.String() + "\x00\xff"))
	added, err := s.Add(ctx, Entry{Name: "vc", User: "svc@vsphere.local", Scope: "vcenter vc-1"}, password)
	if err != nil || added.Created != noon || added.Rotated != noon {
		t.Fatalf("Add = %+v, %v", added, err)
	}
	if from, err := s.Key(); from != Generated || err != nil {
		t.Errorf("Key = %q, %v", from, err)
	}
	if _, err := s.Add(ctx, Entry{Name: "vc"}, password); code(err) != codeExists {
		t.Errorf("Add twice: %v", err)
	}
	now = noon.Add(time.Hour)
	r := NewResolver(Options{Store: s})
	first, err := r.Resolve(ctx, parse(t, "store:vc"))
	if err != nil || first.User != "svc@vsphere.local" || first.Scope != "vcenter vc-1" || first.Value.Reveal() != password.Reveal() {
		t.Fatalf("Resolve = %+v, %v", first, err)
	}
	rotated, err := s.Rotate(ctx, "vc", "", New([]byte(c.String())))
	if err != nil || rotated.User != "svc@vsphere.local" || !rotated.Rotated.Equal(now) || !rotated.Created.Equal(noon) {
		t.Errorf("Rotate = %+v, %v", rotated, err)
	}
	second, err := r.Resolve(ctx, parse(t, "store:vc"))
	if err != nil || second.Value.Reveal() != c.String() || second.Version == first.Version {
		t.Errorf("Resolve after Rotate = %+v, was %+v, %v", second, first, err)
	}
	if rotated, err = s.Rotate(ctx, "vc", "other", New([]byte(c.String()))); err != nil || rotated.User != "other" {
		t.Errorf("Rotate the user = %+v, %v", rotated, err)
	}
	third, err := r.Resolve(ctx, parse(t, "store:vc"))
	if err != nil || third.Version == second.Version || third.User != "other" {
		t.Errorf("another user with the same password = %+v, was %+v, %v", third, second, err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0] != rotated {
		t.Errorf("List = %+v, %v", list, err)
	}
	modes(t, dir)
	if found, err := c.Tree(dir); err != nil || found != nil {
		t.Errorf("the folder tells the password: %q, %v", found, err)
	}
	if err := s.Remove(ctx, "vc"); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "vc*")); err != nil || left != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// modes wants everything in the folder closed to others.
func modes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStoreRefuses(t *testing.T) {
	ctx, pw := t.Context(), New([]byte("x"))
	s := openStore(t, filepath.Join(t.TempDir(), "creds"), StoreOptions{})
	for _, e := range []Entry{{Name: ""}, {Name: "../x"}, {Name: "a/b"}, {Name: ".x"}, {Name: strings.Repeat("x", 65)}} {
		if _, err := s.Add(ctx, e, pw); code(err) != codeReference {
			t.Errorf("Add %q: %v", e.Name, err)
		}
	}
	for _, e := range []Entry{{Name: "x", User: "a\nb"}, {Name: "x", User: strings.Repeat("u", maxWord+1)}, {Name: "x", Scope: "\x1b[2J"}} {
		if _, err := s.Add(ctx, e, pw); code(err) != codeUnusable {
			t.Errorf("Add %+v: %v", e, err)
		}
	}
	for _, v := range []Value{{}, New(bytes.Repeat([]byte("x"), maxBytes+1))} {
		if _, err := s.Add(ctx, Entry{Name: "x"}, v); code(err) != codeUnusable {
			t.Errorf("Add of %d bytes: %v", len(v.Reveal()), err)
		}
	}
	largest := New(bytes.Repeat([]byte{0xff}, maxBytes))
	if _, err := s.Add(ctx, Entry{Name: "largest"}, largest); err != nil {
		t.Error(err)
	}
	if got, err := s.open("largest"); err != nil || string(got.Password) != largest.Reveal() {
		t.Errorf("the largest secret does not read back: %v", err)
	}
	if _, err := OpenStore("relative", StoreOptions{}); code(err) != codeStore {
		t.Errorf("a relative folder: %v", err)
	}
	if _, err := OpenStore("/x", StoreOptions{Key: parse(t, "store:x")}); code(err) != codeReference {
		t.Errorf("a key in the store itself: %v", err)
	}
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t, shared, StoreOptions{}).Add(ctx, Entry{Name: "x"}, pw); code(err) != codeExposed {
		t.Errorf("a folder that others write to: %v", err)
	}
	file := write(t, filepath.Join(t.TempDir(), "file"), "", 0o600)
	if _, err := openStore(t, file, StoreOptions{}).Add(ctx, Entry{Name: "x"}, pw); code(err) != codeStore {
		t.Errorf("a file as folder: %v", err)
	}
}

// TestOthersReadNothing: a file of the store that was opened to others is refused, the key too.
func TestOthersReadNothing(t *testing.T) {
	for _, name := range []string{"a.age", keyName, forName} {
		dir := filepath.Join(t.TempDir(), "creds")
		s := filled(t, dir, StoreOptions{}, "a", "one")
		if _, err := s.RotateKey(t.Context(), Rotation{Recovery: true}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Rotate(t.Context(), "a", "", New([]byte("x"))); code(err) != codeExposed {
			t.Errorf("%s with mode 0644: %v", name, err)
		}
	}
}

// TestTampering flips each bit of a secret's file, cuts it at each length and makes it longer: nothing of it is ever read.
func TestTampering(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "creds")
	s := filled(t, dir, StoreOptions{}, "a", "one", "b", "two")
	path := filepath.Join(dir, "a.age")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.open("a")
		if c := code(err); c != codeDamaged && c != codeKey || got.Password != nil {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	for i := range whole {
		for bit := range 8 {
			changed := bytes.Clone(whole)
			changed[i] ^= 1 << bit
			try(fmt.Sprintf("byte %d of %d, bit %d", i, len(whole), bit), changed)
		}
		try(fmt.Sprintf("cut to %d of %d bytes", i, len(whole)), whole[:i])
	}
	try("longer", append(bytes.Clone(whole), 0))
	other, err := os.ReadFile(filepath.Join(dir, "b.age"))
	if err != nil {
		t.Fatal(err)
	}
	try("the file of another secret", other)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := seal(sealed{Entry{Name: "a"}, []byte("x")}, []age.Recipient{id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	try("sealed for another key", foreign)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "a", "one", "b", "two")
}

// TestListIsOnlyACopy: what lies in clear beside a secret decides nothing.
func TestListIsOnlyACopy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "creds")
	s := filled(t, dir, StoreOptions{}, "a", "one", "b", "two", "c", "three")
	write(t, filepath.Join(dir, "a"+suffixEntry), `{"name":"a","user":"root"}`, 0o600)
	write(t, filepath.Join(dir, "b"+suffixEntry), `{"name":"a"}`, 0o600)
	if err := os.Remove(filepath.Join(dir, "c"+suffixEntry)); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "a", "one", "b", "two", "c", "three")
	if list, err := s.List(); err != nil || len(list) != 3 || list[1] != (Entry{Name: "b"}) || list[2] != (Entry{Name: "c"}) {
		t.Errorf("List = %+v, %v", list, err)
	}
	if _, err := s.RotateKey(t.Context(), Rotation{}); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	for i, name := range []string{"a", "b", "c"} {
		if err != nil || list[i].User != "user of "+name {
			t.Errorf("after a change of the key the list has %+v, %v", list, err)
		}
	}
}

// TestKeyOfTheStore: where it comes from, and that none is made where secrets are that another opens.
func TestKeyOfTheStore(t *testing.T) {
	root := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	key := write(t, filepath.Join(root, "credentials", "store-key"), "# a comment\n\n"+id.String()+"\n", 0o400)
	environment := env("CREDENTIALS_DIRECTORY", filepath.Dir(key), "KEY", id.String())
	dir := filepath.Join(root, "creds")
	filled(t, dir, StoreOptions{Getenv: environment}, "a", "one")
	if _, err := os.Stat(filepath.Join(dir, keyName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was made beside the credential")
	}
	for from, o := range map[string]StoreOptions{
		"cred:store-key": {Getenv: environment}, "file:" + key: {Key: parse(t, "file:"+key)}, "env:KEY": {Getenv: environment, Key: parse(t, "env:KEY")},
	} {
		s := openStore(t, dir, o)
		holds(t, s, "a", "one")
		if got, err := s.Key(); got != from || err != nil {
			t.Errorf("Key = %q, %v, want %s", got, err, from)
		}
	}
	keyless := openStore(t, dir, StoreOptions{Getenv: env("CREDENTIALS_DIRECTORY", root)})
	_, errAdd := keyless.Add(ctx, Entry{Name: "b"}, New([]byte("x")))
	_, errOpen := keyless.open("a")
	_, errKey := keyless.RotateKey(ctx, Rotation{})
	for what, err := range map[string]error{"add": errAdd, "open": errOpen, "rotate-key": errKey} {
		if code(err) != codeKey {
			t.Errorf("%s without the key: %v", what, err)
		}
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"another key": other.String(), "two keys": other.String() + "\n" + id.String(), "no key": "CANARY-0123456789", "a recipient": id.Recipient().String(),
	} {
		s := openStore(t, dir, StoreOptions{Key: parse(t, "file:"+write(t, filepath.Join(root, what), text, 0o600))})
		_, err := s.open("a")
		_, errRotate := s.Rotate(ctx, "a", "", New([]byte("x")))
		if code(err) != codeKey || code(errRotate) != codeKey || strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, %v", what, err, errRotate)
		}
	}
	if err := keyless.Remove(ctx, "a"); err != nil {
		t.Errorf("remove without the key: %v", err)
	}
	none := openStore(t, dir, StoreOptions{Key: parse(t, "file:"+filepath.Join(root, "none"))})
	if _, err := none.Add(ctx, Entry{Name: "b"}, New([]byte("x"))); code(err) != codeKey {
		t.Errorf("a named key that is not there: %v", err)
	}
}

// TestManyProcesses: changes wait for each other, readers for nobody, and each secret is one that was written.
func TestManyProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "creds")
	filled(t, dir, StoreOptions{}, "a", "one")
	var changing, reading sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		changing.Go(func() {
			s := openStore(t, dir, StoreOptions{})
			for n := range 5 {
				_, err := s.Rotate(t.Context(), "a", "", New(fmt.Appendf(nil, "%d-%d", i, n)))
				_, errKey := s.RotateKey(t.Context(), Rotation{})
				if err != nil || errKey != nil {
					t.Errorf("change: %v, %v", err, errKey)
				}
			}
		})
	}
	for range 2 {
		reading.Go(func() {
			s := openStore(t, dir, StoreOptions{})
			for {
				select {
				case <-done:
					return
				default:
				}
				if got, err := s.open("a"); err != nil || len(got.Password) != 3 {
					t.Errorf("read %q, %v", got.Password, err)
				}
			}
		})
	}
	changing.Wait()
	close(done)
	reading.Wait()
}

// TestLockIsWaitedFor: a change ends with its context while another process holds the lock.
func TestLockIsWaitedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "creds")
	s := filled(t, dir, StoreOptions{}, "a", "one")
	file, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	why := errors.New("the operator has left")
	ctx, cancel := contextWithCause(t, why)
	defer cancel()
	if err := s.Remove(ctx, "a"); code(err) != codeBusy || !errors.Is(err, why) {
		t.Errorf("Remove = %v", err)
	}
	holds(t, s, "a", "one")
}
