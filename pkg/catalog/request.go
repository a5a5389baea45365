package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/stillframe/stillframe/pkg/store"
)

// Request is one request that carries an idempotency key.
type Request struct {
	Principal, Key string
	// SHA256 is that of what was asked for.
	SHA256 string
}

// ErrKeyReused is the refusal of Claim.
var ErrKeyReused = errors.New("the key was used for another request")

// keyLife is how long a claim is kept.
const keyLife = 24 * time.Hour

// Claim keeps mine as what its request is answered by, unless something is kept for its key already, and gives what is kept.
// It is one transaction: a process that dies leaves either nothing or all that the same request needs when it comes again.
func (c *Catalog) Claim(ctx context.Context, r Request, mine string) (kept string, err error) {
	err = c.store.Update(ctx, "claim an idempotency key", func(tx store.Tx) error {
		kept = mine
		now := c.now()
		_, err := tx.Exec(ctx, "DELETE FROM idempotency_keys WHERE principal = $1 AND key = $2 AND created_at < $3", r.Principal, r.Key, store.Millis(now.Add(-keyLife)))
		if err != nil {
			return err
		}
		made, err := tx.Exec(ctx, "INSERT INTO idempotency_keys (principal, key, request_sha256, body, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
			r.Principal, r.Key, r.SHA256, mine, store.Millis(now))
		if err != nil || made == 1 {
			return err
		}
		var sum string
		err = tx.One(ctx, []any{&sum, &kept}, "SELECT request_sha256, body FROM idempotency_keys WHERE principal = $1 AND key = $2", r.Principal, r.Key)
		if err == nil && sum != r.SHA256 {
			return ErrKeyReused
		}
		return err
	})
	return kept, err
}
