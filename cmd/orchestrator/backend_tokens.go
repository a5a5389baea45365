package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/catalog"
)

// AddToken keeps a new token.
func (b backends) AddToken(ctx context.Context, t api.Token) (api.Token, error) {
	words := make([]string, len(t.Scopes))
	for n, s := range t.Scopes {
		words[n] = string(s)
	}
	kept, err := b.catalog.AddToken(ctx, catalog.Token{Name: t.Name, Scope: strings.Join(words, " "), CreatedBy: t.CreatedBy, Expires: t.ExpiresAt}, t.SHA256)
	return tokenOf(kept), translated(err)
}

func tokenOf(t catalog.Token) api.Token {
	token := api.Token{
		ID: t.ID, Name: t.Name, CreatedBy: t.CreatedBy, CreatedAt: t.Created, ExpiresAt: t.Expires, LastUsedAt: when(t.LastUsed), RevokedAt: when(t.Revoked),
	}
	for _, word := range strings.Fields(t.Scope) {
		token.Scopes = append(token.Scopes, api.Scope(word))
	}
	return token
}

// Tokens lists all, also revoked ones.
func (b backends) Tokens(ctx context.Context) ([]api.Token, error) {
	all, err := b.catalog.Tokens(ctx)
	tokens := make([]api.Token, 0, len(all))
	for _, t := range all {
		tokens = append(tokens, tokenOf(t))
	}
	return tokens, err
}

// UseToken gives the token that has this hash. The database compared it letter by letter.
func (b backends) UseToken(ctx context.Context, sha256 string) (api.Token, error) {
	t, err := b.catalog.UseToken(ctx, sha256)
	if err != nil {
		return api.Token{}, translated(err)
	}
	token := tokenOf(t)
	token.SHA256 = sha256
	return token, nil
}

// RevokeToken ends a token. One that is revoked already is unknown.
func (b backends) RevokeToken(ctx context.Context, id string) error {
	err := b.catalog.RevokeToken(ctx, id)
	if errors.Is(err, catalog.ErrState) {
		return fmt.Errorf("%w: %w", api.ErrUnknown, err)
	}
	return err
}

// ClaimKey keeps a claim unless there is one by its key.
func (b backends) ClaimKey(ctx context.Context, c api.Claim) (api.Claim, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return api.Claim{}, err
	}
	kept, err := b.catalog.Claim(ctx, catalog.Request{Principal: "api", Key: c.Key, SHA256: c.Digest}, string(text))
	switch {
	case errors.Is(err, catalog.ErrKeyReused):
		return api.Claim{}, fmt.Errorf("%w: %w", api.ErrKeyReused, err)
	case err != nil:
		return api.Claim{}, err
	}
	err = json.Unmarshal([]byte(kept), &c)
	return c, err
}
