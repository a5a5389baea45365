package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"filippo.io/age"
)

// sealed is the content of a secret's file before age. The entry is in it, so that no hand can give a password to another
// name or user.
type sealed struct {
	Entry
	Password []byte `json:"password"`
}

// seal encrypts for all recipients at once.
func seal(s sealed, recipients []age.Recipient) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, recipients...)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// unseal opens a secret's file and checks that it is the one of that name.
func unseal(name string, content []byte, identities []age.Identity) (sealed, error) {
	var s sealed
	r, err := age.Decrypt(bytes.NewReader(content), identities...)
	if err != nil {
		return s, err
	}
	plain, err := io.ReadAll(r) // to its end: only there does age find out that the end was changed
	defer clear(plain)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return sealed{}, errors.New("what is in it was not written by stillframe") // json's error would show some of it
	}
	if s.Name != name {
		clear(s.Password)
		return sealed{}, errors.New("it holds the secret of another name")
	}
	return s, nil
}

// open reads a secret of the store. The key may be changed meanwhile, so it is looked up once more before it counts as wrong.
func (s *Store) open(name string) (sealed, error) {
	op := "read store:" + name
	var last error
	for range 2 {
		content, err := s.read(name+suffixSealed, op)
		if errors.Is(err, fs.ErrNotExist) {
			return sealed{}, because(codeMissing, op, "the store has no secret of this name")
		}
		if err != nil {
			return sealed{}, err
		}
		k, err := s.keys()
		if err != nil {
			return sealed{}, err
		}
		if len(k.identities()) == 0 {
			return sealed{}, because(codeKey, op, "the store's key is not here")
		}
		opened, err := unseal(name, content, k.identities())
		if err == nil {
			return opened, nil
		}
		var wrong *age.NoIdentityMatchError
		if !errors.As(err, &wrong) {
			return sealed{}, &Error{codeDamaged, op, err}
		}
		last = &Error{codeKey, op, fmt.Errorf("the key at hand does not open it (%s)", k.from)}
	}
	return sealed{}, last
}
