package secret

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"sync"
)

// rounds make guessing a password from its version slow: about 50 ms each on one core.
const rounds = 200_000

// maxVersions bounds the versions that are remembered, so that they are not computed again.
const maxVersions = 1024

// Secret is what a reference leads to.
type Secret struct {
	// User is the account's name when the secret is of the store, Scope what it was said to be for; else they are empty.
	User, Scope string
	Value       Value
	// Version changes when user or secret do, and tells neither. A caller that was refused compares it with that of the
	// secret read anew: an account is locked by trying the same one again.
	Version string
}

// Options are what a Resolver can do without.
type Options struct {
	// Getenv reads the environment; nil is os.Getenv.
	Getenv func(string) string
	// Store is where store:NAME leads; nil is nowhere.
	Store *Store
	// Salt keeps versions the same from process to process, such as the installation's id; empty is a random one.
	Salt string
}

// Resolver reads secrets by reference. It keeps none of them. It is safe for concurrent use.
type Resolver struct {
	source source
	store  *Store
	salt   []byte
	key    [32]byte

	mu       sync.Mutex
	versions map[[sha256.Size]byte]string
}

// NewResolver makes a Resolver; nothing is read yet.
func NewResolver(o Options) *Resolver {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	r := &Resolver{source: source{o.Getenv}, store: o.Store, salt: []byte(o.Salt), versions: map[[sha256.Size]byte]string{}}
	rand.Read(r.key[:]) // never fails (crypto/rand)
	if o.Salt == "" {
		r.salt = append(r.salt, r.key[:]...)
	}
	return r
}

// Resolve reads what the reference leads to, now. The error is an *Error. It blocks for as long as a small file takes to be
// read, and for about 50 ms more when the secret is met for the first time.
func (r *Resolver) Resolve(ctx context.Context, ref Ref) (Secret, error) {
	if err := ctx.Err(); err != nil {
		return Secret{}, &Error{codeUnusable, "read " + ref.String(), context.Cause(ctx)}
	}
	var s Secret
	if ref.kind == kindStore {
		if r.store == nil {
			return s, because(codeMissing, "read "+ref.String(), "there is no store of secrets here")
		}
		sealed, err := r.store.open(ref.name)
		if err != nil {
			return s, err
		}
		s = Secret{User: sealed.User, Scope: sealed.Scope, Value: New(sealed.Password)}
		clear(sealed.Password)
	} else {
		content, err := r.source.read(ref)
		if err != nil {
			return s, err
		}
		s.Value = New(content)
		clear(content)
	}
	var err error
	s.Version, err = r.version(s.User, s.Value)
	return s, err
}

// version hashes user and secret slowly, once for each.
func (r *Resolver) version(user string, v Value) (string, error) {
	text := append(binary.BigEndian.AppendUint64(nil, uint64(len(user))), user...)
	text = append(text, v.bytes()...)
	defer clear(text)
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write(text)
	known := [sha256.Size]byte(mac.Sum(nil))
	r.mu.Lock()
	version, found := r.versions[known]
	r.mu.Unlock()
	if found {
		return version, nil
	}
	hash, err := pbkdf2.Key(sha256.New, string(text), r.salt, rounds, 16)
	if err != nil {
		return "", &Error{codeUnusable, "hash a secret", err}
	}
	version = hex.EncodeToString(hash)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.versions) >= maxVersions {
		clear(r.versions)
	}
	r.versions[known] = version
	return version, nil
}
