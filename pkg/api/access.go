package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// NewToken asks for a token.
type NewToken struct {
	_      struct{} `additionalProperties:"false"`
	Name   string   `json:"name" maxLength:"32" pattern:"^[a-z][a-z0-9-]*$" doc:"Who or what will use it; it stands in the audit log"`
	Scopes []Scope  `json:"scopes" nullable:"false" minItems:"1" maxItems:"5" enum:"viewer,operator,restore,credentials,admin" doc:"Restore and credentials are no part of operator"`
	Days   int      `json:"days,omitempty" minimum:"1" maximum:"366" default:"90" doc:"How long it is valid"`
}

// IssuedToken is a new token. Its secret is shown once and kept nowhere.
type IssuedToken struct {
	Token
	Secret string `json:"token" doc:"Shown only now"`
}

type tokenID struct {
	ID string `path:"id" format:"uuid"`
}

type createToken struct{ Body NewToken }

func (s *Server) tokenRoutes() {
	handle(s, operation{id: "tokens:list", method: http.MethodGet, path: "/tokens", summary: "List tokens; none is shown itself"},
		func(ctx context.Context, _ *nothing) (*body[List[Token]], error) {
			tokens, err := s.b.Tokens.Tokens(ctx)
			for i := range tokens {
				tokens[i].Scopes = orEmpty(tokens[i].Scopes)
			}
			return listed(tokens, "", err)
		})
	handle(s, operation{id: "tokens:create", method: http.MethodPost, path: "/tokens", summary: "Make a token", status: http.StatusCreated}, s.createToken)
	handle(s, operation{id: "tokens:revoke", method: http.MethodDelete, path: "/tokens/{id}", summary: "Make a token invalid", status: http.StatusNoContent}, s.revokeToken)
}

func (s *Server) createToken(ctx context.Context, in *createToken) (*body[IssuedToken], error) {
	issued := IssuedToken{Secret: newSecret()}
	now := s.now().UTC()
	slices.Sort(in.Body.Scopes)
	wanted := Token{
		Name: in.Body.Name, Scopes: slices.Compact(in.Body.Scopes), CreatedBy: callerOf(ctx).Name, CreatedAt: now,
		ExpiresAt: now.AddDate(0, 0, in.Body.Days), SHA256: hashOf(issued.Secret),
	}
	words := make([]string, len(wanted.Scopes))
	for i, scope := range wanted.Scopes {
		words[i] = string(scope)
	}
	reason := fmt.Sprintf("scopes %s until %s", strings.Join(words, " "), wanted.ExpiresAt.Format(time.RFC3339))
	err := s.change(ctx, "tokens:create", "token "+wanted.Name, reason, func(ctx context.Context) error {
		kept, err := s.b.Tokens.AddToken(ctx, wanted)
		issued.Token = kept
		return err
	})
	return answered(issued, err)
}

func (s *Server) revokeToken(ctx context.Context, in *tokenID) (*nothing, error) {
	tokens, err := s.b.Tokens.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(tokens, func(t Token) bool { return t.ID == in.ID })
	if i < 0 {
		return nil, ErrUnknown
	}
	err = s.change(ctx, "tokens:revoke", "token "+tokens[i].Name, "", func(ctx context.Context) error {
		return s.b.Tokens.RevokeToken(ctx, tokens[i].ID)
	})
	return &nothing{}, err
}
