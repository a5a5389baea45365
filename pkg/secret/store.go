package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"filippo.io/age"

	"github.com/stillframe/stillframe/pkg/filelock"
)

// The names in the store's folder. A secret's name never ends like one of these.
const (
	suffixSealed = ".age"
	suffixEntry  = ".meta.json"
	suffixNew    = ".new"
	keyName      = "store.key"
	nextKeyName  = "store.key.next"
	forName      = "recipients"
	lockName     = "lock"
)

// Limits: of a word about a secret, of secrets, and of the wait for another process, which holds the lock for a write or two,
// or for the change of the key.
const (
	maxWord    = 256
	maxSecrets = 10_000
	lockLimit  = 10 * time.Second
)

// Entry is what is known of a secret of the store without its key.
type Entry struct {
	Name string `json:"name"`
	// User is the account's name, Scope what the secret is for, in the operator's words. Both may be empty.
	User    string    `json:"user"`
	Scope   string    `json:"scope"`
	Created time.Time `json:"created,omitzero"`
	Rotated time.Time `json:"rotated,omitzero"`
}

// Store keeps secrets in a folder, one file each, sealed by age for the store's key. Beside each lies its Entry in clear, for
// lists; what counts is the one inside. It holds no file between calls and needs no closing. It is safe for concurrent use,
// also by many processes.
type Store struct {
	dir    string
	key    Ref
	source source
	now    func() time.Time
	disk   disk
}

// StoreOptions are what a Store can do without.
type StoreOptions struct {
	// Getenv reads the environment; nil is os.Getenv.
	Getenv func(string) string
	// Key leads to the identity, a file as age-keygen writes it. Without it that is cred:store-key if it is there, else
	// a key that the store made in its folder.
	Key Ref
	// Now is the wall clock, for what people read; nil is this machine's.
	Now func() time.Time
}

// OpenStore names the folder of a store, an absolute path. Nothing is read or made yet: the first Add makes it.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, because(codeStore, "use the store of secrets "+dir, "its path is not absolute")
	}
	if o.Key.kind == kindStore {
		return nil, because(codeReference, "use the store of secrets "+dir, "its key cannot lie in itself: cred:NAME, file:/path or env:NAME")
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{dir, o.Key, source{o.Getenv}, o.Now, localDisk{}}, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// read reads a file of the store, which nobody else may have read.
func (s *Store) read(name, op string) ([]byte, error) {
	content, err := private(s.path(name), true)
	var coded *Error
	if errors.As(err, &coded) {
		return nil, &Error{coded.SF, op, coded.Err}
	}
	if err != nil {
		return nil, &Error{codeStore, op, err}
	}
	return content, nil
}

// List gives what is in the store by name, without the key. A store that is not there is empty.
func (s *Store) List() ([]Entry, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	entries := []Entry{}
	for _, name := range names {
		e := Entry{Name: name}
		content, err := s.read(name+suffixEntry, "list the store of secrets")
		if err == nil {
			err = json.Unmarshal(content, &e)
		}
		if err != nil || e.Name != name {
			e = Entry{Name: name} // it is only a copy: the next change of this secret writes it again
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// names lists the secrets.
func (s *Store) names() ([]string, error) {
	all, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{codeStore, "list the store of secrets", err}
	}
	var names []string
	for _, f := range all {
		name, sealed := strings.CutSuffix(f.Name(), suffixSealed)
		if sealed && grammar[kindStore].MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Add puts a new secret into the store. The first one makes the store, and its key if there is none.
func (s *Store) Add(ctx context.Context, e Entry, password Value) (Entry, error) {
	if err := check(e, password); err != nil {
		return e, err
	}
	err := s.change(ctx, "add store:"+e.Name, func() error {
		names, err := s.names()
		if err != nil {
			return err
		}
		if slices.Contains(names, e.Name) {
			return because(codeExists, "add store:"+e.Name, "there is one of this name already")
		}
		if len(names) >= maxSecrets {
			return fmt.Errorf("it has %d secrets already", len(names))
		}
		k, err := s.keys()
		if err != nil {
			return err
		}
		if k.own == nil {
			if len(names) > 0 {
				return because(codeKey, "add store:"+e.Name, "the key of the secrets that are there is not: name it")
			}
			if k, err = s.makeKey(); err != nil {
				return err
			}
		}
		e.Created = s.now().UTC().Truncate(time.Second)
		e.Rotated = e.Created
		to, err := s.recipients(k)
		if err != nil {
			return err
		}
		return s.put(to, sealed{e, password.bytes()})
	})
	return e, err
}

// Rotate gives a secret a new password, and a new user unless that is empty.
func (s *Store) Rotate(ctx context.Context, name, user string, password Value) (Entry, error) {
	e := Entry{Name: name, User: user}
	if err := check(e, password); err != nil {
		return e, err
	}
	err := s.change(ctx, "rotate store:"+name, func() error {
		old, err := s.open(name) // who cannot open it has the wrong key, and would seal for that
		if err != nil {
			return err
		}
		clear(old.Password)
		e = old.Entry
		if user != "" {
			e.User = user
		}
		e.Rotated = s.now().UTC().Truncate(time.Second)
		k, err := s.keys()
		if err != nil {
			return err
		}
		to, err := s.recipients(k)
		if err != nil {
			return err
		}
		return s.put(to, sealed{e, password.bytes()})
	})
	return e, err
}

// Remove takes a secret away. Its key is not asked for.
func (s *Store) Remove(ctx context.Context, name string) error {
	if _, err := InStore(name); err != nil {
		return err
	}
	return s.change(ctx, "remove store:"+name, func() error {
		names, err := s.names()
		if err != nil {
			return err
		}
		if !slices.Contains(names, name) {
			return because(codeMissing, "remove store:"+name, "the store has no secret of this name")
		}
		for _, suffix := range []string{suffixSealed, suffixEntry} {
			if err := s.disk.remove(s.path(name + suffix)); err != nil {
				return err
			}
		}
		return s.disk.flush(s.dir)
	})
}

// check refuses what cannot be kept or listed. It names no name that breaks the rule: that may be the password.
func check(e Entry, password Value) error {
	if _, err := InStore(e.Name); err != nil {
		return err
	}
	for what, word := range map[string]string{"user": e.User, "scope": e.Scope} {
		if len(word) > maxWord || strings.ContainsFunc(word, unicode.IsControl) {
			return because(codeUnusable, "keep store:"+e.Name, "its %s has more than %d bytes, or control characters", what, maxWord)
		}
	}
	if n := len(password.bytes()); n == 0 || n > maxBytes {
		return because(codeUnusable, "keep store:"+e.Name, "the password is empty or has more than %d bytes", maxBytes)
	}
	return nil
}

// put seals a secret and writes its entry beside it. Killed between the two, the list is behind and the secret is new.
func (s *Store) put(to []age.Recipient, secret sealed) error {
	content, err := seal(secret, to)
	if err != nil {
		return err
	}
	if err := put(s.disk, s.dir, s.path(secret.Name+suffixSealed), content, 0o600); err != nil {
		return err
	}
	entry, err := json.MarshalIndent(secret.Entry, "", " ")
	if err != nil {
		return err
	}
	return put(s.disk, s.dir, s.path(secret.Name+suffixEntry), append(entry, '\n'), 0o600)
}

// change does something under the store's lock, in a folder that is ours alone and has nothing of a killed process in it.
func (s *Store) change(ctx context.Context, op string, do func() error) error {
	err := s.folder()
	if err == nil {
		err = s.locked(ctx, func() error {
			if err := s.tidy(); err != nil {
				return err
			}
			return do()
		})
	}
	var coded *Error
	if err != nil && !errors.As(err, &coded) {
		err = &Error{codeStore, op, err}
	}
	return err
}

// folder makes the folder if it is not there, and refuses one that others could write to.
func (s *Store) folder() error {
	info, err := os.Stat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := s.disk.flush(filepath.Dir(s.dir)); err != nil {
			return err
		}
		info, err = os.Stat(s.dir)
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int64(stat.Uid) != int64(os.Geteuid()) {
		return because(codeExposed, "use the store of secrets "+s.dir, "it belongs to another user: run this as that user, or become its owner")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return because(codeExposed, "use the store of secrets "+s.dir, "others than its owner can write to it (mode %04o): chmod 0700", info.Mode().Perm())
	}
	return nil
}

// tidy removes what a killed process was about to put in place.
func (s *Store) tidy() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+suffixNew))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := s.disk.remove(path); err != nil {
			return err
		}
	}
	return nil
}

// locked does something under the lock, which ends with the process.
func (s *Store) locked(ctx context.Context, do func() error) error {
	file, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = filelock.Wait(ctx, file, lockLimit)
	if err != nil && (errors.Is(err, filelock.ErrHeld) || ctx.Err() != nil) {
		err = &Error{codeBusy, "wait for the store of secrets", err}
	}
	if err == nil {
		err = do()
	}
	return errors.Join(err, file.Close())
}
