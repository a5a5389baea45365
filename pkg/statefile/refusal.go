package statefile

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"
)

// breakerFor is how long a secret that was refused is not tried again.
const breakerFor = 15 * time.Minute

// rounds make guessing a secret from its hash slow: about 50 ms each on one core.
const rounds = 200_000

// maxRefusals bounds the file; the oldest are forgotten first.
const maxRefusals = 1000

// refusal is one secret that was refused. The secret itself is nowhere in the file.
type refusal struct {
	Salt string    `json:"salt"`
	Hash string    `json:"hash"`
	At   time.Time `json:"at"`
	Why  string    `json:"code"`
}

// RefusedError says that a secret is not tried because it was refused a short time ago.
type RefusedError struct {
	Credential string
	At         time.Time
	Why        string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the password of %s was refused at %s (%s) and has not changed; it is not tried again before %s",
		e.Credential, e.At.Format(time.RFC3339), e.Why, e.At.Add(breakerFor).Format(time.RFC3339))
}

// Code is the code of the error catalogue.
func (e *RefusedError) Code() string { return "SF1104" }

// Tried gives a *RefusedError when this very secret of the credential was refused in the last 15 min by the
// wall clock. A clock that is set back begins the 15 min anew, one that is set forward ends them.
func (s *Store) Tried(ctx context.Context, credential, secret string) error {
	var known refusal
	err := s.view(ctx, "look for a refused password", func(now *state) error {
		known = now.Refusals[credential]
		return nil
	})
	if err != nil || known.Hash == "" || s.now().Sub(known.At) >= breakerFor {
		return err
	}
	salt, err := hex.DecodeString(known.Salt)
	if err != nil {
		return fmt.Errorf("read a salt: %w", err)
	}
	hash, err := digest(secret, salt)
	if err != nil || subtle.ConstantTimeCompare([]byte(hash), []byte(known.Hash)) == 0 {
		return err
	}
	return &RefusedError{credential, known.At, known.Why}
}

// Refuse remembers that the secret was refused with the code why.
func (s *Store) Refuse(ctx context.Context, credential, secret, why string) error {
	var salt [16]byte
	rand.Read(salt[:]) // never fails (crypto/rand)
	hash, err := digest(secret, salt[:])
	if err != nil {
		return err
	}
	return s.update(ctx, "remember a refused password", func(now *state) error {
		oldest := ""
		for id, r := range now.Refusals {
			if s.now().Sub(r.At) >= breakerFor {
				delete(now.Refusals, id)
			} else if oldest == "" || r.At.Before(now.Refusals[oldest].At) {
				oldest = id
			}
		}
		if len(now.Refusals) >= maxRefusals {
			delete(now.Refusals, oldest)
		}
		now.Refusals[credential] = refusal{hex.EncodeToString(salt[:]), hash, s.now().UTC(), why}
		return nil
	})
}

func digest(secret string, salt []byte) (string, error) {
	key, err := pbkdf2.Key(sha256.New, secret, salt, rounds, sha256.Size)
	return hex.EncodeToString(key), err
}
