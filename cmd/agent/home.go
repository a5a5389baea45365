package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const (
	// persistentLife is how long a certificate of a persistent agent lasts. Both sides check the fingerprint, not the time: it
	// only says when the next one is made.
	persistentLife = 10 * 365 * 24 * time.Hour
	keyBytes       = 32
	// maxHomeFile bounds what is read of a file of the home; real ones have some hundred bytes.
	maxHomeFile = 64 << 10
)

// The files of a home. Each is replaced as a whole, by way of a draft.
const (
	identityFile     = "identity"
	nextIdentityFile = "identity.next"
	pinsFile         = "pins"
	sessionsFile     = "sessions"
	readyFileName    = "ready"
	draftSuffix      = ".draft"
)

// keyPair is a key with its certificate.
type keyPair struct {
	certificate tls.Certificate
	fingerprint protocol.Fingerprint
}

// pins are the orchestrator's certificates: the one that the agent was installed for, the one that is in force, and the one
// that takes its place when a session has been proved with it; zero for none.
type pins struct{ installed, present, next protocol.Fingerprint }

// home is what a persistent agent keeps beyond its end, in a folder that only administrators can read. It is an agent.Keeper,
// safe for concurrent use.
type home struct {
	dir string

	mu        sync.Mutex
	own, next keyPair // next is zero while there is none
	pins      pins
}

var _ agent.Keeper = (*home)(nil)

// openHome reads the home in the folder dir, which it makes where it is missing. An orchestrator that is another than the one
// that the agent was installed for takes its place; the zero peer leaves what is kept.
func openHome(dir string, peer protocol.Fingerprint) (*home, error) {
	h := &home{dir: dir}
	if err := makeHome(dir); err != nil {
		return nil, fmt.Errorf("make the folder of the persistent agent: %w", err)
	}
	if err := h.enrol(peer); err != nil {
		return nil, err
	}
	var found bool
	var err error
	if h.own, found, err = loadIdentity(h.path(identityFile)); err == nil && !found {
		h.own, err = h.makeIdentity(identityFile)
	}
	if err == nil {
		h.next, _, err = loadIdentity(h.path(nextIdentityFile))
	}
	return h, err
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// enrol reads the pins, or begins them anew with peer.
func (h *home) enrol(peer protocol.Fingerprint) error {
	text, err := readSmall(h.path(pinsFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && peer == (protocol.Fingerprint{}):
		return errors.New("no orchestrator is known yet: run install --peer first")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the pins: %w", err)
	case err == nil:
		if h.pins, err = parsePins(string(text)); err != nil && peer == (protocol.Fingerprint{}) {
			return fmt.Errorf("read the pins: %s is damaged, run install --peer again: %w", h.path(pinsFile), err)
		}
		if err == nil && (peer == h.pins.installed || peer == (protocol.Fingerprint{})) {
			return nil
		}
	}
	return h.keepPins(pins{installed: peer, present: peer})
}

// keepPins makes p durable, and then what is in force.
func (h *home) keepPins(p pins) error {
	if err := h.replace(pinsFile, []byte(p.text())); err != nil {
		return fmt.Errorf("keep the pins: %w", err)
	}
	h.pins = p
	return nil
}

func (p pins) text() string {
	text := fmt.Sprintf("installed %v\npresent %v\n", p.installed, p.present)
	if p.next != (protocol.Fingerprint{}) {
		text += fmt.Sprintf("next %v\n", p.next)
	}
	return text
}

// parsePins reads what text writes, and nothing else.
func parsePins(text string) (pins, error) {
	var p pins
	for line := range strings.Lines(text) {
		word, hex, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		pin, err := protocol.ParseFingerprint(hex)
		if err != nil {
			return pins{}, err
		}
		switch word {
		case "installed":
			p.installed = pin
		case "present":
			p.present = pin
		case "next":
			p.next = pin
		}
	}
	if p.present == (protocol.Fingerprint{}) || p.text() != text {
		return pins{}, errors.New("it is not as it was written")
	}
	return p, nil
}

// Renew implements agent.Keeper.
func (h *home) Renew(r agent.Renewal) (agent.Own, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	none := protocol.Fingerprint{}
	if r.Next != none {
		p := h.pins
		if p.next = r.Next; p.next == p.present { // the renewal is called off, or has come to its end
			p.next = none
		}
		if p != h.pins {
			if err := h.keepPins(p); err != nil {
				return agent.Own{}, err
			}
		}
	}
	switch {
	case r.Confirmed == none || r.Confirmed == h.own.fingerprint: // the latter: an answer was lost
	case r.Confirmed == h.next.fingerprint:
		if err := rename(h.path(nextIdentityFile), h.path(identityFile)); err != nil {
			return agent.Own{}, fmt.Errorf("take the next certificate: %w", err)
		}
		h.own, h.next = h.next, keyPair{}
	default:
		return agent.Own{}, fmt.Errorf("the certificate %v was not announced", r.Confirmed)
	}
	if h.next.fingerprint == none && h.own.isOld(time.Now()) {
		next, err := h.makeIdentity(nextIdentityFile)
		if err != nil {
			return agent.Own{}, err
		}
		h.next = next
	}
	return agent.Own{Present: h.own.fingerprint, Next: h.next.fingerprint}, nil
}

// Proved implements agent.Keeper.
func (h *home) Proved(by protocol.Fingerprint) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pins.next == (protocol.Fingerprint{}) || by != h.pins.next {
		return nil
	}
	return h.keepPins(pins{installed: h.pins.installed, present: by})
}

// tls lets in whoever has one of the pins, as they are when the connection comes.
func (h *home) tls() *tls.Config {
	present := func() *tls.Config {
		h.mu.Lock()
		defer h.mu.Unlock()
		return protocol.ServerTLS(h.own.certificate, h.pins.present, h.pins.next)
	}
	c := present()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return present(), nil }
	return c
}

// fingerprint is of the certificate that the agent serves.
func (h *home) fingerprint() protocol.Fingerprint {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.own.fingerprint
}

// isOld says whether less than a third of the certificate's life is left; one that cannot be read is.
func (i keyPair) isOld(now time.Time) bool {
	c, err := x509.ParseCertificate(i.certificate.Certificate[0])
	return err != nil || c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/3
}

// loadIdentity reads the private scalar of P-256, 32 bytes, and the certificate in DER.
func loadIdentity(path string) (i keyPair, found bool, err error) {
	raw, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return keyPair{}, false, nil
	}
	if err != nil {
		return keyPair{}, false, fmt.Errorf("read the agent's identity: %w", err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw[:min(len(raw), keyBytes)])
	if err == nil {
		_, err = x509.ParseCertificate(raw[keyBytes:])
	}
	if err != nil {
		return keyPair{}, false, fmt.Errorf("read the agent's identity: %s is damaged: %w", path, err)
	}
	der := raw[keyBytes:]
	return keyPair{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der)}, true, nil
}

// makeIdentity makes an identity and keeps it under the name.
func (h *home) makeIdentity(name string) (keyPair, error) {
	own, fingerprint, err := protocol.NewIdentity(persistentLife)
	if err != nil {
		return keyPair{}, err
	}
	key, err := own.PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err == nil {
		err = h.replace(name, append(key, own.Certificate[0]...))
	}
	if err != nil {
		return keyPair{}, fmt.Errorf("keep the agent's identity: %w", err)
	}
	return keyPair{own, fingerprint}, nil
}

// replace makes content what the file holds, durably and as a whole.
func (h *home) replace(name string, content []byte) error {
	return replaceSecret(h.path(name), content)
}

// replaceSecret makes content what a file holds that only administrators can read, durably and as a whole.
func replaceSecret(path string, content []byte) error { return replaceBy(writeSecret, path, content) }

// replaceBy has write make a draft beside the file, durably, and renames it.
func replaceBy(write func(path string, content []byte) error, path string, content []byte) error {
	draft := path + draftSuffix
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a writer that was killed
		return err
	}
	if err := write(draft, content); err != nil {
		return err
	}
	return rename(draft, path)
}

// readSmall reads a file of the home.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxHomeFile {
		return nil, fmt.Errorf("%s has %d bytes, which is too many", path, info.Size())
	}
	return os.ReadFile(path)
}

// removeHome removes what a home has, and the folder itself unless something else is in it.
func removeHome(dir string) error {
	var err error
	for _, name := range []string{identityFile, nextIdentityFile, pinsFile, sessionsFile, readyFileName} {
		for _, path := range []string{name, name + draftSuffix} {
			if gone := os.Remove(filepath.Join(dir, path)); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}
	if gone := os.Remove(dir); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
