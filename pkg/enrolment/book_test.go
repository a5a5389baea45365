package enrolment_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/enrolment"
)

const vm = "11111111-2222-3333-4444-55555555555a"

func book(t *testing.T) (*enrolment.Book, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "agents")
	b, err := enrolment.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

func code(err error) string {
	var known *enrolment.Error
	if errors.As(err, &known) {
		return known.Code()
	}
	return ""
}

func TestAgents(t *testing.T) {
	b, _ := book(t)
	if _, found, err := b.Agent(vm); found || err != nil {
		t.Errorf("Agent of an empty book = %v, %v", found, err)
	}
	if all, err := b.Agents(); len(all) != 0 || err != nil {
		t.Errorf("Agents of an empty book = %v, %v", all, err)
	}
	one := enrolment.Agent{VM: vm, Path: "/DC0/vm/b", Fingerprint: "aa", Port: 6465, EnrolledAt: time.Unix(1, 0).UTC()}
	two := enrolment.Agent{VM: "11111111-2222-3333-4444-55555555555B", Path: "/DC0/vm/a"}
	for _, a := range []enrolment.Agent{one, two, one} {
		if err := b.Put(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if got, found, err := b.Agent("11111111-2222-3333-4444-55555555555A"); !found || err != nil || !cmp.Equal(got, one) {
		t.Errorf("Agent = %+v, %v, %v, want %+v whatever the case of the UUID", got, found, err, one)
	}
	if all, err := b.Agents(); err != nil || !cmp.Equal(all, []enrolment.Agent{two, one}) {
		t.Errorf("Agents = %+v, %v, want them by their path", all, err)
	}
	for range 2 {
		if err := b.Remove(t.Context(), vm); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if _, found, err := b.Agent(vm); found || err != nil {
		t.Errorf("Agent after Remove = %v, %v", found, err)
	}
}

// TestStrangeNames: a UUID becomes a file's name.
func TestStrangeNames(t *testing.T) {
	b, dir := book(t)
	for _, vm := range []string{"", "../../etc/passwd", "identities", "11111111-2222-3333-4444-55555555555a/x"} {
		if err := b.Put(t.Context(), enrolment.Agent{VM: vm}); code(err) != "SF1105" {
			t.Errorf("Put of %q = %v, want SF1105", vm, err)
		}
		if err := b.Remove(t.Context(), vm); code(err) != "SF1105" {
			t.Errorf("Remove of %q = %v, want SF1105", vm, err)
		}
		if _, found, err := b.Agent(vm); found || err != nil {
			t.Errorf("Agent of %q = %v, %v, want none", vm, found, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
	if _, err := enrolment.Open("agents"); code(err) != "SF1105" {
		t.Errorf("Open of a relative path = %v, want SF1105", err)
	}
}

func TestIdentities(t *testing.T) {
	b, dir := book(t)
	now := time.Now()
	first, err := b.Current(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Current(t.Context(), now.Add(enrolment.Life*2/3-time.Hour))
	if err != nil || again.Fingerprint != first.Fingerprint {
		t.Errorf("Current again = %v, %v, want the same %v", again.Fingerprint, err, first.Fingerprint)
	}
	next, err := b.Current(t.Context(), now.Add(enrolment.Life*2/3+time.Hour))
	if err != nil || next.Fingerprint == first.Fingerprint {
		t.Errorf("Current near its end = %v, %v, want another", next.Fingerprint, err)
	}
	for _, want := range []enrolment.Identity{first, next} { // agents that know the old one only are still reached
		got, err := b.Identity(want.Fingerprint.String())
		if err != nil || got.Fingerprint != want.Fingerprint || len(got.Certificate.Certificate) != 1 {
			t.Errorf("Identity(%v) = %v, %v", want.Fingerprint, got.Fingerprint, err)
		}
	}
	if _, err := b.Identity("00"); code(err) != "SF1105" {
		t.Errorf("Identity of none of ours = %v, want SF1105", err)
	}
	info, err := os.Stat(filepath.Join(dir, "identities.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the identities have mode %v, %v, want 0600", info.Mode(), err)
	}
}

// TestOneIdentity: many that need the first one at once get the same.
func TestOneIdentity(t *testing.T) {
	b, _ := book(t)
	now := time.Now()
	var group sync.WaitGroup
	got := make([]enrolment.Identity, 8)
	for i := range got {
		group.Go(func() {
			var err error
			if got[i], err = b.Current(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, one := range got {
		if one.Fingerprint != got[0].Fingerprint {
			t.Errorf("two identities were made: %v and %v", one.Fingerprint, got[0].Fingerprint)
		}
	}
}

// TestDamaged: nothing is made in the place of what cannot be read, because agents know it.
func TestDamaged(t *testing.T) {
	b, dir := book(t)
	if _, err := b.Current(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "identities.pem")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"cut": whole[:len(whole)/2], "rubbish behind": append(whole[:len(whole):len(whole)], "x"...), "rubbish": []byte("x")} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Current(t.Context(), time.Now()); code(err) != "SF1105" {
			t.Errorf("%s: Current = %v, want SF1105", name, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(content) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), enrolment.Agent{VM: vm}); code(err) != "SF1105" {
		t.Errorf("Put into a folder that others can read = %v, want SF1105", err)
	}
}
