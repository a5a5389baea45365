package catalog

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

// breakerFor is how long a secret that was refused is not tried again; rounds make guessing it from its hash slow.
const (
	breakerFor = 15 * time.Minute
	rounds     = 200_000
)

// Tried gives a *statefile.RefusedError when this very secret of the credential was refused in the last 15 min, on whatever
// node. A clock that was set back by more than that ends them too.
func (c *Catalog) Tried(ctx context.Context, credential, secret string) error {
	var salt, hash, why string
	var at int64
	err := c.store.View(ctx, "look for a refused password", func(tx store.Tx) error {
		return tx.One(ctx, []any{&salt, &hash, &why, &at}, "SELECT salt, hash, why, at FROM refusals WHERE credential = $1", credential)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if age := c.now().Sub(store.Time(at)); age >= breakerFor || age < -breakerFor {
		return nil
	}
	raw, err := hex.DecodeString(salt)
	if err != nil {
		return fmt.Errorf("read a salt: %w", err)
	}
	got, err := digest(secret, raw)
	if err != nil || subtle.ConstantTimeCompare([]byte(got), []byte(hash)) == 0 {
		return err
	}
	return &statefile.RefusedError{Credential: credential, At: store.Time(at), Why: why}
}

// Refuse remembers that the secret was refused with the code why.
func (c *Catalog) Refuse(ctx context.Context, credential, secret, why string) error {
	var salt [16]byte
	rand.Read(salt[:]) // never fails (crypto/rand)
	hash, err := digest(secret, salt[:])
	if err != nil {
		return err
	}
	return c.store.Update(ctx, "remember a refused password", func(tx store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO refusals (credential, salt, hash, at, why) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (credential) DO UPDATE SET
			salt = EXCLUDED.salt, hash = EXCLUDED.hash, at = EXCLUDED.at, why = EXCLUDED.why`, credential, hex.EncodeToString(salt[:]), hash, c.millis(), why)
		return err
	})
}

func digest(secret string, salt []byte) (string, error) {
	key, err := pbkdf2.Key(sha256.New, secret, salt, rounds, sha256.Size)
	return hex.EncodeToString(key), err
}
