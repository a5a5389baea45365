package main

import (
	"crypto/ecdsa"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

var (
	pinA, pinB, pinC = protocol.Fingerprint{0xa}, protocol.Fingerprint{0xb}, protocol.Fingerprint{0xc}
	noPin            = protocol.Fingerprint{}
)

func openTestHome(t *testing.T, dir string, peer protocol.Fingerprint) *home {
	t.Helper()
	h, err := openHome(dir, peer)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHomeKeepsPins follows one home through its life; each step is looked at in the process and after its end.
func TestHomeKeepsPins(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent", "persistent")
	if _, err := openHome(dir, noPin); err == nil || !strings.Contains(err.Error(), "install --peer") {
		t.Fatalf("a home without an orchestrator opens: %v", err)
	}
	renew := func(next protocol.Fingerprint) func(*home) error {
		return func(h *home) error { _, err := h.Renew(agent.Renewal{Next: next}); return err }
	}
	proved := func(by protocol.Fingerprint) func(*home) error {
		return func(h *home) error { return h.Proved(by) }
	}
	first := openTestHome(t, dir, pinA).own.fingerprint
	for _, step := range []struct {
		name string
		peer protocol.Fingerprint // that it is opened with
		do   func(*home) error
		want pins
	}{
		{"installed", pinA, nil, pins{pinA, pinA, noPin}},
		{"without a peer", noPin, nil, pins{pinA, pinA, noPin}},
		{"proved by the present one", noPin, proved(pinA), pins{pinA, pinA, noPin}},
		{"announced", noPin, renew(pinB), pins{pinA, pinA, pinB}},
		{"announced again", noPin, renew(pinB), pins{pinA, pinA, pinB}},
		{"proved by the older one", noPin, proved(pinA), pins{pinA, pinA, pinB}},
		{"proved by a stranger", noPin, proved(pinC), pins{pinA, pinA, pinB}},
		{"called off", noPin, renew(pinA), pins{pinA, pinA, noPin}},
		{"another announced", noPin, renew(pinC), pins{pinA, pinA, pinC}},
		{"never more than two", noPin, renew(pinB), pins{pinA, pinA, pinB}},
		{"proved by the next one", noPin, proved(pinB), pins{pinA, pinB, noPin}},
		{"the older one is forgotten", noPin, proved(pinA), pins{pinA, pinB, noPin}},
		{"installed again for the same", pinA, nil, pins{pinA, pinB, noPin}},
		{"installed for another", pinC, nil, pins{pinC, pinC, noPin}},
	} {
		h := openTestHome(t, dir, step.peer)
		if step.do != nil {
			if err := step.do(h); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
		if again := openTestHome(t, dir, noPin); h.pins != step.want || again.pins != step.want || again.own.fingerprint != first {
			t.Errorf("%s: pins %v, after the end %v of %v, want %v of %v", step.name, h.pins, again.pins, again.own.fingerprint, step.want, first)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("the home has %v, %v, want identity and pins", names, err)
	}
	for _, name := range names {
		if info, err := name.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v, want 0600", name.Name(), info.Mode(), err)
		}
	}
	if err := errors.Join(removeHome(dir), removeHome(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home is left: %v", err)
	}
}

// TestHomeRenewsItsCertificate has one that ends soon, and is killed behind each step.
func TestHomeRenewsItsCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "persistent")
	young := openTestHome(t, dir, pinA)
	if own, err := young.Renew(agent.Renewal{}); err != nil || own != (agent.Own{Present: young.own.fingerprint}) {
		t.Errorf("a young certificate: %v, %v, want no next one", own, err)
	}
	old, fingerprint, err := protocol.NewIdentity(2 * time.Minute) // of 7, five are over
	if err != nil {
		t.Fatal(err)
	}
	key, err := old.PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err == nil {
		err = replaceSecret(filepath.Join(dir, identityFile), append(key, old.Certificate[0]...))
	}
	if err != nil {
		t.Fatal(err)
	}
	announced, err := openTestHome(t, dir, noPin).Renew(agent.Renewal{})
	if err != nil || announced.Present != fingerprint || announced.Next == noPin {
		t.Fatalf("an old certificate: %v, %v, want a next one", announced, err)
	}
	h := openTestHome(t, dir, noPin)
	if again, err := h.Renew(agent.Renewal{}); err != nil || again != announced {
		t.Errorf("the next one after the end of the process: %v, %v, want %v", again, err, announced)
	}
	if _, err := h.Renew(agent.Renewal{Confirmed: pinC}); err == nil {
		t.Error("a certificate that was never announced is confirmed")
	}
	if h.fingerprint() != fingerprint {
		t.Error("the old certificate is not served any more before the next one is confirmed")
	}
	want := agent.Own{Present: announced.Next}
	for range 3 { // at once, and twice after the end of the process
		if own, err := h.Renew(agent.Renewal{Confirmed: announced.Next}); err != nil || own != want {
			t.Errorf("confirmed: %v, %v, want %v", own, err, want)
		}
		h = openTestHome(t, dir, noPin)
	}
	if served := h.tls().Certificates[0].Certificate[0]; string(served) == string(old.Certificate[0]) {
		t.Error("the old certificate is still served")
	}
}

func TestDamagedHome(t *testing.T) {
	intact := pins{pinA, pinB, pinC}.text()
	for name, text := range map[string]string{
		"empty": "", "cut": intact[:len(intact)-3], "no present one": "installed " + pinA.String() + "\n", "no pin": "installed \npresent \n",
		"twice": intact + "next " + pinA.String() + "\n", "another word": intact + "then " + pinA.String() + "\n", "huge": strings.Repeat("x", maxHomeFile+1),
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, pinsFile), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := openHome(dir, noPin); err == nil {
			t.Errorf("%s: damaged pins let somebody in", name)
		}
		if name == "huge" {
			continue
		}
		if h, err := openHome(dir, pinC); err != nil || h.pins != (pins{pinC, pinC, noPin}) {
			t.Errorf("%s: installed again: %v, want %v", name, err, pinC)
		}
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, identityFile), make([]byte, keyBytes+5), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir, pinA); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged identity: %v, want that it is", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir, pinA); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("a home that others may read: %v, want mode 0700", err)
	}
}

// TestWriterSessionsAreCounted reads the count after the end of each process.
func TestWriterSessionsAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), sessionsFile)
	open := func(boot string) *writerSessions {
		t.Helper()
		s, err := openWriterSessions(path, boot)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, step := range []struct {
		name, boot string
		add, want  int
	}{
		{"none", "boot-1", 0, 0},
		{"opened", "boot-1", 1, 1},
		{"ended", "boot-1", -1, 0},
		{"ended twice", "boot-1", -1, 0},
		{"opened, killed", "boot-1", 1, 1},
		{"opened again", "boot-1", 1, 2},
		{"ended", "boot-1", -1, 1},
		{"booted", "boot-2", 0, 0},
	} {
		s := open(step.boot)
		if err := s.add(step.add); err != nil {
			t.Fatal(err)
		}
		if got := open(step.boot).count(); got != step.want || s.count() != step.want {
			t.Errorf("%s: %d, after the end %d, want %d", step.name, s.count(), got, step.want)
		}
	}
	for _, text := range []string{"", "boot-2", "boot-2 -4", "boot-2 many", "boot-2 1 1"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := open("boot-2").count(); got != 0 {
			t.Errorf("%q counts %d, want 0", text, got)
		}
	}
}
