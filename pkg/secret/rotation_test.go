package secret

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func contextWithCause(t *testing.T, why error) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
}

var errKilled = errors.New("killed")

// mortal is a disk whose process is killed at one of its steps: in the middle of a write, or before or after another step. From
// then on nothing happens any more.
type mortal struct {
	disk  disk
	left  int
	after bool
	// steps are those that were made.
	steps []string
}

func (m *mortal) step(name string, half, whole func() error) error {
	m.steps = append(m.steps, name)
	m.left--
	switch {
	case m.left > 0:
		return whole()
	case m.left == 0 && m.after:
		return errors.Join(errKilled, whole())
	case m.left == 0:
		return errors.Join(errKilled, half())
	}
	return errKilled
}

func nothing() error { return nil }

func (m *mortal) write(path string, content []byte, mode fs.FileMode) error {
	return m.step("write "+filepath.Base(path),
		func() error { return m.disk.write(path, content[:len(content)/2], mode) },
		func() error { return m.disk.write(path, content, mode) })
}

func (m *mortal) rename(from, to string) error {
	return m.step("rename "+filepath.Base(to), nothing, func() error { return m.disk.rename(from, to) })
}

func (m *mortal) remove(path string) error {
	return m.step("remove "+filepath.Base(path), nothing, func() error { return m.disk.remove(path) })
}

func (m *mortal) flush(dir string) error {
	return m.step("flush", nothing, func() error { return m.disk.flush(dir) })
}

var pairs = []string{"a", "one", "b", "two", "c", "three"}

// killed does something with a fresh store, killed at its nth step, before and after it, for every n. Then the store is looked
// at by check, done once more, and looked at again. It gives the number of steps.
func killed(t *testing.T, prepare func(t *testing.T, dir string) *Store, do func(*Store) error, check func(t *testing.T, s *Store, done bool)) int {
	t.Helper()
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "creds")
			s := prepare(t, dir)
			m := &mortal{disk: s.disk, left: n, after: after}
			s.disk = m
			err := do(s)
			if m.left > 0 && err == nil {
				return n - 1
			}
			if !errors.Is(err, errKilled) {
				t.Fatalf("killed at step %d of %q: %v", n, m.steps, err)
			}
			where := fmt.Sprintf("step %d, %s, after: %v", n, m.steps[min(n, len(m.steps))-1], after)
			s.disk = m.disk
			t.Run(where, func(t *testing.T) {
				check(t, s, false)
				if err := do(s); err != nil && code(err) != codeExists && code(err) != codeMissing {
					t.Fatal(err)
				}
				check(t, s, true)
				left, err := filepath.Glob(filepath.Join(dir, "*.new"))
				if err != nil || left != nil {
					t.Errorf("left behind: %q, %v", left, err)
				}
			})
		}
	}
}

// TestKilledWhileTheKeyChanges: at every step of every kind of change each secret can be read, and another call ends the change.
func TestKilledWhileTheKeyChanges(t *testing.T) {
	var old *age.X25519Identity
	made := func(t *testing.T, dir string) *Store {
		t.Helper()
		s := filled(t, dir, StoreOptions{}, pairs...)
		k, err := s.keys()
		if err != nil {
			t.Fatal(err)
		}
		old = k.own
		return s
	}
	outside := func(t *testing.T, dir string) *Store {
		t.Helper()
		s := made(t, dir)
		key := filepath.Join(filepath.Dir(dir), "key")
		if _, err := s.RotateKey(t.Context(), Rotation{Next: parse(t, "file:"+key)}); err != nil {
			t.Fatal(err)
		}
		return openStore(t, dir, StoreOptions{Key: parse(t, "file:"+key)})
	}
	// useless wants that a key opens nothing any more.
	useless := func(t *testing.T, s *Store, id *age.X25519Identity) {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			content, err := os.ReadFile(s.path(pairs[i] + suffixSealed))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unseal(pairs[i], content, []age.Identity{id}); err == nil {
				t.Errorf("the old key still opens %s", pairs[i])
			}
		}
	}
	for name, c := range map[string]struct {
		prepare func(*testing.T, string) *Store
		want    func(*Store) Rotation
		retired bool
	}{
		"a made key for another": {made, func(*Store) Rotation { return Rotation{} }, true},
		"with a recovery key":    {made, func(*Store) Rotation { return Rotation{Recovery: true} }, true},
		"to a file that is made": {made, func(s *Store) Rotation {
			return Rotation{Next: Ref{kindFile, filepath.Join(filepath.Dir(s.dir), "next")}}
		}, false},
		"the end of a change": {outside, func(*Store) Rotation { return Rotation{} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var recovery Value
			do := func(s *Store) error {
				done, err := s.RotateKey(context.WithoutCancel(t.Context()), c.want(s))
				recovery = done.Recovery
				return err
			}
			steps := killed(t, c.prepare, do, func(t *testing.T, s *Store, done bool) {
				t.Helper()
				holds(t, s, pairs...)
				if done && c.retired {
					useless(t, s, old)
				}
				if done && c.want(s).Recovery {
					offline := openStore(t, s.dir, StoreOptions{Getenv: env("R", recovery.Reveal()), Key: Ref{kindEnv, "R"}})
					if err := os.Remove(s.path(keyName)); err != nil {
						t.Fatal(err)
					}
					holds(t, offline, pairs...)
				}
			})
			t.Logf("%d steps", steps)
			if steps < 3*6 {
				t.Errorf("only %d steps: each secret takes six", steps)
			}
		})
	}
}

// TestKilledWhileASecretChanges: it is all of the old or all of the new one, or not there.
func TestKilledWhileASecretChanges(t *testing.T) {
	prepare := func(t *testing.T, dir string) *Store {
		t.Helper()
		return filled(t, dir, StoreOptions{}, pairs...)
	}
	empty := func(t *testing.T, dir string) *Store {
		t.Helper()
		return openStore(t, dir, StoreOptions{})
	}
	either := func(name, before, after string) func(*testing.T, *Store, bool) {
		return func(t *testing.T, s *Store, done bool) {
			t.Helper()
			got, err := s.open(name)
			is := string(got.Password)
			if code(err) == codeMissing {
				is, err = "", nil
			}
			if err != nil || is != after && (done || is != before) {
				t.Errorf("store:%s is %q, %v, was %q, is to be %q", name, is, err, before, after)
			}
		}
	}
	ctx := context.WithoutCancel(t.Context())
	add := func(s *Store) error {
		_, err := s.Add(ctx, Entry{Name: "d"}, New([]byte("four")))
		return err
	}
	t.Run("the first", func(t *testing.T) { killed(t, empty, add, either("d", "", "four")) })
	t.Run("add", func(t *testing.T) { killed(t, prepare, add, either("d", "", "four")) })
	t.Run("rotate", func(t *testing.T) {
		killed(t, prepare, func(s *Store) error {
			_, err := s.Rotate(ctx, "b", "", New([]byte("new")))
			return err
		}, either("b", "two", "new"))
	})
	t.Run("remove", func(t *testing.T) {
		killed(t, prepare, func(s *Store) error { return s.Remove(ctx, "b") }, either("b", "two", ""))
	})
}

// TestWhatIsInPlaceIsOnTheDisk: a file is renamed only when it was written, and its folder is flushed before the next step.
func TestWhatIsInPlaceIsOnTheDisk(t *testing.T) {
	s := filled(t, filepath.Join(t.TempDir(), "creds"), StoreOptions{}, pairs...)
	m := &mortal{disk: s.disk, left: 1 << 20}
	s.disk = m
	if _, err := s.RotateKey(t.Context(), Rotation{}); err != nil {
		t.Fatal(err)
	}
	for i, step := range m.steps {
		name, renamed := strings.CutPrefix(step, "rename ")
		switch {
		case !renamed:
		case m.steps[i+1] != "flush":
			t.Errorf("%s is followed by %s", step, m.steps[i+1])
		case name != keyName && m.steps[i-1] != "write "+name+suffixNew:
			t.Errorf("%s comes after %s", step, m.steps[i-1])
		}
	}
	if last := m.steps[len(m.steps)-2:]; last[0] != "rename "+keyName || last[1] != "flush" {
		t.Errorf("the new key takes its place before the end: %q", m.steps)
	}
}

// TestChangeOfAnOutsideKey goes the whole way: sealed for both, the old one still works, the new one ends it.
func TestChangeOfAnOutsideKey(t *testing.T) {
	root, ctx := t.TempDir(), t.Context()
	dir := filepath.Join(root, "creds")
	s := filled(t, dir, StoreOptions{}, pairs...)
	ref := parse(t, "file:"+filepath.Join(root, "new.key"))
	done, err := s.RotateKey(ctx, Rotation{Next: ref})
	if err != nil || done.Secrets != 3 || !done.Made || done.Next != ref.String() || done.Key != Generated {
		t.Fatalf("RotateKey = %+v, %v", done, err)
	}
	if info, err := os.Stat(filepath.Join(root, "new.key")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the made key: %v, %v", info, err)
	}
	fresh := openStore(t, dir, StoreOptions{Key: ref})
	for _, with := range []*Store{s, fresh} {
		holds(t, with, pairs...)
		if _, err := with.Rotate(ctx, "a", "", New([]byte("one"))); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Add(ctx, Entry{Name: "d", User: "user of d"}, New([]byte("four"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateKey(ctx, Rotation{}); code(err) != codeKey {
		t.Errorf("the old key ends the change: %v", err)
	}
	again, err := s.RotateKey(ctx, Rotation{Next: ref})
	if err != nil || again.Made {
		t.Errorf("the same once more = %+v, %v", again, err)
	}
	if done, err = fresh.RotateKey(ctx, Rotation{}); err != nil || done.Secrets != 4 || done.Next != "" || done.Key != ref.String() {
		t.Errorf("the end = %+v, %v", done, err)
	}
	holds(t, fresh, append(pairs, "d", "four")...)
	if _, err := os.Stat(filepath.Join(dir, keyName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the key of the store's making is still there")
	}
	if _, err := s.open("a"); code(err) != codeKey {
		t.Errorf("without the new key: %v", err)
	}
}

// TestChangeIsTakenBack: naming the present key as the next ends a change, and the other key opens nothing.
func TestChangeIsTakenBack(t *testing.T) {
	root, ctx := t.TempDir(), t.Context()
	one, two := parse(t, "file:"+filepath.Join(root, "one")), parse(t, "file:"+filepath.Join(root, "two"))
	dir := filepath.Join(root, "creds")
	if _, err := filled(t, dir, StoreOptions{}, pairs...).RotateKey(ctx, Rotation{Next: one}); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, StoreOptions{Key: one})
	for _, want := range []Rotation{{}, {Next: two}, {Next: one}} {
		if _, err := s.RotateKey(ctx, want); err != nil {
			t.Fatal(err)
		}
		holds(t, s, pairs...)
	}
	if _, err := openStore(t, dir, StoreOptions{Key: two}).open("a"); code(err) != codeKey {
		t.Errorf("the key that was taken back: %v", err)
	}
	for name, next := range map[string]Ref{"nowhere": parse(t, "file:"+filepath.Join(root, "none", "key")), "in the store": parse(t, "store:a"), "not set": parse(t, "env:NONE")} {
		if _, err := s.RotateKey(ctx, Rotation{Next: next}); err == nil {
			t.Errorf("the next key is %s, and nothing is wrong", name)
		}
		holds(t, s, pairs...)
	}
}

// TestNothingBeginsWithAnUnreadableSecret: a key is changed only when it opens everything.
func TestNothingBeginsWithAnUnreadableSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "creds")
	s := filled(t, dir, StoreOptions{}, pairs...)
	write(t, filepath.Join(dir, "c.age"), "age-encryption.org/v1\n", 0o600)
	before, err := os.ReadFile(filepath.Join(dir, "a.age"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateKey(t.Context(), Rotation{}); code(err) != codeDamaged || !strings.Contains(err.Error(), "store:c") {
		t.Errorf("RotateKey = %v", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "a.age"))
	if err != nil || string(before) != string(after) {
		t.Errorf("a secret was written: %v", err)
	}
}
