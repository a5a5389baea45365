package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Claim is what is kept of an Idempotency-Key.
type Claim struct {
	// Key is a hash of caller and key: the key itself is the caller's and is not kept.
	Key string
	// Digest is the hash of the request. The same key with another one is refused.
	Digest string
	// RunID and At were drawn when the key came first, and are used again whenever it comes: so a request that is repeated
	// after a crash finishes what the first one began, and never begins a second.
	RunID string
	At    time.Time
}

// Keys remembers idempotency keys, for a day at least.
type Keys interface {
	// ClaimKey keeps c unless its Key is known, and gives what is kept. It may see by itself that the digests differ: that is
	// ErrKeyReused.
	ClaimKey(ctx context.Context, c Claim) (Claim, error)
}

// claim keeps the key of a request; repeated is true when it came before.
func (s *Server) claim(ctx context.Context, key, what string, request any) (kept Claim, repeated bool, err error) {
	text, err := json.Marshal([]any{what, request})
	if err != nil {
		return Claim{}, false, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Claim{}, false, err
	}
	mine := Claim{
		Key: hashOf(callerOf(ctx).Name + "\x00" + key), Digest: digest(text), RunID: id.String(), At: s.now().UTC().Truncate(time.Millisecond),
	}
	kept, err = s.b.Keys.ClaimKey(ctx, mine)
	if err != nil {
		return Claim{}, false, err
	}
	if kept.Digest != mine.Digest {
		return Claim{}, true, ErrKeyReused
	}
	return kept, kept.RunID != mine.RunID, nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
