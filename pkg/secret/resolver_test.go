package secret

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

func code(err error) string {
	var coded *Error
	if !errors.As(err, &coded) {
		return ""
	}
	return coded.SF
}

func parse(t testing.TB, text string) Ref {
	t.Helper()
	ref, err := ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// env is an environment of these pairs.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestParseRef(t *testing.T) {
	for text, want := range map[string]string{
		"cred:store-key": "cred:store-key", "cred:a.b@c_d": "cred:a.b@c_d", "file:/etc/x": "file:/etc/x", "file:/a/../etc//x": "file:/etc/x",
		"env:VC_PASSWORD": "env:VC_PASSWORD", "store:vc-prod.1": "store:vc-prod.1",
	} {
		if got := parse(t, text).String(); got != want {
			t.Errorf("ParseRef(%q) = %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{
		"", "hunter2", ":", "cred:", "cred:../x", "cred:a/b", "cred:.hidden", "file:relative", "file:", "file:/", "file:/a\x00b", "file:/a\nb", "env:", "env:1A", "env:A B",
		"store:", "store:a/b", "store:.x", "store:" + strings.Repeat("a", 65), "vault:secret/x#y", "exec:/bin/cat", "STORE:x", " store:x",
	} {
		if ref, err := ParseRef(text); code(err) != codeReference || !ref.IsZero() {
			t.Errorf("ParseRef(%q) = %s, %v, want %s", text, ref, err, codeReference)
		}
	}
}

// FuzzParseRef: what is taken reads back as itself, what is refused is not repeated.
func FuzzParseRef(f *testing.F) {
	for _, text := range []string{"cred:a", "file:/a/b", "env:A", "store:a", "CANARY-0123456789", "file:CANARY-0123456789", "store:CANARY 0123456789"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := ParseRef(text)
		if err != nil {
			if _, name, _ := strings.Cut(text, ":"); len(name) > 12 && strings.Contains(err.Error(), name) || len(text) > 12 && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats %q: %v", text, err)
			}
			return
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("ParseRef(%q) = %v, %v, want %v", ref, again, err, ref)
		}
	})
}

func write(t testing.TB, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResolve(t *testing.T) {
	c, dir := canary.New(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("creds/vc"), c.String()+"\n", 0o440)
	write(t, at("plain"), c.String(), 0o600)
	write(t, at("newline"), c.String()+"\n", 0o400)
	write(t, at("crlf"), c.String()+"\r\n", 0o400)
	write(t, at("two"), c.String()+"\n\n", 0o400)
	write(t, at("..data/real"), c.String(), 0o400)
	write(t, at("world"), c.String(), 0o644)
	write(t, at("group"), c.String(), 0o640)
	write(t, at("run"), c.String(), 0o700)
	write(t, at("empty"), "", 0o600)
	write(t, at("only-newline"), "\n", 0o600)
	write(t, at("full"), strings.Repeat("x", maxBytes), 0o600)
	write(t, at("large"), strings.Repeat(c.String(), maxBytes/len(c.String())+1), 0o600)
	write(t, at("huge"), strings.Repeat(c.String(), 2*maxFile/len(c.String())), 0o600)
	write(t, at("inside/file"), "x", 0o600)
	link := func(to, name string) {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..data/real", "link") // as Kubernetes mounts secrets
	link("../plain", "inside/up")
	link(at("plain"), "inside/absolute")
	link("nowhere", "dangling")
	link("../plain", "creds/up")
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := write(t, at("foreign"), c.String(), 0o600)
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 4242, 4242); err != nil {
			t.Fatal(err)
		}
	} else {
		foreign = at("world")
	}
	r := NewResolver(Options{Getenv: env("CREDENTIALS_DIRECTORY", at("creds"), "PW", c.String(), "LINE", c.String()+"\n", "BIG", strings.Repeat("x", maxBytes+1))})
	for ref, want := range map[string]string{
		"cred:vc": "", "cred:none": codeMissing, "cred:up": codeExposed,
		"file:" + at("plain"): "", "file:" + at("newline"): "", "file:" + at("crlf"): "", "file:" + at("link"): "",
		"file:" + at("world"): codeExposed, "file:" + at("group"): codeExposed, "file:" + at("run"): codeExposed, "file:" + foreign: codeExposed,
		"file:" + at("inside/up"): codeExposed, "file:" + at("inside/absolute"): codeExposed, "file:" + at("dangling"): codeMissing,
		"file:" + at("none"): codeMissing, "file:" + at("none/none"): codeMissing, "file:" + at("empty"): codeUnusable, "file:" + at("only-newline"): codeUnusable,
		"file:" + at("large"): codeUnusable, "file:" + at("huge"): codeUnusable, "file:" + at("pipe"): codeUnusable, "file:" + dir: codeUnusable,
		"env:PW": "", "env:LINE": "", "env:NONE": codeMissing, "env:BIG": codeUnusable, "store:x": codeMissing,
	} {
		s, err := r.Resolve(t.Context(), parse(t, ref))
		if code(err) != want || (err == nil) != (want == "") {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
		if err == nil && (s.Value.Reveal() != c.String() || s.Version == "" || s.User != "") {
			t.Errorf("%s = %+v with another value", ref, s)
		}
		if err != nil {
			look(t, c, ref, []byte(err.Error()))
			if !strings.Contains(err.Error(), ref) {
				t.Errorf("%s is not named by %q", ref, err)
			}
		}
	}
	if s, err := r.Resolve(t.Context(), parse(t, "file:"+at("two"))); err != nil || s.Value.Reveal() != c.String()+"\n" {
		t.Errorf("two newlines: %v, want that one is cut", err)
	}
	if s, err := r.Resolve(t.Context(), parse(t, "file:"+at("full"))); err != nil || len(s.Value.Reveal()) != maxBytes {
		t.Errorf("%d bytes: %v", maxBytes, err)
	}
	if _, err := NewResolver(Options{Getenv: env()}).Resolve(t.Context(), parse(t, "cred:vc")); code(err) != codeMissing {
		t.Errorf("without CREDENTIALS_DIRECTORY: %v", err)
	}
	if _, err := r.Resolve(t.Context(), Ref{}); code(err) != codeReference {
		t.Errorf("the zero reference: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ended, parse(t, "env:PW")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestReadAtUse: a changed file is seen at once, and has another version.
func TestReadAtUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pw")
	ref := parse(t, "file:"+path)
	r, same, other := NewResolver(Options{Salt: "installation"}), NewResolver(Options{Salt: "installation"}), NewResolver(Options{})
	var versions []string
	for _, text := range []string{"one", "two", "one"} {
		write(t, path, text, 0o600)
		s, err := r.Resolve(t.Context(), ref)
		if err != nil || s.Value.Reveal() != text {
			t.Fatalf("Resolve = %v, want %q", err, text)
		}
		versions = append(versions, s.Version)
	}
	if versions[0] != versions[2] || versions[0] == versions[1] || len(versions[0]) != 32 {
		t.Errorf("versions of one, two, one: %q", versions)
	}
	for salt, r := range map[string]*Resolver{"the same salt": same, "no salt": other} {
		s, err := r.Resolve(t.Context(), ref)
		if err != nil || (s.Version == versions[0]) != (salt == "the same salt") {
			t.Errorf("with %s the version is %q, first it was %q; %v", salt, s.Version, versions[0], err)
		}
	}
}

// TestVersionsAreBounded: what is remembered does not grow without end.
func TestVersionsAreBounded(t *testing.T) {
	r := NewResolver(Options{})
	for i := range maxVersions {
		r.versions[[32]byte{byte(i), byte(i >> 8), 1}] = "v"
	}
	if _, err := r.version("u", New([]byte("p"))); err != nil || len(r.versions) != 1 {
		t.Errorf("%d versions are remembered, %v", len(r.versions), err)
	}
	a, errA := r.version("ab", New([]byte("c")))
	b, errB := r.version("a", New([]byte("bc")))
	if errA != nil || errB != nil || a == b {
		t.Errorf("user and password run into each other: %s %s %v %v", a, b, errA, errB)
	}
}
