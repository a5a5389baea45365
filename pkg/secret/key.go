package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
)

// keyCredential is the credential that is the store's key when none is named.
var keyCredential = Ref{kindCred, "store-key"}

// Generated is where the key comes from when the store made it: its own folder.
const Generated = "generated"

// What is done to the store's own files, for errors.
const (
	opKey = "read the key of the store of secrets"
	opFor = "read for whom secrets are sealed"
)

// keys are the identities that are at hand.
type keys struct {
	// from says where own is from: a reference or Generated; empty when there is none.
	from string
	// own is what secrets are sealed for.
	own *age.X25519Identity
	// made is the key that the store made, next the one that takes its place when a change of the key ends.
	made, next *age.X25519Identity
}

// identities are all that may open a secret.
func (k keys) identities() []age.Identity {
	var all []age.Identity
	if k.own != nil {
		all = append(all, k.own)
	}
	if k.made != nil && k.made != k.own {
		all = append(all, k.made)
	}
	if k.next != nil {
		all = append(all, k.next)
	}
	return all
}

// recipientsFile says for whom else than the key each secret is sealed. What is in it is public.
type recipientsFile struct {
	// Recovery is the key that lies offline.
	Recovery string `json:"recovery,omitempty"`
	// Next is the key that is about to take the place of Previous: until it has, both open everything.
	Next     string `json:"next,omitempty"`
	Previous string `json:"previous,omitempty"`
}

// keys looks for the store's keys. That there is none is no error.
func (s *Store) keys() (keys, error) {
	var k keys
	var err error
	if k.made, err = s.madeKey(keyName); err != nil {
		return k, err
	}
	if k.next, err = s.madeKey(nextKeyName); err != nil {
		return k, err
	}
	ref := s.key
	if ref.IsZero() && s.source.getenv("CREDENTIALS_DIRECTORY") != "" {
		ref = keyCredential
	}
	if !ref.IsZero() {
		id, err := s.identity(ref)
		switch {
		case err == nil:
			k.from, k.own = ref.String(), id
			return k, nil
		case s.key.IsZero() && errors.Is(err, fs.ErrNotExist):
		default:
			return k, err
		}
	}
	if k.made != nil {
		k.from, k.own = Generated, k.made
	}
	return k, nil
}

// identity reads a key from outside the store.
func (s *Store) identity(ref Ref) (*age.X25519Identity, error) {
	content, err := s.source.read(ref)
	if err != nil {
		return nil, &Error{codeKey, opKey, err}
	}
	defer clear(content)
	return parseKey(ref.String(), content)
}

// madeKey reads a key that the store made; nil when there is none.
func (s *Store) madeKey(name string) (*age.X25519Identity, error) {
	content, err := s.read(name, opKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer clear(content)
	return parseKey(s.path(name), content)
}

// parseKey reads an identity as age-keygen writes it: comments and one line.
func parseKey(from string, content []byte) (*age.X25519Identity, error) {
	found := ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if found != "" {
			return nil, because(codeKey, opKey, "%s holds more than one key", from)
		}
		found = line
	}
	id, err := age.ParseX25519Identity(found)
	if err != nil { // the error may show some of the line
		return nil, because(codeKey, opKey, "%s holds no key AGE-SECRET-KEY-1..., as age-keygen makes one", from)
	}
	return id, nil
}

// keyText is an identity as parseKey reads it.
func keyText(id *age.X25519Identity) []byte {
	return fmt.Appendf(nil, "# public key: %s\n%s\n", id.Recipient(), id)
}

// makeKey gives the store its first key.
func (s *Store) makeKey() (keys, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return keys{}, err
	}
	if err := put(s.disk, s.dir, s.path(keyName), keyText(id), 0o400); err != nil {
		return keys{}, err
	}
	return keys{from: Generated, own: id, made: id}, nil
}

// makeKeyFile makes a key at a place of the operator's choice, unless something is there.
func (s *Store) makeKeyFile(path string) (*age.X25519Identity, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%s is there already", path))
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	return id, put(s.disk, filepath.Dir(path), path, keyText(id), 0o400)
}

// Key says where the key comes from: a reference, Generated, or the empty string when there is none yet. The key is read.
func (s *Store) Key() (string, error) {
	k, err := s.keys()
	return k.from, err
}

// recipients are all for whom a secret is sealed now.
func (s *Store) recipients(k keys) ([]age.Recipient, error) {
	if k.own == nil {
		return nil, because(codeKey, "seal a secret", "the store's key is not here")
	}
	others, err := s.sealedFor()
	if err != nil {
		return nil, err
	}
	words := []string{k.own.Recipient().String(), others.Next, others.Previous, others.Recovery}
	if k.from == Generated && k.next != nil {
		words = append(words, k.next.Recipient().String())
	}
	return parseRecipients(words...)
}

// parseRecipients reads recipients, each once; empty words are none.
func parseRecipients(words ...string) ([]age.Recipient, error) {
	slices.Sort(words)
	var all []age.Recipient
	for _, word := range slices.Compact(words) {
		if word == "" {
			continue
		}
		r, err := age.ParseX25519Recipient(word)
		if err != nil {
			return nil, &Error{codeDamaged, opFor, err}
		}
		all = append(all, r)
	}
	return all, nil
}

func (s *Store) sealedFor() (recipientsFile, error) {
	var r recipientsFile
	content, err := s.read(forName, opFor)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, &Error{codeDamaged, opFor, err}
	}
	return r, nil
}

func (s *Store) saveSealedFor(r recipientsFile) error {
	content, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return put(s.disk, s.dir, s.path(forName), append(content, '\n'), 0o600)
}
