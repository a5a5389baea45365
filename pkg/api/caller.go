package api

import (
	"context"
	"slices"
)

// Scope is what a caller may do.
type Scope string

// The scopes. Restore and Credentials are no part of Operator: a stolen operator token must not carry data away.
const (
	Viewer      Scope = "viewer"
	Operator    Scope = "operator"
	Restore     Scope = "restore"
	Credentials Scope = "credentials"
	Admin       Scope = "admin"
)

// Caller is who sent a request.
type Caller struct {
	// Name is the user of a peer, such as "uid 1000 (alice)", or "token NAME".
	Name string
	// Where is the socket's peer process or a network address.
	Where  string
	Scopes []Scope
}

// May says whether the caller has the scope, or one that contains it: every scope may read, Admin may everything. The zero
// Caller may nothing.
func (c Caller) May(s Scope) bool {
	switch {
	case slices.Contains(c.Scopes, Admin), slices.Contains(c.Scopes, s):
		return true
	case s == Viewer:
		return len(c.Scopes) > 0
	}
	return false
}

type contextKey int

const (
	callerKey contextKey = iota
	requestKey
	peerKey
	answerKey
)

// callerOf is the caller of a request; of anything else it is the zero Caller.
func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey).(Caller)
	return c
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey).(string)
	return id
}
