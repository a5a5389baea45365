package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"time"
)

// A token is tokenPrefix and, in base64url, tokenBytes random bytes and their CRC-32: scanners for leaked secrets know it
// by prefix and sum, and a mistyped one is refused without asking the store.
const (
	tokenPrefix = "sft_"
	tokenBytes  = 32
)

// Token is what is kept of a token: never the token itself.
type Token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Scopes     []Scope    `json:"scopes" nullable:"false"`
	CreatedBy  string     `json:"created_by"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty" doc:"To about a minute"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	// SHA256 is the hash of the token in hexadecimal digits.
	SHA256 string `json:"-"`
}

// Tokens keeps tokens.
type Tokens interface {
	// AddToken keeps a new token and gives it with its id. A name that another has is ErrConflict.
	AddToken(ctx context.Context, t Token) (Token, error)
	// Tokens lists all, also revoked ones as long as they are kept.
	Tokens(ctx context.Context) ([]Token, error)
	// UseToken gives the token that is kept with that SHA256 and is valid now, and notes its use, to about a minute: not each
	// request is worth a write. ErrUnknown for all others.
	UseToken(ctx context.Context, sha256 string) (Token, error)
	// RevokeToken makes a token invalid from now on, or is ErrUnknown.
	RevokeToken(ctx context.Context, id string) error
}

// newSecret makes a token.
func newSecret() string {
	var b [tokenBytes + 4]byte
	rand.Read(b[:tokenBytes]) // never fails (crypto/rand)
	binary.BigEndian.PutUint32(b[tokenBytes:], crc32.ChecksumIEEE(b[:tokenBytes]))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// wellFormed says whether a text can be a token of ours.
func wellFormed(text string) bool {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	b, err := base64.RawURLEncoding.DecodeString(rest)
	return ok && err == nil && len(b) == tokenBytes+4 && crc32.ChecksumIEEE(b[:tokenBytes]) == binary.BigEndian.Uint32(b[tokenBytes:])
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// errRefused is one answer for every token that is not valid: which part of it is wrong is nobody's business.
var errRefused = errors.New("no valid token")

// byToken finds the caller of a token that is sent in the Authorization header.
func (s *Server) byToken(ctx context.Context, header, address string) (Caller, error) {
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || !wellFormed(secret) {
		return Caller{}, errRefused
	}
	sum := hashOf(secret)
	t, err := s.b.Tokens.UseToken(ctx, sum)
	if errors.Is(err, ErrUnknown) {
		return Caller{}, errRefused
	}
	if err != nil {
		return Caller{}, err
	}
	// The store found the row by an index, whose time tells nothing of use about a hash; here every bit is compared, and
	// always in the same time.
	if subtle.ConstantTimeCompare([]byte(sum), []byte(t.SHA256)) != 1 || t.RevokedAt != nil || !s.now().Before(t.ExpiresAt) {
		return Caller{}, errRefused
	}
	return Caller{Name: "token " + t.Name, Where: address, Scopes: t.Scopes}, nil
}
