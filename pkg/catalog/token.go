package catalog

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/store"
)

// Token is a bearer token of the API. Only the hash of its secret is kept.
type Token struct {
	ID, Name, Scope, CreatedBy          string
	Created, Expires, LastUsed, Revoked time.Time
}

const tokenColumns = "id, name, scope, created_by, created_at, expires_at, last_used_at, revoked_at"

func readToken(scan func(...any) error) (Token, error) {
	var t Token
	var created, expires, used, revoked int64
	err := scan(&t.ID, &t.Name, &t.Scope, &t.CreatedBy, &created, &expires, &used, &revoked)
	t.Created, t.Expires, t.LastUsed, t.Revoked = store.Time(created), store.Time(expires), store.Time(used), store.Time(revoked)
	return t, err
}

// AddToken keeps a new token by the SHA-256 of its secret; ErrState when its name is taken.
func (c *Catalog) AddToken(ctx context.Context, t Token, sha256 string) (added Token, err error) {
	err = c.store.Update(ctx, "keep token "+t.Name, func(tx store.Tx) error {
		rows, err := store.All(ctx, tx, readToken, `INSERT INTO tokens (id, name, sha256, scope, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT DO NOTHING RETURNING `+tokenColumns, uuid.NewString(), t.Name, sha256, t.Scope, t.CreatedBy, c.millis(), store.Millis(t.Expires))
		if err == nil && len(rows) == 0 {
			return state("token", t.Name)
		}
		if err == nil {
			added = rows[0]
		}
		return err
	})
	return added, err
}

// usedEvery is how exact the time of a token's last use is: not each request shall write.
const usedEvery = time.Minute

// UseToken gives the token of a secret that is good right now, and notes that it was used. ErrNotFound for all others.
func (c *Catalog) UseToken(ctx context.Context, sha256 string) (t Token, err error) {
	now := c.now()
	err = c.store.View(ctx, "look up a token", func(tx store.Tx) error {
		t, err = readToken(func(into ...any) error {
			return tx.One(ctx, into, "SELECT "+tokenColumns+" FROM tokens WHERE sha256 = $1 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $2)", sha256, store.Millis(now))
		})
		return missing("token", "", err)
	})
	if err != nil || now.Sub(t.LastUsed) < usedEvery {
		return t, err
	}
	return t, c.store.Update(ctx, "note the use of a token", func(tx store.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE tokens SET last_used_at = $1 WHERE id = $2", store.Millis(now), t.ID)
		return err
	})
}

// Tokens lists all tokens by name, revoked ones too.
func (c *Catalog) Tokens(ctx context.Context) (all []Token, err error) {
	err = c.store.View(ctx, "list tokens", func(tx store.Tx) error {
		all, err = store.All(ctx, tx, readToken, "SELECT "+tokenColumns+" FROM tokens ORDER BY name")
		return err
	})
	return all, err
}

// RevokeToken ends a token, by its name or ID, at once.
func (c *Catalog) RevokeToken(ctx context.Context, name string) error {
	return c.store.Update(ctx, "revoke token "+name, func(tx store.Tx) error {
		n, err := tx.Exec(ctx, "UPDATE tokens SET revoked_at = $1 WHERE (name = $2 OR id = $2) AND revoked_at = 0", c.millis(), name)
		if err == nil && n == 0 {
			err = state("token", name)
		}
		return err
	})
}
