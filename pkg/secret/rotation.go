package secret

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"filippo.io/age"
)

// Rotation is how the store's key is to be changed.
type Rotation struct {
	// Next leads to the key that is to take the place of the one at hand; a file that is not there is made. Until the next
	// rotation, which has that key at hand, secrets are sealed for both. The zero Ref ends such a change; with a
	// key that the store made it makes another.
	Next Ref
	// Recovery makes a key to be kept offline, for which secrets are sealed too. It takes the place of an earlier one.
	Recovery bool
}

// Rotated is what a rotation did.
type Rotated struct {
	// Secrets is how many were sealed anew.
	Secrets int
	// Key is where the key comes from, Next the key that secrets are sealed for as well until it has taken its place.
	Key, Next string
	// Made says that the file of Next was made.
	Made bool
	// Recovery is the key to keep offline, when one was asked for. It is nowhere else.
	Recovery Value
}

// RotateKey seals every secret anew. It begins only when all of them can be opened. Killed at any point, every secret can be
// read with the keys that are there, and another call does the rest.
func (s *Store) RotateKey(ctx context.Context, want Rotation) (Rotated, error) {
	var out Rotated
	err := s.change(ctx, "change the key of the store of secrets", func() error {
		k, err := s.keys()
		if err != nil {
			return err
		}
		if k.own == nil {
			return because(codeKey, "change the key of the store of secrets", "there is no key yet: the first secret makes one")
		}
		names, err := s.names()
		if err != nil {
			return err
		}
		for _, name := range names {
			opened, err := s.open(name)
			if err != nil {
				return err
			}
			clear(opened.Password)
		}
		others, err := s.sealedFor()
		if err != nil {
			return err
		}
		out = Rotated{Secrets: len(names), Key: k.from}
		if want.Recovery {
			id, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			out.Recovery, others.Recovery = New([]byte(id.String())), id.Recipient().String()
		}
		if !want.Next.IsZero() {
			next, err := s.nextKey(want.Next, &out)
			if err != nil {
				return err
			}
			if next.Recipient().String() != k.own.Recipient().String() {
				out.Next = want.Next.String()
				others.Next, others.Previous = next.Recipient().String(), k.own.Recipient().String()
				return s.join(k, names, others)
			} // else it is the key at hand itself: whatever change was under way ends with it
		} else if others.Next != "" && others.Next != k.own.Recipient().String() {
			return because(codeKey, "change the key of the store of secrets",
				"it is about to be taken over by %s: give that key, or end the change by naming the present one as the next", others.Next)
		}
		others.Next, others.Previous = "", ""
		if k.from == Generated && want.Next.IsZero() {
			return s.replace(k, names, others)
		}
		return s.settle(k, names, others)
	})
	return out, err
}

// nextKey reads the next key, or makes its file.
func (s *Store) nextKey(ref Ref, out *Rotated) (*age.X25519Identity, error) {
	if ref.kind == kindStore {
		return nil, because(codeReference, "read the next key", "it cannot lie in the store: cred:NAME, file:/path or env:NAME")
	}
	id, err := s.identity(ref)
	if ref.kind == kindFile && errors.Is(err, fs.ErrNotExist) {
		out.Made = true
		return s.makeKeyFile(ref.name)
	}
	return id, err
}

// join seals all for the next key as well: from then on either opens them.
func (s *Store) join(k keys, names []string, others recipientsFile) error {
	if err := s.saveSealedFor(others); err != nil {
		return err
	}
	recipients, err := s.recipients(k)
	if err != nil {
		return err
	}
	return s.reseal(names, recipients)
}

// replace seals all for a new key of the store's own making. It lies beside the old one until nothing needs that any more.
func (s *Store) replace(k keys, names []string, others recipientsFile) error {
	next := k.next
	if next == nil {
		var err error
		if next, err = age.GenerateX25519Identity(); err != nil {
			return err
		}
		if err := put(s.disk, s.dir, s.path(nextKeyName), keyText(next), 0o400); err != nil {
			return err
		}
	}
	if err := s.saveSealedFor(others); err != nil {
		return err
	}
	recipients, err := parseRecipients(next.Recipient().String(), others.Recovery)
	if err != nil {
		return err
	}
	if err := s.reseal(names, recipients); err != nil {
		return err
	}
	if err := s.disk.rename(s.path(nextKeyName), s.path(keyName)); err != nil {
		return err
	}
	return s.disk.flush(s.dir)
}

// settle seals all for the key at hand alone, and removes those that it follows.
func (s *Store) settle(k keys, names []string, others recipientsFile) error {
	recipients, err := parseRecipients(k.own.Recipient().String(), others.Recovery)
	if err != nil {
		return err
	}
	if err := s.reseal(names, recipients); err != nil {
		return err
	}
	if err := s.saveSealedFor(others); err != nil {
		return err
	}
	obsolete := []string{nextKeyName}
	if k.from != Generated {
		obsolete = append(obsolete, keyName)
	}
	for _, name := range obsolete {
		if err := s.disk.remove(s.path(name)); err != nil {
			return err
		}
	}
	return s.disk.flush(s.dir)
}

// reseal opens each secret and seals it for these recipients alone.
func (s *Store) reseal(names []string, recipients []age.Recipient) error {
	for _, name := range names {
		opened, err := s.open(name)
		if err != nil {
			return err
		}
		err = s.put(recipients, opened)
		clear(opened.Password)
		if err != nil {
			return fmt.Errorf("seal store:%s: %w", name, err)
		}
	}
	return nil
}
